//! What travels: frames, messages, batches, entries. The input is the bytes themselves, behind checksums
//! that are made right where bytes alone would seldom pass.

use corelog_protocol::batch::{BatchBuilder, BatchError, BatchView, NewRecord, RecordCheck};
use corelog_protocol::checksum::Crc;
use corelog_protocol::entry::{ENTRY_HEADER_BYTES, Entries, EntryHeader, EntryKind};
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{
    BrokerId, Epoch, Incarnation, LaneId, Lsn, Offset, PartitionId, ShardId,
};
use corelog_protocol::message::{
    BrokerStatus, ClusterStatus, ClusterStatusReply, ErrorReply, Fetch, FetchPartition, FetchReply,
    FetchedPartition, Hello, HelloReply, LaneLoad, LaneStatus, Message, Obstacle, Offsets,
    OffsetsReply, Operate, OperateReply, Operation, ReplicaStatus, Status, StatusReply, TopicAlter,
    TopicAlterReply, TopicCreate, TopicCreateReply, TopicDelete, TopicDeleteReply, TopicDescribe,
    TopicDescribeReply, TopicList, TopicListReply, TopicSettings,
};
use corelog_protocol::peer::{PeerHello, PeerHelloReply};
use corelog_protocol::preamble::{PREAMBLE_BYTES, Preamble};
use corelog_protocol::produce::{Produce, ProduceAck};
use corelog_protocol::{Durability, ErrorCode};

use crate::tape::{Script, Tape, mend_body, mend_frame};

/// A stream: perhaps a preamble, then frames, read as a broker or client reads them.
pub fn frame(input: &[u8]) {
    let mut tape = Tape::new(input);
    let how = tape.u8();
    let cap = [100, 4 << 10, 1 << 20, u32::MAX][usize::from(how >> 1) % 4];
    let mut bytes = tape.rest().to_vec();
    if let Ok(preamble) = Preamble::decode(&bytes) {
        assert!(preamble.encode() == bytes[..PREAMBLE_BYTES]);
    }
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        if how & 1 == 1 {
            mend_frame(rest);
        }
        let Ok(header) = FrameHeader::decode(rest, cap) else { return };
        assert!(u64::from(header.control_len) + u64::from(header.payload_len) <= u64::from(cap));
        assert!(rest.starts_with(&header.encode()));
        let (control, payload) = (header.control(rest), header.payload(rest));
        assert!(control.is_err() || header.control_range().end <= rest.len());
        assert!(payload.is_err() || header.frame_bytes() <= rest.len());
        at += header.frame_bytes();
    }
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let mut two = Produce {
        partition: PartitionId(7),
        timeout_ms: 0,
        durability: Durability::QuorumDurable,
        want_stages: true,
        sent_before: false,
        former: None,
    }
    .encode_head(1, 0)
    .to_vec();
    Hello::new("me").encode(2, &mut two);
    let preamble = Preamble { shard: ShardId(3) }.encode();
    let seeds = [two.as_slice(), &two[..50], &preamble, b"GET / HTTP/1.1\r\n"];
    [4, 5].iter().flat_map(|how| seeds.map(|seed| [&[*how], seed].concat())).collect()
}

