//! Who leads a lane, and who has replicas of it: rules 5 to 7 of `model/README.md`. What a command says was
//! decided by who proposed it; here is decided whether it still holds when its turn comes.

use std::sync::Arc;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId, TopicId};
use corelog_protocol::message::{LANES_MAX, Obstacle};

use super::{Outcome, State};
use crate::metadata::boot::directory;
use crate::metadata::lane::{LaneLeader, LaneMoving, LaneRecord, LaneReplica, is_set};
use crate::replica::Position;

impl State {
    pub(super) fn boot(&mut self, lanes: &[Arc<[LaneReplica]>]) -> Outcome {
        if !self.lanes.is_empty() {
            return Outcome::Invalid;
        }
        match self.add_lanes(LaneId(1), lanes) {
            Outcome::Noted => Outcome::Done(TopicId(0)),
            refused => refused,
        }
    }

    pub(super) fn add_lanes(&mut self, first: LaneId, lanes: &[Arc<[LaneReplica]>]) -> Outcome {
        let are_sets = lanes.iter().all(|set| is_set(set) && self.are_placed(set));
        let before = self.lanes.len();
        if self.lane(first).is_some() {
            return Outcome::Obstructed(Obstacle::LaneExists { lane: first });
        }
        if first.0 as usize != before + 1 || lanes.is_empty() || !are_sets {
            return Outcome::Invalid;
        }
        if before + lanes.len() > LANES_MAX {
            return Outcome::LimitReached;
        }
        let record =
            |(set, id): (&Arc<[LaneReplica]>, u32)| LaneRecord::new(LaneId(id), Arc::clone(set));
        Arc::make_mut(&mut self.lanes).extend(lanes.iter().zip(first.0..).map(record));
        self.counts.resize(self.lanes.len(), 0);
        Outcome::Noted
    }

    /// On registered brokers and disks that they have. A broker alone is not registered, and its lanes
    /// are on one broker.
    pub(super) fn are_placed(&self, replicas: &[LaneReplica]) -> bool {
        if self.brokers.is_empty() {
            return replicas.len() == 1;
        }
        replicas.iter().all(|replica| {
            self.broker(replica.broker)
                .is_some_and(|broker| replica.directory.0 < broker.directories)
        })
    }

    /// A replicated lane. One with a single replica has its leader for ever.
    fn replicated(&self, id: LaneId) -> Option<&LaneRecord> {
        self.lane(id).filter(|lane| lane.is_replicated())
    }

    fn change(&mut self, id: LaneId, change: impl FnOnce(&mut LaneRecord)) -> Outcome {
        change(&mut Arc::make_mut(&mut self.lanes)[id.0 as usize - 1]);
        Outcome::Noted
    }

    /// Rule 5.
    pub(super) fn enter(&mut self, id: LaneId, epoch: Epoch) -> Outcome {
        match self.replicated(id) {
            Some(lane) if epoch > lane.epoch => self.change(id, |lane| {
                lane.epoch = epoch;
                lane.next = None;
                // Whom the last leader wanted is still wanted; if that led to nothing, no more.
                if lane.leader.take().is_none() {
                    lane.moving = None;
                }
            }),
            _ => Outcome::Invalid,
        }
    }

    /// A move begins if there is none, and is taken back if there is one.
    pub(super) fn move_lane(&mut self, id: LaneId, epoch: Epoch, to: Option<BrokerId>) -> Outcome {
        let number = self.version;
        match self.replicated(id) {
            Some(lane)
                if lane.epoch == epoch
                    && lane.leader.is_some()
                    && lane.moving.is_some() != to.is_some()
                    && lane.leader_id() != to
                    && to.is_none_or(|to| lane.replica(to).is_some()) =>
            {
                let moving = to.map(|to| LaneMoving { to, number, is_to_stay: false });
                self.change(id, |lane| {
                    lane.moving = moving;
                    lane.next = None;
                })
            }
            _ => Outcome::Invalid,
        }
    }

