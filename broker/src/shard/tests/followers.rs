//! Readers that take any replica: what a follower serves them, what it leaves to its leader to say, and when it stops.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{LaneId, PartitionId};
use corelog_protocol::message::{Fetch, FetchedPartition, TopicCreate, TopicSettings};
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{Client, batch, produce};
use crate::planted::{self, Bug};
use crate::sim::cluster::{Cluster, number};
use crate::time::Nanos;

const LANE: LaneId = LaneId(1);

/// Three brokers of so many shards with one lane each, of which broker 0 leads lane 1; and a partition in that lane.
fn begun_with(shards: u16, retention_bytes: Option<u64>) -> (Cluster, PartitionId) {
    let mut cluster = Cluster::with(&[shards; 3], |config| {
        config.lanes_per_shard = 1;
        config.segment_bytes = 256 << 10;
        config.memory_bytes = 8 << 20;
    });
    cluster.pass(Nanos::from_secs(3));
    let client = cluster.world(0).client(0);
    let partitions = 3 * u32::from(shards);
    let settings = TopicSettings { partitions, replicas: 0, retention_ms: None, retention_bytes };
    let create = TopicCreate { name: "t".into(), settings, timeout_ms: 0 };
    cluster.world(0).ask(client, 1, &create);
    cluster.run();
    cluster.pass(Nanos::from_secs(1));
    assert_eq!(cluster.world(0).take_one(client).kind, FrameKind::TopicCreateReply);
    let state = cluster.brokers[0].world.nodes[0].shard.view().state();
    let topic = state.topic("t").expect("made");
    let partition = topic.partitions().find(|(_, link)| link.lane == LANE).expect("one each").0;
    assert_eq!(leader(&cluster, 1), Some(0));
    (cluster, partition)
}

fn begun() -> (Cluster, PartitionId) {
    begun_with(1, None)
}

/// Who leads lane 1, as this broker sees it.
fn leader(cluster: &Cluster, seen_by: usize) -> Option<usize> {
    let view = cluster.brokers[seen_by].world.nodes[0].shard.view();
    let leader = view.lane(LANE).and_then(|lane| lane.leader_id())?;
    (0..3).find(|&broker| number(broker) == leader)
}

fn near(partition: PartitionId, offset: u64, wait_ms: u32) -> Fetch {
    Fetch { any_replica: true, ..fetch_of(&[(partition, offset)], wait_ms, 1) }
}

/// Asks a broker, without waiting for the answer.
fn ask(cluster: &mut Cluster, broker: usize, fetch: &Fetch) -> Client {
    let client = cluster.world(broker).client(0);
    cluster.world(broker).ask(client, 5, fetch);
    cluster.run();
    client
}

/// The answer, if it has come.
fn answer(
    cluster: &mut Cluster,
    broker: usize,
    client: Client,
) -> Option<(FetchedPartition, Vec<u64>)> {
    let frame = cluster.world(broker).take(client).pop()?;
    let (fetched, found) = records(&frame).remove(0);
    Some((fetched, found.into_iter().map(|(offset, _)| offset).collect()))
}

/// What a broker has at once, for a reader that takes any replica.
fn read(
    cluster: &mut Cluster,
    broker: usize,
    (partition, offset): (PartitionId, u64),
) -> Result<Vec<u64>, ErrorCode> {
    let client = ask(cluster, broker, &near(partition, offset, 0));
    cluster.pass(Nanos::from_millis(20));
    let (fetched, found) = answer(cluster, broker, client).expect("it waits for nothing");
    cluster.world(broker).hang_up(client);
    fetched.error.map_or(Ok(found), Err)
}

/// A record, which the leader takes.
fn write(cluster: &mut Cluster, leader: usize, partition: PartitionId, text: &str) -> Client {
    let client = cluster.world(leader).client(0);
    let frame = produce(partition, Durability::QuorumDurable, 9, &batch(text, 1));
    cluster.world(leader).send(client, &frame);
    cluster.run();
    client
}

/// A record that is acknowledged, and of which the followers have been told.
fn commit(cluster: &mut Cluster, leader: usize, partition: PartitionId, text: &str) -> u64 {
    let client = write(cluster, leader, partition, text);
    cluster.pass(Nanos::from_millis(300));
    cluster.world(leader).take_one(client).ack().base_offset.0
}

#[test]
fn a_follower_serves_what_is_committed_to_those_who_take_any_replica_and_to_nobody_else() {
    let (mut cluster, partition) = begun();
    (0..3).for_each(|_| _ = commit(&mut cluster, 0, partition, "record"));
    for follower in [1, 2] {
        assert_eq!(read(&mut cluster, follower, (partition, 0)), Ok(vec![0, 1, 2]));
        assert_eq!(read(&mut cluster, follower, (partition, 2)), Ok(vec![2]));
        assert_eq!(read(&mut cluster, follower, (partition, 3)), Ok(vec![]));
        assert_eq!(cluster.counter(follower, 0, "follower_reads"), 2);
        let client = ask(&mut cluster, follower, &fetch_of(&[(partition, 0)], 0, 1));
        let (refused, found) = answer(&mut cluster, follower, client).expect("at once");
        assert_eq!((refused.error, found), (Some(ErrorCode::NotLeader), vec![]));
    }
    assert_eq!(read(&mut cluster, 0, (partition, 0)), Ok(vec![0, 1, 2]), "the leader as well");
    assert_eq!(cluster.counter(0, 0, "follower_reads"), 0);
}

