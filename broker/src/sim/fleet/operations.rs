//! The operator: looks at the cluster, and has lanes transferred and brokers drained at random, faults or not. In a calm
//! run nothing else moves lanes, and nothing that was acknowledged may be lost, at any level.

use corelog::engine::{AdminReply, AdminRequest, RequestId};
use corelog::{
    BrokerId, ClusterStatusReply, Error, LaneId, Operation, Standing, plan_balance, plan_removal,
    standing,
};

use super::World;
use super::clients::Role;

/// The operator adds none to so many lanes.
const LANES_GROWN_MAX: usize = 12;

/// What the operator is about.
#[derive(Debug, Default)]
pub struct Operator {
    request: Option<RequestId>,
    /// The last that was told.
    status: ClusterStatusReply,
    /// It is emptied and removed, step by step.
    goes: Option<BrokerId>,
    asked: Option<(Operation, bool)>,
    /// Begun in this version of the metadata.
    begun: Option<(Operation, u64)>,
}

impl World {
    pub(super) fn operator_work(&mut self, client: usize) {
        if self.ending.has_begun() {
            return;
        }
        let brokers = self.plan.brokers as u64;
        let Role::Operator(operator) = &mut self.clients[client].role else { return };
        if operator.request.is_some() {
            return;
        }
        let broker = BrokerId(1 + self.random.below(brokers) as u32);
        let is_begun = operator.begun.is_some();
        let lane = self.random.below(operator.status.lanes.len().max(1) as u64) as usize;
        // So many must stay as a lane has replicas.
        let may_go = operator.status.brokers.len() > self.plan.replicas;
        if operator.goes.is_none() && may_go && self.random.chance(1, 32) {
            operator.goes = Some(broker);
        }
        let next_to_go = operator
            .goes
            .and_then(|goes| plan_removal(&operator.status, goes, &[]).ok()?.into_iter().next());
        let request = match (self.random.below(8), operator.status.lanes.get(lane)) {
            (0 | 1, _) | (_, None) => None,
            _ if is_begun && self.random.chance(3, 4) => None,
            _ if next_to_go.is_some() && self.random.chance(3, 4) => next_to_go,
            (7, Some(_)) if may_go && self.random.chance(1, 2) => {
                plan_balance(&operator.status).ok().and_then(|steps| steps.into_iter().next())
            }
            // Another one in the place of any but the leader.
            (2 | 3, Some(lane)) if lane.replicas.len() < self.plan.brokers => {
                let mut replicas: Vec<BrokerId> =
                    lane.replicas.iter().map(|it| it.broker).collect();
                let leaves = self.random.below(replicas.len() as u64) as usize;
                replicas[leaves] = broker;
                Some(Operation::Replace { lane: lane.lane, replicas })
            }
            (2..=5, Some(lane)) => Some(Operation::Transfer { lane: lane.lane, to: broker }),
            (6, Some(_))
                if operator.status.lanes.len() < LANES_GROWN_MAX && self.random.chance(1, 6) =>
            {
                let up_to = LaneId((operator.status.lanes.len() + 1) as u32);
                Some(Operation::AddLanes { broker, up_to })
            }
            (6, _) => Some(Operation::Drain { broker }),
            _ => Some(Operation::Undrain { broker }),
        };
        let check_only = self.random.chance(1, 8);
        operator.asked = request.clone().map(|operation| (operation, check_only));
        let request = match request {
            None => AdminRequest::Cluster,
            Some(operation) => AdminRequest::Operate { operation, check_only },
        };
        let id = self.ask(client, request);
        if let Role::Operator(operator) = &mut self.clients[client].role {
            operator.request = Some(id);
        }
    }

    pub(super) fn on_operated(&mut self, client: usize, answer: Result<AdminReply, Error>) {
        let pause = 20_000_000 + self.random.below(200_000_000);
        self.plan_work(client, pause);
        let Role::Operator(operator) = &mut self.clients[client].role else { return };
        operator.request = None;
        let name = match (answer, operator.asked.take()) {
            (Ok(AdminReply::Operated(version)), Some((operation, false))) => {
                let name = begun_name(&operation);
                operator.begun = Some((operation, version));
                name
            }
            (Ok(AdminReply::Operated(_)), _) => "operations asked about and possible",
            (Err(Error::Obstructed(_)), _) => "operations obstructed",
            (Ok(AdminReply::Cluster(status)), _) => {
                operator.goes.take_if(|goes| status.broker(*goes).is_none());
                operator.status = status.clone();
                let begun = operator.begun.take_if(|(_, version)| *version <= status.version);
                match begun
                    .map(|(operation, version)| (standing(&operation, &status), operation, version))
                {
                    Some((Standing::Done, operation, _)) => done_name(&operation),
                    Some((Standing::TakenBack, ..)) => "operations taken back",
                    Some((Standing::UnderWay { .. }, operation, version)) => {
                        operator.begun = Some((operation, version));
                        "operations seen under way"
                    }
                    None => "cluster looked at",
                }
            }
            (Ok(_), _) => "answers of the wrong kind",
            (Err(_), _) => "operations failed",
        };
        self.tally.one(name);
    }

    /// Whether a request is the operator's.
    pub(super) fn is_of_operator(&self, client: usize, id: RequestId) -> bool {
        matches!(&self.clients[client].role, Role::Operator(it) if it.request == Some(id))
    }
}

fn begun_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Transfer { .. } => "transfers begun",
        Operation::Drain { .. } => "drains begun",
        Operation::Undrain { .. } => "drains ended",
        Operation::Replace { .. } => "changes of replicas begun",
        Operation::Remove { .. } => "removals begun",
        Operation::AddLanes { .. } => "additions of lanes begun",
    }
}

fn done_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Transfer { .. } => "transfers done",
        Operation::Drain { .. } => "drains done",
        Operation::Undrain { .. } => "drains seen to have ended",
        Operation::Replace { .. } => "changes of replicas done",
        Operation::Remove { .. } => "removals done",
        Operation::AddLanes { .. } => "additions of lanes done",
    }
}
