//! What other replicas say of a lane, and the entries of a leader.

use corelog_protocol::ids::{BrokerId, Epoch, Lsn, ShardId};

use super::Copied;
use crate::limits::REPLICATION_WINDOW_BYTES;
use crate::log::{AppendError, Base, CopyError};
use crate::memory::{Memory, Piece};
use crate::replica::LaneMessage;
use crate::shard::receive::Flow;
use crate::shard::{Cx, Shard};

impl Copied {
    /// What is left when so many bytes were taken, of a log whose next entry is `next` now.
    fn after(self, used: u32, next: Lsn) -> Self {
        let Piece { start, len, slot } = self.piece;
        let piece = Piece { start: start + used, len: len - used, slot };
        let first = if used == 0 { self.first } else { next };
        Self { first, piece, ..self }
    }
}

/// What became of entries.
enum Taken {
    All,
    /// This much; the rest when there is room.
    Part(u32),
    /// They are not for this log as it is.
    No,
}

impl Shard {
    /// A message of a lane's replication, from the shard of another broker.
    pub(in crate::shard) fn on_peer_lane<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        (from, shard): (BrokerId, ShardId),
        control: &[u8],
        payload: Piece,
    ) -> Flow {
        let Ok((id, epoch, message)) = LaneMessage::decode(control) else {
            self.counters.peer_frames_dropped += 1;
            return Flow::Done;
        };
        if message == LaneMessage::Beat {
            for lane in 0..self.lanes.len() {
                if self.place_of(from, self.lanes[lane].id) == Some(shard)
                    && let Some(seat) = &mut self.lanes[lane].seat
                    && let Some(replica) = &mut seat.replica
                {
                    replica.on_heard(from, cx.now.monotonic);
                }
            }
            return Flow::Done;
        }
        let lane = self.lane_index(id).map(usize::from);
        let Some(lane) = lane.filter(|lane| self.lanes[*lane].seat.is_some()) else {
            self.counters.peer_frames_dropped += 1;
            return Flow::Done;
        };
        if let LaneMessage::Anew { first, end } = message {
            self.begin_anew(cx, lane, (from, epoch), (first, end), payload);
            return Flow::Done;
        }
        let LaneMessage::Append { first, committed, wants_received } = message else {
            self.with_replica(cx, lane, |replica, log, now| {
                replica.on_heard(from, now);
                replica.on_message(from, epoch, message, log, now);
            });
            return Flow::Done;
        };
        let committed = (committed, wants_received);
        let copied = Copied { from, epoch, first, committed, piece: payload };
        let Some(seat) = &mut self.lanes[lane].seat else { return Flow::Done };
        let is_behind = !seat.inbox.is_empty();
        let taken = if is_behind { Taken::Part(0) } else { self.take_copies(cx, lane, &copied) };
        if let Taken::Part(used) = taken {
            let held: usize = self.lanes[lane]
                .seat
                .iter()
                .flat_map(|seat| &seat.inbox)
                .map(|it| it.piece.len as usize)
                .sum();
            if held + payload.len as usize <= 2 * REPLICATION_WINDOW_BYTES {
                self.hold_copies(cx, lane, copied, used);
            }
        }
        self.drive_replica(cx, lane);
        Flow::Done
    }

    /// The leader's log begins above this one's end.
    fn begin_anew<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        (from, epoch): (BrokerId, Epoch),
        (first, end): (Lsn, Lsn),
        payload: Piece,
    ) {
        let target = &mut self.lanes[lane];
        let Some(seat) = &mut target.seat else { return };
        let Some(replica) = &mut seat.replica else { return };
        replica.on_heard(from, cx.now.monotonic);
        let base = Base::read(target.id, cx.memory.piece(payload));
        let base = base.filter(|base| base.first() == first && base.epoch() <= epoch);
        let Some(base) = base else {
            self.counters.copies_refused += 1;
            tracing::warn!(lane = target.id.0, from = from.0, "the leader's checkpoint is refused");
            return;
        };
        if replica.begins_anew(from, epoch, (first, end), &target.log) {
            seat.base = Some(base);
            self.drive_replica(cx, lane);
        }
    }

    /// Appends entries of the leader, as far as the log has room.
    fn take_copies<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        copied: &Copied,
    ) -> Taken {
        let Copied { from, epoch, first, committed, piece } = *copied;
        let target = &mut self.lanes[lane];
        let Some(replica) = target.seat.as_mut().and_then(|seat| seat.replica.as_mut()) else {
            return Taken::No;
        };
        if !replica.takes(from, epoch, first, committed, &target.log, cx.now.monotonic) {
            return Taken::No;
        }
        let mut used = 0;
        while used < piece.len {
            let rest = Piece { start: piece.start + used, len: piece.len - used, ..piece };
            match target.log.append_copy(&mut cx.io(&mut self.ops), rest) {
                Ok(0) => break,
                Ok(bytes) => {
                    used += bytes;
                    self.counters.copy_bytes_in += u64::from(bytes);
                }
                Err(CopyError::Refused(AppendError::Busy | AppendError::Full)) => {
                    return Taken::Part(used);
                }
                Err(error) => {
                    self.counters.copies_refused += 1;
                    tracing::warn!(
                        lane = target.id.0,
                        from = from.0,
                        ?error,
                        "entries of the leader are refused"
                    );
                    break;
                }
            }
        }
        replica.on_copied();
        let end = replica.committed(&target.log);
        target.log.set_committed(end);
        self.on_more_readable(lane);
        Taken::All
    }

    /// Keeps a copy of what the log has no room for.
    fn hold_copies<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        copied: Copied,
        used: u32,
    ) {
        let rest = copied.after(used, self.lanes[lane].log.next_lsn());
        let len = rest.piece.len as usize;
        if len == 0 {
            return;
        }
        let slot = cx.memory.allocate(len);
        let (source, target) = cx.memory.pair(rest.piece.slot, slot);
        target[..len].copy_from_slice(&source[rest.piece.range()]);
        let piece = Piece::new(slot, 0, len);
        if let Some(seat) = &mut self.lanes[lane].seat {
            seat.inbox.push_back(Copied { piece, ..rest });
        }
    }

    /// The log has room again.
    pub(super) fn empty_inbox<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        loop {
            let Some(seat) = &mut self.lanes[lane].seat else { return };
            let Some(copied) = seat.inbox.pop_front() else { break };
            match self.take_copies(cx, lane, &copied) {
                Taken::All | Taken::No => cx.memory.release(copied.piece.slot),
                Taken::Part(used) => {
                    let rest = copied.after(used, self.lanes[lane].log.next_lsn());
                    if let Some(seat) = &mut self.lanes[lane].seat {
                        seat.inbox.push_front(rest);
                    }
                    break;
                }
            }
        }
        self.drive_replica(cx, lane);
    }
}
