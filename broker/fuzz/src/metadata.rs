//! Commands and images of the metadata: decoded, folded, written and read again.

use corelog_broker::disk::DirectoryId;
use corelog_broker::metadata::{BrokerRecord, Command, LaneReplica, State};
use corelog_broker::replica::Position;
use corelog_protocol::ids::{BrokerId, Epoch, Incarnation, LaneId, Lsn, PartitionId};

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
    let alone = || [LaneReplica { broker: BrokerId(1), directory: DirectoryId(0) }].into();
    let mut state = State::default();
    let mut commands = vec![Command::Boot { lanes: vec![alone(), alone()] }];
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
    let moving = cluster();
    let mut moved = State::default();
    moving.iter().for_each(|command| _ = moved.apply(command));
    vec![
        script(Script::default().numbers(&[0]), &commands),
        script(Script::default().numbers(&[1]).bytes(&state.image()), &commands[5..]),
        script(Script::default().numbers(&[0]), &moving),
        script(Script::default().numbers(&[1]).bytes(&moved.image()), &moving[5..]),
    ]
}

/// Four brokers, and a lane that gets a leader, another epoch and another set.
fn cluster() -> Vec<Command> {
    let register = |id: u32| Command::BrokerRegister {
        record: BrokerRecord {
            id: BrokerId(id),
            incarnation: Incarnation(u64::from(id)),
            life: 1,
            address: ([127, 0, 0, 1], 7420).into(),
            rack: "r".into(),
            shards: 1,
            directories: 1,
        },
    };
    let mut commands: Vec<Command> = (1..=4).map(register).collect();
    let set = |ids: [u32; 3]| {
        ids.map(|id| LaneReplica { broker: BrokerId(id), directory: DirectoryId(0) }).into()
    };
    let lane = LaneId(1);
    let lead = |epoch, broker| Command::LaneLeader {
        lane,
        epoch: Epoch(epoch),
        broker: BrokerId(broker),
        position: Position { epoch: Epoch(epoch - 1), end: Lsn(7) },
    };
    commands.extend([
        Command::Boot { lanes: vec![set([1, 2, 3]), set([2, 3, 1])] },
        lead(1, 2),
        Command::LaneReplicas { lane, epoch: Epoch(2), replicas: set([2, 3, 4]) },
        Command::LaneEnter { lane, epoch: Epoch(3) },
        lead(3, 4),
        Command::LaneSettled { lane, epoch: Epoch(3) },
        Command::LaneTransfer { lane, epoch: Epoch(3), to: BrokerId(2) },
        Command::LaneMove { lane, epoch: Epoch(3), to: None },
        Command::LaneReplace { lane, epoch: Epoch(3), replicas: set([4, 3, 1]) },
        Command::LaneHandOver { lane, epoch: Epoch(3), number: 13 },
        Command::BrokerRemove { id: BrokerId(1) },
        Command::BrokerRemove { id: BrokerId(4) },
    ]);
    commands
}
