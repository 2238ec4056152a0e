//! What the metadata's leader does about lanes as time passes: a leader of a lane that is silent is replaced,
//! and a lane without one gets one as soon as its replicas have answered. Pure: events in, commands out.
//!
//! ```text
//! leads e ──silent for `detect`, or resigned──► entered e+1 ──answers──► somebody leads e+1
//!                                                  │    ▲
//!                                                  └────┘ a quorum answered, nobody may lead, and nothing new
//!                                                         comes: entered e+2, and so on, ever more slowly
//! ```
//! Nothing is decided here for good. A command holds only if the lane is still as it was when it was proposed,
//! so two metadata leaders at once, or one that is late, do no harm.

use std::collections::BTreeMap;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId};

use super::command::Command;
use super::fence::Fence;
use super::lane::LaneRecord;
use super::state::State;
use crate::replica::FenceAnswer;
use crate::time::{Monotonic, Nanos};

/// How long a fence that a quorum has answered waits for something new, before another epoch is entered.
pub const STALL_WAIT: Nanos = Nanos::from_secs(1);
/// It doubles with each epoch in vain, so many times.
const STALL_DOUBLINGS_MAX: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailoverConfig {
    /// The broker that this is: it always counts as heard.
    pub me: BrokerId,
    /// A broker that was silent for so long leads nothing any more.
    pub detect: Nanos,
}

/// What is remembered of a lane between two calls.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct LaneWatch {
    fence: Option<Fence>,
    /// Epoch and leader of the lane when the command was proposed that is on its way.
    proposed: Option<(Epoch, Option<BrokerId>)>,
    /// Who said that it does not lead this epoch (any more).
    resigned: Option<(BrokerId, Epoch)>,
    /// Epochs in a row that were given up without a leader.
    stalls: u32,
}

/// See the module's page. Asked only while this broker leads the metadata.
#[derive(Clone, Debug)]
pub struct Failover {
    config: FailoverConfig,
    /// When the leadership began: then those counted as heard of whom nothing was known.
    began_at: Monotonic,
    heard: BTreeMap<BrokerId, Monotonic>,
    lanes: BTreeMap<LaneId, LaneWatch>,
    next_deadline: Option<Monotonic>,
}

impl Failover {
    pub fn new(config: FailoverConfig) -> Self {
        Self {
            config,
            began_at: Monotonic(0),
            heard: BTreeMap::new(),
            lanes: BTreeMap::new(),
            next_deadline: None,
        }
    }

    /// The leadership was gained: everybody counts as heard now, and nothing is on its way. Of the leader before,
    /// which speaks to all, it is known when it was heard: that it was not for a while is why there was an election.
    pub fn reset(&mut self, now: Monotonic, before: Option<BrokerId>) {
        self.began_at = now;
        self.heard.retain(|broker, _| Some(*broker) == before);
        self.lanes.clear();
        self.next_deadline = Some(now);
    }

    /// A broker has said anything. Also to be told while another broker leads.
    pub fn on_heard(&mut self, broker: BrokerId, now: Monotonic) {
        let heard = self.heard.entry(broker).or_insert(now);
        *heard = now.max(*heard);
    }

    /// A replica has promised an epoch, and tells what it has.
    pub fn on_answer(&mut self, from: BrokerId, answer: &FenceAnswer, now: Monotonic) {
        self.on_heard(from, now);
        let watch = self.lanes.entry(answer.lane).or_default();
        let fence = match &mut watch.fence {
            Some(fence) if fence.epoch() >= answer.epoch => fence,
            other => other.insert(Fence::new(answer.epoch, now)),
        };
        fence.on_answer(from, answer, now);
        self.next_deadline = Some(now);
    }

    /// A broker does not lead a lane in this epoch (any more): it was restarted, or cannot begin.
    pub fn on_resign(&mut self, from: BrokerId, lane: LaneId, epoch: Epoch, now: Monotonic) {
        self.on_heard(from, now);
        self.lanes.entry(lane).or_default().resigned = Some((from, epoch));
        self.next_deadline = Some(now);
    }

