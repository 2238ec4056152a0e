//! Topics: make, list, describe, delete, alter.

use std::error::Error;
use std::fmt;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::brokers::{
    BROKERS_MAX, Brokers, ReplicaPlace, brokers_from_wire, brokers_to_wire, replicas_from_wire,
    replicas_to_wire,
};
use super::{TABLES_MAX, check, message, read_root, sealed, text};
use crate::generated::topics as wire;
use crate::ids::{BrokerId, Epoch, LaneId, PartitionId, ShardId, TopicId};
use crate::malformed::MalformedError;

/// A topic's name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Partitions of a topic: 10,000 places are 240 KB in a description.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;

/// Topics in one answer to [`TopicList`].
pub const TOPIC_LIST_MAX: usize = 1000;

/// Why a string is no topic name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum TopicNameError {
    /// No name.
    Empty,
    /// Above [`TOPIC_NAME_BYTES_MAX`].
    TooLong { bytes: usize },
    /// Letters and digits of ASCII, `.`, `_` and `-` are allowed.
    Character { at: usize },
    /// `.` and `..` mean something else to file systems.
    Dots,
}

/// Whether a topic may have this name.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong { bytes: name.len() });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if let Some(at) = name.bytes().position(|byte| !allowed(byte)) {
        return Err(TopicNameError::Character { at });
    }
    if matches!(name, "." | "..") { Err(TopicNameError::Dots) } else { Ok(()) }
}

impl fmt::Display for TopicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a topic name is empty"),
            Self::TooLong { bytes } => {
                write!(f, "a topic name has {bytes} bytes, above {TOPIC_NAME_BYTES_MAX}")
            }
            Self::Character { at } => write!(
                f,
                "byte {at} of a topic name is none of: letters, digits, dot, underscore, hyphen"
            ),
            Self::Dots => f.write_str("a topic name is . or .."),
        }
    }
}

impl Error for TopicNameError {}

/// What a topic is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicSettings {
    /// 1 to [`PARTITIONS_PER_TOPIC_MAX`].
    pub partitions: u32,
    /// Copies: 1, 3 or 5. 0 in a request: the default of the cluster.
    pub replicas: u8,
    /// How long records are kept at least. `None`: without end.
    pub retention_ms: Option<u64>,
    /// How many bytes of a partition are kept at least. `None`: without end.
    pub retention_bytes: Option<u64>,
}

/// "Make a topic."
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicCreate {
    /// Its name: see [`check_topic_name`].
    pub name: String,
    /// What it is made with. Out of bounds is answered with a typed error, not as malformed.
    pub settings: TopicSettings,
    /// How long the broker may take. 0: no limit.
    pub timeout_ms: u32,
}

impl TopicCreate {
    /// Reads a control part. Name and settings are not judged.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicCreate>(control, TABLES_MAX)?;
        Ok(Self {
            name: text(table.name(), "topic create: length of name")?,
            settings: TopicSettings {
                partitions: table.partitions(),
                replicas: table.replicas(),
                retention_ms: table.retention_ms(),
                retention_bytes: table.retention_bytes(),
            },
            timeout_ms: table.timeout_ms(),
        })
    }
}

impl sealed::Table for TopicCreate {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::TopicCreateArgs {
            name: Some(builder.create_string(&self.name)),
            partitions: self.settings.partitions,
            replicas: self.settings.replicas,
            retention_ms: self.settings.retention_ms,
            retention_bytes: self.settings.retention_bytes,
            timeout_ms: self.timeout_ms,
        };
        wire::TopicCreate::create(builder, &args).as_union_value()
    }
}

/// A topic, and where its partitions live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What it was made with; `partitions` is the length of `places`.
    pub settings: TopicSettings,
    /// The partitions, in the order of their numbers in the topic.
    pub places: Vec<PartitionPlace>,
    /// Who answers, and who else is there.
    pub brokers: Brokers,
    /// Where the lanes of the topic have copies, by lane; of each lane the preferred leader first.
    /// Empty if a broker is alone. At most [`REPLICA_PLACES_MAX`](super::REPLICA_PLACES_MAX).
    pub replica_places: Vec<ReplicaPlace>,
}

impl TopicInfo {
    /// The brokers that have a copy of a lane, the preferred leader first. None are told by a broker
    /// that is alone.
    pub fn replicas_of(&self, lane: LaneId) -> impl Iterator<Item = BrokerId> + '_ {
        self.replica_places.iter().filter(move |at| at.lane == lane).map(|at| at.broker)
    }
}

/// Where a partition lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionPlace {
    /// Its id.
    pub partition: PartitionId,
    /// The lane that holds it.
    pub lane: LaneId,
    /// The broker that leads the lane. 0: none leads it now; or, if no brokers are told, the one that
    /// answers.
    pub broker: BrokerId,
    /// The shard that leads the lane there: what to put into a preamble.
    pub shard: ShardId,
    /// Of the lane, when this was written.
    pub epoch: Epoch,
}

