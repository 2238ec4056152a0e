//! The cluster as its operator sees it: brokers and lanes, and planned changes of them.

use std::fmt;
use std::net::SocketAddr;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::{BROKERS_MAX, TABLES_MAX, check, message, read_root, sealed, text};
use crate::generated::cluster as wire;
use crate::ids::{BrokerId, Epoch, Incarnation, LaneId};
use crate::malformed::MalformedError;

/// Lanes in one answer.
pub const LANES_MAX: usize = 8192;

/// Replicas of a lane.
pub const LANE_REPLICAS_MAX: usize = 7;

/// "Who is there, and who leads what?"
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClusterStatus;

impl ClusterStatus {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        read_root::<wire::ClusterStatus>(control, TABLES_MAX)?;
        Ok(Self)
    }
}

impl sealed::Table for ClusterStatus {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        wire::ClusterStatus::create(builder, &wire::ClusterStatusArgs {}).as_union_value()
    }
}

/// A broker of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerStatus {
    /// Its id: not 0.
    pub id: BrokerId,
    /// Where clients and other brokers connect.
    pub address: SocketAddr,
    /// Where it stands, as it is configured. May be empty.
    pub rack: String,
    /// How many it has. At least 1.
    pub shards: u16,
    /// Of its data.
    pub incarnation: Incarnation,
    /// Whether the leader of the metadata hears it. `None`: that one could not be asked.
    pub is_alive: Option<bool>,
    /// It shall lead nothing.
    pub is_draining: bool,
}

/// A copy of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    /// Who has it.
    pub broker: BrokerId,
    /// How many entries it lacks, or has not flushed, by the last word of the lane's leader. `None`: not known.
    pub behind: Option<u64>,
    /// It keeps up with the leader, or is the leader.
    pub is_caught_up: bool,
}

/// What a lane costs its leader in a second, smoothed over about 30 s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneLoad {
    /// All of it as one number, bytes to move: those taken once for each follower, those served, and some for each
    /// request.
    pub load: u64,
    /// Of batches taken.
    pub bytes_in: u64,
    /// Records taken.
    pub records_in: u64,
    /// Served to consumers.
    pub bytes_out: u64,
    /// Batches taken, and answers to a fetch with something of a partition of the lane.
    pub requests: u64,
}

/// A lane of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneStatus {
    /// Its number: not 0.
    pub lane: LaneId,
    /// Grows with each change of its leader.
    pub epoch: Epoch,
    /// None while its replicas are asked what they have.
    pub leader: Option<BrokerId>,
    /// The leader has said that it takes batches in this epoch. Without word of it, false.
    pub is_serving: bool,
    /// It is being handed over to this broker.
    pub moving_to: Option<BrokerId>,
    /// The preferred leader first. 1 to [`LANE_REPLICAS_MAX`].
    pub replicas: Vec<ReplicaStatus>,
    /// Those before the last change, while they count as well; else empty.
    pub before: Vec<BrokerId>,
    /// By word of its leader. Right after a change, that of the one before. `None`: not known.
    pub load: Option<LaneLoad>,
}

impl LaneStatus {
    /// Who leads it whenever it can.
    #[must_use]
    pub fn preferred(&self) -> Option<BrokerId> {
        self.replicas.first().map(|replica| replica.broker)
    }
}

/// Brokers and lanes, as the broker that answers knows them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterStatusReply {
    /// Of the metadata. What was begun in a later version is not in here.
    pub version: u64,
    /// The broker that answers.
    pub me: BrokerId,
    /// Who leads the metadata, as far as the one that answers knows.
    pub metadata_leader: Option<BrokerId>,
    /// By id, each once. At most [`BROKERS_MAX`].
    pub brokers: Vec<BrokerStatus>,
    /// By number, each once. At most [`LANES_MAX`].
    pub lanes: Vec<LaneStatus>,
    /// Whose majority decides about the metadata, by id. Empty: not known. At most [`BROKERS_MAX`].
    pub voters: Vec<BrokerId>,
    /// Who gets all of the metadata and decides nothing, by id. At most [`BROKERS_MAX`].
    pub learners: Vec<BrokerId>,
}

