//! Topics, partitions, lanes: what the cluster knows about itself. A pure fold: a [`Command`] is
//! written as an entry of lane 0, and [`State::apply`] is called for each committed entry, in LSN order.
//!
//! Whatever decides the order of the entries (here one lane on one broker, later a Raft group) is
//! behind that one function: it proposes the bytes of a command, and hands back the bytes of
//! committed ones. Invariant: nothing here knows a log, a shard or a session, and `apply` depends
//! on nothing but the state and the command.
//!
//! Enter at `command.rs` for what can be asked, at `state.rs` for what it does, at `view.rs` for
//! what the other shards see.

pub mod codec;
pub mod command;
pub mod consensus;
pub mod placement;
pub mod state;
pub mod topic;
pub mod view;

pub use command::Command;
pub use state::{Outcome, State};
pub use topic::{LaneRecord, Link, PartitionRange, Topic, TopicChanges, TopicSettings};
pub use view::View;
