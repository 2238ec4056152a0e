//! A broker that was away for longer than its leaders' logs reach back, or whose disk has rotted, has all again that it
//! should have, and nobody is asked.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::PartitionId;
use corelog_protocol::message::{TopicCreate, TopicCreateReply, TopicSettings};
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{batch, produce};
use crate::sim::cluster::{Cluster, number};
use crate::time::Nanos;

/// A topic of three partitions, each led by another broker.
fn begun(retention_bytes: Option<u64>) -> (Cluster, Vec<PartitionId>) {
    begun_with(retention_bytes, 0)
}

fn begun_with(retention_bytes: Option<u64>, scrub: u64) -> (Cluster, Vec<PartitionId>) {
    let mut cluster = Cluster::with(&[1; 3], move |config| {
        config.scrub_bytes_per_second = scrub;
        config.segment_bytes = 256 << 10;
        config.memory_bytes = 8 << 20;
    });
    cluster.pass(Nanos::from_secs(3));
    let settings =
        TopicSettings { partitions: 3, replicas: 0, retention_ms: None, retention_bytes };
    let client = cluster.world(0).client(0);
    let create = TopicCreate { name: "t".into(), settings, timeout_ms: 0 };
    cluster.world(0).ask(client, 7, &create);
    cluster.pass(Nanos::from_secs(2));
    let frame = cluster.world(0).take_one(client);
    let topic = TopicCreateReply::decode(&frame.control).expect("it is made").topic;
    (cluster, topic.places.iter().map(|place| place.partition).collect())
}

fn leads(cluster: &mut Cluster, at: usize, partition: PartitionId) -> bool {
    let client = cluster.world(at).client(0);
    let topic = cluster.world(at).describe(client, "t");
    let place = topic.places.iter().find(|place| place.partition == partition);
    place.expect("it is known").broker == number(at)
}

fn leader(cluster: &mut Cluster, partition: PartitionId) -> usize {
    let alive: Vec<usize> = (0..3).filter(|&at| cluster.brokers[at].is_alive).collect();
    alive.into_iter().find(|&at| leads(cluster, at, partition)).expect("somebody leads")
}

/// Values of about 20 kB, each acknowledged by a quorum. The lead may be handed over meanwhile.
fn fill(cluster: &mut Cluster, partition: PartitionId, values: std::ops::Range<u64>) {
    let mut at = leader(cluster, partition);
    let mut client = cluster.world(at).client(0);
    for value in values {
        loop {
            let frame =
                produce(partition, Durability::QuorumDurable, value, &batch(&text(value), 1));
            cluster.world(at).send(client, &frame);
            cluster.pass(Nanos::from_millis(50));
            let answer = cluster.world(at).take_one(client);
            if answer.kind != FrameKind::Error {
                assert_eq!(answer.ack().base_offset.0, value);
                break;
            }
            assert_eq!(answer.error().code, ErrorCode::NotLeader);
            cluster.pass(Nanos::from_secs(1));
            at = leader(cluster, partition);
            client = cluster.world(at).client(0);
        }
    }
}

fn name(value: u64) -> String {
    format!("value {value:06}")
}

fn text(value: u64) -> String {
    format!("{} {}", name(value), "x".repeat(20_000))
}

/// Everything that is left of the partition, from its leader.
fn left(cluster: &mut Cluster, partition: PartitionId, end: u64) -> Vec<(u64, String)> {
    let at = leader(cluster, partition);
    let client = cluster.world(at).client(0);
    let mut found: Vec<(u64, String)> = Vec::new();
    let mut next = 0;
    while next < end {
        cluster.world(at).ask(client, 5, &fetch_of(&[(partition, next)], 0, 0));
        cluster.pass(Nanos::from_millis(50));
        let frame = cluster.world(at).take_one(client);
        assert_eq!(frame.kind, FrameKind::FetchReply);
        let (fetched, records) = records(&frame).remove(0);
        next = match records.last() {
            Some((last, _)) => last + 1,
            None => fetched.log_start.0.max(next + 1),
        };
        found.extend(records);
    }
    found
}

