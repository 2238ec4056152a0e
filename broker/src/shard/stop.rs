//! The last steps: refuse what is new, answer what is under way, make the logs durable, close the
//! connections. What another shard owes us is waited for, but not for long.

use super::effect::Effect;
use super::event::Conn;
use super::lane::LaneState;
use super::{Cx, Shard};
use crate::limits::STOP_GRACE_MS;
use crate::memory::Memory;
use crate::time::{Monotonic, Nanos};

#[derive(Debug)]
pub(super) struct Stopping {
    /// From then on nobody is waited for.
    pub deadline: Monotonic,
    is_closing: bool,
    is_over: bool,
}

impl Shard {
    pub(super) fn on_stop<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if self.stopping.is_some() {
            return;
        }
        let deadline = cx.now.monotonic + Nanos::from_millis(STOP_GRACE_MS);
        self.stopping = Some(Stopping { deadline, is_closing: false, is_over: false });
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
        if stopping.is_over {
            return;
        }
        let are_logs_stopped =
            self.lanes.iter().all(|lane| lane.state == LaneState::Stopped) && self.close_votes(cx);
        let Some(stopping) = &self.stopping else { return };
        let is_answered = self.forwards.is_empty()
            && self.fetches.is_empty()
            && self.lanes.iter().all(|lane| lane.waiting.is_empty() && lane.adopted.is_empty())
            && self.keeper.as_ref().is_none_or(|keeper| keeper.is_idle());
        if !stopping.is_closing && are_logs_stopped && (is_answered || is_late) {
            self.stopping.as_mut().expect("looked up above").is_closing = true;
            for conn in self.sessions.conns().collect::<Vec<Conn>>() {
                self.close(cx, conn, true);
            }
        }
        let stopping = self.stopping.as_mut().expect("looked up above");
        if stopping.is_closing && (self.sessions.count() == 0 || is_late) {
            stopping.is_over = true;
            cx.effects.push(Effect::Stopped);
        }
    }
}