impl ClusterStatusReply {
    /// A broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerStatus> {
        let at = self.brokers.binary_search_by_key(&id, |broker| broker.id).ok()?;
        self.brokers.get(at)
    }

    /// A lane.
    #[must_use]
    pub fn lane(&self, id: LaneId) -> Option<&LaneStatus> {
        let at = self.lanes.binary_search_by_key(&id, |lane| lane.lane).ok()?;
        self.lanes.get(at)
    }

    /// Whether a broker takes part in the metadata's group, as a voter or as a learner.
    #[must_use]
    pub fn is_member(&self, id: BrokerId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// The lanes that a broker leads.
    pub fn led_by(&self, id: BrokerId) -> impl Iterator<Item = &LaneStatus> {
        self.lanes.iter().filter(move |lane| lane.leader == Some(id))
    }

    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        const TABLES: usize = 1 + BROKERS_MAX + LANES_MAX * (2 + LANE_REPLICAS_MAX);
        let table = read_root::<wire::ClusterStatusReply>(control, TABLES)?;
        let brokers = table.brokers().unwrap_or_default();
        let lanes = table.lanes().unwrap_or_default();
        check(brokers.len() <= BROKERS_MAX, "cluster status: too many brokers")?;
        check(lanes.len() <= LANES_MAX, "cluster status: too many lanes")?;
        let brokers: Vec<_> =
            brokers.iter().map(|broker| broker_from_wire(&broker)).collect::<Result<_, _>>()?;
        let lanes: Vec<_> =
            lanes.iter().map(|lane| lane_from_wire(&lane)).collect::<Result<_, _>>()?;
        let are_sorted = brokers.is_sorted_by(|one, next| one.id < next.id)
            && lanes.is_sorted_by(|one, next| one.lane < next.lane);
        check(are_sorted, "cluster status: brokers or lanes out of order")?;
        let voters = members_from_wire(table.voters())?;
        let learners = members_from_wire(table.learners())?;
        Ok(Self {
            version: table.version(),
            me: BrokerId(table.me()),
            metadata_leader: somebody(table.metadata_leader()),
            brokers,
            lanes,
            voters,
            learners,
        })
    }
}

fn members_from_wire(
    ids: Option<flatbuffers::Vector<'_, u32>>,
) -> Result<Vec<BrokerId>, MalformedError> {
    let ids = ids.unwrap_or_default();
    check(ids.len() <= BROKERS_MAX, "cluster status: too many members")?;
    let ids: Vec<BrokerId> = ids.iter().map(BrokerId).collect();
    let are_ids = ids.first().is_none_or(|id| id.0 > 0);
    check(are_ids && ids.is_sorted_by(|one, next| one < next), "cluster status: members")?;
    Ok(ids)
}

fn broker_from_wire(broker: &wire::BrokerStatus<'_>) -> Result<BrokerStatus, MalformedError> {
    check(broker.id() > 0 && broker.shards() > 0, "cluster status: a broker that cannot be")?;
    let address = broker.address().unwrap_or_default().parse();
    Ok(BrokerStatus {
        id: BrokerId(broker.id()),
        address: address.map_err(|_| MalformedError::new("cluster status: address of a broker"))?,
        rack: text(broker.rack(), "cluster status: length of rack")?,
        shards: broker.shards(),
        incarnation: Incarnation(broker.incarnation()),
        is_alive: broker.is_alive(),
        is_draining: broker.is_draining(),
    })
}