#[test]
fn a_broker_that_was_away_too_long_is_rebuilt_and_can_lead() {
    let (mut cluster, partitions) = begun(Some(300_000));
    let away = 2;
    let partition = preferred(&mut cluster, &partitions, away);
    fill(&mut cluster, partition, 0..20);
    cluster.kill(away);
    cluster.pass(Nanos::from_secs(3));
    // More than the tail cache holds, and many times what is kept.
    fill(&mut cluster, partition, 20..200);
    cluster.pass(Nanos::from_secs(30));
    cluster.restart(away);
    cluster.pass(Nanos::from_secs(5));
    assert!(cluster.counter(away, 0, "lane_rebuilds") > 0);
    fill(&mut cluster, partition, 200..210);
    // The others agree on it without the one that led.
    let leader_now = leader(&mut cluster, partition);
    if leader_now != away {
        cluster.kill(leader_now);
        cluster.pass(Nanos::from_secs(5));
    }
    assert_eq!(leader(&mut cluster, partition), away, "it is the preferred one");
    fill(&mut cluster, partition, 210..215);
    let found = left(&mut cluster, partition, 215);
    assert!(found.len() >= 15 && found[0].0 > 20, "{}", found.len());
    let expected: Vec<_> = (found[0].0..215).map(|value| (value, text(value))).collect();
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "each is there, and as it was");
}

/// A partition and the broker that leads it if it can.
fn preferred(cluster: &mut Cluster, partitions: &[PartitionId], at: usize) -> PartitionId {
    *partitions.iter().find(|it| leads(cluster, at, **it)).expect("one")
}

/// Whoever leads dies, if it is not this one; which leads then, and has everything.
fn check_whole(cluster: &mut Cluster, partition: PartitionId, at: usize, end: u64) {
    let leader_now = leader(cluster, partition);
    if leader_now != at {
        cluster.kill(leader_now);
        cluster.pass(Nanos::from_secs(5));
    }
    assert_eq!(leader(cluster, partition), at, "it is the preferred one");
    let expected: Vec<_> = (0..end).map(|value| (value, text(value))).collect();
    assert!(left(cluster, partition, end) == expected, "each is there, and as it was");
}

#[test]
fn what_has_rotted_on_a_broker_that_was_down_is_fetched_again() {
    let (mut cluster, partitions) = begun(None);
    let partition = preferred(&mut cluster, &partitions, 2);
    fill(&mut cluster, partition, 0..30);
    cluster.kill(2);
    cluster.pass(Nanos::from_secs(3));
    fill(&mut cluster, partition, 30..32);
    // In the last segment, which the start reads.
    assert!(cluster.world(2).rot(name(28).as_bytes()) > 0);
    cluster.restart(2);
    cluster.pass(Nanos::from_secs(5));
    check_whole(&mut cluster, partition, 2, 32);
}

#[test]
fn a_leader_that_finds_damage_lets_another_lead_and_is_repaired() {
    let (mut cluster, partitions) = begun(None);
    let partition = preferred(&mut cluster, &partitions, 2);
    fill(&mut cluster, partition, 0..60);
    cluster.pass(Nanos::from_secs(1));
    assert!(cluster.world(2).rot(name(5).as_bytes()) > 0);
    let client = cluster.world(2).client(0);
    cluster.world(2).ask(client, 5, &fetch_of(&[(partition, 5)], 0, 0));
    cluster.pass(Nanos::from_millis(10));
    let frame = cluster.world(2).take_one(client);
    let (fetched, found) = records(&frame).remove(0);
    assert_eq!((fetched.error, found), (Some(ErrorCode::NotLeader), vec![]), "others have it");
    cluster.pass(Nanos::from_secs(5));
    assert!(cluster.counter(2, 0, "repairs") > 0);
    fill(&mut cluster, partition, 60..62);
    check_whole(&mut cluster, partition, 2, 62);
}

#[test]
fn what_the_scrub_of_a_follower_finds_is_repaired_while_it_runs() {
    let (mut cluster, partitions) = begun_with(None, 1 << 20);
    let partition = preferred(&mut cluster, &partitions, 2);
    fill(&mut cluster, partition, 0..60);
    let other = 0;
    assert!(cluster.world(other).rot(name(5).as_bytes()) > 0);
    cluster.pass(Nanos::from_secs(120));
    assert!(cluster.counter(other, 0, "repairs") > 0);
    assert_eq!(leader(&mut cluster, partition), 2, "it goes on to lead");
    fill(&mut cluster, partition, 60..62);
    cluster.pass(Nanos::from_secs(1));
    // Alone with one that is behind: what it has is all there is.
    cluster.kill(2);
    cluster.pass(Nanos::from_secs(5));
    let expected: Vec<_> = (0..62).map(|value| (value, text(value))).collect();
    assert!(left(&mut cluster, partition, 62) == expected);
    let now = leader(&mut cluster, partition);
    if now != other {
        // The two that are left take turns.
        cluster.restart(2);
        cluster.pass(Nanos::from_secs(5));
        cluster.kill(now);
        cluster.pass(Nanos::from_secs(5));
        assert!(left(&mut cluster, partition, 62) == expected);
    }
}
