//! The last steps of a broker. In a cluster it first lets others lead what it leads, and serves on meanwhile, but not for
//! long. Then: refuse what is new, answer what is under way, make the logs durable, close the
//! connections. What another shard owes us is waited for, but not for long.

use super::effect::Effect;
use super::event::Conn;
use super::lane::LaneState;
use super::{Cx, Shard};
use crate::limits::{LEAVE_MS, STOP_GRACE_MS, STOP_SPEAKING_MS};
use crate::memory::Memory;
use crate::time::{Monotonic, Nanos};

#[derive(Debug)]
pub(super) struct Stopping {
    /// From then on nobody is waited for.
    pub deadline: Monotonic,
    /// From then on the metadata's group does without this broker, whatever its disk does.
    pub silent_at: Monotonic,
    is_closing: bool,
    is_over: bool,
}

#[derive(Debug)]
pub(super) struct Leaving {
    /// From then on nobody is waited for.
    pub until: Monotonic,
}

impl Shard {
    pub(super) fn on_stop<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if self.stopping.is_some() || self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Leaving { until: cx.now.monotonic + Nanos::from_millis(LEAVE_MS) });
        self.offer_lanes(cx);
        self.progress_leaving(cx);
    }

    /// Stops as soon as this broker leads nothing any more. True if that is now.
    pub(super) fn progress_leaving<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let has_others = self.peers.links_up() > 0;
        let leads = self.leads_lanes() || self.is_leading_others();
        if cx.now.monotonic < leaving.until && has_others && leads {
            return false;
        }
        self.leaving = None;
        self.begin_stop(cx);
        true
    }

    /// Whether others follow a lane of this broker, as far as this shard knows.
    pub(super) fn leads_lanes(&self) -> bool {
        let me = Some(self.config.broker);
        let lanes = self.view.state().lanes();
        lanes.iter().any(|lane| lane.is_replicated() && lane.leader_id() == me)
    }

    /// Whether the metadata's group has other members, and is led here.
    fn is_leading_others(&self) -> bool {
        self.config.is_clustered() && self.is_leading_metadata()
    }

    /// Whether this broker is to lead nothing.
    pub(super) fn is_leaving(&self) -> bool {
        let (state, me) = (self.view.state(), self.config.broker);
        self.leaving.is_some() || state.is_draining(me) || state.is_removed(me)
    }

    fn begin_stop<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let deadline = cx.now.monotonic + Nanos::from_millis(STOP_GRACE_MS);
        let silent_at = match self.config.is_clustered() {
            true => cx.now.monotonic + Nanos::from_millis(STOP_SPEAKING_MS),
            false => deadline,
        };
        self.stopping = Some(Stopping { deadline, silent_at, is_closing: false, is_over: false });
        self.settle_changes(cx);
        for id in self.fetches.ids().collect::<Vec<_>>() {
            self.hurry_fetch(id);
        }
        for lane in &mut self.lanes {
            // Those who wait for room learn that there will be none.
            lane.is_busy = false;
            lane.log.stop(&mut cx.io(&mut self.ops));
        }
    }

    /// Goes on with the stop as far as it can.
    pub(super) fn progress_stop<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(stopping) = &self.stopping else { return };
        let is_late = cx.now.monotonic >= stopping.deadline;
        let is_silent = cx.now.monotonic >= stopping.silent_at;
        if stopping.is_over {
            return;
        }
        self.retire_keeper(cx, is_silent);
        let are_logs_stopped =
            self.lanes.iter().all(|lane| lane.state == LaneState::Stopped) && self.close_votes(cx);
        let Some(stopping) = &self.stopping else { return };
        let is_answered = self.forwards.is_empty()
            && self.fetches.is_empty()
            && self.lanes.iter().all(|lane| lane.waiting.is_empty() && lane.adopted.is_empty())
            && self.keeper.as_ref().is_none_or(|keeper| keeper.is_idle());
        // Of a disk that completes nothing there is no end: those who wait for an answer shall look elsewhere.
        if !stopping.is_closing && (are_logs_stopped && is_answered || is_late) {
            self.stopping.as_mut().expect("looked up above").is_closing = true;
            for conn in self.sessions.conns().collect::<Vec<Conn>>() {
                self.close(cx, conn, true);
            }
        }
        let stopping = self.stopping.as_mut().expect("looked up above");
        let is_alone = self.sessions.count() == 0 || is_late;
        if stopping.is_closing && are_logs_stopped && is_alone {
            stopping.is_over = true;
            cx.effects.push(Effect::Stopped);
        }
    }
}
