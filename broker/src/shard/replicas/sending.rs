//! Entries to followers: read from the log's tail, or from the disk for one that is behind, and sent as they were
//! written. How much may be under way is bounded for each follower, so that a slow one costs bounded memory and
//! nobody else's time.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, Epoch, LaneId, Lsn};

use crate::limits::{FRAME_BYTES_HARD, REPLICATION_FRAME_BYTES};
use crate::log::Copies;
use crate::memory::{Memory, Piece};
use crate::replica::{LaneMessage, Progress};
use crate::shard::{Cx, Shard};

impl Shard {
    /// This follower is sent nothing more before it follows anew.
    fn strand(&mut self, lane: usize, follower: BrokerId) {
        let leader = self.lanes[lane].leading_mut();
        if let Some(follower) = leader.and_then(|leader| leader.follower(follower)) {
            follower.is_stranded = true;
        }
    }

    /// At the end of a step: what was written in it leaves for the followers at the same time as for the disk.
    pub(in crate::shard) fn feed_lanes<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        for lane in 0..self.lanes.len() {
            let target = &self.lanes[lane];
            let Some(leader) = target.leading() else { continue };
            let end = target.log.building_first_lsn().unwrap_or(target.log.next_lsn());
            let lacks = |it: &Progress| it.sent < end && it.room() > 0;
            if leader.followers.iter().any(lacks) {
                self.feed_followers(cx, lane);
            }
        }
    }

    /// Sends to the lane's followers what they lack and may be sent.
    pub(in crate::shard) fn feed_followers<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let Some(leader) = self.lanes[lane].leading().filter(|leader| leader.start.is_some())
        else {
            return;
        };
        for at in 0..leader.followers.len() {
            while self.feed(cx, lane, at) {}
        }
    }

    /// Sends the next entries to one follower. True if more may follow at once. A link that has much to send already
    /// waits for the follower's next word.
    fn feed<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize, at: usize) -> bool {
        let id = self.lanes[lane].id;
        let follower = self.lanes[lane].leading().and_then(|leader| leader.followers.get(at));
        let place = follower.and_then(|it| Some((it.broker, self.place_of(it.broker, id)?)));
        if place.is_none_or(|(to, shard)| !self.has_peer_room(to, shard)) {
            return false;
        }
        #[cfg(feature = "delays")]
        if self.is_held_back(cx.now.monotonic, lane, at) {
            return false;
        }
        let target = &mut self.lanes[lane];
        let Some(seat) = &mut target.seat else { return false };
        let Some(leader) = seat.replica.as_mut().and_then(|it| it.leading_mut()) else {
            return false;
        };
        let epoch = leader.epoch;
        let Some(follower) = leader.followers.get_mut(at) else { return false };
        let (to, from, room) = (follower.broker, follower.sent, follower.room());
        if room == 0 || seat.reading.iter().any(|(_, reader, _)| *reader == to) {
            return false;
        }
        let bytes_max = room.min(REPLICATION_FRAME_BYTES) as u32;
        let mut pieces = Vec::new();
        let copies =
            target.log.read_copies(&mut cx.io(&mut self.ops), from, bytes_max, &mut pieces);
        match copies {
            Copies::Ready { end, .. } => self.send_copies(cx, lane, to, epoch, (from, end), pieces),
            Copies::Waiting(read) => {
                seat.reading.push((read, to, epoch));
                false
            }
            // Busy: again when the log says that there is room.
            Copies::AtEnd | Copies::Busy => false,
            Copies::Gone { first } => {
                follower.is_stranded = true;
                tracing::warn!(
                    lane = target.id.0,
                    follower = to.0,
                    first = first.0,
                    wanted = from.0,
                    "a follower is further behind than the log reaches back: it begins anew"
                );
                match target.log.read_base(&mut cx.io(&mut self.ops)) {
                    Copies::Waiting(read) => seat.reading.push((read, to, epoch)),
                    // It says again where it is, and this is tried again.
                    _ => follower.on_lost(),
                }
                false
            }
            // The lane stops, or its directory failed: that is told elsewhere.
            Copies::Failed => false,
            Copies::Unreadable { .. } => {
                // It cannot tell all that it has: somebody else must lead. Said once: what is ordered feeds again.
                if !std::mem::replace(&mut follower.is_stranded, true) {
                    self.with_replica(cx, lane, |replica, _, _| replica.resign());
                }
                false
            }
        }
    }

    /// The disk has answered.
    pub(in crate::shard) fn on_copies_read<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        read: crate::log::ReadId,
        from: Lsn,
        answer: Copies,
        pieces: Vec<Piece>,
    ) {
        let found = self.lanes[lane].seat.as_mut().and_then(|seat| {
            let at = seat.reading.iter().position(|(known, ..)| *known == read)?;
            Some(seat.reading.swap_remove(at))
        });
        let leads =
            |epoch: Epoch| self.lanes[lane].leading().filter(|leader| leader.epoch == epoch);
        let wanted = found.and_then(|(_, to, epoch)| {
            let follower = leads(epoch)?.followers.iter().find(|it| it.broker == to)?;
            // Of a stranded one the log's beginning was read.
            let is_base = follower.is_stranded && follower.sent < from;
            let is_wanted = follower.is_matched && (follower.sent == from || is_base);
            is_wanted.then_some((to, epoch, is_base))
        });
        match (wanted, answer) {
            (Some((to, epoch, true)), Copies::Ready { .. }) => {
                self.send_base(cx, lane, to, epoch, from, pieces);
            }
            (Some((to, epoch, false)), Copies::Ready { end, .. }) => {
                self.send_copies(cx, lane, to, epoch, (from, end), pieces);
            }
            (_, answer) => {
                for piece in pieces {
                    cx.memory.release(piece.slot);
                }
                if let (Some((to, ..)), Copies::Unreadable { .. }) = (wanted, answer) {
                    // Said once: what is ordered feeds again.
                    self.strand(lane, to);
                    self.with_replica(cx, lane, |replica, _, _| replica.resign());
                }
            }
        }
        self.feed_followers(cx, lane);
    }

    /// Sends the checkpoint that the log begins with. Until its follower says anew where it is, it is sent nothing else.
    fn send_base<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        to: BrokerId,
        epoch: Epoch,
        first: Lsn,
        pieces: Vec<Piece>,
    ) {
        let target = &mut self.lanes[lane];
        let (id, end) = (target.id, target.log.next_lsn());
        if let Some(follower) = target.leading_mut().and_then(|leader| leader.follower(to)) {
            follower.on_lost();
        }
        let control = LaneMessage::Anew { first, end }.encode(id, epoch);
        let bytes: usize = pieces.iter().map(|piece| piece.len as usize).sum();
        if control.len() + bytes > FRAME_BYTES_HARD {
            tracing::error!(lane = id.0, bytes, "the lane's checkpoint is too large to be sent");
        } else if let Some(shard) = self.place_of(to, id) {
            self.send_peer(cx, to, shard, FrameKind::PeerLane, &control, &pieces);
        }
        for piece in pieces {
            cx.memory.release(piece.slot);
        }
    }

    /// Sends pieces, of which a reference each is owned. True if they were sent.
    fn send_copies<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        to: BrokerId,
        epoch: Epoch,
        (from, end): (Lsn, Lsn),
        pieces: Vec<Piece>,
    ) -> bool {
        let id = self.lanes[lane].id;
        let bytes: u32 = pieces.iter().map(|piece| piece.len).sum();
        let seat = self.lanes[lane].seat.as_mut();
        let message = seat
            .and_then(|seat| seat.replica.as_mut())
            .and_then(|replica| replica.append_to(to, from, cx.now.monotonic));
        let is_sent = match (message, self.place_of(to, id)) {
            (Some((_, message)), Some(shard)) => {
                let control = message.encode(id, epoch);
                self.send_peer(cx, to, shard, FrameKind::PeerLane, &control, &pieces)
            }
            _ => false,
        };
        for piece in pieces {
            cx.memory.release(piece.slot);
        }
        let now = cx.now.monotonic;
        let leader = self.lanes[lane].leading_mut();
        if let Some(follower) = leader.and_then(|leader| leader.follower(to)) {
            match is_sent {
                true => follower.on_sent(end, bytes, now),
                false => follower.on_lost(),
            }
        }
        if is_sent {
            self.counters.copy_bytes_out += u64::from(bytes);
            self.lanes[lane].on_departed(now);
        }
        is_sent
    }

    /// Says to every shard with which lanes are shared that this one is there, and to followers what is committed, also if
    /// that is nothing new for long.
    pub(super) fn beat<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let now = cx.now.monotonic;
        for lane in 0..self.lanes.len() {
            let Some(leader) = self.lanes[lane].leading() else { continue };
            let epoch = leader.epoch;
            for (to, sent) in leader.to_be_told(now) {
                let seat = self.lanes[lane].seat.as_mut();
                let message = seat
                    .and_then(|seat| seat.replica.as_mut())
                    .and_then(|replica| replica.append_to(to, sent, now));
                if let Some((_, message)) = message {
                    self.say(cx, lane, to, epoch, &message);
                }
            }
        }
        let beat = LaneMessage::Beat.encode(LaneId::METADATA, Epoch(0));
        for (broker, shard) in self.lane_places() {
            self.send_peer(cx, broker, shard, FrameKind::PeerLane, &beat, &[]);
        }
    }

    /// The shards of other brokers that have lanes of this one.
    fn lane_places(&self) -> Vec<(BrokerId, corelog_protocol::ids::ShardId)> {
        let mut places = std::collections::BTreeSet::new();
        for lane in self.lanes.iter().filter(|lane| lane.seat.is_some()) {
            let Some(record) = self.view.lane(lane.id) else { continue };
            for replica in record.replicas.iter().filter(|it| it.broker != self.config.broker) {
                places
                    .extend(self.place_of(replica.broker, lane.id).map(|at| (replica.broker, at)));
            }
        }
        places.into_iter().collect()
    }
}