fn lane_from_wire(lane: &wire::LaneStatus<'_>) -> Result<LaneStatus, MalformedError> {
    let replicas = lane.replicas().unwrap_or_default();
    let before = lane.before().unwrap_or_default();
    let is_set = (1..=LANE_REPLICAS_MAX).contains(&replicas.len());
    check(lane.lane() > 0 && is_set, "cluster status: a lane that cannot be")?;
    check(before.len() <= LANE_REPLICAS_MAX, "cluster status: too many replicas")?;
    let replica = |replica: wire::ReplicaStatus<'_>| ReplicaStatus {
        broker: BrokerId(replica.broker()),
        behind: replica.behind(),
        is_caught_up: replica.is_caught_up(),
    };
    Ok(LaneStatus {
        lane: LaneId(lane.lane()),
        epoch: Epoch(lane.epoch()),
        leader: somebody(lane.leader()),
        is_serving: lane.is_serving(),
        moving_to: somebody(lane.moving_to()),
        replicas: replicas.iter().map(replica).collect(),
        before: before.iter().map(BrokerId).collect(),
        load: lane.load().map(|load| LaneLoad {
            load: load.load(),
            bytes_in: load.bytes_in(),
            records_in: load.records_in(),
            bytes_out: load.bytes_out(),
            requests: load.requests(),
        }),
    })
}

fn somebody(id: u32) -> Option<BrokerId> {
    (id > 0).then_some(BrokerId(id))
}

fn number_of(id: Option<BrokerId>) -> u32 {
    id.map_or(0, |id| id.0)
}

impl sealed::Table for ClusterStatusReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let brokers: Vec<_> = self
            .brokers
            .iter()
            .map(|broker| {
                let args = wire::BrokerStatusArgs {
                    id: broker.id.0,
                    address: Some(builder.create_string(&broker.address.to_string())),
                    rack: Some(builder.create_string(&broker.rack)),
                    shards: broker.shards,
                    incarnation: broker.incarnation.0,
                    is_alive: broker.is_alive,
                    is_draining: broker.is_draining,
                };
                wire::BrokerStatus::create(builder, &args)
            })
            .collect();
        let lanes: Vec<_> = self.lanes.iter().map(|lane| lane_to_wire(lane, builder)).collect();
        let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<u32>>();
        let (voters, learners) = (numbers(&self.voters), numbers(&self.learners));
        let args = wire::ClusterStatusReplyArgs {
            version: self.version,
            me: self.me.0,
            metadata_leader: number_of(self.metadata_leader),
            brokers: Some(builder.create_vector(&brokers)),
            lanes: Some(builder.create_vector(&lanes)),
            voters: (!voters.is_empty()).then(|| builder.create_vector(&voters)),
            learners: (!learners.is_empty()).then(|| builder.create_vector(&learners)),
        };
        wire::ClusterStatusReply::create(builder, &args).as_union_value()
    }
}

fn lane_to_wire<'b>(
    lane: &LaneStatus,
    builder: &mut FlatBufferBuilder<'b>,
) -> WIPOffset<wire::LaneStatus<'b>> {
    let replicas: Vec<_> = lane
        .replicas
        .iter()
        .map(|replica| {
            let args = wire::ReplicaStatusArgs {
                broker: replica.broker.0,
                behind: replica.behind,
                is_caught_up: replica.is_caught_up,
            };
            wire::ReplicaStatus::create(builder, &args)
        })
        .collect();
    let before: Vec<u32> = lane.before.iter().map(|id| id.0).collect();
    let load = lane.load.map(|load| {
        let args = wire::LaneLoadArgs {
            load: load.load,
            bytes_in: load.bytes_in,
            records_in: load.records_in,
            bytes_out: load.bytes_out,
            requests: load.requests,
        };
        wire::LaneLoad::create(builder, &args)
    });
    let args = wire::LaneStatusArgs {
        lane: lane.lane.0,
        epoch: lane.epoch.0,
        leader: number_of(lane.leader),
        is_serving: lane.is_serving,
        moving_to: number_of(lane.moving_to),
        replicas: Some(builder.create_vector(&replicas)),
        before: (!before.is_empty()).then(|| builder.create_vector(&before)),
        load,
    };
    wire::LaneStatus::create(builder, &args)
}