/// Only one follower has a record on its disk.
fn an_uncommitted_record_waits() -> Result<(), String> {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    cluster.cut(0, 2);
    cluster.world(0).is_disk_held = true;
    let reader = ask(&mut cluster, 1, &near(partition, 1, 5_000));
    let writer = write(&mut cluster, 0, partition, "second");
    cluster.pass(Nanos::from_millis(400));
    assert!(cluster.world(0).take(writer).is_empty());
    if let Some((_, found)) = answer(&mut cluster, 1, reader) {
        return Err(format!("served before it was committed: {found:?}"));
    }
    cluster.world(0).release_disk();
    cluster.pass(Nanos::from_millis(400));
    assert_eq!(cluster.world(0).take_one(writer).ack().base_offset.0, 1);
    let (_, found) = answer(&mut cluster, 1, reader).ok_or("it is not woken")?;
    assert_eq!(found, [1]);
    Ok(())
}

#[test]
fn a_record_is_served_by_a_follower_when_it_is_committed_and_not_before() {
    an_uncommitted_record_waits().unwrap();
    let planted = planted::with(Bug::FollowerServesUncommitted, an_uncommitted_record_waits);
    assert!(planted.is_err(), "the bug is not noticed");
}

#[test]
fn readers_wait_at_a_follower_and_are_woken_partition_by_partition() {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(ask(&mut cluster, 2, &near(partition, 1, 20_000)));
    }
    let many = Fetch { bytes_min: 300, ..near(partition, 1, 20_000) };
    let patient = ask(&mut cluster, 2, &many);
    cluster.pass(Nanos::from_secs(5));
    assert!(clients.iter().all(|&client| cluster.world(2).take(client).is_empty()));
    commit(&mut cluster, 0, partition, "second");
    for client in clients {
        let (fetched, found) = answer(&mut cluster, 2, client).expect("woken");
        assert_eq!((fetched.committed_end.0, found), (2, vec![1]));
    }
    assert!(cluster.world(2).take(patient).is_empty(), "it wants more");
    (0..3).for_each(|_| _ = commit(&mut cluster, 0, partition, "more"));
    let (_, found) = answer(&mut cluster, 2, patient).expect("that is enough");
    assert!(found.starts_with(&[1, 2, 3]), "{found:?}");
    assert!(cluster.brokers[2].world.nodes[0].shard.is_idle());
}

#[test]
fn a_follower_does_not_judge_what_only_its_leader_knows() {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    // Beyond what it knows: a reader may have that from another replica.
    let client = ask(&mut cluster, 1, &near(partition, 7, 300));
    assert!(answer(&mut cluster, 1, client).is_none(), "it waits");
    cluster.pass(Nanos::from_millis(400));
    let (fetched, found) = answer(&mut cluster, 1, client).expect("its time is up");
    assert_eq!((fetched.error, fetched.committed_end.0, found), (None, 1, vec![]));
    assert_eq!(read(&mut cluster, 0, (partition, 7)), Err(ErrorCode::OffsetOutOfRange));
}

#[test]
fn a_reader_that_had_it_from_followers_waits_at_a_leader_that_has_not_flushed_it() {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    cluster.world(0).is_disk_held = true;
    let writer = write(&mut cluster, 0, partition, "second");
    cluster.pass(Nanos::from_millis(400));
    assert_eq!(read(&mut cluster, 1, (partition, 1)), Ok(vec![1]), "two disks have it");
    let reader = ask(&mut cluster, 0, &near(partition, 2, 5_000));
    cluster.pass(Nanos::from_millis(400));
    assert_eq!(answer(&mut cluster, 0, reader), None, "it is not beyond the end");
    assert!(cluster.world(0).take(writer).is_empty());
    cluster.world(0).release_disk();
    commit(&mut cluster, 0, partition, "third");
    let (fetched, found) = answer(&mut cluster, 0, reader).expect("woken");
    assert_eq!((fetched.error, found), (None, vec![2]));
}

