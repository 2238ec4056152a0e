//! How a lane is replicated: what one replica promises, answers, takes and acknowledges. Pure. The protocol and its
//! rules are in `model/README.md`; enter at [`Replica`].
//!
//! Invariants: nothing here knows a disk, a socket or a shard; a reply is ordered only after what it promises is true.

mod follower;
mod history;
mod leader;
mod load;
mod member;
mod message;
mod order;
mod position;
mod progress;
mod report;
mod vote;

#[cfg(all(test, feature = "planted"))]
mod tests;

pub use follower::Follower;
pub use history::{History, common_end, epoch_at};
pub use leader::{Leader, Progress};
pub use load::{LaneLoad, Meter, Rates, Traffic};
pub use member::{LaneView, Replica};
pub use message::LaneMessage;
pub use order::{LaneLog, Order, Resume};
pub use position::{FenceAnswer, Position};
pub use progress::{FollowerProgress, LaneProgress};
pub use report::LaneReport;
pub use vote::{Stored, VOTE_BYTES, Vote};