/// A planned change of the cluster. None of them loses what was acknowledged, at any level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// This broker shall lead the lane, from now on whenever it can. Its leader hands it over.
    Transfer {
        /// Which lane.
        lane: LaneId,
        /// One that has a replica of it.
        to: BrokerId,
    },
    /// The broker shall lead nothing, until it is said again that it may.
    Drain {
        /// Which one.
        broker: BrokerId,
    },
    /// It may lead again.
    Undrain {
        /// Which one.
        broker: BrokerId,
    },
    /// The lane is on these brokers from now on. Its leader stays, and who is new copies everything.
    Replace {
        /// Which lane.
        lane: LaneId,
        /// As many as now, the preferred leader first. At most [`LANE_REPLICAS_MAX`].
        replicas: Vec<BrokerId>,
    },
    /// The broker belongs to the cluster no more, whether it is alive or not, and its number never comes back. It must have
    /// no replica of any lane.
    Remove {
        /// Which one.
        broker: BrokerId,
    },
    /// The lanes up to this number are made that there are not yet. This broker leads them, and they have as many replicas as
    /// the others. New partitions go into them.
    AddLanes {
        /// Who leads them.
        broker: BrokerId,
        /// Greater than the number of lanes that there are. At most [`LANES_MAX`].
        up_to: LaneId,
    },
}

/// "Do this", or "could this be done?"
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operate {
    /// What.
    pub operation: Operation,
    /// Nothing is changed, whatever the answer.
    pub check_only: bool,
    /// How long the broker may take. 0: no limit.
    pub timeout_ms: u32,
}

impl Operate {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::Operate>(control, TABLES_MAX)?;
        let (lane, broker) = (LaneId(table.lane()), BrokerId(table.broker()));
        let operation = match table.operation() {
            1 => Operation::Transfer { lane, to: broker },
            2 => Operation::Drain { broker },
            3 => Operation::Undrain { broker },
            4 => {
                let replicas = table.replicas().unwrap_or_default();
                check(replicas.len() <= LANE_REPLICAS_MAX, "operate: too many replicas")?;
                Operation::Replace { lane, replicas: replicas.iter().map(BrokerId).collect() }
            }
            5 => Operation::Remove { broker },
            6 => Operation::AddLanes { broker, up_to: lane },
            _ => return Err(MalformedError::new("operate: no such operation")),
        };
        Ok(Self { operation, check_only: table.check_only(), timeout_ms: table.timeout_ms() })
    }
}

impl sealed::Table for Operate {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let (operation, lane, broker, replicas) = match &self.operation {
            Operation::Transfer { lane, to } => (1, lane.0, to.0, &[][..]),
            Operation::Drain { broker } => (2, 0, broker.0, &[][..]),
            Operation::Undrain { broker } => (3, 0, broker.0, &[][..]),
            Operation::Replace { lane, replicas } => (4, lane.0, 0, &replicas[..]),
            Operation::Remove { broker } => (5, 0, broker.0, &[][..]),
            Operation::AddLanes { broker, up_to } => (6, up_to.0, broker.0, &[][..]),
        };
        let replicas: Vec<u32> = replicas.iter().map(|id| id.0).collect();
        let args = wire::OperateArgs {
            replicas: (!replicas.is_empty()).then(|| builder.create_vector(&replicas)),
            operation,
            lane,
            broker,
            check_only: self.check_only,
            timeout_ms: self.timeout_ms,
        };
        wire::Operate::create(builder, &args).as_union_value()
    }
}

/// What is in the way of an operation. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum Obstacle {
    /// The broker is alone: there is no other one.
    Alone,
    /// No broker has this id.
    UnknownBroker { broker: BrokerId },
    /// No lane has this number.
    UnknownLane { lane: LaneId },
    /// The lane has one copy only.
    NotReplicated { lane: LaneId },
    /// The broker has no copy of the lane.
    NoReplica { lane: LaneId, broker: BrokerId },
    /// Nothing is heard of the broker.
    Silent { broker: BrokerId },
    /// The broker shall lead nothing.
    Draining { broker: BrokerId },
    /// Nobody leads the lane now, or its leader has not said yet how far its followers are.
    NotLed { lane: LaneId },
    /// The lane is being handed over already.
    Moving { lane: LaneId },
    /// The broker does not keep up with the lane's leader: it lacks this many entries.
    Behind { lane: LaneId, broker: BrokerId, entries: u64 },
    /// All other replicas of the lane are silent, or on brokers that drain.
    NoOtherLeader { lane: LaneId, broker: BrokerId },
    /// These replicas cannot be: the lane has this many, each on another broker.
    BadReplicas { lane: LaneId, count: u64 },
    /// The lane has these replicas.
    SameReplicas { lane: LaneId },
    /// The last change of the lane's replicas is not over.
    Changing { lane: LaneId },
    /// The broker leads the lane, and would not have a copy any more.
    LeaderLeaves { lane: LaneId, broker: BrokerId },
    /// A quorum of the new replicas would have to copy everything first, and the lane would stand still.
    TooFewStay { lane: LaneId },
    /// The broker has a copy of the lane, or its word still counts there, or it is about to get one.
    HasReplicas { lane: LaneId, broker: BrokerId },
    /// Without the broker nobody would be left that is heard of.
    NoOtherBroker { broker: BrokerId },
    /// Without the broker, fewer than a majority of those who decide about the metadata would be heard of.
    NoQuorumWithout { broker: BrokerId },
    /// There is a lane with this number already.
    LaneExists { lane: LaneId },
    /// No lane may have this number: there would be too many.
    TooManyLanes { lane: LaneId },
}

