//! Planned changes of the cluster: whether they can be done, and the command that does them. Asked of the leader of the
//! metadata, who hears which brokers are there and how far the replicas are.
//!
//! What is found here may not hold any more when the command is applied: then that finds out again what it needs for
//! safety, and what it cannot know (a target that dies) takes the operation back by itself.

use corelog_protocol::ids::{BrokerId, LaneId};
use corelog_protocol::message::{LANES_MAX, Obstacle, Operation};

use super::broker::BrokerRecord;
use super::command::Command;
use super::consensus::Members;
use super::failover::Failover;
use super::growth;
use super::membership;
use super::state::State;
use crate::time::Monotonic;

/// What the leader of the metadata knows beside the state.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    pub failover: &'a Failover,
    pub now: Monotonic,
    /// Of its group.
    pub members: &'a Members,
}

/// The command that does it now, or what is in the way. `heard`: none for a broker alone.
pub(super) fn command(
    operation: &Operation,
    state: &State,
    heard: Option<Heard<'_>>,
) -> Result<Command, Obstacle> {
    let Some(Heard { failover, now, members }) = heard else { return Err(Obstacle::Alone) };
    match operation {
        Operation::Transfer { lane, to } => transfer(state, (*lane, *to), failover, now),
        Operation::Replace { lane, replicas } => replace(state, (*lane, replicas), failover, now),
        Operation::Drain { broker } => drain(state, *broker, failover, now),
        &Operation::Undrain { broker } => match state.broker(broker) {
            Some(_) => Ok(Command::BrokerDrain { id: broker, is_draining: false }),
            None => Err(Obstacle::UnknownBroker { broker }),
        },
        &Operation::Remove { broker } => remove(state, broker, members, (failover, now)),
        &Operation::AddLanes { broker, up_to } => {
            add_lanes(state, (broker, up_to), |id| failover.is_alive(id, now))
        }
    }
}

/// Only on brokers that are there and lead what they are given: a new lane needs a quorum at once.
fn add_lanes(
    state: &State,
    (broker, up_to): (BrokerId, LaneId),
    is_alive: impl Fn(BrokerId) -> bool,
) -> Result<Command, Obstacle> {
    let Some(leader) = state.broker(broker) else {
        return Err(Obstacle::UnknownBroker { broker });
    };
    if state.is_draining(broker) {
        return Err(Obstacle::Draining { broker });
    }
    if !is_alive(broker) {
        return Err(Obstacle::Silent { broker });
    }
    let last = state.lanes().len();
    if up_to.0 as usize <= last {
        return Err(Obstacle::LaneExists { lane: up_to });
    }
    if up_to.0 as usize > LANES_MAX {
        return Err(Obstacle::TooManyLanes { lane: up_to });
    }
    let others: Vec<&BrokerRecord> = state
        .brokers()
        .filter(|it| it.id != broker && is_alive(it.id) && !state.is_draining(it.id))
        .collect();
    let lanes = growth::sets(state, leader, &others, up_to).ok_or_else(|| {
        let count = growth::replicas(state) as u64;
        Obstacle::BadReplicas { lane: up_to, count }
    })?;
    Ok(Command::LanesAdd { first: LaneId(last as u32 + 1), lanes })
}

/// It has nothing, so nothing is lost with it; but what is left must be able to go on.
fn remove(
    state: &State,
    broker: BrokerId,
    members: &Members,
    (failover, now): (&Failover, Monotonic),
) -> Result<Command, Obstacle> {
    if let Some(obstacle) = state.obstacle_to_remove(broker) {
        return Err(obstacle);
    }
    let is_alive = |id: BrokerId| failover.is_alive(id, now);
    if !state.brokers().any(|other| other.id != broker && is_alive(other.id)) {
        return Err(Obstacle::NoOtherBroker { broker });
    }
    if !membership::can_decide_without(broker, members, state, is_alive) {
        return Err(Obstacle::NoQuorumWithout { broker });
    }
    Ok(Command::BrokerRemove { id: broker })
}

pub(super) fn transfer(
    state: &State,
    (lane, to): (LaneId, BrokerId),
    failover: &Failover,
    now: Monotonic,
) -> Result<Command, Obstacle> {
    if let Some(obstacle) = state.obstacle_to_transfer(lane, to) {
        return Err(obstacle);
    }
    if state.is_draining(to) {
        return Err(Obstacle::Draining { broker: to });
    }
    if !failover.is_alive(to, now) {
        return Err(Obstacle::Silent { broker: to });
    }
    let not_led = Obstacle::NotLed { lane };
    let record = state.lane(lane).ok_or(not_led)?;
    // The lane takes no batches while it moves, so it begins only if it can be over soon.
    if record.leader_id() != Some(to) {
        let progress = failover.progress(record, now).ok_or(not_led)?;
        let follower = progress.follower(to).ok_or(not_led)?;
        if !follower.is_caught_up {
            let entries = progress.behind(follower);
            return Err(Obstacle::Behind { lane, broker: to, entries });
        }
    }
    Ok(Command::LaneTransfer { lane, epoch: record.epoch, to })
}

