//! One sample of every message and every state of its optional fields, and random numbers.

#![allow(dead_code, reason = "each test uses a part")]

use std::fmt::Write as _;

use corelog_protocol::batch::{BatchBuilder, Header, NewRecord};
use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::ids::*;
use corelog_protocol::message::*;
use corelog_protocol::peer::{PEER_VERSION, PeerHello, PeerIdentity};
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::{Produce, ProduceAck, StageTimes};
use corelog_protocol::{Durability, ErrorCode};

/// `0010  43 4c 46 31 01 01 00 00  2c 00 00 00 00 00 00 00  CLF1....,.......`
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, bytes) in bytes.chunks(16).enumerate() {
        write!(text, "{:04x} ", row * 16).unwrap();
        for half in bytes.chunks(8) {
            half.iter().for_each(|byte| write!(text, " {byte:02x}").unwrap());
            text.push(' ');
        }
        let column = text.len() - text.rfind('\n').map_or(0, |end| end + 1);
        text.extend(std::iter::repeat_n(' ', 56 - column));
        let printable = |&byte: &u8| if byte.is_ascii_graphic() { byte as char } else { '.' };
        text.extend(bytes.iter().map(printable));
        text.push('\n');
    }
    text
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Prints the seed first, so that a failure can be repeated: `CORELOG_SEED=… cargo test`.
pub fn seeded(test: &str) -> Random {
    let seed = std::env::var("CORELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("{test}: CORELOG_SEED={seed}");
    Random(seed)
}

pub fn preamble() -> Preamble {
    Preamble { shard: ShardId(3) }
}

pub fn produce() -> Produce {
    Produce {
        partition: PartitionId(0x0403_0201),
        timeout_ms: 30_000,
        durability: Durability::QuorumDurable,
        want_stages: true,
        sent_before: false,
        former: None,
    }
}

pub fn produce_ack() -> ProduceAck {
    ProduceAck {
        base_offset: Offset(0x0102_0304_0506_0708),
        epoch: Epoch(9),
        append_time: 1_800_000_000_123,
        partition: PartitionId(7),
        record_count: 64,
        level: Durability::LeaderDurable,
        stages: Some(StageTimes::from_array([1, 20, 300, 4_000, 50_000, 0, 0, 600_000])),
    }
}

pub fn entry_header() -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Batch,
        body_len: 4_097,
        record_count: 10,
        partition: PartitionId(7),
        body_crc: 0xdead_beef,
        lsn: Lsn(1_000_000),
        epoch: Epoch(3),
        base_offset: Offset(123_456_789),
        append_time: 1_800_000_000_123,
        lane: LaneId(5),
    }
}

/// Three records: bare, with key and value, with everything; empty and null both occur.
pub fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20, 100);
    let base = 1_800_000_000_000;
    builder.push(&NewRecord { timestamp: base, ..NewRecord::default() }).unwrap();
    let record = NewRecord {
        timestamp: base - 5,
        key: Some(b"key"),
        value: Some(b"value"),
        ..NewRecord::default()
    };
    builder.push(&record).unwrap();
    let headers = [
        Header { name: "trace", value: Some(b"abc") },
        Header { name: "größe", value: None },
        Header { name: "", value: Some(b"") },
    ];
    let record = NewRecord {
        timestamp: base + 1000,
        key: Some(b""),
        value: Some(&[0xff; 200]),
        headers: &headers,
    };
    builder.push(&record).unwrap();
    builder.set_producer(ProducerId(77), 2, 1_000);
    builder.finish().to_vec()
}

pub fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 2,
        client_name: "billing".into(),
        client_software: "corelog-rust 0.1.0".into(),
        cluster: Some(ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100)),
        incarnation: Some(Incarnation(11)),
        mechanism: "none".into(),
        credentials: vec![1, 2, 3],
    }
}

pub fn hello_bare() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        client_name: String::new(),
        client_software: String::new(),
        cluster: None,
        incarnation: None,
        mechanism: String::new(),
        credentials: Vec::new(),
    }
}

pub fn hello_reply() -> HelloReply {
    HelloReply {
        version: 1,
        cluster: ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
        incarnation: Incarnation(11),
        shard: ShardId(1),
        shards: 2,
        frame_bytes_max: 1 << 20,
        software: "corelogd 0.1.0".into(),
    }
}

