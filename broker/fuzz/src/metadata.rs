//! Commands and images of the metadata: decoded, folded, written and read again.

use corelog_broker::disk::DirectoryId;
use corelog_broker::metadata::{Command, LaneRecord, State};
use corelog_protocol::ids::{LaneId, PartitionId};

use crate::tape::{Script, Tape, mend_body};

/// A few commands, or an image and then commands. Each has a length in front.
pub fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut state = State::default();
    if tape.u8() & 1 == 1 {
        let mut body = tape.bytes().to_vec();
        mend_body(&mut body);
        let Ok(read) = State::from_image(&body) else { return };
        check(&read);
        state = read;
    }
    while !tape.is_over() {
        let mut body = tape.bytes().to_vec();
        mend_body(&mut body);
        let Ok(command) = Command::decode(&body) else { continue };
        assert!(command.encode() == body);
        let before = state.version();
        state.apply(&command);
        assert!(state.version() == before.wrapping_add(1));
        check(&state);
    }
}

/// What is written is read, and the lookups agree with the lists.
fn check(state: &State) {
    assert!(State::from_image(&state.image()).as_ref() == Ok(state));
    for topic in state.topics().values() {
        assert!(state.topic(&topic.name) == Some(topic));
        for (partition, _) in topic.partitions().take(3) {
            assert!(state.topic_of(partition) == Some(topic));
            assert!(!state.is_deleted(partition));
        }
    }
    for range in state.deleted() {
        assert!(state.is_deleted(range.first));
        let last = PartitionId(range.first.0 + (range.count - 1));
        assert!(state.is_deleted(last) && state.topic_of(last).is_none());
    }
}

/// A boot, topics that are made and deleted, and the image of what they came to.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let lane = |id| LaneRecord { id: LaneId(id), directory: DirectoryId(0) };
    let mut state = State::default();
    let mut commands = vec![Command::Boot { lanes: vec![lane(1), lane(2)] }];
    state.apply(&commands[0]);
    for (name, partitions) in [("a", 1), ("bb", 3), ("c", 2)] {
        let settings = corelog_broker::metadata::TopicSettings {
            partitions,
            retention_ms: Some(60_000),
            retention_bytes: None,
        };
        let command = state.topic_create(name, settings).expect("a good topic");
        state.apply(&command);
        commands.push(command);
    }
    commands.push(Command::TopicDelete { name: "a".into() });
    commands.push(Command::TopicDelete { name: "bb".into() });
    state.apply(&commands[4]);
    let script = |script, commands: &[Command]| {
        commands.iter().fold(script, |script: Script, one| script.bytes(&one.encode())).0
    };
    vec![
        script(Script::default().numbers(&[0]), &commands),
        script(Script::default().numbers(&[1]).bytes(&state.image()), &commands[5..]),
    ]
}
