//! Brokers come, change and go. A broker alone never registers: nobody asks where it is.

use std::sync::Arc;

use corelog_protocol::ids::BrokerId;
use corelog_protocol::message::Obstacle;

use super::{Outcome, State};
use crate::metadata::Command;
use crate::metadata::broker::{BROKERS_MAX, BrokerRecord};
use crate::metadata::lane::LaneRecord;

impl State {
    pub(super) fn broker_at(&self, id: BrokerId) -> Result<usize, usize> {
        self.brokers.binary_search_by_key(&id, |record| record.id)
    }

    /// The command that would register this broker now.
    ///
    /// # Errors
    /// What the command would come to, if it is not taken as it is.
    pub fn broker_register(&self, record: &BrokerRecord) -> Result<Command, Outcome> {
        self.place_of(record).map(|_| Command::BrokerRegister { record: record.clone() })
    }

    /// Where the record is, or is to be put.
    fn place_of(&self, record: &BrokerRecord) -> Result<Result<usize, usize>, Outcome> {
        if !record.is_valid() || self.is_removed(record.id) {
            return Err(Outcome::Invalid);
        }
        match self.broker_at(record.id) {
            // A disk that was wiped or is an old one: what its broker promised is not known.
            Ok(at) if self.brokers[at].incarnation != record.incarnation => Err(Outcome::Invalid),
            Err(_) if self.brokers.len() >= BROKERS_MAX => Err(Outcome::LimitReached),
            place => Ok(place),
        }
    }

    pub(super) fn register(&mut self, record: &BrokerRecord) -> Outcome {
        match self.place_of(record) {
            Ok(Ok(at)) => {
                let known = &mut Arc::make_mut(&mut self.brokers)[at];
                *known = BrokerRecord { directories: known.directories, ..record.clone() };
                Outcome::Noted
            }
            Ok(Err(at)) => {
                Arc::make_mut(&mut self.brokers).insert(at, record.clone());
                Outcome::Noted
            }
            Err(outcome) => outcome,
        }
    }

    /// What keeps this broker from being removed, as far as the metadata tells: it is not known, it is the last one, or a
    /// lane has a replica there, had one in its last set, or is about to get one.
    pub fn obstacle_to_remove(&self, id: BrokerId) -> Option<Obstacle> {
        if self.broker_at(id).is_err() {
            return Some(Obstacle::UnknownBroker { broker: id });
        }
        if self.brokers.len() == 1 {
            return Some(Obstacle::NoOtherBroker { broker: id });
        }
        let is_used = |lane: &&LaneRecord| {
            let next = lane.next.iter().flat_map(|next| next.iter());
            lane.members().chain(next).any(|replica| replica.broker == id)
        };
        let lane = self.lanes.iter().find(is_used)?;
        Some(Obstacle::HasReplicas { lane: lane.id, broker: id })
    }

    pub(super) fn remove_broker(&mut self, id: BrokerId) -> Outcome {
        if let Some(obstacle) = self.obstacle_to_remove(id) {
            return Outcome::Obstructed(obstacle);
        }
        match (self.broker_at(id), self.removed.binary_search(&id)) {
            (Ok(at), Err(removed_at)) => {
                Arc::make_mut(&mut self.brokers).remove(at);
                self.removed.insert(removed_at, id);
                self.draining.retain(|draining| *draining != id);
                self.left.retain(|(_, replica)| replica.broker != id);
                Outcome::Noted
            }
            _ => Outcome::Invalid,
        }
    }

    pub(super) fn drain(&mut self, id: BrokerId, is_draining: bool) -> Outcome {
        match (self.broker_at(id), self.draining.binary_search(&id), is_draining) {
            (Err(_), ..) => Outcome::Obstructed(Obstacle::UnknownBroker { broker: id }),
            (Ok(_), Err(at), true) => {
                self.draining.insert(at, id);
                Outcome::Noted
            }
            (Ok(_), Ok(at), false) => {
                self.draining.remove(at);
                Outcome::Noted
            }
            // As it was.
            (Ok(_), ..) => Outcome::Noted,
        }
    }