impl Obstacle {
    /// Whether it goes away by itself, and soon.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::NotLed { .. } | Self::Moving { .. } | Self::Behind { .. } | Self::Changing { .. }
        )
    }

    /// Its number and what it names, for the wire: lane, broker, entries. 0 is none.
    #[must_use]
    pub const fn to_wire(self) -> (u8, u32, u32, u64) {
        match self {
            Self::Alone => (1, 0, 0, 0),
            Self::UnknownBroker { broker } => (2, 0, broker.0, 0),
            Self::UnknownLane { lane } => (3, lane.0, 0, 0),
            Self::NotReplicated { lane } => (4, lane.0, 0, 0),
            Self::NoReplica { lane, broker } => (5, lane.0, broker.0, 0),
            Self::Silent { broker } => (6, 0, broker.0, 0),
            Self::Draining { broker } => (7, 0, broker.0, 0),
            Self::NotLed { lane } => (8, lane.0, 0, 0),
            Self::Moving { lane } => (9, lane.0, 0, 0),
            Self::Behind { lane, broker, entries } => (10, lane.0, broker.0, entries),
            Self::NoOtherLeader { lane, broker } => (11, lane.0, broker.0, 0),
            Self::BadReplicas { lane, count } => (12, lane.0, 0, count),
            Self::SameReplicas { lane } => (13, lane.0, 0, 0),
            Self::Changing { lane } => (14, lane.0, 0, 0),
            Self::LeaderLeaves { lane, broker } => (15, lane.0, broker.0, 0),
            Self::TooFewStay { lane } => (16, lane.0, 0, 0),
            Self::HasReplicas { lane, broker } => (17, lane.0, broker.0, 0),
            Self::NoOtherBroker { broker } => (18, 0, broker.0, 0),
            Self::NoQuorumWithout { broker } => (19, 0, broker.0, 0),
            Self::LaneExists { lane } => (20, lane.0, 0, 0),
            Self::TooManyLanes { lane } => (21, lane.0, 0, 0),
        }
    }

    /// What [`Self::to_wire`] gave. Fields that an obstacle does not have must be 0.
    ///
    /// # Errors
    /// If it did not give that.
    pub fn from_wire(
        number: u8,
        lane: u32,
        broker: u32,
        entries: u64,
    ) -> Result<Self, MalformedError> {
        let parts = (number, lane, broker, entries);
        let (lane, broker) = (LaneId(lane), BrokerId(broker));
        let obstacle = match number {
            1 => Self::Alone,
            2 => Self::UnknownBroker { broker },
            3 => Self::UnknownLane { lane },
            4 => Self::NotReplicated { lane },
            5 => Self::NoReplica { lane, broker },
            6 => Self::Silent { broker },
            7 => Self::Draining { broker },
            8 => Self::NotLed { lane },
            9 => Self::Moving { lane },
            10 => Self::Behind { lane, broker, entries },
            11 => Self::NoOtherLeader { lane, broker },
            12 => Self::BadReplicas { lane, count: entries },
            13 => Self::SameReplicas { lane },
            14 => Self::Changing { lane },
            15 => Self::LeaderLeaves { lane, broker },
            16 => Self::TooFewStay { lane },
            17 => Self::HasReplicas { lane, broker },
            18 => Self::NoOtherBroker { broker },
            19 => Self::NoQuorumWithout { broker },
            20 => Self::LaneExists { lane },
            21 => Self::TooManyLanes { lane },
            _ => return Err(MalformedError::new("operate: no such obstacle")),
        };
        check(obstacle.to_wire() == parts, "operate: an obstacle that cannot be")?;
        Ok(obstacle)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => f.write_str("this broker is alone: there is no other one"),
            Self::UnknownBroker { broker } => write!(f, "there is no broker {broker}"),
            Self::UnknownLane { lane } => write!(f, "there is no lane {lane}"),
            Self::NotReplicated { lane } => write!(f, "lane {lane} has one copy only"),
            Self::NoReplica { lane, broker } => {
                write!(f, "broker {broker} has no copy of lane {lane}")
            }
            Self::Silent { broker } => write!(f, "nothing is heard of broker {broker}"),
            Self::Draining { broker } => write!(f, "broker {broker} drains: it shall lead nothing"),
            Self::NotLed { lane } => write!(f, "lane {lane} has no leader that serves now"),
            Self::Moving { lane } => write!(f, "lane {lane} is being handed over already"),
            Self::Behind { lane, broker, entries } => {
                write!(f, "broker {broker} lacks {entries} entries of lane {lane}")
            }
            Self::NoOtherLeader { lane, broker } => {
                write!(f, "nobody but broker {broker} can lead lane {lane} now")
            }
            Self::BadReplicas { lane, count } => {
                write!(f, "lane {lane} needs {count} replicas, each on another broker")
            }
            Self::SameReplicas { lane } => write!(f, "lane {lane} is on these brokers"),
            Self::Changing { lane } => {
                write!(f, "the last change of the replicas of lane {lane} is not over")
            }
            Self::LeaderLeaves { lane, broker } => {
                write!(f, "broker {broker} leads lane {lane}: transfer it first to one that stays")
            }
            Self::TooFewStay { lane } => write!(
                f,
                "lane {lane} would stand still until the new replicas have copied it: change one at a time"
            ),
            Self::HasReplicas { lane, broker } => {
                write!(
                    f,
                    "broker {broker} has a copy of lane {lane}: put that on another broker first"
                )
            }
            Self::NoOtherBroker { broker } => {
                write!(f, "nobody but broker {broker} is heard of")
            }
            Self::NoQuorumWithout { broker } => write!(
                f,
                "without broker {broker} fewer than a majority of the metadata's voters would be heard of"
            ),
            Self::LaneExists { lane } => write!(f, "there is a lane {lane} already"),
            Self::TooManyLanes { lane } => {
                write!(f, "there may be {LANES_MAX} lanes, and {lane} would be more")
            }
        }
    }
}

/// What comes of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperateReply {
    /// The version of the metadata in which it has begun, or what is in its way. 0: it was only asked whether it
    /// could be done, and it could.
    pub result: Result<u64, Obstacle>,
}

impl OperateReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::OperateReply>(control, TABLES_MAX)?;
        let (lane, broker, entries) = (table.lane(), table.broker(), table.entries());
        let result = match table.obstacle() {
            0 => {
                check((lane, broker, entries) == (0, 0, 0), "operate: named without an obstacle")?;
                Ok(table.version())
            }
            number => {
                check(table.version() == 0, "operate: done in spite of an obstacle")?;
                Err(Obstacle::from_wire(number, lane, broker, entries)?)
            }
        };
        Ok(Self { result })
    }
}

impl sealed::Table for OperateReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let (version, (obstacle, lane, broker, entries)) = match self.result {
            Ok(version) => (version, (0, 0, 0, 0)),
            Err(obstacle) => (0, obstacle.to_wire()),
        };
        let args = wire::OperateReplyArgs { version, obstacle, lane, broker, entries };
        wire::OperateReply::create(builder, &args).as_union_value()
    }
}

message!(ClusterStatus);
message!(ClusterStatusReply);
message!(Operate);
message!(OperateReply);