pub fn error() -> ErrorReply {
    ErrorReply {
        code: ErrorCode::Overloaded,
        request_kind: 16,
        retry_after_ms: 50,
        versions: (0, 0),
        topic: Some("orders".into()),
        partition: Some(PartitionId(7)),
        offset: Some(Offset(42)),
        message: "no memory for the batch".into(),
    }
}

pub fn error_bare() -> ErrorReply {
    let mut error = ErrorReply::new(ErrorCode::Unsupported, 255, "");
    error.versions = (1, 1);
    error
}

pub fn fetch() -> Fetch {
    Fetch {
        wait_max_ms: 500,
        bytes_min: 1,
        bytes_max: 1 << 20,
        partitions: vec![
            FetchPartition { partition: PartitionId(7), offset: Offset(42), bytes_max: 65_536 },
            FetchPartition { partition: PartitionId(8), offset: Offset(0), bytes_max: 65_536 },
        ],
        any_replica: false,
    }
}

pub fn fetch_any_replica() -> Fetch {
    Fetch { any_replica: true, ..fetch() }
}

pub fn fetch_reply() -> FetchReply {
    FetchReply {
        partitions: vec![
            FetchedPartition {
                partition: PartitionId(7),
                error: None,
                log_start: Offset(10),
                committed_end: Offset(52),
                bytes: 128,
                corrupt: Some(Offset(44)..Offset(46)),
            },
            FetchedPartition {
                partition: PartitionId(8),
                error: Some(ErrorCode::UnknownPartition),
                log_start: Offset(0),
                committed_end: Offset(0),
                bytes: 0,
                corrupt: None,
            },
        ],
    }
}

pub fn offsets() -> Offsets {
    Offsets {
        partitions: vec![
            OffsetsQuery { partition: PartitionId(7), timestamp: None },
            OffsetsQuery { partition: PartitionId(8), timestamp: Some(-1) },
        ],
    }
}

pub fn offsets_reply() -> OffsetsReply {
    OffsetsReply {
        partitions: vec![
            OffsetsAnswer {
                partition: PartitionId(7),
                error: None,
                log_start: Offset(10),
                committed_end: Offset(52),
                offset_at: None,
            },
            OffsetsAnswer {
                partition: PartitionId(8),
                error: Some(ErrorCode::Recovering),
                log_start: Offset(0),
                committed_end: Offset(9),
                offset_at: Some(Offset(0)),
            },
        ],
    }
}

fn topic_info() -> TopicInfo {
    let place = |partition, shard| PartitionPlace {
        partition: PartitionId(partition),
        lane: LaneId(u32::from(shard) + 1),
        broker: BrokerId(0),
        shard: ShardId(shard),
        epoch: Epoch(4),
    };
    TopicInfo {
        id: TopicId(5),
        name: "orders".into(),
        settings: TopicSettings {
            partitions: 2,
            replicas: 3,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
        },
        places: vec![place(7, 0), place(8, 1)],
        brokers: Brokers::default(),
        replica_places: Vec::new(),
    }
}

pub fn topic_create() -> TopicCreate {
    TopicCreate { name: "orders".into(), settings: topic_info().settings, timeout_ms: 5_000 }
}

pub fn topic_create_reply() -> TopicCreateReply {
    TopicCreateReply { topic: topic_info() }
}

pub fn topic_list() -> TopicList {
    TopicList { after: "invoices".into(), count_max: 100 }
}

pub fn topic_list_reply() -> TopicListReply {
    let summary = |id, name: &str| TopicSummary {
        id: TopicId(id),
        name: name.into(),
        partitions: 2,
        replicas: 1,
    };
    TopicListReply { topics: vec![summary(5, "orders"), summary(9, "payments")], more: true }
}

pub fn topic_describe() -> TopicDescribe {
    TopicDescribe { name: "orders".into() }
}

pub fn topic_describe_reply() -> TopicDescribeReply {
    TopicDescribeReply { topic: topic_info() }
}

/// From a broker of a cluster, while one of the lanes has no leader.
pub fn topic_describe_reply_cluster() -> TopicDescribeReply {
    let broker = |id, address: &str| BrokerPlace {
        id: BrokerId(id),
        address: address.parse().unwrap(),
        shards: 2,
        incarnation: Incarnation(0x0102_0304_0506_0700 + u64::from(id)),
        rack: String::new(),
    };
    let mut topic = topic_info();
    topic.places[0].broker = BrokerId(3);
    topic.brokers = Brokers {
        me: BrokerId(2),
        places: vec![
            broker(1, "192.0.2.1:7421"),
            broker(2, "[2001:db8::2]:7421"),
            broker(3, "192.0.2.3:7422"),
        ],
    };
    let at = |lane, broker| ReplicaPlace { lane: LaneId(lane), broker: BrokerId(broker) };
    topic.replica_places = vec![at(1, 3), at(1, 1), at(1, 2), at(2, 1), at(2, 2), at(2, 3)];
    TopicDescribeReply { topic }
}

