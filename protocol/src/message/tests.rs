//! The bounds of tables: the largest honest messages pass, and small dishonest ones do not cost
//! more than their length.

use flatbuffers::FlatBufferBuilder;

use super::*;
use crate::ErrorCode;
use crate::generated::{session, status, topics};
use crate::ids::*;

fn control_of<M: Message>(message: &M) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let frame = encoder.encode(message, 1);
    let header = FrameHeader::decode(frame, u32::MAX).unwrap();
    header.control(frame).unwrap().to_vec()
}

#[test]
fn the_largest_honest_messages_decode() {
    for name_len in [0, 1, TOPIC_NAME_BYTES_MAX] {
        let topic = TopicSummary {
            id: TopicId(u32::MAX),
            name: "x".repeat(name_len),
            partitions: PARTITIONS_PER_TOPIC_MAX,
            replicas: 5,
        };
        let reply = TopicListReply { topics: vec![topic; TOPIC_LIST_MAX], more: true };
        assert_eq!(TopicListReply::decode(&control_of(&reply)).unwrap(), reply);
    }
    for (counters, shards) in [(0, SHARDS_MAX), (1, SHARDS_MAX), (COUNTERS_MAX, 64)] {
        let reply = StatusReply {
            uptime_ms: u64::MAX,
            names: (0..counters).map(|index| format!("{index}")).collect(),
            shards: (0..shards)
                .map(|shard| ShardCounters {
                    shard: ShardId(shard as u16),
                    values: vec![u64::MAX; counters],
                })
                .collect(),
        };
        assert_eq!(StatusReply::decode(&control_of(&reply)).unwrap(), reply);
    }
    let place = PartitionPlace {
        partition: PartitionId(u32::MAX),
        lane: LaneId(u32::MAX),
        broker: BrokerId(u32::MAX),
        shard: ShardId(u16::MAX),
        epoch: Epoch(u64::MAX),
    };
    let brokers = (1..=BROKERS_MAX as u32).map(|id| BrokerPlace {
        id: BrokerId(u32::MAX - BROKERS_MAX as u32 + id),
        address: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
        shards: u16::MAX,
        incarnation: Incarnation(u64::MAX),
        rack: "x".repeat(RACK_BYTES_MAX),
    });
    let reply = TopicDescribeReply {
        topic: TopicInfo {
            id: TopicId(1),
            name: "x".repeat(TOPIC_NAME_BYTES_MAX),
            settings: TopicSettings {
                partitions: PARTITIONS_PER_TOPIC_MAX,
                replicas: 5,
                retention_ms: Some(u64::MAX),
                retention_bytes: Some(u64::MAX),
            },
            places: vec![place; PARTITIONS_PER_TOPIC_MAX as usize],
            brokers: Brokers { me: BrokerId(u32::MAX), places: brokers.collect() },
            replica_places: Vec::new(),
        },
    };
    let control = control_of(&reply);
    assert!(control.len() < 1 << 19);
    assert_eq!(TopicDescribeReply::decode(&control).unwrap(), reply);
    let at = ReplicaPlace { lane: LaneId(u32::MAX), broker: BrokerId(u32::MAX) };
    let mut crowded = reply;
    crowded.topic.replica_places = vec![at; REPLICA_PLACES_MAX];
    assert_eq!(TopicDescribeReply::decode(&control_of(&crowded)).unwrap(), crowded);
    crowded.topic.replica_places.push(at);
    assert!(TopicDescribeReply::decode(&control_of(&crowded)).is_err());
    crowded.topic.replica_places.clear();
    let one = crowded.topic.brokers.places[0].clone();
    for (spoiled, what) in [
        (BrokerPlace { id: BrokerId(0), ..one.clone() }, "no id"),
        (BrokerPlace { shards: 0, ..one.clone() }, "no shards"),
        (BrokerPlace { id: BrokerId(u32::MAX), ..one.clone() }, "twice"),
        (BrokerPlace { rack: "x".repeat(RACK_BYTES_MAX + 1), ..one.clone() }, "a long rack"),
    ] {
        let mut reply = crowded.clone();
        reply.topic.brokers.places[0] = spoiled;
        assert!(TopicDescribeReply::decode(&control_of(&reply)).is_err(), "{what}");
    }
    let more = BrokerPlace { id: BrokerId(1), ..one };
    crowded.topic.brokers.places.insert(0, more);
    assert!(TopicDescribeReply::decode(&control_of(&crowded)).is_err(), "one too many");

    let wanted =
        FetchPartition { partition: PartitionId(1), offset: Offset(u64::MAX), bytes_max: u32::MAX };
    let fetch = Fetch { partitions: vec![wanted; FETCH_PARTITIONS_MAX], ..support_bounds() };
    assert_eq!(Fetch::decode(&control_of(&fetch)).unwrap(), fetch);
    let mut hello = Hello::new(&"x".repeat(STRING_BYTES_MAX));
    hello.credentials = vec![1; CREDENTIALS_BYTES_MAX];
    assert_eq!(Hello::decode(&control_of(&hello)).unwrap(), hello);
    // All of it, with room to spare, within the cap before hello.
    hello.client_software = "x".repeat(64);
    assert!(control_of(&hello).len() < 4 << 10);
}