    /// What keeps this broker from leading the lane next, as far as the metadata tells.
    pub fn obstacle_to_transfer(&self, id: LaneId, to: BrokerId) -> Option<Obstacle> {
        let Some(lane) = self.lane(id) else { return Some(Obstacle::UnknownLane { lane: id }) };
        if !lane.is_replicated() {
            return Some(Obstacle::NotReplicated { lane: id });
        }
        if self.broker(to).is_none() {
            return Some(Obstacle::UnknownBroker { broker: to });
        }
        if lane.replica(to).is_none() {
            return Some(Obstacle::NoReplica { lane: id, broker: to });
        }
        if lane.leader.is_none() {
            return Some(Obstacle::NotLed { lane: id });
        }
        lane.moving.map(|_| Obstacle::Moving { lane: id })
    }

    /// A move that is to stay begins; or its target leads already, and is preferred from now on.
    pub(super) fn transfer_lane(&mut self, id: LaneId, epoch: Epoch, to: BrokerId) -> Outcome {
        if let Some(obstacle) = self.obstacle_to_transfer(id, to) {
            return Outcome::Obstructed(obstacle);
        }
        let number = self.version;
        match self.lane(id) {
            Some(lane) if lane.epoch == epoch && lane.leader_id() == Some(to) => {
                self.change(id, |lane| lane.prefer(to))
            }
            Some(lane) if lane.epoch == epoch => {
                let moving = LaneMoving { to, number, is_to_stay: true };
                self.change(id, |lane| lane.moving = Some(moving))
            }
            // Somebody else leads than when it was asked for.
            _ => Outcome::Obstructed(Obstacle::NotLed { lane: id }),
        }
    }

    /// Rule 5, if this move is still under way.
    pub(super) fn hand_over(&mut self, id: LaneId, epoch: Epoch, number: u64) -> Outcome {
        let is_it = |lane: &&LaneRecord| {
            let is_moving = lane.moving.is_some_and(|moving| moving.number == number);
            lane.epoch == epoch && lane.leader.is_some() && is_moving
        };
        match self.replicated(id).filter(is_it) {
            // Its leader is in both sets, and leads on if it can.
            Some(LaneRecord { next: Some(next), .. }) => {
                let next = Arc::clone(next);
                self.note_who_leaves(id, &next);
                self.change(id, |lane| {
                    lane.epoch = epoch.next();
                    lane.leader = None;
                    lane.next = None;
                    lane.before = Some(std::mem::replace(&mut lane.replicas, next));
                })
            }
            Some(_) => self.enter(id, epoch.next()),
            None => Outcome::Invalid,
        }
    }

    /// What keeps the lane from being on these brokers, as far as the metadata tells.
    pub fn obstacle_to_replace(&self, id: LaneId, brokers: &[BrokerId]) -> Option<Obstacle> {
        let Some(lane) = self.lane(id) else { return Some(Obstacle::UnknownLane { lane: id }) };
        if !lane.is_replicated() {
            return Some(Obstacle::NotReplicated { lane: id });
        }
        if let Some(broker) = brokers.iter().copied().find(|it| self.broker(*it).is_none()) {
            return Some(Obstacle::UnknownBroker { broker });
        }
        let is_twice = |at: usize| brokers[..at].contains(&brokers[at]);
        let count = lane.replicas.len();
        if brokers.len() != count || (0..count).any(is_twice) {
            return Some(Obstacle::BadReplicas { lane: id, count: count as u64 });
        }
        if brokers.iter().all(|it| lane.replica(*it).is_some()) {
            return Some(Obstacle::SameReplicas { lane: id });
        }
        let Some(leader) = lane.leader_id() else { return Some(Obstacle::NotLed { lane: id }) };
        if lane.before.is_some() {
            return Some(Obstacle::Changing { lane: id });
        }
        if lane.moving.is_some() {
            return Some(Obstacle::Moving { lane: id });
        }
        (!brokers.contains(&leader)).then_some(Obstacle::LeaderLeaves { lane: id, broker: leader })
    }