/// The same from brokers that say in which rack they are, but for one.
pub fn topic_describe_reply_racks() -> TopicDescribeReply {
    let mut reply = topic_describe_reply_cluster();
    let racks = ["eu-1a", "", "eu-1c"];
    for (place, rack) in reply.topic.brokers.places.iter_mut().zip(racks) {
        place.rack = rack.into();
    }
    reply
}

pub fn topic_delete() -> TopicDelete {
    TopicDelete { name: "orders".into(), timeout_ms: 5_000 }
}

pub fn topic_delete_reply() -> TopicDeleteReply {
    TopicDeleteReply { id: TopicId(5) }
}

pub fn topic_alter() -> TopicAlter {
    let changes =
        TopicChanges { partitions: Some(4), retention_ms: Some(0), retention_bytes: Some(1 << 30) };
    TopicAlter { name: "orders".into(), changes, timeout_ms: 5_000 }
}

pub fn topic_alter_bare() -> TopicAlter {
    TopicAlter { name: "orders".into(), changes: TopicChanges::default(), timeout_ms: 0 }
}

pub fn topic_alter_reply() -> TopicAlterReply {
    TopicAlterReply { topic: topic_info() }
}

pub fn status() -> Status {
    Status { prefix: "requests_".into() }
}

pub fn peer_hello() -> PeerHello {
    let from = PeerIdentity {
        cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        broker: BrokerId(3),
        incarnation: Incarnation(0x0123_4567_89ab_cdef),
        life: 0xfedc_ba98_7654_3210,
        shard: ShardId(1),
        shards: 4,
    };
    PeerHello { version: PEER_VERSION, from }
}

pub fn status_reply() -> StatusReply {
    StatusReply {
        uptime_ms: 60_000,
        names: vec!["requests".into(), "requests_forwarded".into()],
        shards: vec![
            ShardCounters { shard: ShardId(0), values: vec![1_000, 0] },
            ShardCounters { shard: ShardId(1), values: vec![u64::MAX, 3] },
        ],
    }
}

pub fn cluster_status_reply() -> ClusterStatusReply {
    let broker = |id: u32, is_alive| BrokerStatus {
        id: BrokerId(id),
        address: format!("192.0.2.{id}:7421").parse().unwrap(),
        rack: format!("r{id}"),
        shards: 2,
        incarnation: Incarnation(0x0102_0304_0506_0700 + u64::from(id)),
        is_alive,
        is_draining: id == 3,
    };
    let replica = |id, behind| ReplicaStatus {
        broker: BrokerId(id),
        behind,
        is_caught_up: behind == Some(0),
    };
    let first = LaneStatus {
        lane: LaneId(1),
        epoch: Epoch(4),
        leader: Some(BrokerId(1)),
        is_serving: true,
        moving_to: Some(BrokerId(2)),
        replicas: vec![replica(1, Some(0)), replica(2, Some(1_000)), replica(3, None)],
        before: vec![BrokerId(1), BrokerId(2), BrokerId(4)],
        load: None,
    };
    let second = LaneStatus {
        lane: LaneId(2),
        leader: None,
        is_serving: false,
        moving_to: None,
        replicas: vec![replica(3, None)],
        before: Vec::new(),
        ..first.clone()
    };
    ClusterStatusReply {
        version: 77,
        me: BrokerId(2),
        metadata_leader: Some(BrokerId(1)),
        brokers: vec![broker(1, Some(true)), broker(2, Some(false)), broker(3, None)],
        lanes: vec![first, second],
        voters: Vec::new(),
        learners: Vec::new(),
    }
}

pub fn cluster_status_reply_members() -> ClusterStatusReply {
    let ids = |ids: &[u32]| ids.iter().copied().map(BrokerId).collect();
    ClusterStatusReply { voters: ids(&[1, 2, 5]), learners: ids(&[3]), ..cluster_status_reply() }
}