/// The reply, the topic, and its brokers.
const TOPIC_TABLES_MAX: usize = 2 + BROKERS_MAX;

fn topic_from_wire(topic: Option<wire::TopicInfo<'_>>) -> Result<TopicInfo, MalformedError> {
    let Some(topic) = topic else {
        return Err(MalformedError::new("topic info: absent"));
    };
    let places = topic.partitions().unwrap_or_default();
    check(!places.is_empty(), "topic info: no partitions")?;
    check(places.len() <= PARTITIONS_PER_TOPIC_MAX as usize, "topic info: too many partitions")?;
    let places = places
        .iter()
        .map(|place| {
            check(place.reserved() == 0, "topic info: reserved field not zero")?;
            Ok(PartitionPlace {
                partition: PartitionId(place.partition()),
                lane: LaneId(place.lane()),
                broker: BrokerId(place.broker()),
                shard: ShardId(place.shard()),
                epoch: Epoch(place.epoch()),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(TopicInfo {
        id: TopicId(topic.id()),
        name: text(topic.name(), "topic info: length of name")?,
        settings: TopicSettings {
            partitions: places.len() as u32,
            replicas: topic.replicas(),
            retention_ms: topic.retention_ms(),
            retention_bytes: topic.retention_bytes(),
        },
        places,
        brokers: brokers_from_wire(&topic)?,
        replica_places: replicas_from_wire(&topic)?,
    })
}

fn topic_to_wire<'b>(
    topic: &TopicInfo,
    builder: &mut FlatBufferBuilder<'b>,
) -> WIPOffset<wire::TopicInfo<'b>> {
    let partitions = builder.create_vector_from_iter(topic.places.iter().map(|place| {
        wire::PartitionPlace::new(
            place.epoch.0,
            place.partition.0,
            place.lane.0,
            place.broker.0,
            place.shard.0,
            0,
        )
    }));
    // What is empty is absent: a broker alone answers as it did before there were clusters.
    let brokers = brokers_to_wire(&topic.brokers, builder);
    let replica_places = replicas_to_wire(&topic.replica_places, builder);
    let args = wire::TopicInfoArgs {
        id: topic.id.0,
        name: Some(builder.create_string(&topic.name)),
        replicas: topic.settings.replicas,
        retention_ms: topic.settings.retention_ms,
        retention_bytes: topic.settings.retention_bytes,
        partitions: Some(partitions),
        brokers,
        me: topic.brokers.me.0,
        replica_places,
    };
    wire::TopicInfo::create(builder, &args)
}

/// The topic that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicCreateReply {
    /// It.
    pub topic: TopicInfo,
}

impl TopicCreateReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicCreateReply>(control, TOPIC_TABLES_MAX)?;
        Ok(Self { topic: topic_from_wire(table.topic())? })
    }
}

impl sealed::Table for TopicCreateReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let topic = Some(topic_to_wire(&self.topic, builder));
        let args = wire::TopicCreateReplyArgs { topic };
        wire::TopicCreateReply::create(builder, &args).as_union_value()
    }
}

/// "Which topics are there?" By name, a page at a time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TopicList {
    /// Only names greater than this one. Empty: from the first.
    pub after: String,
    /// 0, and more than [`TOPIC_LIST_MAX`]: as many as the broker likes.
    pub count_max: u32,
}

impl TopicList {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicList>(control, TABLES_MAX)?;
        Ok(Self {
            after: text(table.after(), "topic list: length of name")?,
            count_max: table.count_max(),
        })
    }
}

impl sealed::Table for TopicList {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::TopicListArgs {
            after: Some(builder.create_string(&self.after)),
            count_max: self.count_max,
        };
        wire::TopicList::create(builder, &args).as_union_value()
    }
}

/// A page of topics.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TopicListReply {
    /// By name. At most [`TOPIC_LIST_MAX`].
    pub topics: Vec<TopicSummary>,
    /// Whether there are more: ask again, after the last name.
    pub more: bool,
}

/// A line of a list of topics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSummary {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many copies it has.
    pub replicas: u8,
}

impl TopicListReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicListReply>(control, 1 + TOPIC_LIST_MAX)?;
        let topics = table.topics().unwrap_or_default();
        check(topics.len() <= TOPIC_LIST_MAX, "topic list reply: too many topics")?;
        let topics = topics
            .iter()
            .map(|topic| {
                Ok(TopicSummary {
                    id: TopicId(topic.id()),
                    name: text(topic.name(), "topic list reply: length of name")?,
                    partitions: topic.partitions(),
                    replicas: topic.replicas(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { topics, more: table.more() })
    }
}

impl sealed::Table for TopicListReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|topic| {
                let args = wire::TopicSummaryArgs {
                    id: topic.id.0,
                    name: Some(builder.create_string(&topic.name)),
                    partitions: topic.partitions,
                    replicas: topic.replicas,
                };
                wire::TopicSummary::create(builder, &args)
            })
            .collect();
        let topics = Some(builder.create_vector(&topics));
        let args = wire::TopicListReplyArgs { topics, more: self.more };
        wire::TopicListReply::create(builder, &args).as_union_value()
    }
}

