//! The steps of the world, as the checker shows them in a counterexample.

use crate::log::{Log, Position};

/// One step. `who` is a replica's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Metadata commits the next epoch, without a leader.
    Enter,
    /// Metadata commits the next epoch with `joiner` in the place of `out`.
    Change { out: usize, joiner: usize },
    /// `who` promises `epoch`, and answers if that epoch is the current one.
    Promise { who: usize, epoch: u8 },
    /// `who` answers the fence again: something has changed since its last answer.
    Answer { who: usize },
    /// Metadata applies "`who` leads this epoch from `position`".
    Name { who: usize, position: Position },
    /// Metadata forgets the set before the change.
    Settle,
    /// `who` hears that it was named, and writes its epoch start.
    Begin { who: usize },
    /// The leader `who` writes an entry and sends it.
    Append { who: usize },
    /// `who` matches the leader of the epoch that it promised.
    Match { who: usize },
    /// `who` writes its leader's next entry.
    Receive { who: usize },
    /// A flush of `who` completes; what it may acknowledge or count goes out with it.
    Flush { who: usize },
    /// The truncation of `who` becomes durable.
    SyncTruncation { who: usize },
    /// `who` writes a replacement of its bad entry at `lsn`.
    Repair { who: usize, lsn: u8 },
    /// `who` takes the longer log of `from`, in a fence.
    Fetch { who: usize, from: usize },
    /// `who` takes an entry for its lowest hole from `from`, in a fence.
    Fill { who: usize, from: usize },
    /// `who` crashes and restarts; `left` is what its disk has.
    Crash { who: usize, left: Log },
    /// The durable entry of `who` at `lsn` goes bad.
    Rot { who: usize, lsn: u8 },
    /// `who` loses its disk.
    Wipe { who: usize },
}
