//! What a replica orders, and what it asks of its log.

use corelog_protocol::ids::{BrokerId, Epoch, Lsn};

use super::history::History;
use super::message::LaneMessage;
use super::position::{FenceAnswer, Position};
use super::progress::LaneProgress;
use super::vote::Vote;

/// Where a log goes on, and the one durable record of why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Entries from this LSN on are void.
    pub at: Lsn,
    /// The epoch for which it goes on.
    pub accepted: Epoch,
    /// Entries below this may have been acknowledged here, and cannot be read before they are replaced. `None`: all that
    /// could not be read is given up.
    pub bad_end: Option<Lsn>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Make this durable, then [`super::Replica::on_stored`]. One at a time.
    Store(Vote),
    /// Let the dormant log go on from its end, then `on_log_open`.
    Resume(Resume),
    /// Stop the log and open it anew without what is void, then `on_log_open`. What comes of it until then is not heard.
    Reopen(Resume),
    /// The same without all that is in it: it begins anew with what the leader has sent, then `on_log_open`.
    Rebuild(Resume),
    /// Append the epoch start, then `on_begun`.
    Begin(Epoch),
    Send {
        to: BrokerId,
        epoch: Epoch,
        message: LaneMessage,
    },
    /// To whoever leads the metadata.
    Answer(FenceAnswer),
    /// To whoever leads the metadata: this epoch, which names this replica, needs another one after it.
    Resign(Epoch),
    /// To whoever leads the metadata: the epoch start is committed in the new set.
    Settled(Epoch),
    /// To whoever leads the metadata: one of these, the first the rather, had better lead instead of this one.
    Offer {
        epoch: Epoch,
        to: Vec<BrokerId>,
        is_leaving: bool,
    },
    /// To whoever leads the metadata: how far the followers are.
    Progress(LaneProgress),
    /// To whoever leads the metadata: the target of this move has all that was ever taken here.
    HandedOver {
        epoch: Epoch,
        number: u64,
    },
    /// Everything below is committed: readers and producers may be told.
    Commit(Lsn),
    /// The lane takes batches from now on, in this epoch.
    Serve(Epoch),
    /// It takes none any more: nobody here knows what becomes of those that are not committed.
    Yield,
}

/// What a replica has to know of its log.
pub trait LaneLog {
    /// Durable and whole through here.
    fn has(&self) -> Position;
    /// If something in it cannot be read, or was not replaced yet: the LSN after the last entry that this may be true of,
    /// `u64::MAX` if nobody can tell.
    fn bad_end(&self) -> Option<Lsn>;
    /// Something that was durable was found to be unreadable since the start.
    fn is_damaged(&self) -> bool;
    /// The greatest accepted epoch in its segment headers.
    fn accepted(&self) -> Epoch;
    /// The LSN that the next entry gets. Of a dormant log the end of what can be read.
    fn next_lsn(&self) -> Lsn;
    /// Recovered, and has begun no segment of this life.
    fn is_dormant(&self) -> bool;
    fn history(&self) -> &History;
}
