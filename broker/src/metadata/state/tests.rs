use super::*;
use crate::disk::DirectoryId;
use crate::limits::PARTITIONS_PER_TOPIC_MAX;
use crate::metadata::LaneReplica;
use crate::metadata::codec::BadBytes;
use crate::metadata::state::lanes::tests::cluster;

fn lanes(count: u32) -> Command {
    let alone = || [LaneReplica { broker: BrokerId(1), directory: DirectoryId(0) }].into();
    Command::Boot { lanes: (0..count).map(|_| alone()).collect() }
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
    assert_eq!(state.topic("a").unwrap().ranges[0].first, PartitionId(3));
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

fn alter(state: &mut State, name: &str, changes: TopicChanges) -> Outcome {
    match state.topic_alter(name, changes) {
        Ok(command) => state.apply(&command),
        Err(outcome) => outcome,
    }
}

fn grow(partitions: u32) -> TopicChanges {
    TopicChanges { partitions: Some(partitions), ..TopicChanges::default() }
}

#[test]
fn an_alteration_changes_what_it_names_and_nothing_else() {
    let mut state = State::default();
    state.apply(&lanes(1));
    create(&mut state, "a", 2);
    let keep = TopicChanges { retention_bytes: Some(7), ..TopicChanges::default() };
    assert_eq!(alter(&mut state, "a", keep), Outcome::Done(TopicId(1)));
    let age = TopicChanges { retention_ms: Some(9), ..TopicChanges::default() };
    assert_eq!(alter(&mut state, "a", age), Outcome::Done(TopicId(1)));
    let both = TopicSettings { partitions: 2, retention_ms: Some(9), retention_bytes: Some(7) };
    assert_eq!(state.topic("a").unwrap().settings, both);
    let for_ever = TopicChanges { retention_ms: Some(0), ..TopicChanges::default() };
    alter(&mut state, "a", for_ever);
    assert_eq!(
        state.topic("a").unwrap().settings,
        TopicSettings { retention_ms: None, ..both },
        "0 takes the bound away"
    );
    assert_eq!(alter(&mut state, "b", age), Outcome::UnknownTopic);
}

#[test]
fn added_partitions_come_behind_the_old_ones_which_keep_ids_and_lanes() {
    let mut state = State::default();
    state.apply(&lanes(2));
    create(&mut state, "a", 2);
    create(&mut state, "b", 1);
    let before: Vec<_> = state.topic("a").unwrap().partitions().collect();
    assert_eq!(alter(&mut state, "a", grow(4)), Outcome::Done(TopicId(1)));
    let a = Arc::clone(state.topic("a").unwrap());
    let after: Vec<_> = a.partitions().collect();
    assert_eq!(after[..2], before[..]);
    assert_eq!([after[2].0, after[3].0], [PartitionId(4), PartitionId(5)]);
    assert_eq!(a.settings.partitions, 4);
    for (partition, name) in [(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "a")] {
        assert_eq!(&*state.topic_of(PartitionId(partition)).unwrap().name, name);
    }
    assert_eq!(state.topic_of(PartitionId(6)), None);
    assert_eq!(alter(&mut state, "a", grow(3)), Outcome::FewerPartitions);
    assert_eq!(alter(&mut state, "a", grow(PARTITIONS_PER_TOPIC_MAX + 1)), Outcome::Invalid);
    assert_eq!(State::from_image(&state.image()), Ok(state.clone()));
    delete(&mut state, "a");
    let gone: Vec<bool> = (1..6).map(|id| state.is_deleted(PartitionId(id))).collect();
    assert_eq!(gone, [true, true, false, true, true]);
    assert_eq!(state.topic_of(PartitionId(4)), None);
}

#[test]
fn of_two_alterations_under_way_the_second_adds_what_the_first_has_not() {
    let mut state = State::default();
    state.apply(&lanes(2));
    create(&mut state, "a", 1);
    let first = state.topic_alter("a", grow(3)).unwrap();
    let second = state.topic_alter("a", grow(4)).unwrap();
    let fewer = state.topic_alter("a", grow(2)).unwrap();
    assert_eq!(state.apply(&first), Outcome::Done(TopicId(1)));
    assert_eq!(state.apply(&second), Outcome::Done(TopicId(1)));
    assert_eq!(state.apply(&fewer), Outcome::FewerPartitions);
    let a = state.topic("a").unwrap();
    assert_eq!((a.settings.partitions, a.links.len()), (4, 4));
    let ids: Vec<u32> = a.partitions().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn an_alteration_does_not_reach_a_topic_of_the_same_name_made_later() {
    let mut state = State::default();
    state.apply(&lanes(1));
    create(&mut state, "a", 1);
    let late = state.topic_alter("a", grow(2)).unwrap();
    delete(&mut state, "a");
    create(&mut state, "a", 1);
    assert_eq!(state.apply(&late), Outcome::UnknownTopic);
    assert_eq!(state.topic("a").unwrap().settings.partitions, 1);
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
    alter(&mut state, "a", grow(5));
    refuse_flipped_bits(&state);
}

#[test]
fn an_image_tells_of_brokers_and_of_lanes_that_move() {
    let mut state = cluster(4);
    create(&mut state, "a", 3);
    refuse_flipped_bits(&state);
}

fn refuse_flipped_bits(state: &State) {
    let image = state.image();
    assert_eq!(State::from_image(&image), Ok(state.clone()));
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
    alter(&mut state, "b", grow(3));
    assert!(refused_forgeries(&state) > 50);
    // And of a cluster, with more that must fit together.
    assert!(refused_forgeries(&cluster(4)) > 200);
}

fn refused_forgeries(state: &State) -> u32 {
    let image = state.image();
    let mut refused = 0;
    // Another value in each byte, with the checksum made right again.
    for at in 4..image.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = image.clone();
            bad[at] = value;
            let crc = crc32c::crc32c(&bad[4..]);
            bad[..4].copy_from_slice(&crc.to_le_bytes());
            match State::from_image(&bad) {
                Err(BadBytes) => refused += 1,
                // Another state, and then a whole one.
                Ok(other) => assert_eq!(State::from_image(&other.image()), Ok(other)),
            }
        }
    }
    refused
}

/// An image with its checksum made right after a change.
fn forged(state: &State, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut image = state.image();
    change(&mut image);
    let crc = crc32c::crc32c(&image[4..]);
    image[..4].copy_from_slice(&crc.to_le_bytes());
    image
}

#[test]
fn an_image_with_deleted_ranges_that_cannot_be_is_refused() {
    let mut state = State::default();
    state.apply(&lanes(1));
    for name in ["a", "b", "c"] {
        create(&mut state, name, 2);
    }
    delete(&mut state, "b");
    let end = state.image().len();
    // The last eight bytes: the only range, partitions 3 and 4 of those below 7.
    for (first, count) in [(3, u32::MAX), (u32::MAX, 2), (3, 5), (3, 0), (2, 1), (4, 2), (0, 1)] {
        let image = forged(&state, |image| {
            image[end - 8..end - 4].copy_from_slice(&u32::to_le_bytes(first));
            image[end - 4..].copy_from_slice(&count.to_le_bytes());
        });
        assert_eq!(State::from_image(&image), Err(BadBytes), "{count} from {first}");
    }
    let counted_too_far =
        forged(&state, |image| image[8..16].copy_from_slice(&u64::MAX.to_le_bytes()));
    assert_eq!(State::from_image(&counted_too_far), Err(BadBytes));
    assert_eq!(State::from_image(&state.image()), Ok(state));
}