/// The control part of one kind, through its decoder, and through it again.
pub fn message(input: &[u8]) {
    let Some((kind, control)) = input.split_first() else { return };
    macro_rules! decode {
        ($message:ident) => {
            if let Ok(value) = $message::decode(control) {
                let mut frame = Vec::new();
                value.encode(1, &mut frame);
                // What a payload has been announced to be may be above any cap.
                let Ok(header) = FrameHeader::decode(&frame, u32::MAX) else { return };
                let control = header.control(&frame).expect("just encoded");
                assert!($message::decode(control).as_ref() == Ok(&value));
            }
        };
    }
    match FrameKind::from_wire(*kind) {
        Some(FrameKind::Produce) => {
            if let Ok(value) = Produce::decode(control) {
                assert!(value.encode() == control);
            }
        }
        Some(FrameKind::ProduceAck) => {
            if let Ok(value) = ProduceAck::decode(control) {
                assert!(value.encode() == control);
            }
        }
        Some(FrameKind::FetchReply) => {
            decode!(FetchReply);
            if let Ok(reply) = FetchReply::decode(control)
                && let Ok(pieces) = reply.split(control)
            {
                assert!(pieces.map(|(_, piece)| piece.len()).sum::<usize>() == control.len());
            }
        }
        Some(FrameKind::Hello) => decode!(Hello),
        Some(FrameKind::HelloReply) => decode!(HelloReply),
        Some(FrameKind::Error) => decode!(ErrorReply),
        Some(FrameKind::Fetch) => decode!(Fetch),
        Some(FrameKind::Offsets) => decode!(Offsets),
        Some(FrameKind::OffsetsReply) => decode!(OffsetsReply),
        Some(FrameKind::TopicCreate) => decode!(TopicCreate),
        Some(FrameKind::TopicCreateReply) => decode!(TopicCreateReply),
        Some(FrameKind::TopicList) => decode!(TopicList),
        Some(FrameKind::TopicListReply) => decode!(TopicListReply),
        Some(FrameKind::TopicDescribe) => decode!(TopicDescribe),
        Some(FrameKind::TopicDescribeReply) => decode!(TopicDescribeReply),
        Some(FrameKind::TopicDelete) => decode!(TopicDelete),
        Some(FrameKind::TopicDeleteReply) => decode!(TopicDeleteReply),
        Some(FrameKind::TopicAlter) => decode!(TopicAlter),
        Some(FrameKind::TopicAlterReply) => decode!(TopicAlterReply),
        Some(FrameKind::Status) => decode!(Status),
        Some(FrameKind::StatusReply) => decode!(StatusReply),
        Some(FrameKind::ClusterStatus) => decode!(ClusterStatus),
        Some(FrameKind::ClusterStatusReply) => decode!(ClusterStatusReply),
        Some(FrameKind::Operate) => decode!(Operate),
        Some(FrameKind::OperateReply) => decode!(OperateReply),
        Some(FrameKind::PeerHello) => {
            if let Ok(value) = PeerHello::decode(control) {
                assert!(value.encode() == control);
            }
        }
        Some(FrameKind::PeerHelloReply) => {
            if let Ok(value) = PeerHelloReply::decode(control) {
                assert!(value.encode() == control);
            }
        }
        // Bytes of the broker's own codecs.
        Some(
            FrameKind::PeerMetadata
            | FrameKind::PeerLane
            | FrameKind::PeerFence
            | FrameKind::PeerChange
            | FrameKind::PeerChangeReply
            | FrameKind::PeerSurvey
            | FrameKind::PeerSurveyReply,
        )
        | None => {}
    }
}

pub fn message_seeds() -> Vec<Vec<u8>> {
    fn seed<M: Message>(message: &M, encode: impl Fn(&M, &mut Vec<u8>)) -> Vec<u8> {
        let mut frame = Vec::new();
        encode(message, &mut frame);
        let header = FrameHeader::decode(&frame, u32::MAX).expect("just encoded");
        [&[M::KIND.to_wire()], header.control(&frame).expect("just encoded")].concat()
    }
    macro_rules! seed {
        ($message:expr) => {
            seed(&$message, |message, frame| message.encode(1, frame))
        };
    }
    let partition = PartitionId(1);
    let settings =
        TopicSettings { partitions: 2, replicas: 1, retention_ms: Some(9), retention_bytes: None };
    let wanted = FetchPartition { partition, offset: Offset(3), bytes_max: 100 };
    let fetched = FetchedPartition {
        partition,
        error: None,
        log_start: Offset(0),
        committed_end: Offset(4),
        bytes: 20,
        corrupt: None,
    };
    vec![
        seed!(Hello::new("me")),
        seed!(ErrorReply::new(ErrorCode::Overloaded, 16, "later")),
        seed!(Fetch {
            wait_max_ms: 5,
            bytes_min: 1,
            bytes_max: 9,
            partitions: vec![wanted; 2],
            any_replica: true,
        }),
        seed!(FetchReply { partitions: vec![fetched; 2] }),
        seed!(TopicCreate { name: "orders".into(), settings, timeout_ms: 7 }),
        seed!(TopicList { after: "a".into(), count_max: 5 }),
        seed!(TopicDescribe { name: "orders".into() }),
        seed!(TopicDelete { name: "orders".into(), timeout_ms: 0 }),
        seed!(Status { prefix: "log".into() }),
        seed!(StatusReply { uptime_ms: 4, names: vec!["steps".into()], shards: Vec::new() }),
        seed!(ClusterStatus),
        seed!(ClusterStatusReply {
            version: 9,
            me: BrokerId(1),
            metadata_leader: Some(BrokerId(2)),
            brokers: vec![BrokerStatus {
                id: BrokerId(1),
                address: ([127, 0, 0, 1], 7420).into(),
                rack: "r".into(),
                shards: 1,
                incarnation: Incarnation(3),
                is_alive: Some(true),
                is_draining: false,
            }],
            lanes: vec![LaneStatus {
                lane: LaneId(1),
                epoch: Epoch(4),
                leader: None,
                is_serving: false,
                moving_to: Some(BrokerId(1)),
                replicas: vec![ReplicaStatus {
                    broker: BrokerId(1),
                    behind: Some(5),
                    is_caught_up: true,
                }],
                before: vec![BrokerId(2)],
                load: Some(LaneLoad {
                    load: 9,
                    bytes_in: 1,
                    records_in: 2,
                    bytes_out: 3,
                    requests: 4,
                }),
            }],
            voters: vec![BrokerId(1), BrokerId(2)],
            learners: vec![BrokerId(3)],
        }),
        seed!(Operate {
            operation: Operation::Transfer { lane: LaneId(1), to: BrokerId(1) },
            check_only: true,
            timeout_ms: 7,
        }),
        seed!(OperateReply { result: Err(Obstacle::Moving { lane: LaneId(1) }) }),
    ]
}