    fn note_who_leaves(&mut self, id: LaneId, next: &[LaneReplica]) {
        let Some(lane) = self.lane(id) else { return };
        let leaves = |it: &&LaneReplica| next.iter().all(|stays| stays.broker != it.broker);
        let leaving: Vec<LaneReplica> = lane.replicas.iter().filter(leaves).copied().collect();
        for replica in leaving {
            self.left.retain(|(lane, it)| *lane != id || it.broker != replica.broker);
            self.left.push((id, replica));
        }
    }

    /// The replicas of the lane on these brokers. Of each broker always on the same disk: one that was here before goes
    /// on from what it promised and has there.
    pub fn replicas_on(&self, id: LaneId, brokers: &[BrokerId]) -> Option<Arc<[LaneReplica]>> {
        let lane = self.lane(id)?;
        let place = |broker: &BrokerId| match lane.replica(*broker) {
            Some(replica) => Some(*replica),
            None => {
                let mut left = self.left.iter().filter(|(lane, _)| *lane == id);
                let directory = match left.find(|(_, it)| it.broker == *broker) {
                    Some((_, was)) => was.directory,
                    None => directory(self.broker(*broker)?, id.0 - 1),
                };
                Some(LaneReplica { broker: *broker, directory })
            }
        };
        brokers.iter().map(place).collect()
    }

    /// A move of the leader to itself, with other replicas, begins.
    pub(super) fn replace_replicas(
        &mut self,
        id: LaneId,
        epoch: Epoch,
        replicas: &Arc<[LaneReplica]>,
    ) -> Outcome {
        let brokers: Vec<BrokerId> = replicas.iter().map(|replica| replica.broker).collect();
        if let Some(obstacle) = self.obstacle_to_replace(id, &brokers) {
            return Outcome::Obstructed(obstacle);
        }
        if !self.are_placed(replicas) {
            return Outcome::Invalid;
        }
        let number = self.version;
        match self.lane(id).and_then(|lane| Some((lane.epoch, lane.leader_id()?))) {
            Some((present, to)) if present == epoch => self.change(id, |lane| {
                lane.moving = Some(LaneMoving { to, number, is_to_stay: false });
                lane.next = Some(Arc::clone(replicas));
            }),
            _ => Outcome::Obstructed(Obstacle::NotLed { lane: id }),
        }
    }

    /// Rule 6: what was found out of an epoch holds as long as it has no leader, and only there.
    pub(super) fn name_leader(
        &mut self,
        id: LaneId,
        epoch: Epoch,
        broker: BrokerId,
        position: Position,
    ) -> Outcome {
        match self.replicated(id) {
            Some(lane)
                if lane.epoch == epoch
                    && lane.leader.is_none()
                    && lane.replica(broker).is_some() =>
            {
                self.change(id, |lane| {
                    lane.leader = Some(LaneLeader { broker, position });
                    let moving = lane.moving.take();
                    if moving.is_some_and(|moving| moving.is_to_stay && moving.to == broker) {
                        lane.prefer(broker);
                    }
                })
            }
            _ => Outcome::Invalid,
        }
    }

    /// Rule 7.
    pub(super) fn settle(&mut self, id: LaneId, epoch: Epoch) -> Outcome {
        match self.replicated(id) {
            Some(lane) if lane.epoch == epoch && lane.leader.is_some() && lane.before.is_some() => {
                self.change(id, |lane| lane.before = None)
            }
            _ => Outcome::Invalid,
        }
    }