/// The lane must go on: so its leader stays, and a quorum of the new replicas has everything already. Whoever is new must
/// be there, or it would not be known when this is over.
fn replace(
    state: &State,
    (lane, brokers): (LaneId, &[BrokerId]),
    failover: &Failover,
    now: Monotonic,
) -> Result<Command, Obstacle> {
    if let Some(obstacle) = state.obstacle_to_replace(lane, brokers) {
        return Err(obstacle);
    }
    let not_led = Obstacle::NotLed { lane };
    let record = state.lane(lane).ok_or(not_led)?;
    let is_new = |id: &&BrokerId| record.replica(**id).is_none();
    if let Some(broker) = brokers.iter().filter(is_new).find(|id| !failover.is_alive(**id, now)) {
        return Err(Obstacle::Silent { broker: *broker });
    }
    let quorum = brokers.len() / 2 + 1;
    let stays: Vec<BrokerId> =
        brokers.iter().copied().filter(|id| record.replica(*id).is_some()).collect();
    if stays.len() < quorum {
        return Err(Obstacle::TooFewStay { lane });
    }
    let progress = failover.progress(record, now).ok_or(not_led)?;
    let in_the_way = |broker: BrokerId| match progress.follower(broker) {
        _ if record.leader_id() == Some(broker) => None,
        _ if !failover.is_alive(broker, now) => Some(Obstacle::Silent { broker }),
        Some(follower) if follower.is_caught_up => None,
        Some(follower) => {
            let entries = progress.behind(follower);
            Some(Obstacle::Behind { lane, broker, entries })
        }
        None => Some(not_led),
    };
    let obstacles: Vec<Obstacle> = stays.iter().filter_map(|id| in_the_way(*id)).collect();
    if stays.len() - obstacles.len() < quorum
        && let Some(obstacle) = obstacles.first()
    {
        return Err(*obstacle);
    }
    let replicas = state.replicas_on(lane, brokers).ok_or(not_led)?;
    Ok(Command::LaneReplace { lane, epoch: record.epoch, replicas })
}

