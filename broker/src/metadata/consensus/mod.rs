//! A Raft group that agrees on the order of commands: one member's part of it, as a plain state machine.
//!
//! ```text
//!   tick ──┐                                 ┌──► Append (records, to the lane's log)
//! message ─┤                                 ├──► Send (messages to members)
//! propose ─┼──►  Group  ──►  poll()  ────────┼──► Committed, Install (for the state)
//! durable ─┘                                 └──► Status, Members, Dropped, SnapshotWanted
//! ```
//! The published crate `raft` decides; what is here gives it a disk, peers and time as values. Invariants:
//! nothing here knows a log, a shard or what a command means; no vote and no ack leaves before every
//! record so far is durable; a command is given out as committed only when it is durable here too; two
//! runs with the same inputs and random numbers are the same.
//!
//! Enter at [`Group`]. `record.rs` and `fold.rs` are the way to the disk and back, `message.rs` what goes
//! between brokers, `guard.rs` what is refused from there.

mod convert;
mod entry;
mod fold;
mod group;
mod guard;
mod members;
mod message;
mod output;
mod record;
mod store;
#[cfg(all(test, feature = "planted"))]
mod tests;

pub use entry::{LogEntry, Payload, Snapshot};
pub use fold::{Fold, FoldError, Recovered};
pub use group::{Group, GroupConfig, ProposeError, RecordNumber};
pub use guard::Refused;
pub use members::{Change, MEMBERS_MAX, Members, ReplicaId};
pub use message::{Ballot, MESSAGE_FORMAT, PeerBody, PeerMessage};
pub use output::{Output, Role, Status};
pub use record::{HardState, RECORD_FORMAT, Record};
