use super::*;

fn lanes(count: u32) -> Command {
    let record = |id| LaneRecord { id: LaneId(id), directory: DirectoryId(0) };
    Command::Boot { lanes: (1..=count).map(record).collect() }
}

fn settings(partitions: u32) -> TopicSettings {
    TopicSettings { partitions, retention_ms: None, retention_bytes: None }
}

fn create(state: &mut State, name: &str, partitions: u32) -> Outcome {
    match state.topic_create(name, settings(partitions)) {
        Ok(command) => state.apply(&command),
        Err(outcome) => outcome,
    }
}

fn delete(state: &mut State, name: &str) -> Outcome {
    state.apply(&Command::TopicDelete { name: name.into() })
}

#[test]
fn a_created_topic_is_spread_over_the_lanes_and_found_by_name_and_by_partition() {
    let mut state = State::default();
    assert_eq!(state.apply(&lanes(2)), Outcome::Done(TopicId(0)));
    assert_eq!(create(&mut state, "a", 3), Outcome::Done(TopicId(1)));
    assert_eq!(create(&mut state, "b", 1), Outcome::Done(TopicId(2)));
    let a = state.topic("a").unwrap();
    let places: Vec<(u32, u32)> = a.partitions().map(|(id, link)| (id.0, link.lane.0)).collect();
    assert_eq!(places, [(1, 1), (2, 2), (3, 1)]);
    let b = state.topic("b").unwrap();
    assert_eq!(b.links[0].lane, LaneId(2), "lane 2 had one partition less");
    for (partition, name) in [(0, None), (1, Some("a")), (3, Some("a")), (4, Some("b")), (5, None)]
    {
        let found = state.topic_of(PartitionId(partition)).map(|topic| &*topic.name);
        assert_eq!(found, name, "partition {partition}");
    }
}

#[test]
fn of_two_creators_of_one_name_the_second_is_told_so() {
    let mut state = State::default();
    state.apply(&lanes(1));
    let first = state.topic_create("a", settings(1)).unwrap();
    let second = state.topic_create("a", settings(2)).unwrap();
    assert_eq!(state.apply(&first), Outcome::Done(TopicId(1)));
    assert_eq!(state.apply(&second), Outcome::TopicExists);
    assert_eq!(state.topic("a").unwrap().settings.partitions, 1);
}

#[test]
fn ids_of_a_deleted_topic_are_never_given_out_again() {
    let mut state = State::default();
    state.apply(&lanes(1));
    create(&mut state, "a", 2);
    assert_eq!(delete(&mut state, "a"), Outcome::Done(TopicId(1)));
    assert_eq!(delete(&mut state, "a"), Outcome::UnknownTopic);
    assert_eq!(create(&mut state, "a", 2), Outcome::Done(TopicId(2)));
    assert_eq!(state.topic("a").unwrap().first_partition, PartitionId(3));
    let deleted: Vec<bool> = (0..6).map(|id| state.is_deleted(PartitionId(id))).collect();
    assert_eq!(deleted, [false, true, true, false, false, false]);
}

#[test]
fn deleted_ranges_merge_whatever_the_order() {
    let mut state = State::default();
    state.apply(&lanes(1));
    for name in ["a", "b", "c", "d"] {
        create(&mut state, name, 2);
    }
    for name in ["a", "c", "b"] {
        delete(&mut state, name);
    }
    assert_eq!(state.deleted(), [PartitionRange { first: PartitionId(1), count: 6 }]);
}

#[test]
fn a_topic_is_found_by_partition_among_many_with_gaps() {
    let mut state = State::default();
    state.apply(&lanes(3));
    for n in 0..100 {
        create(&mut state, &format!("t{n}"), 1 + n % 4);
    }
    for n in (0..100).filter(|n| n % 3 != 0) {
        delete(&mut state, &format!("t{n}"));
    }
    let mut found = 0;
    for id in 0..300 {
        let slow = state.topics().values().find(|topic| topic.link(PartitionId(id)).is_some());
        assert_eq!(state.topic_of(PartitionId(id)), slow, "partition {id}");
        found += u32::from(slow.is_some());
    }
    assert!(found > 50);
}

#[test]
fn boot_is_once_and_lanes_must_exist() {
    let mut state = State::default();
    assert_eq!(create(&mut state, "a", 1), Outcome::Invalid, "no lanes yet");
    state.apply(&lanes(1));
    assert_eq!(state.apply(&lanes(2)), Outcome::Invalid);
    let command =
        Command::TopicCreate { name: "a".into(), settings: settings(1), lanes: vec![LaneId(2)] };
    assert_eq!(state.apply(&command), Outcome::Invalid);
    assert_eq!(state.version(), 3, "a refused command counts too");
}

#[test]
fn an_image_is_the_state_and_no_flipped_bit_is_another() {
    let mut state = State::default();
    assert_eq!(State::from_image(&state.image()), Ok(state.clone()));
    state.apply(&lanes(2));
    create(&mut state, "a", 3);
    create(&mut state, "b", 1);
    create(&mut state, "c", 1);
    delete(&mut state, "b");
    let image = state.image();
    assert_eq!(State::from_image(&image), Ok(state));
    for bit in 0..image.len() * 8 {
        let mut bad = image.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(State::from_image(&bad), Err(BadBytes), "bit {bit}");
    }
}

#[test]
fn an_image_that_contradicts_itself_is_refused_without_a_panic() {
    let mut state = State::default();
    state.apply(&lanes(2));
    create(&mut state, "a", 3);
    delete(&mut state, "a");
    create(&mut state, "b", 2);
    let image = state.image();
    let mut refused = 0;
    // Another value in each byte, with the checksum made right again.
    for at in 4..image.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = image.clone();
            bad[at] = value;
            let crc = crc32c::crc32c(&bad[4..]);
            bad[..4].copy_from_slice(&crc.to_le_bytes());
            refused += u32::from(State::from_image(&bad).is_err());
        }
    }
    assert!(refused > 50);
}
