//! Topics, partitions, lanes: what the cluster knows about itself. A pure fold over commands.

pub mod view;
