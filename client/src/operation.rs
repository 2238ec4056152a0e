//! Planned changes of a cluster, as a status shows them: what one would move, and how far it is.

use corelog_protocol::ids::{BrokerId, LaneId};
use corelog_protocol::message::{ClusterStatusReply, LaneStatus, Operation, ReplicaStatus};

/// A lane that gets another leader by an operation, as far as that can be told before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedMove {
    pub lane: LaneId,
    /// Who leads it now.
    pub from: Option<BrokerId>,
    /// Who would lead it. None: nobody who could is caught up now.
    pub to: Option<BrokerId>,
}

/// How far an operation is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    Done,
    /// These lanes are still to be handed over, and perhaps the lead of the metadata.
    UnderWay {
        lanes: Vec<LaneId>,
    },
    /// It is not under way any more, and has not come about: it took too long, or something else was ordered since.
    TakenBack,
}

/// The lanes that would get another leader if the operation were begun now.
#[must_use]
pub fn planned_moves(operation: &Operation, status: &ClusterStatusReply) -> Vec<PlannedMove> {
    let planned = |lane: &LaneStatus, to| PlannedMove { lane: lane.lane, from: lane.leader, to };
    match *operation {
        // The leader of a lane whose copies change stays, and a broker without copies leads nothing.
        Operation::Replace { .. } | Operation::Remove { .. } | Operation::AddLanes { .. } => {
            Vec::new()
        }
        Operation::Transfer { lane, to } => {
            let lane = status.lane(lane).filter(|lane| lane.leader != Some(to));
            lane.map(|lane| planned(lane, Some(to))).into_iter().collect()
        }
        Operation::Drain { broker } => {
            let may_lead = |id: BrokerId| {
                let known = status.broker(id);
                id != broker && known.is_some_and(|it| it.is_alive == Some(true) && !it.is_draining)
            };
            let next = |lane: &LaneStatus| {
                let mut replicas = lane.replicas.iter();
                replicas.find(|it| it.is_caught_up && may_lead(it.broker)).map(|it| it.broker)
            };
            status.led_by(broker).map(|lane| planned(lane, next(lane))).collect()
        }
        Operation::Undrain { broker } => {
            let is_drained = status.broker(broker).is_some_and(|it| it.is_draining);
            let comes_back = |lane: &&LaneStatus| {
                is_drained && lane.preferred() == Some(broker) && lane.leader != Some(broker)
            };
            let lanes = status.lanes.iter().filter(comes_back);
            lanes.map(|lane| planned(lane, Some(broker))).collect()
        }
    }
}

