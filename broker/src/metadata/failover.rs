//! What the metadata's leader does about lanes as time passes: a leader of a lane that is silent is replaced,
//! and a lane without one gets one as soon as its replicas have answered. Pure: events in, commands out.
//!
//! ```text
//! leads e ──silent for `detect`, or resigned──► entered e+1 ──answers──► somebody leads e+1
//!                                                  │    ▲
//!                                                  └────┘ a quorum answered, nobody may lead, and nothing new
//!                                                         comes: entered e+2, and so on, ever more slowly
//! ```
//! A leader that is heard, and does not say that it serves, is replaced as well: its disk or its shard stands still. And so
//! is one that does not take what is agreed on: it does not know what it leads.
//! One that shall lead no more hands over instead, which loses nothing: it says whom it would have lead, the
//! lane is moving, and when it has handed over the next epoch is entered. A move that takes too long is taken back.
//!
//! Nothing is decided here for good. A command holds only if the lane is still as it was when it was proposed,
//! so two metadata leaders at once, or one that is late, do no harm.

use std::collections::{BTreeMap, BTreeSet};

use corelog_protocol::ids::{BrokerId, Epoch, LaneId};

use super::command::Command;
use super::fence::Fence;
use super::lag::Lag;
use super::lane::LaneRecord;
use super::state::State;
use super::survey::Survey;
use crate::replica::{FenceAnswer, LaneLoad, LaneProgress};
use crate::time::{Monotonic, Nanos};

/// How long a fence that a quorum has answered waits for something new, before another epoch is entered.
pub const STALL_WAIT: Nanos = Nanos::from_secs(1);
/// A move that has not come about within this time is taken back. Meanwhile its lane takes no batches.
pub const MOVE_PATIENCE: Nanos = Nanos::from_secs(2);
/// Until another move of the lane is tried, after one that was taken back: of a leader that leaves, and of any other.
pub const MOVE_AGAIN: (Nanos, Nanos) = (Nanos::from_millis(500), Nanos::from_secs(30));
/// For how long an offer holds, and a broker that made one because it leaves is offered nothing: they are made again
/// about every 100 ms.
const OFFER_HOLDS: Nanos = Nanos::from_secs(1);
/// It doubles with each epoch in vain, so many times.
const STALL_DOUBLINGS_MAX: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailoverConfig {
    /// The broker that this is: it always counts as heard.
    pub me: BrokerId,
    /// A broker that was silent for so long leads nothing any more.
    pub detect: Nanos,
}

/// For how long it holds what a leader told of its followers: it does so each second.
const PROGRESS_HOLDS: Nanos = Nanos::from_secs(3);
/// A leader that was heard, and has not said for so long that it serves, is replaced: it cannot begin, or one of its shards
/// stands still. Twice as long after each time in a row.
pub const SERVE_PATIENCE: Nanos = Nanos::from_secs(3);

/// What a leader has offered.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Offer {
    from: BrokerId,
    epoch: Epoch,
    to: Vec<BrokerId>,
    is_leaving: bool,
    at: Monotonic,
}

/// What of a lane has to be as it was for a command that is on its way: epoch, leader, and the move's number.
type Standing = (Epoch, Option<BrokerId>, Option<u64>);

fn standing_of(lane: &LaneRecord) -> Standing {
    (lane.epoch, lane.leader_id(), lane.moving.map(|moving| moving.number))
}

/// What is remembered of a lane between two calls.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct LaneWatch {
    fence: Option<Fence>,
    /// How the lane was when the command was proposed that is on its way.
    proposed: Option<Standing>,
    /// If that is a move: who gives the lane, and who gets it.
    proposed_move: Option<[BrokerId; 2]>,
    offer: Option<Offer>,
    /// Who said that it has handed the lane over, in this epoch by this move.
    handed_over: Option<(BrokerId, Epoch, u64)>,
    /// The move that is under way, and since when as far as is known here.
    moving: Option<(u64, Monotonic)>,
    /// When a move was taken back.
    taken_back_at: Option<Monotonic>,
    /// Who said that it does not lead this epoch (any more).
    resigned: Option<(BrokerId, Epoch)>,
    /// Epochs in a row that were given up without a leader.
    stalls: u32,
    /// Who leads which epoch, and since when as far as is known here.
    named: Option<(BrokerId, Epoch, Monotonic)>,
    /// Epochs in a row whose leader never said that it serves.
    unserved: u32,
    /// What its leader told last of its followers, who that was, and when.
    progress: Option<(BrokerId, LaneProgress, Monotonic)>,
    /// What it cost its leader when that told last, or the leader before while the present one has not measured yet.
    load: Option<LaneLoad>,
}