/// A batch, its checksum made right, in all the ways in which a batch is read.
pub fn batch(input: &[u8]) {
    let Some((step, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    mend_body(&mut bytes);
    let parsed = BatchView::parse(&bytes);
    let Ok(view) = BatchView::check_header(&bytes) else {
        assert!(parsed.is_err());
        return;
    };
    let checked = view.check_records();
    // In steps it comes to the same end.
    let stepped = RecordCheck::new(&view).and_then(|mut check| {
        while !check.advance(&view, usize::from(*step) + 1)? {}
        Ok(())
    });
    assert!(stepped == checked);
    let mut count = 0;
    let mut error = None;
    for record in view.records() {
        match record {
            Ok(record) => {
                assert!(record.index == count);
                assert!(record.headers().count() == record.headers().len());
                count += 1;
            }
            Err(fault) => error = Some(fault),
        }
    }
    match error {
        None => assert!(count == view.header().record_count),
        Some(BatchError::Compressed { .. }) => {}
        Some(_) => assert!(checked.is_err() && parsed.is_err()),
    }
}

/// A batch of a few records.
#[must_use]
pub fn sample_batch(values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20, 1000);
    for value in values {
        let record = NewRecord {
            timestamp: 1_700_000_000_000,
            key: Some(b"key"),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.push(&record).expect("far below its bounds");
    }
    builder.finish().to_vec()
}

pub fn batch_seeds() -> Vec<Vec<u8>> {
    let seeds = [&["one"][..], &["", "two", "a longer one, which goes on for a while"]];
    seeds.iter().map(|values| [&[7][..], &sample_batch(values)].concat()).collect()
}

/// Entries as a fetch brings them, or as a commit holds them; checksums are made right if the first
/// byte says so.
pub fn entries(input: &[u8]) {
    let mut tape = Tape::new(input);
    let is_mended = tape.u8() & 1 == 1;
    let mut bytes = tape.rest().to_vec();
    if is_mended {
        mend_entries(&mut bytes);
    }
    let mut length = 0;
    let mut walk = Entries::new(&bytes);
    for (header, body) in walk.by_ref().map_while(Result::ok) {
        assert!(header.body_len as usize == body.len());
        assert!(bytes[length..].starts_with(&header.encode()));
        length += header.entry_bytes();
    }
    assert!(length <= bytes.len());
    assert!(walk.next().is_none());
}

/// Makes checksums of entries that lie one behind the other right, as far as their lengths lead.
pub fn mend_entries(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= ENTRY_HEADER_BYTES {
        let body_len = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        let (header, behind) = rest.split_at_mut(ENTRY_HEADER_BYTES);
        if let Some(body) = behind.get_mut(..body_len) {
            mend_body(body);
            if let Some(crc) = body.first_chunk::<4>() {
                header[20..24].copy_from_slice(crc);
            }
        }
        let mut crc = Crc::new();
        crc.update(&header[..4]);
        crc.update(&header[8..]);
        header[4..8].copy_from_slice(&crc.value().to_le_bytes());
        let padded = body_len.next_multiple_of(8);
        let Some(next) = behind.get_mut(padded..) else { return };
        rest = next;
    }
}

/// A stored batch of a partition, with its padding.
#[must_use]
pub fn sample_entry(partition: u32, base: u64, values: &[&str]) -> Vec<u8> {
    let body = sample_batch(values);
    let header = EntryHeader {
        kind: EntryKind::Batch,
        body_len: body.len() as u32,
        record_count: values.len() as u32,
        partition: PartitionId(partition),
        body_crc: body.first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc)),
        lsn: Lsn(base + 10),
        epoch: Epoch(1),
        base_offset: Offset(base),
        append_time: 9,
        lane: LaneId(1),
    };
    let mut entry = [&header.encode()[..], &body].concat();
    entry.resize(header.entry_bytes(), 0);
    entry
}

pub fn entries_seeds() -> Vec<Vec<u8>> {
    let two = [sample_entry(7, 0, &["a"]), sample_entry(7, 1, &["b", "c"])].concat();
    vec![
        Script::default().numbers(&[0]).numbers(&two).0,
        Script::default().numbers(&[1]).numbers(&two).0,
    ]
}