/// How far an operation is, by a status of the version in which it was begun, or of a later one.
#[must_use]
pub fn standing(operation: &Operation, status: &ClusterStatusReply) -> Standing {
    match *operation {
        Operation::Transfer { lane, to } => match status.lane(lane) {
            Some(it) if it.leader == Some(to) && it.is_serving && it.preferred() == Some(to) => {
                Standing::Done
            }
            // Between two epochs, or named and not heard of yet.
            Some(it)
                if it.moving_to == Some(to)
                    || it.leader.is_none_or(|leader| leader == to && !it.is_serving) =>
            {
                Standing::UnderWay { lanes: vec![lane] }
            }
            _ => Standing::TakenBack,
        },
        Operation::Replace { lane, ref replicas } => match status.lane(lane) {
            Some(it) if has_replicas(it, replicas) => {
                // Who is not there cannot be waited for.
                let is_alive = |id| status.broker(id).is_some_and(|it| it.is_alive == Some(true));
                let lags = |it: &ReplicaStatus| !it.is_caught_up && is_alive(it.broker);
                let is_over = it.before.is_empty() && it.is_serving;
                match is_over && !it.replicas.iter().any(lags) {
                    true => Standing::Done,
                    false => Standing::UnderWay { lanes: vec![lane] },
                }
            }
            // The leader hands over to itself first.
            Some(it) if it.leader.is_some() && it.moving_to == it.leader => {
                Standing::UnderWay { lanes: vec![lane] }
            }
            _ => Standing::TakenBack,
        },
        Operation::Drain { broker } => match status.broker(broker) {
            Some(known) if known.is_draining => {
                // Of a lane that nobody leads it is not known yet who will.
                let is_left = |lane: &&LaneStatus| match lane.leader {
                    Some(leader) => leader == broker,
                    None => lane.replicas.iter().any(|replica| replica.broker == broker),
                };
                let lanes: Vec<_> =
                    status.lanes.iter().filter(is_left).map(|lane| lane.lane).collect();
                match lanes.is_empty() && status.metadata_leader.is_some_and(|id| id != broker) {
                    true => Standing::Done,
                    false => Standing::UnderWay { lanes },
                }
            }
            _ => Standing::TakenBack,
        },
        Operation::Undrain { broker } => match status.broker(broker) {
            Some(known) if !known.is_draining => Standing::Done,
            _ => Standing::TakenBack,
        },
        Operation::Remove { broker } => match status.broker(broker) {
            None if status.is_member(broker) => Standing::UnderWay { lanes: Vec::new() },
            None => Standing::Done,
            Some(_) => Standing::TakenBack,
        },
        Operation::AddLanes { broker, up_to } => {
            let is_new = |it: &&LaneStatus| it.lane <= up_to && it.preferred() == Some(broker);
            let waits = status.lanes.iter().filter(is_new).filter(|it| !it.is_serving);
            let lanes: Vec<LaneId> = waits.map(|it| it.lane).collect();
            match status.lane(up_to) {
                None => Standing::TakenBack,
                Some(_) if lanes.is_empty() => Standing::Done,
                Some(_) => Standing::UnderWay { lanes },
            }
        }
    }
}