impl LaneWatch {
    /// When the leader of a lane said last that it serves in this epoch, or was named.
    fn served_at(&mut self, lane: &LaneRecord, leader: BrokerId, now: Monotonic) -> Monotonic {
        let of_now = |from: BrokerId, epoch: Epoch| from == leader && epoch == lane.epoch;
        let named = self.named.filter(|(from, epoch, _)| of_now(*from, *epoch));
        let (.., named_at) = *self.named.insert(named.unwrap_or((leader, lane.epoch, now)));
        let told = self.progress.as_ref().filter(|(from, it, _)| of_now(*from, it.epoch));
        match told {
            Some((.., at)) => {
                self.unserved = 0;
                *at
            }
            None => named_at,
        }
    }
}

/// See the module's page. Asked only while this broker leads the metadata.
#[derive(Clone, Debug)]
pub struct Failover {
    config: FailoverConfig,
    /// When the leadership began: then those counted as heard of whom nothing was known.
    began_at: Monotonic,
    heard: BTreeMap<BrokerId, Monotonic>,
    lag: Lag,
    /// When a broker last offered a lane because it leaves.
    leaving: BTreeMap<BrokerId, Monotonic>,
    lanes: BTreeMap<LaneId, LaneWatch>,
    next_deadline: Option<Monotonic>,
}

impl Failover {
    pub fn new(config: FailoverConfig) -> Self {
        Self {
            config,
            began_at: Monotonic(0),
            heard: BTreeMap::new(),
            lag: Lag::default(),
            leaving: BTreeMap::new(),
            lanes: BTreeMap::new(),
            next_deadline: None,
        }
    }

    /// The leadership was gained: everybody counts as heard now, and nothing is on its way. Of the leader before,
    /// which speaks to all, it is known when it was heard: that it was not for a while is why there was an election.
    pub fn reset(&mut self, now: Monotonic, before: Option<BrokerId>) {
        self.began_at = now;
        self.heard.retain(|broker, _| Some(*broker) == before);
        self.lag.reset();
        self.lanes.clear();
        self.leaving.clear();
        self.next_deadline = Some(now);
    }

    /// A broker has said anything. Also to be told while another broker leads.
    pub fn on_heard(&mut self, broker: BrokerId, now: Monotonic) {
        let heard = self.heard.entry(broker).or_insert(now);
        *heard = now.max(*heard);
    }

