//! A lane led here: its log, and who waits for it. The log decides when to commit; this remembers
//! whom to tell.

use std::collections::{BTreeMap, VecDeque};

use corelog_protocol::ids::{Epoch, LaneId, Lsn, Offset, PartitionId, ShardId};
use corelog_protocol::{Durability, ErrorCode};

use crate::log::{Log, ReadId};
use crate::replica::{Leader, Meter, Traffic};
use crate::shard::batch::NewBatch;
use crate::shard::event::Conn;
use crate::shard::jobs::JobId;
use crate::shard::message::Token;
use crate::shard::replicas::Seat;
use crate::time::Monotonic;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneState {
    Recovering,
    Serving,
    /// Its directory failed: no appends for the life of the process. Reads go on if recovery was over.
    Failed,
    Stopped,
}

/// As what a replica answers a reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Voice {
    /// What it says of the partition's bounds holds.
    Leader,
    /// It knows what it has, and that this is committed: there may be more, above and below.
    Follower,
}

/// Who is to be told what became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    Nobody,
    Conn {
        conn: Conn,
        correlation: u64,
    },
    Shard {
        shard: ShardId,
        token: Token,
    },
    /// A request of this shard that has parts on several.
    Gather(JobId),
}

/// A batch in the log that is not durable yet.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub lsn: Lsn,
    /// `Nobody` when the ack was sent already, or was not wanted.
    pub origin: Origin,
    pub base_offset: Offset,
    pub epoch: Epoch,
    pub append_time: i64,
    pub partition: PartitionId,
    pub level: Durability,
    pub record_count: u32,
    /// Of the stored entry.
    pub bytes: u32,
    pub socket_ns: u32,
    pub queue_ns: u32,
    pub want_stages: bool,
    pub appended_at: Monotonic,
    /// `Monotonic(u64::MAX)` without a deadline, and once it was told that it passed.
    pub deadline: Monotonic,
}

/// What waits for a read from the disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reader {
    Fetch(JobId),
    Offsets(JobId),
}

pub struct Lane {
    pub id: LaneId,
    pub log: Log,
    pub state: LaneState,
    /// The log knows what it holds: it may be read, even if it failed later.
    pub is_recovered: bool,
    /// In LSN order.
    pub pending: VecDeque<Pending>,
    /// When the turn came that ended the gathering of everything below an LSN, oldest first.
    pub turns: VecDeque<(Lsn, Monotonic)>,
    /// When everything below an LSN had left for as many followers as a quorum needs, oldest first.
    pub departures: VecDeque<(Lsn, Monotonic)>,
    /// The log had no room: nobody need try until it says so.
    pub is_busy: bool,
    /// Connections with a batch for this lane, first come first served.
    pub waiting: VecDeque<Conn>,
    /// Batches that other shards forwarded, waiting for room.
    pub adopted: VecDeque<NewBatch>,
    pub reads: BTreeMap<ReadId, Reader>,
    /// Could not even wait for the disk: too many did.
    pub reads_put_off: VecDeque<Reader>,
    /// No deadline of a pending batch is earlier.
    pub deadline_min: Monotonic,
    /// Batches that wait for less than a commit.
    pub early: u32,
    /// When the last write and flush were done, for stage times.
    pub flushed_at: (Monotonic, Monotonic),
    /// What was taken and served here, and what that comes to in a second while it is led here.
    pub traffic: Traffic,
    pub meter: Option<Meter>,
    /// Its place among several replicas. None: it is alone.
    pub seat: Option<Box<Seat>>,
    /// Until when what a follower lacks is held back on purpose.
    #[cfg(feature = "delays")]
    pub held: BTreeMap<corelog_protocol::ids::BrokerId, Monotonic>,
    /// What is durable and not answered yet, on purpose.
    #[cfg(feature = "delays")]
    pub unanswered: std::collections::VecDeque<super::delays::Unanswered>,
}

impl Lane {
    pub fn new(id: LaneId, log: Log) -> Self {
        Self {
            id,
            log,
            state: LaneState::Recovering,
            is_recovered: false,
            pending: VecDeque::new(),
            turns: VecDeque::new(),
            departures: VecDeque::new(),
            is_busy: false,
            waiting: VecDeque::new(),
            adopted: VecDeque::new(),
            reads: BTreeMap::new(),
            reads_put_off: VecDeque::new(),
            deadline_min: Monotonic(u64::MAX),
            early: 0,
            flushed_at: (Monotonic(0), Monotonic(0)),
            traffic: Traffic::default(),
            meter: None,
            seat: None,
            #[cfg(feature = "delays")]
            held: BTreeMap::new(),
            #[cfg(feature = "delays")]
            unanswered: std::collections::VecDeque::new(),
        }
    }

