//! Lanes with several replicas: between the replica of a lane, its log, its vote and the other brokers.
//!
//! What happens is told to the [`Replica`], which decides; what it orders is carried out here ([`orders`]). Entries go
//! out in [`sending`] and come in in [`incoming`]; [`reading`] is whom a follower serves; [`vote_file`] is what a replica must
//! not forget. A lane that is alone has no seat, and nothing here is on its way.

mod incoming;
mod orders;
mod reading;
mod restart;
mod sending;
mod vote_file;

use std::collections::VecDeque;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId, Lsn, ShardId};

use super::lane::{Lane, LaneState};
use super::{Cx, Shard};
use crate::disk::{DirectoryId, DiskDone};
use crate::limits::REPLICA_TICK_MS;
use crate::log::{Base, Log, ReadId};
use crate::memory::{Memory, Piece};
use crate::metadata::LaneRecord;
use crate::metadata::view::lane_shard;
use crate::replica::{History, LaneLog, LaneView, Position, Replica, Resume};
use crate::time::{Monotonic, Nanos};
use vote_file::{VoteFile, VoteNews};

/// Owners of disk orders from here on are votes: of the lane whose index is the rest.
const VOTE_OWNER: u16 = 0x8000;

/// A lane's place among its replicas.
pub(super) struct Seat {
    /// From the moment that its vote is known.
    pub(super) replica: Option<Replica>,
    vote: VoteFile,
    /// The vote's file was made in this life.
    is_vote_fresh: bool,
    /// The log is recovered, or goes on as it was told to.
    is_log_open: bool,
    /// The log is stopping, to be opened anew like this.
    restart: Option<Resume>,
    /// And it begins with this.
    base: Option<Base>,
    /// The epoch start could not be appended yet.
    begins: Option<Epoch>,
    /// Entries of the leader for which the log had no room.
    inbox: VecDeque<Copied>,
    /// Reads of entries for followers.
    reading: Vec<(ReadId, BrokerId, Epoch)>,
    /// When it was looked at last, it served readers though it follows.
    served_as_follower: bool,
}

/// Entries that came from a leader, and are not in the log yet.
#[derive(Clone, Copy, Debug)]
struct Copied {
    from: BrokerId,
    epoch: Epoch,
    first: Lsn,
    /// The leader's committed LSN, and whether it wants to know what is in memory.
    committed: (Lsn, bool),
    /// A reference of its slot is owned.
    piece: Piece,
}

impl LaneLog for Log {
    fn has(&self) -> Position {
        Log::has(self)
    }

    fn bad_end(&self) -> Option<Lsn> {
        Log::bad_end(self)
    }

    fn is_damaged(&self) -> bool {
        Log::is_damaged(self)
    }

    fn accepted(&self) -> Epoch {
        Log::accepted(self)
    }

    fn next_lsn(&self) -> Lsn {
        Log::next_lsn(self)
    }

    fn is_dormant(&self) -> bool {
        Log::is_dormant(self)
    }

    fn history(&self) -> &History {
        self.epoch_history()
    }
}

impl Seat {
    /// The lane goes: nothing that waits is taken any more.
    pub fn part(&mut self, memory: &mut impl Memory) {
        self.restart = None;
        self.base = None;
        self.begins = None;
        for copied in self.inbox.drain(..) {
            memory.release(copied.piece.slot);
        }
    }

    /// Closes the file of the vote, if nothing is being written to it.
    pub fn close<M: Memory>(&mut self, cx: &mut Cx<'_, M>, ops: &mut crate::log::OpIds) {
        self.vote.close(cx, ops);
    }

    pub fn is_closed(&self) -> bool {
        self.vote.is_closed()
    }

    /// Whether batches are taken here now.
    pub fn is_taking(&self) -> bool {
        self.replica.as_ref().is_some_and(Replica::takes_batches)
    }

    /// Whether records are served here now.
    pub fn is_serving(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| replica.serves().is_some())
    }
}

/// What a view says of a lane, for its replica.
fn view_of(record: &LaneRecord) -> LaneView {
    LaneView {
        epoch: record.epoch,
        leader: record.leader.map(|leader| (leader.broker, leader.position)),
        members: record.replicas.iter().map(|replica| replica.broker).collect(),
        is_changing: record.before.is_some(),
        moving: record.moving.map(|moving| (moving.to, moving.number)),
    }
}