    /// Sorted, none both registered and removed, and all sets of several on brokers that are known.
    pub(super) fn are_brokers_possible(&self) -> bool {
        let are_sorted = self.brokers.is_sorted_by(|one, next| one.id < next.id)
            && self.removed.is_sorted_by(|one, next| one < next);
        let are_apart = self.removed.iter().all(|id| self.broker_at(*id).is_err());
        let is_removed_sane = self.removed.first().is_none_or(|id| id.0 > 0);
        let are_few = self.brokers.len() <= BROKERS_MAX;
        let mut replicated = self.lanes.iter().filter(|lane| lane.is_replicated());
        let are_placed = replicated.all(|lane| {
            self.are_placed(&lane.replicas)
                && lane.before.as_deref().is_none_or(|before| self.are_placed(before))
                && lane.next.as_deref().is_none_or(|next| self.are_placed(next))
        });
        let are_draining = self.draining.is_sorted_by(|one, next| one < next)
            && self.draining.iter().all(|id| self.broker_at(*id).is_ok());
        are_draining && are_sorted && are_apart && is_removed_sane && are_few && are_placed
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metadata::state::lanes::tests::cluster;
    use corelog_protocol::ids::{Incarnation, LaneId};

    pub fn broker(id: u32) -> BrokerRecord {
        BrokerRecord {
            id: BrokerId(id),
            incarnation: Incarnation(u64::from(id) + 100),
            life: 1,
            address: ([10, 0, 0, id as u8], 7421).into(),
            rack: "r".into(),
            shards: 1,
            directories: 2,
        }
    }

    fn register(state: &mut State, record: BrokerRecord) -> Outcome {
        state.apply(&Command::BrokerRegister { record })
    }

    #[test]
    fn a_broker_tells_anew_what_has_changed_and_its_disks_stay_as_first_told() {
        let mut state = State::default();
        for id in [3, 1, 2] {
            assert_eq!(register(&mut state, broker(id)), Outcome::Noted);
        }
        let ids: Vec<u32> = state.brokers().map(|record| record.id.0).collect();
        assert_eq!(ids, [1, 2, 3]);
        let later =
            BrokerRecord { life: 2, shards: 4, directories: 9, rack: "s".into(), ..broker(2) };
        assert_eq!(register(&mut state, later.clone()), Outcome::Noted);
        assert_eq!(state.broker(BrokerId(2)), Some(&BrokerRecord { directories: 2, ..later }));
        assert_eq!(state.broker(BrokerId(4)), None);
    }

    #[test]
    fn a_known_id_with_another_disk_is_refused_and_so_is_a_record_that_cannot_be() {
        let mut state = cluster(3);
        let wiped = BrokerRecord { incarnation: Incarnation(7), life: 2, ..broker(2) };
        let nobody = BrokerRecord { id: BrokerId(0), ..broker(9) };
        let idle = BrokerRecord { shards: 0, ..broker(9) };
        for record in [wiped, nobody, idle] {
            assert_eq!(register(&mut state, record), Outcome::Invalid);
        }
        assert_eq!(state.broker(BrokerId(2)), Some(&broker(2)));
        for id in 4..=BROKERS_MAX as u32 {
            assert_eq!(register(&mut state, broker(id)), Outcome::Noted);
        }
        assert_eq!(register(&mut state, broker(1_000)), Outcome::LimitReached);
        assert_eq!(register(&mut state, broker(1)), Outcome::Noted, "those that are known stay");
    }

    #[test]
    fn a_broker_without_replicas_may_go_and_does_not_come_back() {
        let mut state = cluster(3);
        register(&mut state, broker(4));
        let remove = |id| Command::BrokerRemove { id: BrokerId(id) };
        let has_replicas = Obstacle::HasReplicas { lane: LaneId(1), broker: BrokerId(3) };
        assert_eq!(state.apply(&remove(3)), Outcome::Obstructed(has_replicas));
        let unknown = |id| Outcome::Obstructed(Obstacle::UnknownBroker { broker: BrokerId(id) });
        assert_eq!(state.apply(&remove(5)), unknown(5));
        assert!(!state.is_removed(BrokerId(4)));
        assert_eq!(state.apply(&remove(4)), Outcome::Noted);
        assert_eq!(state.broker(BrokerId(4)), None);
        assert!(state.is_removed(BrokerId(4)));
        assert_eq!(register(&mut state, broker(4)), Outcome::Invalid);
        assert_eq!(state.apply(&remove(4)), unknown(4));
        assert_eq!(State::from_image(&state.image()), Ok(state));
    }

    #[test]
    fn the_last_broker_stays() {
        let mut state = State::default();
        register(&mut state, broker(1));
        let last = Outcome::Obstructed(Obstacle::NoOtherBroker { broker: BrokerId(1) });
        assert_eq!(state.apply(&Command::BrokerRemove { id: BrokerId(1) }), last);
    }

    /// Its first replica leads the lane in its epoch, and the set before counts no more.
    fn lead_and_settle(state: &mut State, lane: LaneId) {
        let record = state.lane(lane).expect("it is there");
        let (epoch, broker) = (record.epoch, record.replicas[0].broker);
        let position = crate::replica::Position::default();
        state.apply(&Command::LaneLeader { lane, epoch, broker, position });
        state.apply(&Command::LaneSettled { lane, epoch });
    }

    #[test]
    fn a_broker_stays_while_its_word_counts_in_the_set_before_the_last_change() {
        let mut state = cluster(4);
        let remove = Command::BrokerRemove { id: BrokerId(1) };
        let lane = LaneId(1);
        for id in [LaneId(2), LaneId(3), LaneId(4), lane] {
            lead_and_settle(&mut state, id);
            let in_the_way = Obstacle::HasReplicas { lane, broker: BrokerId(1) };
            assert_eq!(state.apply(&remove), Outcome::Obstructed(in_the_way));
            let replicas = state.replicas_on(id, &[2, 3, 4].map(BrokerId)).expect("known");
            let epoch = state.lane(id).expect("it is there").epoch.next();
            let change = Command::LaneReplicas { lane: id, epoch, replicas };
            assert_eq!(state.apply(&change), Outcome::Noted);
            assert_eq!(state.apply(&remove), Outcome::Obstructed(in_the_way));
            lead_and_settle(&mut state, id);
        }
        assert_eq!(state.apply(&remove), Outcome::Noted);
    }
}