fn support_bounds() -> Fetch {
    Fetch {
        wait_max_ms: u32::MAX,
        bytes_min: u32::MAX,
        bytes_max: u32::MAX,
        partitions: Vec::new(),
        any_replica: true,
    }
}

#[test]
fn one_more_than_the_bound_is_malformed() {
    let wanted = FetchPartition { partition: PartitionId(1), offset: Offset(0), bytes_max: 1 };
    for count in [0, FETCH_PARTITIONS_MAX + 1] {
        let fetch = Fetch { partitions: vec![wanted; count], ..Fetch::default() };
        assert!(Fetch::decode(&control_of(&fetch)).is_err());
        let query = OffsetsQuery { partition: PartitionId(1), timestamp: Some(1) };
        assert!(Offsets::decode(&control_of(&Offsets { partitions: vec![query; count] })).is_err());
    }
    let topic = TopicSummary { id: TopicId(1), name: "x".into(), partitions: 1, replicas: 1 };
    let reply = TopicListReply { topics: vec![topic; TOPIC_LIST_MAX + 1], more: false };
    assert!(TopicListReply::decode(&control_of(&reply)).is_err());

    let long = "x".repeat(STRING_BYTES_MAX + 1);
    assert!(Hello::decode(&control_of(&Hello::new(&long))).is_err());
    let mut hello = Hello::new("");
    hello.credentials = vec![0; CREDENTIALS_BYTES_MAX + 1];
    assert!(Hello::decode(&control_of(&hello)).is_err());
    assert!(TopicDescribe::decode(&control_of(&TopicDescribe { name: long.clone() })).is_err());

    // A sentence for people is cut where it is made, between two characters.
    let error = ErrorReply::new(ErrorCode::Internal, 1, &"ß".repeat(STRING_BYTES_MAX));
    let decoded = ErrorReply::decode(&control_of(&error)).unwrap();
    assert_eq!(decoded.message, "ß".repeat(STRING_BYTES_MAX / 2));
}

#[test]
fn fields_that_contradict_each_other_are_malformed() {
    let mut hello = Hello::new("");
    hello.version_min = 2;
    assert!(Hello::decode(&control_of(&hello)).is_err());
    hello.version_min = 0;
    assert!(Hello::decode(&control_of(&hello)).is_err());

    let sound = FetchedPartition {
        partition: PartitionId(1),
        error: None,
        log_start: Offset(1),
        committed_end: Offset(1),
        bytes: 0,
        corrupt: None,
    };
    let decodes = |fetched: &FetchedPartition| {
        let reply = FetchReply { partitions: vec![fetched.clone()] };
        FetchReply::decode(&control_of(&reply)).is_ok()
    };
    assert!(decodes(&sound));
    assert!(!decodes(&FetchedPartition { log_start: Offset(2), ..sound.clone() }));
    let corrupt = Some(Offset(1)..Offset(1));
    assert!(!decodes(&FetchedPartition { corrupt, ..sound.clone() }));

    // Values without names.
    let shards = vec![ShardCounters { shard: ShardId(0), values: vec![1] }];
    let reply = StatusReply { uptime_ms: 0, names: Vec::new(), shards };
    assert!(StatusReply::decode(&control_of(&reply)).is_err());

    // A frame of one kind read as another does not become it by accident.
    assert!(HelloReply::decode(&control_of(&TopicDescribe { name: "x".into() })).is_err());
}

