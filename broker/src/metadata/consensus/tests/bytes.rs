//! The bytes of records and messages: they do not change by accident, and nothing else is read.

use bytes::Bytes;

use crate::metadata::codec::{BadBytes, Writer};
use crate::metadata::consensus::members::ReplicaId;
use crate::metadata::consensus::*;
use crate::random::Random;

fn id(id: u64) -> ReplicaId {
    ReplicaId(id)
}

fn members() -> Members {
    Members {
        voters: vec![id(1), id(4)],
        learners: vec![id(5)],
        voters_outgoing: vec![id(1), id(2)],
        learners_next: vec![id(2)],
        auto_leave: true,
    }
}

fn entries() -> Vec<LogEntry> {
    let command = Payload::Command(Bytes::from_static(b"topic"));
    let changes = vec![Change::AddVoter(id(4)), Change::AddLearner(id(2)), Change::Remove(id(3))];
    vec![
        LogEntry { index: 8, term: 2, payload: Payload::Nothing },
        LogEntry { index: 9, term: 3, payload: command },
        LogEntry { index: 10, term: 3, payload: Payload::Members(changes) },
        LogEntry { index: 11, term: 3, payload: Payload::Members(vec![]) },
    ]
}

fn snapshot() -> Snapshot {
    Snapshot { index: 7, term: 2, members: members(), image: Bytes::from_static(b"state") }
}

fn records() -> Vec<Record> {
    let mut records = vec![
        Record::HardState(HardState { term: 3, vote: Some(id(2)), commit: 9 }),
        Record::HardState(HardState::default()),
        Record::Snapshot(snapshot()),
    ];
    records.extend(entries().into_iter().map(|entry| Record::Entry { commit: 9, entry }));
    records
}

fn messages() -> Vec<PeerMessage> {
    let bodies = vec![
        PeerBody::Append { previous_index: 7, previous_term: 2, commit: 9, entries: entries() },
        PeerBody::Append { previous_index: 0, previous_term: 0, commit: 0, entries: vec![] },
        PeerBody::AppendReply { index: 9, commit: 8, hint: None },
        PeerBody::AppendReply { index: 9, commit: 8, hint: Some((4, 2)) },
        PeerBody::VoteRequest {
            ballot: Ballot::Before,
            is_transfer: false,
            last_index: 9,
            last_term: 3,
            commit: 8,
            commit_term: 2,
        },
        PeerBody::VoteRequest {
            ballot: Ballot::Real,
            is_transfer: true,
            last_index: 9,
            last_term: 3,
            commit: 8,
            commit_term: 2,
        },
        PeerBody::VoteReply { ballot: Ballot::Real, is_granted: true, commit: 0, commit_term: 0 },
        PeerBody::VoteReply {
            ballot: Ballot::Before,
            is_granted: false,
            commit: 8,
            commit_term: 2,
        },
        PeerBody::Snapshot(snapshot()),
        PeerBody::Heartbeat { commit: 8 },
        PeerBody::HeartbeatReply { commit: 8 },
        PeerBody::TimeoutNow,
    ];
    bodies.into_iter().map(|body| PeerMessage { from: id(1), to: id(2), term: 3, body }).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn records_have_these_bytes() {
    let golden: Vec<&str> = include_str!("testdata/records.txt").lines().collect();
    let found: Vec<String> = records().iter().map(|record| hex(&record.encode())).collect();
    assert_eq!(found, golden);
}

#[test]
fn messages_have_these_bytes() {
    let golden: Vec<&str> = include_str!("testdata/messages.txt").lines().collect();
    let found: Vec<String> = messages().iter().map(|message| hex(&message.encode())).collect();
    assert_eq!(found, golden);
}

#[test]
fn what_is_written_is_read_and_nothing_else() {
    for record in records() {
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        refuses_damage(&bytes, |bytes| Record::decode(bytes).map(|_| ()));
    }
    for message in messages() {
        let bytes = message.encode();
        assert_eq!(PeerMessage::decode(&bytes), Ok(message));
        refuses_damage(&bytes, |bytes| PeerMessage::decode(bytes).map(|_| ()));
    }
}

fn refuses_damage(bytes: &[u8], decode: fn(&[u8]) -> Result<(), BadBytes>) {
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&bad), Err(BadBytes), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert_eq!(decode(&bytes[..len]), Err(BadBytes), "cut at {len}");
    }
}

