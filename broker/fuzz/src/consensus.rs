//! The metadata's group: records from a disk that are folded, and messages that a member gets from others.

use corelog_broker::metadata::consensus::{
    Ballot, Fold, Group, GroupConfig, Members, Output, PeerBody, PeerMessage, Record, ReplicaId,
};
use corelog_broker::random::Random;

use crate::tape::{Script, Tape, mend_body};

/// A disk (how many records, then each with a length in front), and then what happens to the member.
pub fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut fold = Fold::default();
    for _ in 0..tape.u8() % 16 {
        let mut body = tape.bytes().to_vec();
        mend_body(&mut body);
        if let Ok(record) = Record::decode(&body) {
            assert!(record.encode() == body);
        }
        fold.on_record(&body);
    }
    let config = GroupConfig::new(ReplicaId(1));
    let is_new = fold.is_empty();
    let Ok(recovered) = fold.finish() else { return };
    let members = Members::of_voters(&[ReplicaId(1), ReplicaId(2), ReplicaId(3)]);
    let mut group = match is_new && tape.u8() & 1 == 1 {
        true => Group::bootstrap(config, members, b"state"[..].into(), Random::new(1)),
        false => Group::restart(config, recovered, Random::new(1)),
    };
    let mut last = 0;
    while !tape.is_over() {
        match tape.u8() % 8 {
            0 => group.tick(),
            1 => group.campaign(),
            2 => _ = group.propose(vec![1], 1),
            3 => group.on_durable(last),
            _ => {
                let mut body = tape.bytes().to_vec();
                mend_body(&mut body);
                if let Ok(message) = PeerMessage::decode(&body) {
                    assert!(message.encode() == body);
                    _ = group.on_message(&message);
                }
            }
        }
        while let Some(output) = group.poll() {
            if let Output::Append { number, body } = output {
                assert!(Record::decode(&body).is_ok());
                last = number;
            }
        }
    }
}

/// A member that starts anew, hears of a leader, and votes.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let message =
        |term, body| PeerMessage { from: ReplicaId(2), to: ReplicaId(1), term, body }.encode();
    let append =
        PeerBody::Append { previous_index: 1, previous_term: 1, commit: 1, entries: vec![] };
    let vote = PeerBody::VoteRequest {
        ballot: Ballot::Real,
        is_transfer: false,
        last_index: 1,
        last_term: 1,
        commit: 1,
        commit_term: 1,
    };
    let hear = |script: Script, body: Vec<u8>| script.numbers(&[7]).bytes(&body).numbers(&[3]);
    let start = Script::default().numbers(&[0, 1, 3]);
    let follows = hear(start.clone(), message(2, append));
    let follows = hear(follows, message(2, PeerBody::Heartbeat { commit: 1 }));
    let votes = hear(start, message(3, vote)).numbers(&[0; 30]);
    vec![follows.0, votes.0]
}