    /// Rule 5: a change of the set enters an epoch, and waits until the one before is settled.
    pub(super) fn change_replicas(
        &mut self,
        id: LaneId,
        epoch: Epoch,
        replicas: &Arc<[LaneReplica]>,
    ) -> Outcome {
        let is_set = is_set(replicas) && replicas.len() > 1 && self.are_placed(replicas);
        match self.replicated(id) {
            Some(lane) if epoch > lane.epoch && lane.before.is_none() && is_set => {
                self.note_who_leaves(id, replicas);
                self.change(id, |lane| {
                    lane.epoch = epoch;
                    lane.leader = None;
                    lane.moving = None;
                    lane.next = None;
                    let before = std::mem::replace(&mut lane.replicas, Arc::clone(replicas));
                    lane.before = Some(before);
                })
            }
            _ => Outcome::Invalid,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::metadata::boot::boot;
    use crate::metadata::state::brokers::tests::broker;
    use crate::metadata::{BrokerRecord, Command};
    use corelog_protocol::ids::Lsn;

    const LANE: LaneId = LaneId(1);

    fn set(brokers: &[u32]) -> Arc<[LaneReplica]> {
        let replica = |&id: &u32| LaneReplica { broker: BrokerId(id), directory: DirectoryId(0) };
        brokers.iter().map(replica).collect()
    }

    /// Brokers 1 to `count`, and a lane led by each: the first with a leader, the second of another set, the
    /// third as it began.
    pub fn cluster(count: u32) -> State {
        let mut state = State::default();
        for id in 1..=count {
            state.apply(&Command::BrokerRegister { record: broker(id) });
        }
        let brokers: Vec<&BrokerRecord> = state.brokers().collect();
        let boot = boot(&brokers, 1, 3);
        assert_eq!(state.apply(&boot), Outcome::Done(TopicId(0)));
        assert_eq!(state.apply(&lead(1, 3)), Outcome::Noted);
        let replicas = set(&[2, 3, 1]);
        let change = Command::LaneReplicas { lane: LaneId(2), epoch: Epoch(4), replicas };
        assert_eq!(state.apply(&change), Outcome::Noted);
        state
    }

    fn enter(epoch: u64) -> Command {
        Command::LaneEnter { lane: LANE, epoch: Epoch(epoch) }
    }

    fn lead(epoch: u64, broker: u32) -> Command {
        let position = Position { epoch: Epoch(epoch - 1), end: Lsn(epoch * 10) };
        let (epoch, broker) = (Epoch(epoch), BrokerId(broker));
        Command::LaneLeader { lane: LANE, epoch, broker, position }
    }

    fn settled(epoch: u64) -> Command {
        Command::LaneSettled { lane: LANE, epoch: Epoch(epoch) }
    }

    fn replicas(epoch: u64, brokers: &[u32]) -> Command {
        Command::LaneReplicas { lane: LANE, epoch: Epoch(epoch), replicas: set(brokers) }
    }

    /// Nothing but the version changes.
    fn assert_refused(state: &mut State, command: &Command) {
        assert_comes_to(state, command, Outcome::Invalid);
    }

    fn assert_comes_to(state: &mut State, command: &Command, outcome: Outcome) {
        let before = state.clone();
        assert_eq!(state.apply(command), outcome, "{command:?}");
        assert_eq!(state.version(), before.version() + 1);
        state.version = before.version;
        assert_eq!(*state, before, "{command:?}");
    }

    fn lane(state: &State) -> (u64, Option<u32>) {
        let lane = state.lane(LANE).unwrap();
        (lane.epoch.0, lane.leader_id().map(|id| id.0))
    }

    #[test]
    fn an_epoch_is_entered_if_it_is_above_the_present_one_and_has_no_leader_then() {
        let mut state = cluster(3);
        assert_eq!(lane(&state), (1, Some(3)));
        assert_refused(&mut state, &enter(0));
        assert_refused(&mut state, &enter(1));
        assert_eq!(state.apply(&enter(2)), Outcome::Noted);
        assert_eq!(lane(&state), (2, None));
        assert_eq!(state.apply(&enter(9)), Outcome::Noted, "epochs may be passed over");
        assert_eq!(lane(&state), (9, None));
        assert_refused(&mut state, &enter(3));
        assert_refused(&mut state, &Command::LaneEnter { lane: LaneId(0), epoch: Epoch(50) });
        assert_refused(&mut state, &Command::LaneEnter { lane: LaneId(4), epoch: Epoch(50) });
    }

    #[test]
    fn a_leader_is_named_once_in_exactly_the_epoch_for_which_it_was_chosen() {
        let mut state = cluster(3);
        state.apply(&enter(5));
        for command in [lead(4, 1), lead(6, 1), lead(5, 4), lead(5, 0)] {
            assert_refused(&mut state, &command);
        }
        assert_eq!(state.apply(&lead(5, 2)), Outcome::Noted);
        let leader = state.lane(LANE).unwrap().leader.unwrap();
        assert_eq!(leader.position, Position { epoch: Epoch(4), end: Lsn(50) });
        assert_refused(&mut state, &lead(5, 2));
        assert_refused(&mut state, &lead(5, 1));
        assert_eq!(lane(&state), (5, Some(2)));
    }

    #[test]
    fn a_change_of_the_set_enters_an_epoch_and_the_old_set_counts_until_settled() {
        let mut state = cluster(4);
        for command in [
            replicas(1, &[2, 3, 4]),
            replicas(2, &[2, 3, 5]),
            replicas(2, &[2, 3, 3]),
            replicas(2, &[2]),
            replicas(2, &[]),
            settled(1),
        ] {
            assert_refused(&mut state, &command);
        }
        let old = Arc::clone(&state.lane(LANE).unwrap().replicas);
        assert_eq!(state.apply(&replicas(2, &[2, 3, 4])), Outcome::Noted);
        let record = state.lane(LANE).unwrap();
        assert_eq!((&record.replicas, &record.before), (&set(&[2, 3, 4]), &Some(Arc::clone(&old))));
        assert_eq!(lane(&state), (2, None));
        // A broker that left leads no more, and a second change waits for the first.
        assert_refused(&mut state, &lead(2, 1));
        assert_refused(&mut state, &replicas(3, &[1, 2, 3]));
        assert_refused(&mut state, &settled(2));
        // Another epoch changes nothing about that.
        assert_eq!(state.apply(&enter(3)), Outcome::Noted);
        assert_eq!(state.lane(LANE).unwrap().before, Some(old));
        assert_eq!(state.apply(&lead(3, 4)), Outcome::Noted);
        assert_refused(&mut state, &settled(2));
        assert_refused(&mut state, &replicas(4, &[1, 2, 3]));
        assert_eq!(state.apply(&settled(3)), Outcome::Noted);
        assert_refused(&mut state, &settled(3));
        assert_eq!(lane(&state), (3, Some(4)));
        assert_eq!(state.apply(&replicas(4, &[1, 2, 3])), Outcome::Noted);
    }

    #[test]
    fn a_move_is_of_one_epoch_and_goes_on_only_if_it_was_not_taken_back() {
        let moving = |epoch, to: Option<u32>| Command::LaneMove {
            lane: LANE,
            epoch: Epoch(epoch),
            to: to.map(BrokerId),
        };
        let over =
            |epoch, number| Command::LaneHandOver { lane: LANE, epoch: Epoch(epoch), number };
        let number = |state: &State| state.lane(LANE).unwrap().moving.map(|it| it.number);
        let mut state = cluster(3);
        for command in [
            moving(0, Some(1)),
            moving(1, Some(3)),
            moving(1, Some(4)),
            moving(1, None),
            over(1, 0),
        ] {
            assert_refused(&mut state, &command);
        }
        assert_eq!(state.apply(&moving(1, Some(2))), Outcome::Noted);
        let first = number(&state).expect("it moves");
        assert_refused(&mut state, &moving(1, Some(1)));
        assert_eq!(state.apply(&moving(1, None)), Outcome::Noted);
        assert_refused(&mut state, &over(1, first));
        assert_eq!(state.apply(&moving(1, Some(1))), Outcome::Noted);
        let second = number(&state).expect("it moves again");
        assert_refused(&mut state, &over(1, first));
        assert_refused(&mut state, &over(2, second));
        assert_eq!(state.apply(&over(1, second)), Outcome::Noted);
        // Its target is favored until a leader is named, or nobody could be.
        let record = state.lane(LANE).unwrap();
        assert_eq!((lane(&state), record.favored()), ((2, None), BrokerId(1)));
        assert_refused(&mut state, &moving(2, Some(2)));
        let mut again = state.clone();
        assert_eq!(again.apply(&enter(3)), Outcome::Noted);
        assert_eq!(number(&again), None);
        assert_eq!(state.apply(&lead(2, 1)), Outcome::Noted);
        assert_eq!((lane(&state), number(&state)), ((2, Some(1)), None));
    }

    #[test]
    fn a_transfer_that_comes_about_makes_its_target_the_preferred_leader() {
        let transfer = |lane, epoch, to| Command::LaneTransfer {
            lane: LaneId(lane),
            epoch: Epoch(epoch),
            to: BrokerId(to),
        };
        let mut state = cluster(4);
        let preferred = |state: &State| state.lane(LANE).unwrap().preferred().0;
        let order = |state: &State| -> Vec<u32> {
            state.lane(LANE).unwrap().replicas.iter().map(|replica| replica.broker.0).collect()
        };
        assert_eq!((lane(&state), order(&state)), ((1, Some(3)), vec![1, 2, 3]));
        let (lane_7, lane_2) = (LaneId(7), LaneId(2));
        for (command, obstacle) in [
            (transfer(7, 1, 2), Obstacle::UnknownLane { lane: lane_7 }),
            (transfer(2, 4, 2), Obstacle::NotLed { lane: lane_2 }),
            (transfer(1, 1, 5), Obstacle::UnknownBroker { broker: BrokerId(5) }),
            (transfer(1, 1, 4), Obstacle::NoReplica { lane: LANE, broker: BrokerId(4) }),
            (transfer(1, 2, 2), Obstacle::NotLed { lane: LANE }),
        ] {
            assert_comes_to(&mut state, &command, Outcome::Obstructed(obstacle));
        }
        // Who leads already is preferred at once.
        assert_eq!(state.apply(&transfer(1, 1, 3)), Outcome::Noted);
        assert_eq!((lane(&state), order(&state)), ((1, Some(3)), vec![3, 1, 2]));
        assert_eq!(state.apply(&transfer(1, 1, 2)), Outcome::Noted);
        let moving = Outcome::Obstructed(Obstacle::Moving { lane: LANE });
        assert_comes_to(&mut state, &transfer(1, 1, 1), moving);
        assert_eq!(State::from_image(&state.image()).as_ref(), Ok(&state));
        // Taken back, nothing of it stays.
        let mut other = state.clone();
        other.apply(&Command::LaneMove { lane: LANE, epoch: Epoch(1), to: None });
        assert_eq!((preferred(&other), other.lane(LANE).unwrap().moving), (3, None));
        // Nor if somebody else is named in the end.
        other = state.clone();
        other.apply(&enter(2));
        other.apply(&lead(2, 1));
        assert_eq!((preferred(&other), lane(&other)), (3, (2, Some(1))));
        let number = state.lane(LANE).unwrap().moving.unwrap().number;
        state.apply(&Command::LaneHandOver { lane: LANE, epoch: Epoch(1), number });
        assert_eq!(preferred(&state), 3);
        state.apply(&lead(2, 2));
        assert_eq!((lane(&state), order(&state)), ((2, Some(2)), vec![2, 3, 1]));
        assert_eq!(State::from_image(&state.image()), Ok(state));
    }

    #[test]
    fn other_replicas_come_by_a_move_of_the_leader_to_itself() {
        let mut state = cluster(4);
        assert_eq!(lane(&state), (1, Some(3)));
        let replace = |epoch, brokers: &[u32]| Command::LaneReplace {
            lane: LANE,
            epoch: Epoch(epoch),
            replicas: set(brokers),
        };
        let broker = BrokerId(3);
        for (command, obstacle) in [
            (replace(1, &[3, 4]), Obstacle::BadReplicas { lane: LANE, count: 3 }),
            (replace(1, &[3, 2, 1]), Obstacle::SameReplicas { lane: LANE }),
            (replace(1, &[1, 2, 4]), Obstacle::LeaderLeaves { lane: LANE, broker }),
            (replace(1, &[3, 2, 9]), Obstacle::UnknownBroker { broker: BrokerId(9) }),
            (replace(2, &[3, 2, 4]), Obstacle::NotLed { lane: LANE }),
        ] {
            assert_comes_to(&mut state, &command, Outcome::Obstructed(obstacle));
        }
        let old = Arc::clone(&state.lane(LANE).unwrap().replicas);
        assert_eq!(state.apply(&replace(1, &[3, 2, 4])), Outcome::Noted);
        let record = state.lane(LANE).unwrap();
        assert_eq!((&record.replicas, &record.next), (&old, &Some(set(&[3, 2, 4]))));
        assert_eq!(State::from_image(&state.image()).as_ref(), Ok(&state));
        let moving = record.moving.expect("from the leader to itself");
        assert_eq!(moving.to, broker);
        // Whoever is to come is needed, also if it has nothing yet.
        let id = BrokerId(4);
        let needed = Outcome::Obstructed(Obstacle::HasReplicas { lane: LANE, broker: id });
        assert_comes_to(&mut state, &Command::BrokerRemove { id }, needed);
        // Taken back, or passed over by an epoch without it, nothing of it stays.
        for command in [Command::LaneMove { lane: LANE, epoch: Epoch(1), to: None }, enter(2)] {
            let mut other = state.clone();
            assert_eq!(other.apply(&command), Outcome::Noted);
            let record = other.lane(LANE).unwrap();
            assert_eq!((&record.replicas, &record.next, &record.before), (&old, &None, &None));
            assert_eq!(State::from_image(&other.image()), Ok(other));
        }
        let (epoch, number) = (Epoch(1), moving.number);
        assert_eq!(
            state.apply(&Command::LaneHandOver { lane: LANE, epoch, number }),
            Outcome::Noted
        );
        let record = state.lane(LANE).unwrap();
        assert_eq!((&record.replicas, &record.before), (&set(&[3, 2, 4]), &Some(old)));
        assert_eq!((lane(&state), record.favored(), &record.next), ((2, None), broker, &None));
        assert_eq!(State::from_image(&state.image()).as_ref(), Ok(&state));
        assert_refused(&mut state, &lead(2, 1));
        state.apply(&lead(2, 3));
        let changing = Outcome::Obstructed(Obstacle::Changing { lane: LANE });
        assert_comes_to(&mut state, &replace(2, &[3, 2, 1]), changing);
        state.apply(&settled(2));
        assert_eq!(state.apply(&replace(2, &[3, 2, 1])), Outcome::Noted);
    }

    #[test]
    fn a_replica_that_comes_back_is_on_the_disk_on_which_it_was() {
        let mut state = cluster(4);
        let on = |state: &State, brokers: &[u32]| -> Vec<(u32, u16)> {
            let brokers: Vec<BrokerId> = brokers.iter().copied().map(BrokerId).collect();
            let set = state.replicas_on(LANE, &brokers).expect("all are known");
            set.iter().map(|it| (it.broker.0, it.directory.0)).collect()
        };
        let is_new = on(&state, &[3, 2, 4]);
        // On the other of its two disks than a new one would be.
        let other = DirectoryId(1 - is_new[2].1);
        let fourth = LaneReplica { broker: BrokerId(4), directory: other };
        let mut with = set(&[3, 2, 4]).to_vec();
        with[2] = fourth;
        let change = |epoch, replicas: Arc<[LaneReplica]>| Command::LaneReplicas {
            lane: LANE,
            epoch: Epoch(epoch),
            replicas,
        };
        state.apply(&change(2, with.into()));
        state.apply(&lead(2, 3));
        state.apply(&settled(2));
        assert_eq!(state.apply(&change(3, set(&[3, 2, 1]))), Outcome::Noted);
        let read = State::from_image(&state.image()).expect("as it was written");
        assert_eq!(read, state);
        assert_eq!(on(&read, &[3, 2, 4])[2], (4, other.0));
    }

    #[test]
    fn a_broker_that_drains_is_known_to_until_it_goes_or_need_not_any_more() {
        let drain = |id, is_draining| Command::BrokerDrain { id: BrokerId(id), is_draining };
        let mut state = cluster(4);
        let unknown = Obstacle::UnknownBroker { broker: BrokerId(5) };
        assert_comes_to(&mut state, &drain(5, true), Outcome::Obstructed(unknown));
        for (command, is_draining) in
            [(drain(4, true), true), (drain(4, true), true), (drain(4, false), false)]
        {
            assert_eq!(state.apply(&command), Outcome::Noted);
            assert_eq!(state.is_draining(BrokerId(4)), is_draining);
        }
        state.apply(&drain(4, true));
        let read = State::from_image(&state.image());
        assert_eq!(read.as_ref(), Ok(&state));
        let boot = BrokerId(4);
        state.apply(&Command::BrokerRemove { id: boot });
        assert_eq!(state.is_draining(boot), state.broker(boot).is_some());
    }

    #[test]
    fn a_lane_with_one_replica_is_led_from_the_start_and_never_changes() {
        let mut state = State::default();
        assert_eq!(
            state.apply(&Command::Boot { lanes: vec![set(&[1])] }),
            Outcome::Done(TopicId(0))
        );
        assert_eq!(lane(&state), (0, Some(1)));
        for id in 1..=3 {
            state.apply(&Command::BrokerRegister { record: broker(id) });
        }
        for command in [enter(1), lead(1, 1), replicas(1, &[1, 2, 3]), settled(0)] {
            assert_refused(&mut state, &command);
        }
    }

    #[test]
    fn a_boot_places_replicas_on_brokers_and_disks_that_there_are() {
        let mut state = State::default();
        let boot = |sets: &[&[u32]]| Command::Boot {
            lanes: sets.iter().map(|brokers| set(brokers)).collect(),
        };
        assert_refused(&mut state, &boot(&[]));
        assert_refused(&mut state, &boot(&[&[1, 2, 3]]));
        for id in 1..=3 {
            state.apply(&Command::BrokerRegister { record: broker(id) });
        }
        for sets in [&[&[1, 2, 4][..]][..], &[&[4]], &[&[]], &[&[1, 2, 3], &[1, 1, 2]]] {
            assert_refused(&mut state, &boot(sets));
        }
        let no_disk = LaneReplica { broker: BrokerId(1), directory: DirectoryId(2) };
        assert_refused(&mut state, &Command::Boot { lanes: vec![[no_disk].into()] });
        assert_eq!(state.apply(&boot(&[&[1, 2, 3], &[3]])), Outcome::Done(TopicId(0)));
        assert_eq!(lane(&state), (1, None));
        assert_refused(&mut state, &boot(&[&[1, 2, 3]]));
    }

    #[test]
    fn more_lanes_follow_the_last_one_once() {
        let mut state = cluster(3);
        let had = state.lanes().len() as u32;
        let add = |first, sets: &[&[u32]]| Command::LanesAdd {
            first: LaneId(first),
            lanes: sets.iter().map(|brokers| set(brokers)).collect(),
        };
        for bad in [add(had + 2, &[&[1, 2, 3]]), add(had + 1, &[]), add(had + 1, &[&[1, 2, 99]])] {
            assert_refused(&mut state, &bad);
        }
        let twice = add(had + 1, &[&[3, 1, 2], &[2, 3, 1]]);
        assert_eq!(state.apply(&twice), Outcome::Noted);
        let is_there = Obstacle::LaneExists { lane: LaneId(had + 1) };
        assert_eq!(state.apply(&twice), Outcome::Obstructed(is_there));
        let new = state.lane(LaneId(had + 2)).expect("made");
        assert_eq!((new.epoch, new.leader_id(), new.preferred()), (Epoch(1), None, BrokerId(2)));
        assert_eq!(State::from_image(&state.image()).as_ref(), Ok(&state));
    }
}