/// Behind a right checksum.
fn mended(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let crc = crc32c::crc32c(&body[4..]);
    body[..4].copy_from_slice(&crc.to_le_bytes());
    body
}

#[test]
fn flips_behind_a_right_checksum_never_panic_and_what_is_read_is_written_the_same() {
    let mut random = Random::new(3);
    let bodies: Vec<Vec<u8>> = (records().iter().map(Record::encode))
        .chain(messages().iter().map(PeerMessage::encode))
        .collect();
    let mut read = 0;
    for _ in 0..40_000 {
        let mut body = bodies[random.below(bodies.len() as u64) as usize].clone();
        for _ in 0..1 + random.below(3) {
            let at = 4 + random.below(body.len() as u64 - 4) as usize;
            body[at] = match random.below(3) {
                0 => random.below(5) as u8,
                1 => 0xff,
                _ => random.next_u64() as u8,
            };
        }
        let body = mended(&body);
        if let Ok(record) = Record::decode(&body) {
            assert_eq!(record.encode(), body);
            read += 1;
        }
        if let Ok(message) = PeerMessage::decode(&body) {
            assert_eq!(message.encode(), body);
            read += 1;
        }
    }
    assert!(read > 1_000, "or nothing was tried");
}

#[test]
fn messages_that_contradict_themselves_are_refused() {
    let refused = |from: u64, to: u64, term, body| {
        let message = PeerMessage { from: id(from), to: id(to), term, body };
        assert_eq!(PeerMessage::decode(&message.encode()), Err(BadBytes), "{message:?}");
    };
    let append = |previous_index, previous_term, entries| PeerBody::Append {
        previous_index,
        previous_term,
        commit: 0,
        entries,
    };
    refused(1, 1, 3, PeerBody::TimeoutNow);
    refused(0, 1, 3, PeerBody::TimeoutNow);
    refused(1, 2, 0, PeerBody::TimeoutNow);
    refused(1, 2, u64::MAX, PeerBody::TimeoutNow);
    refused(1, 2, 3, PeerBody::Heartbeat { commit: u64::MAX });
    refused(1, 2, 3, append(6, 2, entries()));
    refused(1, 2, 2, append(7, 2, entries()));
    refused(1, 2, 3, append(7, 3, entries()));
    refused(1, 2, 3, append(7, 0, vec![]));
    refused(1, 2, 1, PeerBody::Snapshot(snapshot()));
    let mut strange = snapshot();
    strange.members.learners = vec![id(4)];
    refused(1, 2, 3, PeerBody::Snapshot(strange));
}

#[test]
fn the_crate_takes_all_members_that_are_valid() {
    let mut random = Random::new(5);
    let mut taken = 0;
    for seed in 0..20_000 {
        let mut list = |percent| {
            (1..=6).filter(|_| random.chance(percent, 100)).map(ReplicaId).collect::<Vec<_>>()
        };
        let mut members = Members { voters: list(50), ..Members::default() };
        members.learners = list(20);
        if seed % 2 == 0 {
            members.voters_outgoing = list(50);
            members.learners_next = list(10);
            members.auto_leave = seed % 4 == 0;
        }
        if !members.is_valid() {
            continue;
        }
        taken += 1;
        let snapshot = Snapshot { index: 4, term: 2, members, image: Bytes::new() };
        let mut fold = Fold::default();
        fold.on_record(&Record::Snapshot(snapshot.clone()).encode());
        let config = GroupConfig::new(id(1));
        let group = Group::restart(config, fold.finish().unwrap(), Random::new(seed));
        assert_eq!(group.members(), &snapshot.members);
    }
    assert!(taken > 2_000, "{taken}");
}

#[test]
fn a_format_that_is_newer_is_not_read() {
    let mut writer = Writer::new(RECORD_FORMAT + 1, 1);
    (0..3).for_each(|_| writer.u64(1));
    assert_eq!(Record::decode(&writer.finish()), Err(BadBytes));
    let writer = Writer::new(MESSAGE_FORMAT + 1, 8);
    assert_eq!(PeerMessage::decode(&writer.finish()), Err(BadBytes));
}