    /// Its files are closed, and so is that of its vote.
    pub fn is_closed(&self) -> bool {
        let is_vote_closed = self.seat.as_ref().is_none_or(|seat| seat.is_closed());
        matches!(self.state, LaneState::Stopped | LaneState::Failed) && is_vote_closed
    }

    /// Why nothing can be said of its partitions, if so. A log that failed before it had read
    /// everything knows partitions, and not what is in them.
    pub fn unreadable(&self) -> Option<ErrorCode> {
        match self.state {
            _ if self.is_led_elsewhere() => Some(ErrorCode::NotLeader),
            _ if self.is_recovered => None,
            LaneState::Recovering => Some(ErrorCode::Recovering),
            _ => Some(ErrorCode::StorageUnavailable),
        }
    }

    /// As what it answers a reader, who perhaps takes any replica; why not, if it does not.
    pub fn answers(&self, any_replica: bool, now: Monotonic) -> Result<Voice, ErrorCode> {
        let follows = || self.seat.as_ref().is_some_and(|seat| seat.serves_as_follower(now));
        match self.unreadable() {
            None => Ok(Voice::Leader),
            Some(ErrorCode::NotLeader) if any_replica && self.is_recovered && follows() => {
                Ok(Voice::Follower)
            }
            Some(code) => Err(code),
        }
    }

    /// As the leader of its epoch, if this replica leads.
    pub fn leading(&self) -> Option<&Leader> {
        self.seat.as_ref()?.replica.as_ref()?.leading()
    }

    /// It is led here, and its disk stands still, but not those of its followers.
    pub fn is_disk_overtaken(&self) -> bool {
        self.leading().is_some_and(|leader| leader.is_disk_overtaken)
    }

    pub fn leading_mut(&mut self) -> Option<&mut Leader> {
        self.seat.as_mut()?.replica.as_mut()?.leading_mut()
    }

    /// One of several replicas, and not the one that serves.
    pub fn is_led_elsewhere(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| !seat.is_serving())
    }

    /// One of several replicas, and not one that takes batches: it does not lead, or hands over.
    pub fn is_refusing_batches(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| !seat.is_taking())
    }

    pub fn push_pending(&mut self, pending: Pending) {
        let commit_begins = self.log.building_first_lsn();
        if let Some(last) = self.pending.back_mut() {
            assert!(pending.lsn >= last.lsn);
            // Whom nobody waits for only wakes the partition's readers: once per commit is enough.
            if last.origin == Origin::Nobody
                && pending.origin == Origin::Nobody
                && last.partition == pending.partition
                && commit_begins.is_some_and(|first| last.lsn >= first)
            {
                last.lsn = pending.lsn;
                last.bytes = last.bytes.saturating_add(pending.bytes);
                return;
            }
        }
        self.deadline_min = self.deadline_min.min(pending.deadline);
        self.pending.push_back(pending);
    }

    /// Everything in the log so far was gathered when this turn came.
    pub fn on_turn(&mut self, now: Monotonic) {
        let end = self.log.next_lsn();
        if self.pending.is_empty() || self.turns.back().is_some_and(|&(last, _)| last >= end) {
            return;
        }
        self.turns.push_back((end, now));
    }

    /// When the gathering of the entry with this LSN ended. Asked in LSN order.
    pub fn gathered_at(&mut self, lsn: Lsn) -> Option<Monotonic> {
        while self.turns.front().is_some_and(|&(end, _)| end <= lsn) {
            self.turns.pop_front();
        }
        self.turns.front().map(|&(_, at)| at)
    }

    /// More of the log may have left for followers.
    pub fn on_departed(&mut self, now: Monotonic) {
        let Some(end) = self.leading().map(|leader| leader.sent_end(self.log.next_lsn())) else {
            return;
        };
        if !self.pending.is_empty() && self.departures.back().is_none_or(|&(last, _)| last < end) {
            self.departures.push_back((end, now));
        }
    }

    /// When the entry with this LSN had left for enough followers. Asked in LSN order. None: not in this epoch.
    pub fn departed_at(&mut self, lsn: Lsn) -> Option<Monotonic> {
        while self.departures.front().is_some_and(|&(end, _)| end <= lsn) {
            self.departures.pop_front();
        }
        self.departures.front().map(|&(_, at)| at)
    }

    /// Nobody waits any more.
    pub fn on_nobody_waits(&mut self) {
        self.turns.clear();
        self.departures.clear();
        self.deadline_min = Monotonic(u64::MAX);
    }

    /// Has someone waiting that could be served now.
    pub fn can_serve_waiting(&self) -> bool {
        let is_wanted = !self.waiting.is_empty() || !self.adopted.is_empty();
        is_wanted && !self.is_busy
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("id", &self.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