pub fn cluster_status_reply_load() -> ClusterStatusReply {
    let mut reply = cluster_status_reply();
    let (bytes_in, records_in, bytes_out, requests) = (40_000_000, 400_000, 50_000_000, 2_000);
    let load = 2 * bytes_in + bytes_out + requests * 4_096;
    reply.lanes[0].load = Some(LaneLoad { load, bytes_in, records_in, bytes_out, requests });
    reply.lanes[1].load = Some(LaneLoad::default());
    reply
}

pub fn operate() -> Operate {
    let operation = Operation::Transfer { lane: LaneId(7), to: BrokerId(3) };
    Operate { operation, check_only: true, timeout_ms: 5_000 }
}

pub fn operate_drain() -> Operate {
    let operation = Operation::Drain { broker: BrokerId(3) };
    Operate { operation, check_only: false, timeout_ms: 0 }
}

pub fn operate_replace() -> Operate {
    let replicas = vec![BrokerId(3), BrokerId(1), BrokerId(4)];
    let operation = Operation::Replace { lane: LaneId(7), replicas };
    Operate { operation, check_only: false, timeout_ms: 0 }
}

pub fn operate_remove() -> Operate {
    let operation = Operation::Remove { broker: BrokerId(3) };
    Operate { operation, check_only: false, timeout_ms: 0 }
}

pub fn operate_add_lanes() -> Operate {
    let operation = Operation::AddLanes { broker: BrokerId(3), up_to: LaneId(12) };
    Operate { operation, check_only: false, timeout_ms: 0 }
}

pub fn operate_reply() -> OperateReply {
    OperateReply { result: Ok(78) }
}

pub fn operate_reply_obstacle() -> OperateReply {
    let (lane, broker) = (LaneId(7), BrokerId(3));
    OperateReply { result: Err(Obstacle::Behind { lane, broker, entries: 1_000 }) }
}

/// Calls a macro with every message that is a table: golden name, type, sample.
#[macro_export]
macro_rules! for_each_table {
    ($call:ident) => {
        $call!("hello", Hello, support::hello());
        $call!("hello_bare", Hello, support::hello_bare());
        $call!("hello_reply", HelloReply, support::hello_reply());
        $call!("error", ErrorReply, support::error());
        $call!("error_bare", ErrorReply, support::error_bare());
        $call!("fetch", Fetch, support::fetch());
        $call!("fetch_any_replica", Fetch, support::fetch_any_replica());
        $call!("fetch_reply", FetchReply, support::fetch_reply());
        $call!("offsets", Offsets, support::offsets());
        $call!("offsets_reply", OffsetsReply, support::offsets_reply());
        $call!("topic_create", TopicCreate, support::topic_create());
        $call!("topic_create_reply", TopicCreateReply, support::topic_create_reply());
        $call!("topic_list", TopicList, support::topic_list());
        $call!("topic_list_reply", TopicListReply, support::topic_list_reply());
        $call!("topic_describe", TopicDescribe, support::topic_describe());
        $call!("topic_describe_reply", TopicDescribeReply, support::topic_describe_reply());
        $call!(
            "topic_describe_reply_cluster",
            TopicDescribeReply,
            support::topic_describe_reply_cluster()
        );
        $call!(
            "topic_describe_reply_racks",
            TopicDescribeReply,
            support::topic_describe_reply_racks()
        );
        $call!("topic_delete", TopicDelete, support::topic_delete());
        $call!("topic_delete_reply", TopicDeleteReply, support::topic_delete_reply());
        $call!("topic_alter", TopicAlter, support::topic_alter());
        $call!("topic_alter_bare", TopicAlter, support::topic_alter_bare());
        $call!("topic_alter_reply", TopicAlterReply, support::topic_alter_reply());
        $call!("status", Status, support::status());
        $call!("status_reply", StatusReply, support::status_reply());
        $call!("cluster_status", ClusterStatus, ClusterStatus);
        $call!("cluster_status_reply", ClusterStatusReply, support::cluster_status_reply());
        $call!(
            "cluster_status_reply_members",
            ClusterStatusReply,
            support::cluster_status_reply_members()
        );
        $call!(
            "cluster_status_reply_load",
            ClusterStatusReply,
            support::cluster_status_reply_load()
        );
        $call!("operate", Operate, support::operate());
        $call!("operate_drain", Operate, support::operate_drain());
        $call!("operate_replace", Operate, support::operate_replace());
        $call!("operate_remove", Operate, support::operate_remove());
        $call!("operate_add_lanes", Operate, support::operate_add_lanes());
        $call!("operate_reply", OperateReply, support::operate_reply());
        $call!("operate_reply_obstacle", OperateReply, support::operate_reply_obstacle());
    };
}
