//! The file of a replica's vote: found or made at the start, then written alternately at its two places, one write and
//! one flush for each vote.
//!
//! It is made under another name and renamed when it is durable. So a file that is missing was never there, and one that
//! cannot be read has been damaged: then nobody knows what this replica has promised.

use corelog_protocol::ids::{Incarnation, LaneId};

use crate::disk::{DirectoryId, DiskDone, DiskError, DiskOrder, FileId, Place};
use crate::limits::BLOCK_BYTES;
use crate::log::OpIds;
use crate::memory::{Memory, Slot};
use crate::replica::{Stored, VOTE_BYTES, Vote};
use crate::shard::Cx;
use crate::shard::effect::Effect;

const FOLDER: &str = "votes";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    New,
    Opening,
    Reading,
    MakingFolder,
    /// Of a start that was cut short.
    RemovingLeftover,
    Creating,
    FillingNew,
    FlushingNew,
    Renaming,
    SyncingFolder,
    Idle,
    Writing,
    Flushing,
    Closing,
    Closed,
    Failed,
}

/// What has come of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteNews {
    /// Nothing to tell yet.
    None,
    /// The vote is known. `is_fresh`: the file was made just now.
    Known { vote: Vote, is_fresh: bool },
    /// The vote that was ordered is durable.
    Stored { vote: Vote },
    /// The file cannot be read: what was promised is not known.
    Lost,
    /// The directory has failed.
    Failed,
}

#[derive(Debug)]
pub struct VoteFile {
    lane: LaneId,
    directory: DirectoryId,
    incarnation: Incarnation,
    owner: u16,
    file: Option<FileId>,
    slot: Option<Slot>,
    step: Step,
    stored: Stored,
    writing: Option<Stored>,
}

impl VoteFile {
    pub fn new(lane: LaneId, directory: DirectoryId, incarnation: Incarnation, owner: u16) -> Self {
        let stored = Stored { number: 0, vote: Vote::default() };
        Self {
            lane,
            directory,
            incarnation,
            owner,
            file: None,
            slot: None,
            step: Step::New,
            stored,
            writing: None,
        }
    }

    fn place(&self, suffix: &str) -> Place {
        let path = format!("{FOLDER}/{}.{suffix}", self.lane).into();
        Place { directory: self.directory, path }
    }