    /// Everything up to `agreed` is agreed on, and so much of it is on the disks of the others.
    pub fn on_agreed(
        &mut self,
        agreed: u64,
        others: impl Iterator<Item = (BrokerId, u64)>,
        now: Monotonic,
    ) {
        if self.lag.look(now, agreed, others) {
            self.next_deadline = Some(now);
        }
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

    /// The leader of a lane would have another broker lead it.
    pub fn on_offer(
        &mut self,
        from: BrokerId,
        (lane, epoch): (LaneId, Epoch),
        to: Vec<BrokerId>,
        is_leaving: bool,
        now: Monotonic,
    ) {
        self.on_heard(from, now);
        if is_leaving {
            self.leaving.insert(from, now);
        }
        let offer = Offer { from, epoch, to, is_leaving, at: now };
        self.lanes.entry(lane).or_default().offer = Some(offer);
        self.next_deadline = Some(now);
    }

    /// The leader of a lane takes no batches, and the target of this move has all that it took.
    pub fn on_handed_over(
        &mut self,
        from: BrokerId,
        (lane, epoch): (LaneId, Epoch),
        number: u64,
        now: Monotonic,
    ) {
        self.on_heard(from, now);
        self.lanes.entry(lane).or_default().handed_over = Some((from, epoch, number));
        self.next_deadline = Some(now);
    }

    /// The leader of a lane tells how far its followers are.
    pub fn on_progress(&mut self, from: BrokerId, progress: LaneProgress, now: Monotonic) {
        self.on_heard(from, now);
        // Of a lane that there is not, nothing is kept.
        if let Some(watch) = self.lanes.get_mut(&progress.lane) {
            watch.progress = Some((from, progress, now));
        }
    }

    /// What the present leader of a lane has told lately of its followers.
    pub fn progress(&self, lane: &LaneRecord, now: Monotonic) -> Option<&LaneProgress> {
        let (from, progress, at) = self.lanes.get(&lane.id)?.progress.as_ref()?;
        let is_of_now = lane.leader_id() == Some(*from) && progress.epoch == lane.epoch;
        (is_of_now && now < *at + PROGRESS_HOLDS).then_some(progress)
    }

    /// The leader of a lane tells what it costs.
    pub fn on_load(&mut self, from: BrokerId, load: LaneLoad, now: Monotonic) {
        self.on_heard(from, now);
        if let Some(watch) = self.lanes.get_mut(&load.lane)
            && watch.load.is_none_or(|known| known.epoch <= load.epoch)
        {
            watch.load = Some(load);
        }
    }

    /// What a lane costs its leader, as far as that is known. Of a lane that was just given to another one: what it cost
    /// the one before, in an earlier epoch.
    pub fn load(&self, lane: LaneId) -> Option<LaneLoad> {
        self.lanes.get(&lane)?.load
    }

    /// All that is known here and nowhere else.
    pub fn survey(&self, state: &State, now: Monotonic) -> Survey {
        let alive = state.brokers().map(|it| it.id).filter(|id| self.is_alive(*id, now));
        let lanes = state.lanes().iter().filter_map(|lane| self.progress(lane, now).cloned());
        let lanes: Vec<LaneProgress> = lanes.collect();
        let loads = lanes.iter().filter_map(|told| self.load(told.lane)).collect();
        Survey { alive: alive.collect(), lanes, loads }
    }

    /// A command of [`Self::tick`] was not proposed, or will not be committed: it is due again.
    pub fn on_dropped(&mut self, command: &Command, now: Monotonic) {
        let (Command::LaneEnter { lane, .. }
        | Command::LaneLeader { lane, .. }
        | Command::LaneMove { lane, .. }
        | Command::LaneHandOver { lane, .. }) = command
        else {
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

    /// It is heard, and takes what is agreed on.
    pub fn could_lead(&self, broker: BrokerId, now: Monotonic) -> bool {
        self.is_alive(broker, now) && !self.lag.is_behind(broker)
    }

    /// It shall lead nothing, or is about to go.
    pub fn is_unwanted(&self, broker: BrokerId, now: Monotonic, state: &State) -> bool {
        let is_leaving = self.leaving.get(&broker).is_some_and(|at| now < *at + OFFER_HOLDS);
        is_leaving || state.is_draining(broker)
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
        let mut moving = brokers_with_a_move(state);
        let proposed = lanes.values().filter(|watch| watch.proposed.is_some());
        moving.extend(proposed.filter_map(|watch| watch.proposed_move).flatten());
        let mut next = Monotonic(u64::MAX);
        for lane in state.lanes().iter().filter(|lane| lane.is_replicated()) {
            let watch = lanes.entry(lane.id).or_default();
            let standing = standing_of(lane);
            if watch.proposed == Some(standing) {
                continue;
            }
            watch.proposed = None;
            watch.proposed_move = None;
            let (command, due) = match lane.leader_id() {
                Some(leader) => match self.look_at_leader(lane, leader, watch, now) {
                    (None, due) => {
                        let (command, move_due) =
                            self.look_at_move(lane, leader, watch, (now, state), &mut moving);
                        (command, due.min(move_due))
                    }
                    found => found,
                },
                None => self.look_at_fence(lane, watch, (now, state)),
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
        if has_resigned || !self.could_lead(leader, now) {
            return (Some(enter_next(lane)), now);
        }
        watch.stalls = 0;
        let patience = Nanos(SERVE_PATIENCE.0 << watch.unserved.min(STALL_DOUBLINGS_MAX));
        let is_over_at = watch.served_at(lane, leader, now) + patience;
        if now >= is_over_at {
            watch.unserved = watch.unserved.saturating_add(1);
            return (Some(enter_next(lane)), now);
        }
        let is_me = leader == self.config.me;
        (None, if is_me { is_over_at } else { is_over_at.min(self.silent_at(leader)) })
    }

    /// A move that is offered, under way, or over.
    fn look_at_move(
        &self,
        lane: &LaneRecord,
        leader: BrokerId,
        watch: &mut LaneWatch,
        (now, state): (Monotonic, &State),
        busy: &mut BTreeSet<BrokerId>,
    ) -> (Option<Command>, Monotonic) {
        let never = Monotonic(u64::MAX);
        let (id, epoch) = (lane.id, lane.epoch);
        let Some(moving) = lane.moving else {
            watch.moving = None;
            let offer = watch.offer.take();
            let offer = offer.filter(|it| it.from == leader && it.epoch == epoch);
            let to = offer.and_then(|offer| self.accept(&offer, watch, (now, state), busy));
            watch.proposed_move = to.map(|to| [leader, to]);
            return (to.map(|to| Command::LaneMove { lane: id, epoch, to: Some(to) }), never);
        };
        if watch.handed_over == Some((leader, epoch, moving.number)) {
            let number = moving.number;
            return (Some(Command::LaneHandOver { lane: id, epoch, number }), now);
        }
        let since = match watch.moving {
            Some((number, since)) if number == moving.number => since,
            _ => watch.moving.insert((moving.number, now)).1,
        };
        let until = since + MOVE_PATIENCE;
        if now >= until || !self.could_lead(moving.to, now) {
            watch.taken_back_at = Some(now);
            return (Some(Command::LaneMove { lane: id, epoch, to: None }), now);
        }
        let is_me = moving.to == self.config.me;
        (None, if is_me { until } else { until.min(self.silent_at(moving.to)) })
    }

    /// Who of the offered may have the lane now. A broker that leaves hands all its lanes over at once; else each broker
    /// has one move at a time.
    fn accept(
        &self,
        offer: &Offer,
        watch: &LaneWatch,
        (now, state): (Monotonic, &State),
        busy: &mut BTreeSet<BrokerId>,
    ) -> Option<BrokerId> {
        let is_over = |at: Monotonic, wait: Nanos| now >= at + wait;
        let wait = if offer.is_leaving { MOVE_AGAIN.0 } else { MOVE_AGAIN.1 };
        if is_over(offer.at, OFFER_HOLDS)
            || watch.taken_back_at.is_some_and(|at| !is_over(at, wait))
        {
            return None;
        }
        let may_lead = |to: &&BrokerId| {
            **to != offer.from && self.could_lead(**to, now) && !self.is_unwanted(**to, now, state)
        };
        let to = *offer.to.iter().find(may_lead)?;
        if offer.is_leaving {
            return Some(to);
        }
        if busy.contains(&offer.from) || busy.contains(&to) {
            return None;
        }
        busy.extend([offer.from, to]);
        Some(to)
    }

    fn look_at_fence(
        &self,
        lane: &LaneRecord,
        watch: &mut LaneWatch,
        (now, state): (Monotonic, &State),
    ) -> (Option<Command>, Monotonic) {
        let never = Monotonic(u64::MAX);
        // One of a later epoch is of a change that is not applied here yet.
        let Some(fence) = watch.fence.as_mut().filter(|fence| fence.epoch() >= lane.epoch) else {
            return (None, never);
        };
        let could_lead = |broker| self.could_lead(broker, now);
        let is_unwanted = |broker| self.is_unwanted(broker, now, state);
        if let Some(command) = fence.decide(lane, now, could_lead, is_unwanted) {
            return (Some(command), now);
        }
        // The preferred one may fall silent before its time is over.
        let waits_until = fence.waits_until().map_or(never, |until| {
            until.min(match lane.favored() == self.config.me {
                true => never,
                false => self.silent_at(lane.favored()),
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

/// Those that hand a lane over, or get one.
fn brokers_with_a_move(state: &State) -> BTreeSet<BrokerId> {
    let ends = |lane: &LaneRecord| lane.moving.map(|moving| [lane.leader_id(), Some(moving.to)]);
    state.lanes().iter().filter_map(ends).flatten().flatten().collect()
}

fn enter_next(lane: &LaneRecord) -> Command {
    Command::LaneEnter { lane: lane.id, epoch: lane.epoch.next() }
}

#[cfg(test)]
mod tests;