/// Each of its lanes must have another replica that could lead, or it would never be done.
fn drain(
    state: &State,
    broker: BrokerId,
    failover: &Failover,
    now: Monotonic,
) -> Result<Command, Obstacle> {
    if state.broker(broker).is_none() {
        return Err(Obstacle::UnknownBroker { broker });
    }
    let could_lead = |other: BrokerId| {
        other != broker && !state.is_draining(other) && failover.is_alive(other, now)
    };
    let is_of_it = |lane: &&super::LaneRecord| lane.replica(broker).is_some();
    for lane in state.lanes().iter().filter(is_of_it) {
        if !lane.replicas.iter().any(|replica| could_lead(replica.broker)) {
            return Err(Obstacle::NoOtherLeader { lane: lane.id, broker });
        }
    }
    Ok(Command::BrokerDrain { id: broker, is_draining: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::metadata::consensus::ReplicaId;
    use crate::metadata::failover::FailoverConfig;
    use crate::metadata::{BrokerRecord, LaneReplica};
    use crate::replica::{FollowerProgress, LaneProgress, Position};
    use crate::time::Nanos;
    use corelog_protocol::ids::{Epoch, Lsn};

    const LANE: LaneId = LaneId(1);
    const NOW: Monotonic = Monotonic(10_000_000_000);

    /// Three brokers with two lanes, the first led by 3 in epoch 1.
    fn state() -> State {
        let mut state = State::default();
        for id in 1..=3 {
            let record = BrokerRecord::of_a_test(BrokerId(id), 1);
            state.apply(&Command::BrokerRegister { record });
        }
        let replica = |id| LaneReplica { broker: BrokerId(id), directory: DirectoryId(0) };
        let set = || [replica(1), replica(2), replica(3)].into();
        state.apply(&Command::Boot { lanes: vec![set(), set()] });
        let (epoch, broker, position) = (Epoch(1), BrokerId(3), Position::default());
        state.apply(&Command::LaneLeader { lane: LANE, epoch, broker, position });
        state
    }

    /// All of them were heard just now; nothing was said of the lanes.
    fn world() -> (State, Failover) {
        let config = FailoverConfig { me: BrokerId(1), detect: Nanos::from_millis(500) };
        let mut failover = Failover::new(config);
        failover.reset(NOW, None);
        let state = state();
        assert_eq!(failover.tick(NOW, &state), []);
        (state, failover)
    }

    fn say(failover: &mut Failover, epoch: u64, followers: &[(u32, u64, bool)]) {
        let followers = followers
            .iter()
            .map(|&(broker, durable, is_caught_up)| FollowerProgress {
                broker: BrokerId(broker),
                durable: Lsn(durable),
                is_caught_up,
            })
            .collect();
        let progress = LaneProgress { lane: LANE, epoch: Epoch(epoch), end: Lsn(100), followers };
        failover.on_progress(BrokerId(3), progress, NOW);
    }

    fn ask(state: &State, failover: &Failover, operation: &Operation) -> Result<Command, Obstacle> {
        command_at(state, failover, operation, NOW)
    }

    fn transfer_to(to: u32) -> Operation {
        Operation::Transfer { lane: LANE, to: BrokerId(to) }
    }

    #[test]
    fn a_lane_goes_only_to_who_is_there_keeps_up_and_may_lead() {
        let (mut state, mut failover) = world();
        let (lane, broker) = (LANE, BrokerId(2));
        let begun = Ok(Command::LaneTransfer { lane, epoch: Epoch(1), to: broker });
        assert_eq!(command(&transfer_to(2), &state, None), Err(Obstacle::Alone));
        let not_led = Err(Obstacle::NotLed { lane });
        assert_eq!(ask(&state, &failover, &transfer_to(2)), not_led, "nothing is known of it");
        say(&mut failover, 0, &[(1, 100, true), (2, 100, true)]);
        assert_eq!(ask(&state, &failover, &transfer_to(2)), not_led, "of an epoch that is over");
        say(&mut failover, 1, &[(1, 100, true), (2, 60, false)]);
        let behind = Err(Obstacle::Behind { lane, broker, entries: 40 });
        assert_eq!(ask(&state, &failover, &transfer_to(2)), behind);
        say(&mut failover, 1, &[(1, 100, true), (2, 95, true)]);
        assert_eq!(ask(&state, &failover, &transfer_to(2)), begun);
        let later = NOW + Nanos::from_secs(1);
        let silent = command_at(&state, &failover, &transfer_to(2), later);
        assert_eq!(silent, Err(Obstacle::Silent { broker }));
        failover.on_heard(broker, later + Nanos::from_secs(5));
        let old = command_at(&state, &failover, &transfer_to(2), later + Nanos::from_secs(5));
        assert_eq!(old, not_led, "its leader has told nothing for long");
        state.apply(&Command::BrokerDrain { id: broker, is_draining: true });
        assert_eq!(ask(&state, &failover, &transfer_to(2)), Err(Obstacle::Draining { broker }));
        // Who leads already needs no word of its followers.
        let (_, failover) = world();
        assert!(ask(&state, &failover, &transfer_to(3)).is_ok());
    }

    #[test]
    fn a_lane_goes_on_with_those_that_stay_while_others_come() {
        let (mut state, mut failover) = world();
        for id in [4, 5] {
            let known = state.broker(BrokerId(1)).unwrap().clone();
            let record = BrokerRecord { id: BrokerId(id), ..known };
            state.apply(&Command::BrokerRegister { record });
        }
        let replace =
            |ids: [u32; 3]| Operation::Replace { lane: LANE, replicas: ids.map(BrokerId).to_vec() };
        say(&mut failover, 1, &[(1, 100, true), (2, 40, false)]);
        // The third that stays need not keep up.
        let command = ask(&state, &failover, &replace([3, 1, 4]));
        assert!(matches!(command, Ok(Command::LaneReplace { .. })), "{command:?}");
        let (lane, broker) = (LANE, BrokerId(2));
        let behind = Err(Obstacle::Behind { lane, broker, entries: 60 });
        assert_eq!(ask(&state, &failover, &replace([3, 2, 4])), behind);
        let too_few = Err(Obstacle::TooFewStay { lane });
        assert_eq!(ask(&state, &failover, &replace([3, 4, 5])), too_few);
        let leader = Err(Obstacle::LeaderLeaves { lane, broker: BrokerId(3) });
        assert_eq!(ask(&state, &failover, &replace([1, 2, 4])), leader);
        let later = NOW + Nanos::from_secs(1);
        let silent = command_at(&state, &failover, &replace([3, 1, 4]), later);
        assert_eq!(silent, Err(Obstacle::Silent { broker: BrokerId(4) }));
    }

    fn command_at(
        state: &State,
        failover: &Failover,
        operation: &Operation,
        at: Monotonic,
    ) -> Result<Command, Obstacle> {
        let members = Members::of_voters(&[1, 2, 3].map(ReplicaId));
        let heard = Heard { failover, now: at, members: &members };
        command(operation, state, Some(heard))
    }

    #[test]
    fn the_last_broker_that_could_lead_a_lane_is_not_drained() {
        let (mut state, mut failover) = world();
        let drain = |id| Operation::Drain { broker: BrokerId(id) };
        for id in [1, 2] {
            let command = ask(&state, &failover, &drain(id)).expect("another one could lead");
            state.apply(&command);
        }
        let last = Obstacle::NoOtherLeader { lane: LANE, broker: BrokerId(3) };
        assert_eq!(ask(&state, &failover, &drain(3)), Err(last));
        assert!(ask(&state, &failover, &drain(2)).is_ok(), "as it is already");
        state.apply(&Command::BrokerDrain { id: BrokerId(2), is_draining: false });
        assert!(ask(&state, &failover, &drain(3)).is_ok());
        // It is there, but not heard.
        let later = NOW + Nanos::from_secs(1);
        failover.on_heard(BrokerId(3), later);
        assert_eq!(command_at(&state, &failover, &drain(3), later), Err(last));
        let nobody = Err(Obstacle::UnknownBroker { broker: BrokerId(9) });
        assert_eq!(ask(&state, &failover, &drain(9)), nobody);
        assert_eq!(ask(&state, &failover, &Operation::Undrain { broker: BrokerId(9) }), nobody);
    }

    #[test]
    fn lanes_are_added_on_brokers_that_are_there() {
        let (mut state, failover) = world();
        let add =
            |broker, up_to| Operation::AddLanes { broker: BrokerId(broker), up_to: LaneId(up_to) };
        let refused = |state: &State, operation| ask(state, &failover, &operation).unwrap_err();
        let broker = BrokerId(9);
        assert_eq!(refused(&state, add(9, 3)), Obstacle::UnknownBroker { broker });
        let lane = LaneId(2);
        assert_eq!(refused(&state, add(2, 2)), Obstacle::LaneExists { lane });
        let lane = LaneId(LANES_MAX as u32 + 1);
        assert_eq!(refused(&state, add(2, lane.0)), Obstacle::TooManyLanes { lane });
        let command = ask(&state, &failover, &add(2, 4)).expect("there are three");
        let Command::LanesAdd { first: LaneId(3), lanes } = &command else { panic!("{command:?}") };
        let sets: Vec<Vec<u32>> =
            lanes.iter().map(|set| set.iter().map(|it| it.broker.0).collect()).collect();
        assert_eq!(sets, [[2, 3, 1], [2, 1, 3]]);
        state.apply(&command);
        assert_eq!(state.lanes().len(), 4);
        state.apply(&Command::BrokerDrain { id: BrokerId(3), is_draining: true });
        let too_few = Obstacle::BadReplicas { lane: LaneId(5), count: 3 };
        assert_eq!(refused(&state, add(2, 5)), too_few);
        let broker = BrokerId(3);
        assert_eq!(refused(&state, add(3, 5)), Obstacle::Draining { broker });
    }

    #[test]
    fn a_broker_without_replicas_is_removed_if_those_who_are_left_can_decide() {
        let (mut state, mut failover) = world();
        let remove = |id| Operation::Remove { broker: BrokerId(id) };
        let command = |id| Ok(Command::BrokerRemove { id: BrokerId(id) });
        let in_the_way = Err(Obstacle::HasReplicas { lane: LANE, broker: BrokerId(2) });
        assert_eq!(ask(&state, &failover, &remove(2)), in_the_way);
        let nobody = Err(Obstacle::UnknownBroker { broker: BrokerId(9) });
        assert_eq!(ask(&state, &failover, &remove(9)), nobody);

        let record = BrokerRecord::of_a_test(BrokerId(4), 1);
        state.apply(&Command::BrokerRegister { record });
        assert_eq!(ask(&state, &failover, &remove(4)), command(4), "dead or alive");
        // Only the one that is asked, and a voter, are heard: a majority of three. Then only the one.
        let later = NOW + Nanos::from_secs(1);
        failover.on_heard(BrokerId(3), later);
        assert_eq!(command_at(&state, &failover, &remove(4), later), command(4));
        let much_later = later + Nanos::from_secs(1);
        let alone = Err(Obstacle::NoQuorumWithout { broker: BrokerId(4) });
        assert_eq!(command_at(&state, &failover, &remove(4), much_later), alone);
    }
}