/// "Where do the partitions of this topic live?"
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicDescribe {
    /// Its name.
    pub name: String,
}

impl TopicDescribe {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicDescribe>(control, TABLES_MAX)?;
        Ok(Self { name: text(table.name(), "topic describe: length of name")? })
    }
}

impl sealed::Table for TopicDescribe {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::TopicDescribeArgs { name: Some(builder.create_string(&self.name)) };
        wire::TopicDescribe::create(builder, &args).as_union_value()
    }
}

/// The places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicDescribeReply {
    /// The topic.
    pub topic: TopicInfo,
}

impl TopicDescribeReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicDescribeReply>(control, TOPIC_TABLES_MAX)?;
        Ok(Self { topic: topic_from_wire(table.topic())? })
    }
}

impl sealed::Table for TopicDescribeReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let topic = Some(topic_to_wire(&self.topic, builder));
        let args = wire::TopicDescribeReplyArgs { topic };
        wire::TopicDescribeReply::create(builder, &args).as_union_value()
    }
}

/// "Delete a topic and its data."
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicDelete {
    /// Its name.
    pub name: String,
    /// How long the broker may take. 0: no limit.
    pub timeout_ms: u32,
}

impl TopicDelete {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicDelete>(control, TABLES_MAX)?;
        Ok(Self {
            name: text(table.name(), "topic delete: length of name")?,
            timeout_ms: table.timeout_ms(),
        })
    }
}

impl sealed::Table for TopicDelete {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::TopicDeleteArgs {
            name: Some(builder.create_string(&self.name)),
            timeout_ms: self.timeout_ms,
        };
        wire::TopicDelete::create(builder, &args).as_union_value()
    }
}

/// It is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicDeleteReply {
    /// The id that it had.
    pub id: TopicId,
}

impl TopicDeleteReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicDeleteReply>(control, TABLES_MAX)?;
        Ok(Self { id: TopicId(table.id()) })
    }
}

impl sealed::Table for TopicDeleteReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::TopicDeleteReplyArgs { id: self.id.0 };
        wire::TopicDeleteReply::create(builder, &args).as_union_value()
    }
}

/// What changes about a topic. What is `None` stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TopicChanges {
    /// How many partitions it has from now on: up to [`PARTITIONS_PER_TOPIC_MAX`], and not fewer
    /// than before. A key may hash to another partition then.
    pub partitions: Option<u32>,
    /// How long records are kept at least, ms. 0: without end.
    pub retention_ms: Option<u64>,
    /// How many bytes of a partition are kept at least. 0: without end.
    pub retention_bytes: Option<u64>,
}

/// "Change a topic's settings."
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicAlter {
    /// Its name.
    pub name: String,
    /// What changes. Out of bounds is answered with a typed error, not as malformed.
    pub changes: TopicChanges,
    /// How long the broker may take. 0: no limit.
    pub timeout_ms: u32,
}

impl TopicAlter {
    /// Reads a control part. Name and changes are not judged.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicAlter>(control, TABLES_MAX)?;
        Ok(Self {
            name: text(table.name(), "topic alter: length of name")?,
            changes: TopicChanges {
                partitions: table.partitions(),
                retention_ms: table.retention_ms(),
                retention_bytes: table.retention_bytes(),
            },
            timeout_ms: table.timeout_ms(),
        })
    }
}

impl sealed::Table for TopicAlter {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::TopicAlterArgs {
            name: Some(builder.create_string(&self.name)),
            partitions: self.changes.partitions,
            retention_ms: self.changes.retention_ms,
            retention_bytes: self.changes.retention_bytes,
            timeout_ms: self.timeout_ms,
        };
        wire::TopicAlter::create(builder, &args).as_union_value()
    }
}

/// The topic, as it is on every shard now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicAlterReply {
    /// It.
    pub topic: TopicInfo,
}

impl TopicAlterReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::TopicAlterReply>(control, TOPIC_TABLES_MAX)?;
        Ok(Self { topic: topic_from_wire(table.topic())? })
    }
}

impl sealed::Table for TopicAlterReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let topic = Some(topic_to_wire(&self.topic, builder));
        let args = wire::TopicAlterReplyArgs { topic };
        wire::TopicAlterReply::create(builder, &args).as_union_value()
    }
}

message!(TopicCreate);
message!(TopicCreateReply);
message!(TopicList);
message!(TopicListReply);
message!(TopicDescribe);
message!(TopicDescribeReply);
message!(TopicDelete);
message!(TopicDeleteReply);
message!(TopicAlter);
message!(TopicAlterReply);
