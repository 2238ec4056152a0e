//! Topics, partitions, lanes, brokers: what the cluster knows about itself. A pure fold: a [`Command`] is
//! agreed on by a Raft group over the brokers (`consensus`), and [`State::apply`] is called for each
//! committed one, in the same order on each of them.
//!
//! Whatever decides the order is behind that one function: it takes the bytes of a command, and hands back
//! the bytes of committed ones. Invariant: nothing here knows a log, a shard or a session, and `apply` depends
//! on nothing but the state and the command.
//!
//! Enter at `command.rs` for what can be asked, at `state.rs` for what it does, at `view.rs` for
//! what the other shards see.

pub mod balance;
pub mod boot;
mod broker;
mod change;
pub mod codec;
pub mod command;
pub mod consensus;
pub mod failover;
pub mod fence;
mod growth;
mod lag;
mod lane;
pub mod membership;
mod operation;
pub mod placement;
pub mod state;
pub mod survey;
pub mod topic;
pub mod view;

pub use broker::{BROKERS_MAX, BrokerRecord, RACK_BYTES_MAX};
pub use change::{AskedChange, Change, ChangeReply, ChangeResult};
pub use command::Command;
pub use lane::{LaneLeader, LaneRecord, LaneReplica, REPLICAS_MAX};
pub use operation::Heard;
pub use state::{Outcome, State};
pub use topic::{Link, PartitionRange, Topic, TopicChanges, TopicSettings};
pub use view::View;