#[test]
fn versions_meet_at_the_newest_that_both_speak() {
    let offer = |version_min, version_max| Hello { version_min, version_max, ..Hello::new("") };
    assert_eq!(offer(1, 1).version_in_common(), Some(1));
    assert_eq!(offer(1, 9).version_in_common(), Some(PROTOCOL_VERSION_MAX));
    assert_eq!(offer(8, 9).version_in_common(), None);
}

#[test]
fn a_list_that_names_one_table_or_string_again_and_again_is_refused() {
    // 4 bytes each on the wire, 1 KiB each when believed.
    let mut builder = FlatBufferBuilder::new();
    let name = builder.create_string(&"x".repeat(STRING_BYTES_MAX));
    let args = topics::TopicSummaryArgs { name: Some(name), ..Default::default() };
    let topic = topics::TopicSummary::create(&mut builder, &args);
    let list = builder.create_vector(&[topic; TOPIC_LIST_MAX]);
    let args = topics::TopicListReplyArgs { topics: Some(list), more: false };
    let root = topics::TopicListReply::create(&mut builder, &args);
    builder.finish_minimal(root);
    assert!(builder.finished_data().len() < 8 << 10);
    assert!(TopicListReply::decode(builder.finished_data()).is_err());

    let mut builder = FlatBufferBuilder::new();
    let name = builder.create_string("");
    let names = builder.create_vector(&[name; COUNTERS_MAX]);
    let args = status::StatusReplyArgs { names: Some(names), ..Default::default() };
    let root = status::StatusReply::create(&mut builder, &args);
    builder.finish_minimal(root);
    assert!(StatusReply::decode(builder.finished_data()).is_err());

    let mut builder = FlatBufferBuilder::new();
    let values = builder.create_vector(&[0u64; COUNTERS_MAX]);
    let args = status::ShardCountersArgs { shard: 0, values: Some(values) };
    let shard = status::ShardCounters::create(&mut builder, &args);
    let shards = builder.create_vector(&[shard; SHARDS_MAX]);
    let args = status::StatusReplyArgs { shards: Some(shards), ..Default::default() };
    let root = status::StatusReply::create(&mut builder, &args);
    builder.finish_minimal(root);
    assert!(StatusReply::decode(builder.finished_data()).is_err());
}

#[test]
fn absent_fields_have_their_documented_meaning() {
    // An older peer, or a frugal one: a table without any field.
    let mut builder = FlatBufferBuilder::new();
    let root = session::Error::create(&mut builder, &session::ErrorArgs::default());
    builder.finish_minimal(root);
    let empty = builder.finished_data();
    assert_eq!(Status::decode(empty), Ok(Status::default()));
    assert_eq!(TopicList::decode(empty), Ok(TopicList::default()));
    assert_eq!(TopicListReply::decode(empty), Ok(TopicListReply::default()));
    assert_eq!(FetchReply::decode(empty), Ok(FetchReply::default()));
    assert_eq!(TopicDescribe::decode(empty).unwrap().name, "");
    assert!(Hello::decode(empty).is_err());
    assert!(HelloReply::decode(empty).is_err());
    assert!(ErrorReply::decode(empty).is_err());
    assert!(Fetch::decode(empty).is_err());
    assert!(TopicDescribeReply::decode(empty).is_err());
}

#[test]
fn topic_names_follow_their_rules() {
    for name in ["a", "orders.v1_x-Y", "...", &"x".repeat(TOPIC_NAME_BYTES_MAX)] {
        assert_eq!(check_topic_name(name), Ok(()), "{name}");
    }
    assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
    assert_eq!(check_topic_name("."), Err(TopicNameError::Dots));
    assert_eq!(check_topic_name(".."), Err(TopicNameError::Dots));
    assert_eq!(check_topic_name("a/b"), Err(TopicNameError::Character { at: 1 }));
    assert_eq!(check_topic_name("größe"), Err(TopicNameError::Character { at: 2 }));
    let bytes = TOPIC_NAME_BYTES_MAX + 1;
    assert_eq!(check_topic_name(&"x".repeat(bytes)), Err(TopicNameError::TooLong { bytes }));
}

#[test]
fn nothing_but_generated_code_goes_past_the_verifier() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/message");
    let mut looked_at = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("unchecked") && !text.contains("unsafe"), "{path:?}");
        looked_at += 1;
    }
    assert!(looked_at >= 5);
}