    /// A command of [`Self::tick`] was not proposed, or will not be committed: it is due again.
    pub fn on_dropped(&mut self, command: &Command, now: Monotonic) {
        let (Command::LaneEnter { lane, .. } | Command::LaneLeader { lane, .. }) = command else {
            return;
        };
        if let Some(watch) = self.lanes.get_mut(lane) {
            watch.proposed = None;
            self.next_deadline = Some(now);
        }
    }

    pub fn is_alive(&self, broker: BrokerId, now: Monotonic) -> bool {
        broker == self.config.me || now < self.silent_at(broker)
    }

    /// When a broker counts as gone, if nothing is heard of it.
    fn silent_at(&self, broker: BrokerId) -> Monotonic {
        self.heard.get(&broker).copied().unwrap_or(self.began_at) + self.config.detect
    }

    /// When [`Self::tick`] has something to do, if nothing happens before and the state stays as it is.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.next_deadline
    }

    /// What is to be proposed now. To be called when the deadline has come, and when the state has changed.
    pub fn tick(&mut self, now: Monotonic, state: &State) -> Vec<Command> {
        let mut lanes = std::mem::take(&mut self.lanes);
        // Of lanes that there are not: nothing that a broker says makes this grow.
        lanes.retain(|id, _| state.lane(*id).is_some_and(LaneRecord::is_replicated));
        let mut commands = Vec::new();
        let mut next = Monotonic(u64::MAX);
        for lane in state.lanes().iter().filter(|lane| lane.is_replicated()) {
            let watch = lanes.entry(lane.id).or_default();
            let standing = (lane.epoch, lane.leader_id());
            if watch.proposed == Some(standing) {
                continue;
            }
            watch.proposed = None;
            let (command, due) = match lane.leader_id() {
                Some(leader) => self.look_at_leader(lane, leader, watch, now),
                None => self.look_at_fence(lane, watch, now),
            };
            next = next.min(due);
            if let Some(command) = command {
                watch.proposed = Some(standing);
                commands.push(command);
            }
        }
        self.lanes = lanes;
        self.next_deadline = (next < Monotonic(u64::MAX)).then_some(next);
        commands
    }

    /// A command, and when to look again if there is none.
    fn look_at_leader(
        &self,
        lane: &LaneRecord,
        leader: BrokerId,
        watch: &mut LaneWatch,
        now: Monotonic,
    ) -> (Option<Command>, Monotonic) {
        watch.fence.take_if(|fence| fence.epoch() <= lane.epoch);
        let has_resigned = watch.resigned == Some((leader, lane.epoch));
        if has_resigned || !self.is_alive(leader, now) {
            return (Some(enter_next(lane)), now);
        }
        watch.stalls = 0;
        let is_me = leader == self.config.me;
        (None, if is_me { Monotonic(u64::MAX) } else { self.silent_at(leader) })
    }

    fn look_at_fence(
        &self,
        lane: &LaneRecord,
        watch: &mut LaneWatch,
        now: Monotonic,
    ) -> (Option<Command>, Monotonic) {
        let never = Monotonic(u64::MAX);
        // One of a later epoch is of a change that is not applied here yet.
        let Some(fence) = watch.fence.as_mut().filter(|fence| fence.epoch() >= lane.epoch) else {
            return (None, never);
        };
        if let Some(command) = fence.decide(lane, now, |broker| self.is_alive(broker, now)) {
            return (Some(command), now);
        }
        // The preferred one may fall silent before its time is over.
        let waits_until = fence.waits_until().map_or(never, |until| {
            until.min(match lane.preferred() == self.config.me {
                true => never,
                false => self.silent_at(lane.preferred()),
            })
        });
        if fence.epoch() != lane.epoch || !fence.has_quorum(lane) {
            return (None, waits_until);
        }
        let wait = Nanos(STALL_WAIT.0 << watch.stalls.min(STALL_DOUBLINGS_MAX));
        let stalled_at = fence.news_at() + wait;
        if now < stalled_at {
            return (None, waits_until.min(stalled_at));
        }
        watch.stalls = watch.stalls.saturating_add(1);
        (Some(enter_next(lane)), now)
    }
}

fn enter_next(lane: &LaneRecord) -> Command {
    Command::LaneEnter { lane: lane.id, epoch: lane.epoch.next() }
}

#[cfg(test)]
mod tests;