#[test]
fn below_its_log_start_a_follower_sends_to_the_leader() {
    let (mut cluster, partition) = begun_with(1, Some(100_000));
    for value in 0..60 {
        let text = format!("{value} {}", "x".repeat(20_000));
        commit(&mut cluster, 0, partition, &text);
    }
    cluster.pass(Nanos::from_secs(30));
    commit(&mut cluster, 0, partition, "last");
    assert_eq!(read(&mut cluster, 0, (partition, 0)), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(read(&mut cluster, 1, (partition, 0)), Err(ErrorCode::NotLeader));
    assert_eq!(read(&mut cluster, 1, (partition, 60)), Ok(vec![60]));
}

#[test]
fn a_follower_of_an_idle_lane_serves_on() {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    for _ in 0..6 {
        cluster.pass(Nanos::from_secs(7));
        assert_eq!(read(&mut cluster, 1, (partition, 0)), Ok(vec![0]));
    }
}

/// A follower that hears of nobody, while the others lead on in a later epoch.
fn a_follower_that_is_cut_off_stops() -> Result<(), String> {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    let waiting = ask(&mut cluster, 2, &near(partition, 1, 20_000));
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    cluster.pass(Nanos::from_millis(500));
    assert_eq!(read(&mut cluster, 2, (partition, 0)), Ok(vec![0]), "it is not old yet");
    cluster.pass(Nanos::from_secs(3));
    commit(&mut cluster, 0, partition, "second");
    let stale = read(&mut cluster, 2, (partition, 0));
    if stale != Err(ErrorCode::NotLeader) {
        return Err(format!("it serves what is old: {stale:?}"));
    }
    let (sent_away, _) = answer(&mut cluster, 2, waiting).ok_or("who waits is not told")?;
    assert_eq!(sent_away.error, Some(ErrorCode::NotLeader));
    cluster.mend(0, 2);
    cluster.mend(1, 2);
    cluster.pass(Nanos::from_secs(3));
    assert_eq!(read(&mut cluster, 2, (partition, 0)), Ok(vec![0, 1]));
    Ok(())
}

#[test]
fn a_follower_that_hears_of_nobody_serves_for_two_seconds_and_no_longer() {
    a_follower_that_is_cut_off_stops().unwrap();
    let planted = planted::with(Bug::FollowerServesStaleEpoch, a_follower_that_is_cut_off_stops);
    assert!(planted.is_err(), "the bug is not noticed");
}

#[test]
fn a_follower_whose_disk_does_not_keep_up_stops_to_serve_until_it_does() {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    cluster.world(2).is_disk_held = true;
    for _ in 0..15 {
        commit(&mut cluster, 0, partition, "more");
    }
    assert_eq!(read(&mut cluster, 2, (partition, 0)), Err(ErrorCode::NotLeader));
    assert!(read(&mut cluster, 1, (partition, 0)).is_ok());
    cluster.world(2).release_disk();
    cluster.pass(Nanos::from_secs(3));
    assert_eq!(read(&mut cluster, 2, (partition, 0)), Ok((0..16).collect()));
}

#[test]
fn who_waits_at_a_follower_is_sent_away_when_the_leader_changes_and_served_in_the_next_epoch() {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "first");
    let waiting = ask(&mut cluster, 2, &near(partition, 1, 20_000));
    cluster.kill(0);
    cluster.pass(Nanos::from_secs(4));
    let (sent_away, _) = answer(&mut cluster, 2, waiting).expect("it need not wait any longer");
    assert_eq!(sent_away.error, Some(ErrorCode::NotLeader));
    let next = leader(&cluster, 1).expect("another one leads");
    assert_ne!(next, 0);
    let follower = 3 - next;
    let offset = commit(&mut cluster, next, partition, "second");
    assert_eq!(read(&mut cluster, follower, (partition, 0)), Ok(vec![0, offset]));
    cluster.restart(0);
    cluster.pass(Nanos::from_secs(2));
    // From its disk, segment by segment.
    assert_eq!(read(&mut cluster, 0, (partition, 0)), Ok(vec![0]), "it follows now");
    assert_eq!(read(&mut cluster, 0, (partition, offset)), Ok(vec![offset]));
}

#[test]
fn damage_on_a_follower_is_not_the_readers_business_and_is_repaired() {
    let (mut cluster, partition) = begun();
    commit(&mut cluster, 0, partition, "a record of which a byte will rot: ");
    for value in 0..120 {
        commit(&mut cluster, 0, partition, &format!("{value} {}", "x".repeat(20_000)));
    }
    // Out of its memory.
    assert!(cluster.world(2).rot(b"a record of which a byte will rot") > 0);
    let first = read(&mut cluster, 2, (partition, 0));
    assert_eq!(first, Err(ErrorCode::NotLeader));
    cluster.pass(Nanos::from_secs(10));
    assert!(cluster.counter(2, 0, "repairs") > 0);
    let found = read(&mut cluster, 2, (partition, 0)).expect("it is whole again");
    assert_eq!(found[0], 0);
}

#[test]
fn the_shard_that_has_the_copy_is_asked_by_any_other() {
    let (mut cluster, partition) = begun_with(2, None);
    commit(&mut cluster, 0, partition, "first");
    let client = cluster.world(1).client(1);
    cluster.world(1).ask(client, 5, &near(partition, 0, 0));
    cluster.pass(Nanos::from_millis(20));
    let (fetched, found) = answer(&mut cluster, 1, client).expect("answered");
    assert_eq!((fetched.error, found), (None, vec![0]));
    assert_eq!(cluster.counter(1, 0, "follower_reads"), 1);
}