    fn order<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        ops: &mut OpIds,
        step: Step,
        order: DiskOrder,
    ) {
        self.step = step;
        let op = ops.next(self.owner);
        cx.effects.push(Effect::Disk { op, order });
    }

    pub fn start<M: Memory>(&mut self, cx: &mut Cx<'_, M>, ops: &mut OpIds) {
        assert_eq!(self.step, Step::New);
        let file = ops.next_file(self.owner);
        self.file = Some(file);
        let place = self.place("vote");
        self.order(cx, ops, Step::Opening, DiskOrder::Open { file, place });
    }

    /// Writes a vote. The one before must be stored.
    pub fn store<M: Memory>(&mut self, cx: &mut Cx<'_, M>, ops: &mut OpIds, vote: Vote) {
        if matches!(self.step, Step::Failed | Step::Closing | Step::Closed) {
            // It stops: what is not stored was never promised.
            return;
        }
        assert_eq!(self.step, Step::Idle, "one vote at a time");
        let next = Stored { number: self.stored.number + 1, vote };
        self.writing = Some(next);
        let slot = cx.memory.allocate(BLOCK_BYTES);
        next.encode(self.lane, self.incarnation, &mut cx.memory.bytes_mut(slot)[..BLOCK_BYTES]);
        let position = (next.block() * BLOCK_BYTES) as u64;
        self.write(cx, ops, Step::Writing, slot, position, BLOCK_BYTES);
    }

    fn write<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        ops: &mut OpIds,
        step: Step,
        slot: Slot,
        position: u64,
        len: usize,
    ) {
        // The order owns the slot.
        let Some(file) = self.file else { return };
        self.order(cx, ops, step, DiskOrder::Write { file, position, slot, len: len as u32 });
    }

    pub fn on_done<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        ops: &mut OpIds,
        done: DiskDone,
    ) -> VoteNews {
        let Some(file) = self.file else { return VoteNews::None };
        let error = match done {
            DiskDone::Failed(error) => Some(error),
            _ => None,
        };
        match (self.step, error) {
            (Step::Opening, None) => {
                let slot = cx.memory.allocate(VOTE_BYTES);
                self.slot = Some(slot);
                let order = DiskOrder::Read { file, position: 0, slot, len: VOTE_BYTES as u32 };
                self.order(cx, ops, Step::Reading, order);
            }
            (Step::Opening, Some(DiskError::Missing)) => {
                let place = Place { directory: self.directory, path: FOLDER.into() };
                self.order(cx, ops, Step::MakingFolder, DiskOrder::MakeFolder { place });
            }
            (Step::Reading, _) => {
                let Some(slot) = self.slot.take() else { return self.fail() };
                let bytes = &cx.memory.bytes(slot)[..VOTE_BYTES];
                let stored = Stored::decode(self.lane, self.incarnation, bytes);
                cx.memory.release(slot);
                let Some(stored) = stored.filter(|_| error.is_none()) else {
                    self.step = Step::Failed;
                    return VoteNews::Lost;
                };
                self.stored = stored;
                self.step = Step::Idle;
                return VoteNews::Known { vote: stored.vote, is_fresh: false };
            }
            (Step::MakingFolder, None) => {
                let place = self.place("new");
                self.order(cx, ops, Step::RemovingLeftover, DiskOrder::Remove { place });
            }
            (Step::RemovingLeftover, None) => {
                let place = self.place("new");
                let order = DiskOrder::Create { file, place, bytes: VOTE_BYTES as u64 };
                self.order(cx, ops, Step::Creating, order);
            }
            (Step::Creating, None) => {
                let slot = cx.memory.allocate(VOTE_BYTES);
                let bytes = &mut cx.memory.bytes_mut(slot)[..VOTE_BYTES];
                let (first, second) = bytes.split_at_mut(BLOCK_BYTES);
                self.stored.encode(self.lane, self.incarnation, first);
                second.fill(0);
                self.write(cx, ops, Step::FillingNew, slot, 0, VOTE_BYTES);
            }
            (Step::FillingNew, None) => {
                self.order(cx, ops, Step::FlushingNew, DiskOrder::Flush { file });
            }
            (Step::FlushingNew, None) => {
                let to = self.place("vote");
                self.order(cx, ops, Step::Renaming, DiskOrder::Rename { file, to });
            }
            (Step::Renaming, None) => {
                let place = Place { directory: self.directory, path: FOLDER.into() };
                self.order(cx, ops, Step::SyncingFolder, DiskOrder::SyncFolder { place });
            }
            (Step::SyncingFolder, None) => {
                self.step = Step::Idle;
                return VoteNews::Known { vote: self.stored.vote, is_fresh: true };
            }
            (Step::Writing, None) => {
                self.order(cx, ops, Step::Flushing, DiskOrder::Flush { file });
            }
            (Step::Flushing, None) => {
                self.step = Step::Idle;
                if let Some(stored) = self.writing.take() {
                    self.stored = stored;
                }
                return VoteNews::Stored { vote: self.stored.vote };
            }
            (Step::Closing, _) => self.step = Step::Closed,
            (Step::New | Step::Idle | Step::Closed | Step::Failed, _) => {}
            (_, Some(_)) => return self.fail(),
        }
        VoteNews::None
    }

    fn fail(&mut self) -> VoteNews {
        self.step = Step::Failed;
        VoteNews::Failed
    }

    /// Nothing is under way, and nothing will be.
    pub fn is_closed(&self) -> bool {
        matches!(self.step, Step::New | Step::Closed | Step::Failed)
    }

    /// Closes the file if nothing is under way. True when there is nothing left to wait for.
    pub fn close<M: Memory>(&mut self, cx: &mut Cx<'_, M>, ops: &mut OpIds) -> bool {
        match self.step {
            Step::New | Step::Closed | Step::Failed => true,
            Step::Idle => {
                let Some(file) = self.file else { return true };
                self.order(cx, ops, Step::Closing, DiskOrder::Close { file });
                false
            }
            _ => false,
        }
    }
}