impl Shard {
    /// A lane with several replicas takes its seat: its vote is looked for.
    pub(super) fn seat<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let target = &self.lanes[lane];
        let (id, directory) = (target.id, target.log.config().directory);
        let owner = VOTE_OWNER | lane as u16;
        let mut vote = VoteFile::new(id, directory, self.config.incarnation, owner);
        if target.state != LaneState::Failed {
            vote.start(cx, &mut self.ops);
        }
        self.lanes[lane].seat = Some(Box::new(Seat {
            replica: None,
            vote,
            is_vote_fresh: false,
            is_log_open: false,
            restart: None,
            base: None,
            begins: None,
            inbox: VecDeque::new(),
            reading: Vec::new(),
            served_as_follower: false,
        }));
    }

    /// Whose vote's order this is, if it is one's.
    pub(super) fn vote_of(owner: u16) -> Option<usize> {
        (owner & VOTE_OWNER != 0).then_some(usize::from(owner & !VOTE_OWNER))
    }

    pub(super) fn on_vote_disk<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        done: DiskDone,
    ) {
        let Some(seat) = &mut self.lanes[lane].seat else { return };
        match seat.vote.on_done(cx, &mut self.ops, done) {
            VoteNews::None => {}
            // The lane went before its vote was read.
            VoteNews::Known { .. } if self.is_parted(lane) => {}
            VoteNews::Known { vote, is_fresh } => {
                let replica = Replica::new(self.lanes[lane].id, self.config.broker, vote);
                if let Some(seat) = &mut self.lanes[lane].seat {
                    seat.replica = Some(replica);
                    seat.is_vote_fresh = is_fresh;
                }
                self.see_lane(cx, lane);
                self.tell_log_open(cx, lane);
            }
            VoteNews::Stored { vote } => {
                self.lanes[lane].log.accept(vote.accepted);
                self.with_replica(cx, lane, |replica, log, now| replica.on_stored(log, now));
            }
            VoteNews::Lost => self.lose_vote(cx, lane),
            VoteNews::Failed => {
                let directory = self.lanes[lane].log.config().directory;
                self.fail_directory_everywhere(cx, directory);
            }
        }
    }

    /// Nobody knows what this replica has promised: it does not take part.
    fn lose_vote<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        self.counters.votes_lost += 1;
        let id = self.lanes[lane].id;
        tracing::error!(lane = id.0, "the replica's vote cannot be read: it does not take part");
        self.lanes[lane].log.fail();
        self.with_replica(cx, lane, |replica, _, _| replica.fail());
    }

    /// Lets something happen to a lane's replica, and carries out what it orders.
    pub(super) fn with_replica<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        act: impl FnOnce(&mut Replica, &Log, Monotonic),
    ) {
        let target = &mut self.lanes[lane];
        let Some(replica) = target.seat.as_mut().and_then(|seat| seat.replica.as_mut()) else {
            return;
        };
        act(replica, &target.log, cx.now.monotonic);
        self.drive_replica(cx, lane);
    }

    /// The view says something of this lane.
    pub(super) fn see_lane<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        if self.lanes[lane].seat.is_none() {
            return;
        }
        let Some(record) = self.view.lane(self.lanes[lane].id) else { return };
        let view = view_of(record);
        self.with_replica(cx, lane, |replica, log, now| replica.on_view(view, log, now));
    }

    /// A new view: of the lanes that are not as they were.
    pub(super) fn see_lanes<M: Memory>(&mut self, cx: &mut Cx<'_, M>, changed: &[LaneId]) {
        for id in changed {
            if let Some(lane) = self.lane_index(*id) {
                self.see_lane(cx, usize::from(lane));
            }
        }
    }

    /// Recovery is over, or the log goes on as it was told to.
    pub(super) fn on_log_open<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let Some(seat) = &mut self.lanes[lane].seat else { return };
        seat.is_log_open = true;
        if seat.replica.is_some() {
            self.tell_log_open(cx, lane);
        }
    }

    fn tell_log_open<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let Some(seat) = &self.lanes[lane].seat else { return };
        if !seat.is_log_open {
            return;
        }
        let log = &self.lanes[lane].log;
        let is_empty = log.next_lsn() == Lsn(0) && log.accepted() == Epoch(0);
        if seat.is_vote_fresh && log.is_dormant() && !is_empty {
            // A file that is made before anything else was made just now, beside a log that has something.
            return self.lose_vote(cx, lane);
        }
        self.with_replica(cx, lane, |replica, log, now| replica.on_log_open(log, now));
    }

    /// More of the lane is durable here.
    pub(super) fn on_replica_durable<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        self.with_replica(cx, lane, |replica, log, now| replica.on_durable(log, now));
        self.on_visible(cx, lane);
        self.on_more_readable(lane);
    }

    /// An entry that was durable cannot be read any more.
    pub(super) fn on_damaged<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        lsn: Lsn,
        sequence: u64,
    ) {
        let id = self.lanes[lane].id;
        tracing::error!(
            lane = id.0,
            lsn = lsn.0,
            segment = sequence,
            "an entry that was durable cannot be read any more"
        );
        let mut is_repaired = false;
        self.with_replica(cx, lane, |replica, log, now| is_repaired = replica.on_damaged(log, now));
        self.counters.repairs += u64::from(is_repaired);
    }

    /// A reader has met damage. True if the lane is to be led by another broker, which has it whole: then nobody has to be
    /// told of the damage.
    pub(super) fn gives_way<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) -> bool {
        let mut gives_way = false;
        self.with_replica(cx, lane, |replica, log, now| {
            let is_real = log.is_damaged() || log.is_searching();
            gives_way = is_real && replica.is_whole_elsewhere();
            if gives_way && log.is_damaged() {
                // It was found before there was anybody to lead.
                replica.on_damaged(log, now);
            }
        });
        gives_way
    }

    /// The log takes entries again.
    pub(super) fn on_replica_room<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        if let Some(seat) = &self.lanes[lane].seat {
            if let Some(epoch) = seat.begins {
                self.begin_epoch(cx, lane, epoch);
            }
            self.empty_inbox(cx, lane);
        }
    }

    /// A directory failed: its replicas are silent from now on.
    pub(super) fn on_replica_failed<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        self.with_replica(cx, lane, |replica, _, _| replica.fail());
    }

    /// Where a lane is on another broker.
    fn place_of(&self, broker: BrokerId, lane: LaneId) -> Option<ShardId> {
        Some(lane_shard(lane, self.view.broker(broker)?.shards))
    }

    pub(super) fn on_lanes_peer_up<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        broker: BrokerId,
        shard: ShardId,
    ) {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].seat.is_some()
                && self.place_of(broker, self.lanes[lane].id) == Some(shard)
            {
                self.with_replica(cx, lane, |replica, log, now| {
                    replica.on_heard(broker, now);
                    replica.on_peer_up(broker, log, now);
                });
            }
        }
    }

    pub(super) fn on_lanes_peer_down<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        broker: BrokerId,
        shard: ShardId,
    ) {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].seat.is_some()
                && self.place_of(broker, self.lanes[lane].id) == Some(shard)
            {
                self.with_replica(cx, lane, |replica, _, _| replica.on_peer_down(broker));
            }
        }
    }

    /// Somebody waits until this entry is in the memory of a quorum.
    pub(super) fn want_received(&mut self, lane: usize, lsn: Lsn) {
        if let Some(leader) = self.lanes[lane].leading_mut() {
            leader.memory_wanted = leader.memory_wanted.max(lsn.next());
        }
    }

    /// Every entry below is in the memory of a quorum.
    pub(super) fn received_end(&self, lane: usize) -> Lsn {
        self.lanes[lane].leading().map_or(Lsn(0), |leader| leader.received)
    }

    /// Closes the votes' files. True when none is open.
    pub(super) fn close_votes<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> bool {
        let mut is_closed = true;
        for seat in self.lanes.iter_mut().filter_map(|lane| lane.seat.as_mut()) {
            is_closed &= seat.vote.close(cx, &mut self.ops);
            for copied in seat.inbox.drain(..) {
                cx.memory.release(copied.piece.slot);
            }
        }
        is_closed
    }

    pub(super) fn has_seats(&self) -> bool {
        self.lanes.iter().any(|lane| lane.seat.is_some())
    }

    /// Offers what is led here to others, if this broker is to lead nothing.
    pub(super) fn offer_lanes<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let is_leaving = self.is_leaving();
        for lane in 0..self.lanes.len() {
            self.with_replica(cx, lane, |replica, _, _| replica.set_leaving(is_leaving));
        }
    }

    /// Time has passed: what may have been lost is said again.
    pub(super) fn tick_replicas<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if self.has_parted() {
            self.close_parted(cx);
            // One of them may have come back.
            self.adopt_lanes(cx);
        }
        self.beat(cx);
        self.offer_lanes(cx);
        for lane in 0..self.lanes.len() {
            // Also looks whom a follower still serves.
            self.with_replica(cx, lane, |replica, log, now| replica.on_tick(log, now));
        }
        self.leave_stalled_disks(cx);
    }

    /// What stands still for one lane does so for all that lie there, also for those in which nothing is written now.
    fn leave_stalled_disks<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if self.lanes.iter().all(|lane| !lane.is_disk_overtaken()) {
            return;
        }
        for lane in 0..self.lanes.len() {
            if self.is_directory_overtaken(self.lanes[lane].log.config().directory) {
                self.with_replica(cx, lane, |replica, _, _| replica.on_disk_overtaken());
            }
        }
    }

    /// A lane that is led here makes nothing durable in this directory, and its followers do.
    pub(super) fn is_directory_overtaken(&self, directory: DirectoryId) -> bool {
        let is_there = |lane: &&Lane| lane.log.config().directory == directory;
        self.lanes.iter().filter(is_there).any(Lane::is_disk_overtaken)
    }

    /// When the next tick is due.
    pub(super) fn next_replica_tick(&self, now: Monotonic) -> Monotonic {
        now + Nanos::from_millis(REPLICA_TICK_MS)
    }
}
