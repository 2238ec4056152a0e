//! A whole group in memory: disks that forget what was not reported durable, a network that drops, delays,
//! doubles, reorders and cuts, and what must hold after every step.

mod bytes;
mod chaos;
mod folding;
mod rig;
mod stories;
