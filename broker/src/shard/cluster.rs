//! The cluster as its operator sees it: brokers and lanes, and planned changes of them. Both are asked of shard 0:
//! `metadata_keeper/survey.rs` gathers what is known, and changes go the way of all changes of the metadata.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, ShardId};
use corelog_protocol::message::{
    BrokerStatus, ClusterStatusReply, LANES_MAX, LaneLoad, LaneStatus, Operate, OperateReply,
    ReplicaStatus,
};

use super::event::Conn;
use super::lane::Origin;
use super::message::{Answer, Change, Refusal, ShardMessage};
use super::replies::OVERLOADED;
use super::route::{Forward, ForwardKind};
use super::{Cx, Shard};
use crate::memory::Memory;
use crate::metadata::consensus::{Members, ReplicaId};
use crate::metadata::membership::broker_of;
use crate::metadata::survey::Survey;
use crate::metadata::{BrokerRecord, LaneRecord};

/// What a lane, a replica of it and a broker take in an answer, at most: tables with all their fields.
const LANE_BYTES: usize = 176;
const REPLICA_BYTES: usize = 40;
const BROKER_BYTES: usize = 512;

impl Shard {
    pub(super) fn on_operate<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        operate: Operate,
    ) {
        let Operate { operation, check_only, .. } = operate;
        let change = Change::Operate { operation, check_only };
        self.ask_change(cx, conn, ForwardKind::Operate { conn, correlation }, change);
    }

    pub(super) fn on_operated<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        answer: Answer,
    ) {
        match answer {
            Answer::Operated(result) => {
                self.send_message(cx, conn, correlation, &OperateReply { result });
            }
            Answer::Refused(refusal) => {
                let kind = FrameKind::Operate.to_wire();
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
            answer => unreachable!("an operation was answered with {answer:?}"),
        }
    }

    pub(super) fn on_cluster_status<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
    ) {
        if let Some(session) = self.sessions.answerable(conn) {
            session.requests += 1;
        }
        let shard = ShardId(0);
        let kind = ForwardKind::Cluster { conn, correlation };
        let forward = Forward { shard, kind, held_bytes: 512 };
        if self.config.shard == shard {
            self.held_bytes += forward.held_bytes;
            let id = self.forwards.insert(forward);
            return self.survey_cluster(cx, Origin::Gather(id));
        }
        let message = |token| ShardMessage::Cluster { token };
        if self.forward(cx, forward, message).is_none() {
            self.end_request(conn);
            let kind = FrameKind::ClusterStatus.to_wire();
            self.refuse_conn(cx, conn, correlation, kind, OVERLOADED);
        }
    }

    pub(super) fn on_cluster_told<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        answer: Answer,
    ) {
        let Answer::Cluster(reply) = answer else {
            unreachable!("a question about the cluster was answered with {answer:?}")
        };
        let replicas: usize = reply.lanes.iter().map(|lane| lane.replicas.len()).sum();
        let bytes = reply.brokers.len() * BROKER_BYTES
            + reply.lanes.len() * LANE_BYTES
            + replicas * REPLICA_BYTES;
        let refusal = match reply.lanes.len() {
            count if count > LANES_MAX || bytes > self.config.frame_bytes_max => {
                Some(Refusal::new(ErrorCode::LimitReached, "more lanes than one answer can hold"))
            }
            _ if !self.can_hold(cx.memory, bytes) => Some(OVERLOADED),
            _ => None,
        };
        match refusal {
            None => self.send_message(cx, conn, correlation, &*reply),
            Some(refusal) => {
                let kind = FrameKind::ClusterStatus.to_wire();
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
        }
    }

    /// Brokers and lanes by the view of this broker, and by what the leader of the metadata told, if it did.
    pub(super) fn cluster_status(
        &self,
        metadata_leader: Option<BrokerId>,
        survey: Option<&Survey>,
    ) -> ClusterStatusReply {
        let state = self.view.state();
        let own = self.own_record();
        // A broker alone is not registered.
        let alone = (!self.config.is_clustered()).then_some(&own);
        let broker = |record: &BrokerRecord| BrokerStatus {
            id: record.id,
            address: record.address,
            rack: record.rack.to_string(),
            shards: record.shards,
            incarnation: record.incarnation,
            is_alive: match survey {
                _ if record.id == self.config.broker => Some(true),
                Some(survey) => Some(survey.alive.contains(&record.id)),
                None => None,
            },
            is_draining: state.is_draining(record.id),
        };
        let members = self.keeper.as_ref().and_then(|keeper| keeper.members());
        // Members are brokers.
        let ids = |of: fn(&Members) -> &[ReplicaId]| -> Vec<BrokerId> {
            let ids = members.map_or(&[][..], of).iter();
            ids.copied().filter_map(broker_of).collect()
        };
        let mut voters = ids(|members| &members.voters);
        // While the members change, both sets decide.
        voters.extend(ids(|members| &members.voters_outgoing));
        voters.sort_unstable();
        voters.dedup();
        ClusterStatusReply {
            voters,
            learners: ids(|members| &members.learners),
            version: self.view.version(),
            me: self.config.broker,
            metadata_leader,
            brokers: state.brokers().chain(alone).map(broker).collect(),
            lanes: state.lanes().iter().map(|lane| lane_status(lane, survey)).collect(),
        }
    }
}

fn lane_status(lane: &LaneRecord, survey: Option<&Survey>) -> LaneStatus {
    let leader = lane.leader_id();
    // What was said of another epoch says nothing of this one.
    let progress = survey.and_then(|survey| survey.lane(lane.id));
    let progress = progress.filter(|progress| leader.is_some() && progress.epoch == lane.epoch);
    let is_serving = progress.is_some() || !lane.is_replicated();
    let replica = |broker: BrokerId| {
        if leader == Some(broker) {
            let behind = is_serving.then_some(0);
            return ReplicaStatus { broker, behind, is_caught_up: is_serving };
        }
        let follower = progress.and_then(|progress| Some((progress, progress.follower(broker)?)));
        ReplicaStatus {
            broker,
            behind: follower.map(|(progress, follower)| progress.behind(follower)),
            is_caught_up: follower.is_some_and(|(_, follower)| follower.is_caught_up),
        }
    };
    let before = lane.before.iter().flat_map(|before| before.iter());
    let rates = survey.and_then(|survey| survey.rates(lane.id)).filter(|_| progress.is_some());
    LaneStatus {
        lane: lane.id,
        epoch: lane.epoch,
        leader,
        is_serving,
        moving_to: lane.moving.map(|moving| moving.to),
        replicas: lane.replicas.iter().map(|it| replica(it.broker)).collect(),
        before: before.map(|replica| replica.broker).collect(),
        load: rates.map(|rates| LaneLoad {
            load: rates.load(lane.replicas.len() - 1),
            bytes_in: rates.bytes_in,
            records_in: rates.records_in,
            bytes_out: rates.bytes_out,
            requests: rates.requests,
        }),
    }
}
