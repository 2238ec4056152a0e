//! Deadlines. Rare and imprecise ones (a hello or a frame that does not come, a peer that does not
//! read) are counted in ticks over the connections concerned, so that an idle connection costs
//! nothing and a process that was paused blames nobody. Precise ones are sorted.

use std::collections::BTreeSet;

use super::effect::Effect;
use super::event::Conn;
use super::jobs::JobId;
use super::{Cx, Shard};
use crate::limits::{
    FRAME_BYTES_PER_TICK_MIN, FRAME_TICKS_MAX, GROUP_TICK_MS, HELLO_TICKS_MAX, LANE_WAKE_MS_MIN,
    SEND_TICKS_MAX, TICK_MS,
};
use crate::memory::Memory;
use crate::session::{Phase, Wait};
use crate::time::{Monotonic, Nanos};

#[derive(Debug)]
pub(super) struct Timers {
    /// Long polls, by when their time is up.
    pub fetches: BTreeSet<(Monotonic, JobId)>,
    /// Connections whose ticks are counted.
    watched: Vec<Conn>,
    tick_at: Monotonic,
    /// When time passes for the metadata's group.
    group_at: Monotonic,
    /// When replicas say again what may have been lost.
    replicas_at: Monotonic,
    /// What the driver was told last.
    wake_at: Monotonic,
}

impl Default for Timers {
    fn default() -> Self {
        let never = Monotonic(u64::MAX);
        Self {
            fetches: BTreeSet::new(),
            watched: Vec::new(),
            tick_at: never,
            group_at: never,
            replicas_at: never,
            wake_at: never,
        }
    }
}

impl Shard {
    /// Counts the ticks of this connection until nothing of it is overdue any more.
    pub(super) fn watch(&mut self, conn: Conn) {
        if let Some(session) = self.sessions.get_mut(conn)
            && !session.is_watched
        {
            session.is_watched = true;
            self.timers.watched.push(conn);
        }
    }

    pub(super) fn on_woken<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let now = cx.now.monotonic;
        self.timers.wake_at = Monotonic(u64::MAX);
        while let Some(&(deadline, id)) = self.timers.fetches.first() {
            if deadline > now {
                break;
            }
            self.timers.fetches.pop_first();
            self.hurry_fetch(id);
        }
        for lane in 0..self.lanes.len() {
            self.lanes[lane].log.on_wake(&mut cx.io(&mut self.ops));
            self.expire_pending(cx, lane);
        }
        if now >= self.timers.group_at {
            // Late ticks are not made up for: a process that was paused blames nobody.
            self.timers.group_at = Monotonic(u64::MAX);
            self.tick_keeper(cx);
        }
        if now >= self.timers.replicas_at {
            self.timers.replicas_at = Monotonic(u64::MAX);
            self.tick_replicas(cx);
        }
        if now >= self.timers.tick_at {
            self.tick(cx);
        }
    }

    fn tick<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        self.timers.tick_at = Monotonic(u64::MAX);
        for lane in 0..self.lanes.len() {
            self.expire_waiting(cx, lane);
        }
        let mut watched = std::mem::take(&mut self.timers.watched);
        watched.retain(|&conn| {
            let stays = self.tick_session(cx, conn);
            if !stays && let Some(session) = self.sessions.get_mut(conn) {
                session.is_watched = false;
            }
            stays
        });
        // A close may have put others on the new list.
        watched.append(&mut self.timers.watched);
        self.timers.watched = watched;
    }

    /// Returns whether there is still something to count.
    fn tick_session<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn) -> bool {
        let Some(session) = self.sessions.get_mut(conn) else { return false };
        let is_sending = session.outgoing.has_sends();
        if is_sending {
            session.ticks_send += 1;
            if session.ticks_send > SEND_TICKS_MAX {
                self.counters.connections_stalled += 1;
                if session.phase == Phase::Closing {
                    // The close that waits for the sends is replaced by one that does not.
                    cx.effects.push(Effect::Close { conn, after_sends: false });
                    return false;
                }
                self.close(cx, conn, false);
                return false;
            }
        }
        if session.phase == Phase::Closing {
            return is_sending;
        }
        if session.phase == Phase::BeforeHello {
            session.ticks_hello += 1;
            if session.ticks_hello > HELLO_TICKS_MAX {
                self.counters.connections_timed_out += 1;
                self.close(cx, conn, true);
            }
            return true;
        }
        let is_partial = session.incoming.held_bytes() > 0 || session.incoming.skip > 0;
        if is_partial && session.wait == Wait::No {
            let has_moved = session.bytes_since_tick >= FRAME_BYTES_PER_TICK_MIN as u64;
            session.ticks_frame += u32::from(!has_moved);
            session.bytes_since_tick = 0;
            if session.ticks_frame > FRAME_TICKS_MAX {
                self.counters.connections_timed_out += 1;
                self.close(cx, conn, true);
            }
            return true;
        }
        is_sending || is_partial
    }

    /// Tells the driver the next deadline, if it is earlier than the one that it knows.
    pub(super) fn order_wake<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let never = Monotonic(u64::MAX);
        let is_waited_for =
            self.lanes.iter().any(|lane| !lane.waiting.is_empty() || !lane.adopted.is_empty());
        if self.timers.tick_at == never && (is_waited_for || !self.timers.watched.is_empty()) {
            self.timers.tick_at = cx.now.monotonic + Nanos::from_millis(TICK_MS);
        }
        let wants_ticks = self.keeper.as_ref().is_some_and(|keeper| keeper.wants_ticks());
        if self.timers.group_at == never && wants_ticks {
            self.timers.group_at = cx.now.monotonic + Nanos::from_millis(GROUP_TICK_MS);
        }
        if self.timers.replicas_at == never && self.stopping.is_none() && self.has_seats() {
            self.timers.replicas_at = self.next_replica_tick(cx.now.monotonic);
        }
        let fetch = self.timers.fetches.first().map_or(never, |&(deadline, _)| deadline);
        let mut next = self.timers.tick_at.min(fetch).min(self.timers.group_at);
        // Who stops dials nobody.
        if self.stopping.is_none() {
            next = next.min(self.peers.due_at);
        }
        next = next.min(self.timers.replicas_at);
        // What a log could not do when it was woken waits for the disk: no use in asking at once.
        let soon = cx.now.monotonic + Nanos::from_millis(LANE_WAKE_MS_MIN);
        for lane in &self.lanes {
            let due = lane.log.next_deadline().unwrap_or(never);
            let is_past = due <= cx.now.monotonic;
            next = next.min(if is_past { soon } else { due }).min(lane.deadline_min);
        }
        #[cfg(feature = "delays")]
        {
            next = next.min(self.next_departure(cx.now.monotonic));
        }
        if let Some(leaving) = &self.leaving {
            next = next.min(leaving.until);
        }
        if let Some(stopping) = &self.stopping {
            let due = [stopping.silent_at, stopping.deadline];
            let due = due.into_iter().find(|due| cx.now.monotonic < *due);
            next = next.min(due.unwrap_or(never));
        }
        if next < self.timers.wake_at {
            self.timers.wake_at = next;
            cx.effects.push(Effect::Wake { at: next });
        }
    }
}
