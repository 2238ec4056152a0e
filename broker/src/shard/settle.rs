//! The end of each step: what the logs say is heard, answers are sent, the next turn and the next
//! deadline are ordered.

use std::collections::VecDeque;

use corelog_protocol::ids::{LaneId, ShardId};

use super::effect::Effect;
use super::event::Conn;
use super::jobs::JobId;
use super::lane::{LaneState, Reader};
use super::message::ShardMessage;
use super::{Cx, Shard};
use crate::disk::DirectoryId;
use crate::log::{LogEvent, LogFailure};
use crate::memory::Memory;

impl Shard {
    pub(super) fn settle<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        #[cfg(feature = "delays")]
        self.answer_put_off(cx);
        // What a log says can make a fetch ready, and a fetch can make the log say something. The
        // fetches that are left for the next turn bound the loop.
        loop {
            let mut is_quiet = true;
            for lane in 0..self.lanes.len() {
                while let Some(event) = self.lanes[lane].log.poll_event() {
                    is_quiet = false;
                    self.on_log_event(cx, lane, event);
                }
            }
            if is_quiet {
                break;
            }
        }
        if self.run_ready_fetches(cx) {
            self.hear_logs(cx);
        }
        self.feed_lanes(cx);
        self.pump_keeper(cx);
        self.check_ready(cx);
        self.drive_peers(cx);
        self.turn_clients_away(cx);
        if self.progress_leaving(cx) {
            self.hear_logs(cx);
        }
        self.progress_stop(cx);
        self.flush_dirty(cx);
        self.order_turn(cx);
        self.order_wake(cx);
    }

    fn hear_logs<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        for lane in 0..self.lanes.len() {
            while let Some(event) = self.lanes[lane].log.poll_event() {
                self.on_log_event(cx, lane, event);
            }
        }
    }

    fn on_log_event<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize, event: LogEvent) {
        let is_metadata = self.lanes[lane].id == LaneId::METADATA;
        match event {
            LogEvent::Durable { through, write_ordered_at, write_done_at, flush_done_at } => {
                let now = cx.now.monotonic;
                self.commit_writes.record(now, write_done_at - write_ordered_at);
                self.commit_flushes.record(now, flush_done_at - write_done_at);
                if is_metadata {
                    self.on_metadata_durable(cx, through);
                } else if self.lanes[lane].seat.is_some() {
                    self.lanes[lane].flushed_at = (write_done_at, flush_done_at);
                    self.on_replica_durable(cx, lane);
                } else {
                    #[cfg(feature = "delays")]
                    if self.put_off_answers(now, lane, (through, write_done_at, flush_done_at)) {
                        return;
                    }
                    self.on_durable(cx, lane, through, write_done_at, flush_done_at);
                }
            }
            LogEvent::Room => {
                self.lanes[lane].is_busy = false;
                if let Some(keeper) = self.keeper.as_mut().filter(|_| is_metadata) {
                    keeper.on_room();
                }
                self.on_replica_room(cx, lane);
            }
            LogEvent::ReadDone { read, answer, pieces } => {
                match self.lanes[lane].reads.remove(&read) {
                    Some(Reader::Fetch(id)) => self.on_fetch_read(cx, id, answer, pieces),
                    _ => {
                        for piece in pieces {
                            cx.memory.release(piece.slot);
                        }
                    }
                }
            }
            LogEvent::LookupDone { read, answer } => {
                if let Some(Reader::Offsets(id)) = self.lanes[lane].reads.remove(&read) {
                    self.on_offsets_lookup(cx, id, answer);
                }
            }
            LogEvent::ReadRoom => {
                self.retry_reads(cx, lane);
                self.feed_followers(cx, lane);
            }
            LogEvent::Replayed(entry) => self.on_replayed(cx, lane, &entry),
            LogEvent::Recovered(report) => {
                self.lanes[lane].is_recovered = true;
                if self.lanes[lane].state == LaneState::Recovering {
                    self.lanes[lane].state = LaneState::Serving;
                }
                if is_metadata {
                    self.on_metadata_recovered(cx, report.entries_corrupt > 0);
                } else {
                    let next = self.lanes[lane].log.next_lsn();
                    self.lanes[lane].log.set_needed_from(next);
                    self.delete_what_is_deleted(lane);
                    self.on_log_open(cx, lane);
                }
            }
            LogEvent::Rolled { first_lsn } => match &mut self.keeper {
                Some(keeper) if is_metadata => keeper.on_rolled(),
                // Nothing but batches is folded yet: no old entry of another kind is needed.
                _ => self.lanes[lane].log.set_needed_from(first_lsn),
            },
            LogEvent::LogStartMoved => {}
            LogEvent::Resumed => self.on_log_open(cx, lane),
            LogEvent::CopiesDone { read, from, answer, pieces } => {
                self.on_copies_read(cx, lane, read, from, answer, pieces);
            }
            LogEvent::Damaged { lsn, sequence } => self.on_damaged(cx, lane, lsn, sequence),
            LogEvent::Failed(failure) => self.on_lane_failed(cx, lane, failure),
            LogEvent::Stopped if self.reopen_log(cx, lane) => {}
            LogEvent::Stopped => {
                self.lanes[lane].state = LaneState::Stopped;
                self.lanes[lane].is_busy = false;
            }
        }
    }

    fn on_lane_failed<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize, failure: LogFailure) {
        let was_recovering = self.lanes[lane].state == LaneState::Recovering;
        self.lanes[lane].state = LaneState::Failed;
        self.lanes[lane].is_busy = false;
        self.fail_pending(cx, lane);
        self.on_replica_failed(cx, lane);
        if self.lanes[lane].id == LaneId::METADATA {
            self.fail_keeper(cx);
            if was_recovering {
                self.publish_view(cx);
            }
        }
        if matches!(failure, LogFailure::Write | LogFailure::Flush) {
            let directory = self.lanes[lane].log.config().directory;
            self.fail_directory_everywhere(cx, directory);
        }
    }

    /// A write or flush failed there: nothing is written to it any more, by any shard.
    pub(super) fn fail_directory_everywhere<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        directory: DirectoryId,
    ) {
        self.fail_directory(directory);
        for to in (0..self.config.shards).map(ShardId) {
            if to != self.config.shard {
                let message = Box::new(ShardMessage::DirectoryFailed { directory });
                cx.effects.push(Effect::Tell { to, message });
            }
        }
    }

    /// A read is over: those that could not even ask try again.
    fn retry_reads<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let put_off: VecDeque<Reader> = std::mem::take(&mut self.lanes[lane].reads_put_off);
        for reader in put_off {
            match reader {
                Reader::Fetch(id) => self.retry_fetch(id),
                Reader::Offsets(id) => self.run_offsets(cx, id),
            }
        }
    }

    /// A connection is gone: its long polls end, answers to its other requests go nowhere.
    pub(super) fn abandon_requests<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        fetches: Vec<JobId>,
        gathers: Vec<JobId>,
    ) {
        for id in fetches {
            self.abandon_fetch(cx, id);
        }
        for id in gathers {
            self.abandon_gather(cx, id);
        }
    }

    fn flush_dirty<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let mut dirty: Vec<Conn> = std::mem::take(&mut self.dirty);
        for &conn in &dirty {
            let Some(session) = self.sessions.get_mut(conn) else { continue };
            session.is_dirty = false;
            let bytes = session.outgoing.flush(cx.memory, cx.effects, conn);
            if bytes > 0 {
                self.counters.bytes_out += bytes as u64;
                self.counters.sends += 1;
                self.watch(conn);
            }
        }
        dirty.clear();
        self.dirty = dirty;
    }

    fn order_turn<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if self.turn_is_asked {
            return;
        }
        let is_wanted = !self.sessions_ready.is_empty()
            || !self.fetches_ready.is_empty()
            || self.lanes.iter().any(|lane| lane.log.wants_turn() || lane.can_serve_waiting());
        if is_wanted {
            self.turn_is_asked = true;
            cx.effects.push(Effect::Turn);
        }
    }
}