fn has_replicas(lane: &LaneStatus, brokers: &[BrokerId]) -> bool {
    lane.replicas.len() == brokers.len()
        && lane.replicas.iter().all(|it| brokers.contains(&it.broker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_protocol::ids::{Epoch, Incarnation};
    use corelog_protocol::message::BrokerStatus;

    const LANES: [LaneId; 2] = [LaneId(1), LaneId(2)];

    /// Brokers 1 to 3, all alive; two lanes led by 1, on which 2 and 3 keep up.
    fn status() -> ClusterStatusReply {
        let broker = |id: u32| BrokerStatus {
            id: BrokerId(id),
            address: ([127, 0, 0, 1], 7420).into(),
            rack: String::new(),
            shards: 1,
            incarnation: Incarnation(1),
            is_alive: Some(true),
            is_draining: false,
        };
        let replica =
            |id| ReplicaStatus { broker: BrokerId(id), behind: Some(0), is_caught_up: true };
        let lane = |lane| LaneStatus {
            lane,
            epoch: Epoch(1),
            leader: Some(BrokerId(1)),
            is_serving: true,
            moving_to: None,
            replicas: vec![replica(1), replica(2), replica(3)],
            before: Vec::new(),
            load: None,
        };
        ClusterStatusReply {
            version: 9,
            me: BrokerId(2),
            metadata_leader: Some(BrokerId(2)),
            brokers: (1..=3).map(broker).collect(),
            lanes: LANES.map(lane).to_vec(),
            voters: (1..=3).map(BrokerId).collect(),
            learners: Vec::new(),
        }
    }

    #[test]
    fn a_transfer_is_done_when_its_target_serves() {
        let [lane, _] = LANES;
        let operation = Operation::Transfer { lane, to: BrokerId(3) };
        let mut status = status();
        let planned = PlannedMove { lane, from: Some(BrokerId(1)), to: Some(BrokerId(3)) };
        assert_eq!(planned_moves(&operation, &status), [planned]);
        assert_eq!(standing(&operation, &status), Standing::TakenBack);
        let under_way = Standing::UnderWay { lanes: vec![lane] };
        status.lanes[0].moving_to = Some(BrokerId(3));
        assert_eq!(standing(&operation, &status), under_way);
        status.lanes[0].leader = None;
        assert_eq!(standing(&operation, &status), under_way);
        status.lanes[0].moving_to = None;
        status.lanes[0].leader = Some(BrokerId(3));
        status.lanes[0].is_serving = false;
        assert_eq!(standing(&operation, &status), under_way);
        status.lanes[0].is_serving = true;
        assert_eq!(standing(&operation, &status), Standing::TakenBack, "it does not prefer it");
        status.lanes[0].replicas.rotate_right(1);
        assert_eq!(standing(&operation, &status), Standing::Done);
        assert_eq!(planned_moves(&operation, &status), []);
        status.lanes[0].leader = Some(BrokerId(2));
        assert_eq!(standing(&operation, &status), Standing::TakenBack);
    }

    #[test]
    fn lanes_are_added_when_they_are_there_and_serve() {
        let operation = Operation::AddLanes { broker: BrokerId(1), up_to: LaneId(3) };
        let mut status = status();
        assert_eq!(standing(&operation, &status), Standing::TakenBack, "not yet, or not at all");
        assert_eq!(planned_moves(&operation, &status), []);
        let new = LaneStatus { lane: LaneId(3), is_serving: false, ..status.lanes[0].clone() };
        status.lanes.push(new);
        let lanes = vec![LaneId(3)];
        assert_eq!(standing(&operation, &status), Standing::UnderWay { lanes });
        status.lanes[2].is_serving = true;
        assert_eq!(standing(&operation, &status), Standing::Done);
    }

    #[test]
    fn a_drain_is_done_when_the_broker_leads_neither_a_lane_nor_the_metadata() {
        let operation = Operation::Drain { broker: BrokerId(1) };
        let mut status = status();
        status.brokers[1].is_draining = true;
        status.lanes[1].replicas[2].is_caught_up = false;
        let moves = planned_moves(&operation, &status);
        assert_eq!(moves.iter().map(|it| it.to).collect::<Vec<_>>(), [Some(BrokerId(3)), None]);
        assert_eq!(standing(&operation, &status), Standing::TakenBack);
        status.brokers[0].is_draining = true;
        assert_eq!(standing(&operation, &status), Standing::UnderWay { lanes: LANES.to_vec() });
        status.lanes[0].leader = None;
        status.lanes[1].leader = Some(BrokerId(3));
        let nobody_yet = Standing::UnderWay { lanes: vec![LANES[0]] };
        assert_eq!(standing(&operation, &status), nobody_yet);
        status.lanes[0].leader = Some(BrokerId(2));
        assert_eq!(standing(&operation, &status), Standing::Done);
        for leader in [None, Some(BrokerId(1))] {
            status.metadata_leader = leader;
            assert_eq!(standing(&operation, &status), Standing::UnderWay { lanes: vec![] });
        }
        // Both prefer it, and come back once it may lead again.
        let back = Operation::Undrain { broker: BrokerId(1) };
        assert_eq!(planned_moves(&back, &status).len(), 2);
        assert_eq!(standing(&back, &status), Standing::TakenBack);
        status.brokers[0].is_draining = false;
        assert_eq!(standing(&back, &status), Standing::Done);
    }

    #[test]
    fn a_removal_is_done_when_the_broker_is_neither_listed_nor_a_member() {
        let operation = Operation::Remove { broker: BrokerId(3) };
        let mut status = status();
        assert_eq!(planned_moves(&operation, &status), []);
        assert_eq!(standing(&operation, &status), Standing::TakenBack);
        status.brokers.pop();
        assert_eq!(standing(&operation, &status), Standing::UnderWay { lanes: vec![] });
        status.voters.pop();
        status.learners.push(BrokerId(3));
        assert_eq!(standing(&operation, &status), Standing::UnderWay { lanes: vec![] });
        status.learners.pop();
        assert_eq!(standing(&operation, &status), Standing::Done);
    }
}
