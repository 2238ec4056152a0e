//! Records on their way out.

use super::peer::*;
use crate::Durability::{LeaderDurable, LeaderMemory, None as Unanswered, QuorumDurable};
use crate::Error;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{PartitionId, ShardId};
use corelog_protocol::message::*;
use std::collections::BTreeMap;

fn delivered(base: u64, tokens: &[u64]) -> Told {
    Told::Delivered { partition: 0, base: Some(base), tokens: tokens.to_vec() }
}

fn refused(code: ErrorCode, retry_after_ms: u32) -> Error {
    Error::Refused(crate::Refusal { code, retry_after_ms, message: "no".into() })
}

#[test]
fn the_first_record_finds_the_owning_shard_and_goes_there() {
    let mut scene = Scene::new(config());
    scene.send("t", Some(1), "hello", QuorumDurable, 7).unwrap();
    let [metadata] = scene.open_links()[..] else { panic!() };
    assert_eq!(scene.links[&metadata].shard, ShardId(0));
    let asked = scene.greet();
    assert_eq!(TopicDescribe::decode(&asked[0].control).unwrap().name, "t");
    scene.answer(&asked[0], &TopicDescribeReply { topic: topic("t", &[0, 3]) });

    let [_, owner] = scene.open_links()[..] else { panic!() };
    let asked = scene.greet();
    assert_eq!(scene.links[&owner].preamble.unwrap().shard, ShardId(3));
    assert_eq!(asked[0].link, owner);
    assert_eq!(asked[0].produce().partition, PartitionId(101));
    assert_eq!(asked[0].produce().durability, QuorumDurable);
    assert_eq!(asked[0].values(), ["hello"]);
    scene.ack(&asked[0], 41);
    assert_eq!(scene.told(), [Told::Delivered { partition: 1, base: Some(41), tokens: vec![7] }]);
    assert_eq!(scene.engine.memory_used(), 0);
}

#[test]
fn without_linger_a_single_leaves_at_once_and_more_gather_while_the_window_is_full() {
    let mut scene = Scene::with_topic(config(), &[0]);
    for token in 1..=5 {
        scene.produce(&format!("r{token}"), token);
    }
    let asked = scene.asked();
    assert_eq!(asked.iter().map(Asked::values).collect::<Vec<_>>(), [["r1"], ["r2"]]);
    scene.ack(&asked[0], 1);
    let gathered = scene.asked();
    assert_eq!(gathered.len(), 1);
    assert_eq!(gathered[0].values(), ["r3", "r4", "r5"]);
    scene.ack(&asked[1], 2);
    scene.ack(&gathered[0], 3);
    assert_eq!(scene.told(), [delivered(1, &[1]), delivered(2, &[2]), delivered(3, &[3, 4, 5])]);
}

#[test]
fn with_linger_a_batch_waits_for_company_until_its_time_or_a_flush() {
    let mut config = config();
    config.producer.linger_nanos = 5_000_000;
    let mut scene = Scene::new(config);
    scene.send("t", Some(0), "r0", LeaderDurable, 0).unwrap();
    let asked = scene.greet();
    scene.answer(&asked[0], &TopicDescribeReply { topic: topic("t", &[0]) });
    scene.later(4);
    scene.produce("r1", 1);
    scene.tick();
    assert!(scene.asked().is_empty());
    scene.later(1);
    scene.tick();
    let asked = scene.asked();
    assert_eq!(asked[0].values(), ["r0", "r1"]);

    scene.produce("r2", 2);
    assert!(scene.asked().is_empty());
    let flush = scene.engine.flush(scene.now, &mut scene.effects);
    scene.carry_out();
    // A record after the flush is not the flush's.
    scene.produce("r3", 3);
    let flushed = scene.asked();
    assert_eq!(flushed[0].values(), ["r2"]);
    scene.ack(&asked[0], 0);
    assert_eq!(scene.told(), [delivered(0, &[0, 1])]);
    scene.ack(&flushed[0], 2);
    assert_eq!(scene.told(), [delivered(2, &[2]), Told::Flushed(flush)]);
}

#[test]
fn a_flush_before_the_topic_is_known_is_a_flush_all_the_same() {
    let mut config = config();
    config.producer.linger_nanos = 5_000_000_000;
    let mut scene = Scene::new(config);
    for token in 0..3 {
        scene.produce("r", token);
    }
    let asked = scene.greet();
    let flush = scene.engine.flush(scene.now, &mut scene.effects);
    scene.carry_out();
    scene.answer(&asked[0], &TopicDescribeReply { topic: topic("t", &[0]) });
    let asked = scene.asked();
    assert_eq!(asked.len(), 1, "one batch, at once");
    scene.ack(&asked[0], 0);
    assert_eq!(scene.told(), [delivered(0, &[0, 1, 2]), Told::Flushed(flush)]);
}

#[test]
fn a_full_batch_leaves_before_its_linger_ends() {
    let mut config = config();
    config.producer.linger_nanos = 1_000_000_000;
    config.producer.batch_bytes_max = 4096;
    let mut scene = Scene::new(config);
    let value = "v".repeat(1500);
    for token in 0..3 {
        scene.produce(&value, token);
    }
    let asked = scene.greet();
    scene.answer(&asked[0], &TopicDescribeReply { topic: topic("t", &[0]) });
    let asked = scene.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].values().len(), 2);
}

#[test]
fn levels_do_not_mix_in_a_batch() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    scene.produce("r2", 2);
    scene.produce("r3", 3);
    scene.send("t", Some(0), "r4", QuorumDurable, 4).unwrap();
    let asked = scene.asked();
    scene.ack(&asked[0], 1);
    scene.ack(&asked[1], 2);
    let asked = scene.asked();
    let levels: Vec<_> = asked.iter().map(|asked| asked.produce().durability).collect();
    assert_eq!(levels, [LeaderDurable, QuorumDurable]);
}

#[test]
fn a_refused_batch_is_sent_again_after_the_hint_and_before_its_followers() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    scene.produce("r2", 2);
    scene.produce("r3", 3);
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::Overloaded, 50);
    assert!(scene.asked().is_empty(), "nothing overtakes while the other is unanswered");
    scene.refuse(&asked[1], ErrorCode::Overloaded, 50);
    scene.sleep(49);
    assert!(scene.asked().is_empty());
    scene.sleep(2);
    // One at a time until one is appended.
    let again = scene.asked();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].values(), ["r1"]);
    scene.ack(&again[0], 1);
    let rest = scene.asked();
    assert_eq!(rest[0].values(), ["r2"]);
    assert_eq!(rest[1].values(), ["r3"]);
    scene.ack(&rest[0], 2);
    scene.ack(&rest[1], 3);
    assert_eq!(scene.told(), [delivered(1, &[1]), delivered(2, &[2]), delivered(3, &[3])]);
    assert_eq!(scene.engine.counters().batches_retried, 2);
}

#[test]
fn a_refused_batch_that_was_overtaken_is_reported_rather_than_reordered() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    scene.produce("r2", 2);
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::Overloaded, 50);
    assert!(scene.told().is_empty());
    scene.ack(&asked[1], 1);
    let error = refused(ErrorCode::Overloaded, 50);
    assert!(error.is_definite() && error.may_retry());
    assert_eq!(scene.told(), [Told::Failed { error, tokens: vec![1] }, delivered(1, &[2])]);
    scene.sleep(1000);
    assert!(scene.asked().is_empty());
    assert_eq!(scene.engine.memory_used(), 0);
}

#[test]
fn what_asks_for_no_answer_leaves_when_all_before_it_was_answered() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    scene.send("t", Some(0), "r2", Unanswered, 2).unwrap();
    scene.send("t", Some(0), "r3", Unanswered, 3).unwrap();
    scene.produce("r4", 4);
    // Nobody could tell whether r2 stands in the log: so r1, when it is refused, can be sent again.
    let asked = scene.asked();
    assert_eq!((asked.len(), asked[0].values()), (1, vec!["r1".to_string()]));
    scene.refuse(&asked[0], ErrorCode::Overloaded, 50);
    scene.sleep(50);
    let asked = scene.asked();
    assert_eq!((asked.len(), asked[0].values()), (1, vec!["r1".to_string()]));
    assert!(scene.told().is_empty());
    scene.ack(&asked[0], 0);
    let asked = scene.asked();
    let values: Vec<_> = asked.iter().flat_map(Asked::values).collect();
    assert_eq!(values, ["r2", "r3", "r4"]);
    let unanswered = Told::Delivered { partition: 0, base: None, tokens: vec![2, 3] };
    assert_eq!(scene.told(), [delivered(0, &[1]), unanswered]);
    scene.ack(&asked[1], 3);
    assert_eq!(scene.told(), [delivered(3, &[4])]);
    assert_eq!(scene.engine.memory_used(), 0);
}

#[test]
fn a_final_refusal_fails_at_once_and_the_next_goes_on() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    scene.produce("r2", 2);
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::InvalidBatch, 0);
    scene.ack(&asked[1], 1);
    let error = refused(ErrorCode::InvalidBatch, 0);
    assert!(error.is_definite() && !error.may_retry());
    assert_eq!(scene.told(), [Told::Failed { error, tokens: vec![1] }, delivered(1, &[2])]);
}

#[test]
fn a_refusal_that_lasts_to_the_deadline_is_what_the_user_is_told() {
    let mut config = config();
    config.producer.delivery_nanos_max = 100_000_000;
    let mut scene = Scene::with_topic(config, &[0]);
    scene.produce("r1", 1);
    for _ in 0..3 {
        let asked = scene.asked();
        scene.refuse(&asked[0], ErrorCode::StorageFull, 30);
        scene.sleep(30);
    }
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::StorageFull, 30);
    assert_eq!(
        scene.told(),
        [Told::Failed { error: refused(ErrorCode::StorageFull, 30), tokens: vec![1] }]
    );
}

#[test]
fn a_lost_connection_is_indefinite_for_what_left_and_a_retry_for_what_did_not() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    scene.clogged = true;
    scene.produce("r2", 2);
    let [link] = scene.open_links()[..] else { panic!() };
    scene.links.get_mut(&link).unwrap().closed = true;
    scene.clogged = false;
    scene.event(Event::Closed { link });
    let error = Error::ConnectionLost;
    assert!(!error.is_definite());
    assert_eq!(scene.told(), [Told::Failed { error, tokens: vec![1] }]);
    scene.sleep(20);
    let asked = scene.greet();
    let produced: Vec<_> =
        asked.iter().filter(|asked| asked.header.kind == FrameKind::Produce).collect();
    assert_eq!(produced.len(), 1);
    assert_eq!(produced[0].values(), ["r2"]);
    scene.ack(produced[0], 9);
    assert_eq!(scene.told(), [delivered(9, &[2])]);
}

#[test]
fn who_knows_only_a_broker_that_turns_it_away_is_told_why_when_time_is_up() {
    for code in [ErrorCode::BrokerRemoved, ErrorCode::WrongCluster] {
        let mut config = config();
        config.producer.delivery_nanos_max = 3_000_000_000;
        let mut scene = Scene::new(config);
        scene.produce("r1", 1);
        let deadline = scene.now.monotonic.after(5_000_000_000);
        scene.engine.request(scene.now, AdminRequest::ListTopics, deadline, &mut scene.effects);
        scene.carry_out();
        let mut hellos = 0;
        while scene.told.len() < 2 {
            for link in scene.open_links() {
                scene.event(Event::Connected { link });
                let asked = scene.asked();
                assert_eq!(asked[0].header.kind, FrameKind::Hello);
                scene.refuse(&asked[0], code, 0);
                hellos += 1;
            }
            let wake = scene.engine.next_wake().unwrap();
            scene.now.monotonic = scene.now.monotonic.max(wake);
            scene.tick();
        }
        assert!((3..20).contains(&hellos), "{hellos}");
        let error = refused(code, 0);
        assert!(error.is_definite());
        let answered = Told::Answered(Err(error.clone()));
        assert_eq!(scene.told(), [Told::Failed { error, tokens: vec![1] }, answered]);
        assert!(scene.now.monotonic >= deadline);
    }
}

#[test]
fn the_deadline_tells_definite_from_indefinite() {
    let mut config = config();
    config.producer.delivery_nanos_max = 100_000_000;
    config.producer.window_batches = 1;
    let mut scene = Scene::with_topic(config, &[0]);
    scene.produce("r1", 1);
    scene.produce("r2", 2);
    let asked = scene.asked();
    scene.sleep(100);
    let told = scene.told();
    assert_eq!(
        told,
        [
            Told::Failed { error: Error::DeadlineExceeded { sent: true }, tokens: vec![1] },
            Told::Failed { error: Error::DeadlineExceeded { sent: false }, tokens: vec![2] },
        ]
    );
    assert!(!Error::DeadlineExceeded { sent: true }.is_definite());
    assert!(Error::DeadlineExceeded { sent: false }.is_definite());
    // The late answer is not an error, and nobody is told twice.
    scene.ack(&asked[0], 1);
    assert!(scene.told().is_empty());
    assert_eq!(scene.engine.counters().protocol_errors, 0);
    scene.produce("r3", 3);
    let asked = scene.asked();
    scene.ack(&asked[0], 2);
    assert_eq!(scene.told(), [delivered(2, &[3])]);
    assert_eq!(scene.engine.memory_used(), 0);
}

#[test]
fn an_unreachable_broker_is_tried_with_growing_waits_until_the_deadline() {
    let mut config = config();
    config.producer.delivery_nanos_max = 10_000_000_000;
    let mut scene = Scene::new(config);
    scene.produce("r1", 1);
    let mut tries = 0;
    let mut waits = Vec::new();
    let start = scene.now.monotonic;
    while scene.told.is_empty() {
        for link in scene.open_links() {
            tries += 1;
            waits.push(scene.now.monotonic.since(start) / 1_000_000);
            scene.links.get_mut(&link).unwrap().closed = true;
            scene.event(Event::Closed { link });
        }
        let wake = scene.engine.next_wake().unwrap();
        scene.now.monotonic = scene.now.monotonic.max(wake);
        scene.tick();
    }
    assert_eq!(scene.told(), [Told::Failed { error: Error::Unreachable, tokens: vec![1] }]);
    assert!(Error::Unreachable.is_definite());
    // 10 ms doubling to 2 s, less up to half: between 10 and 25 tries in 10 s.
    assert!((10..25).contains(&tries), "{tries} tries at {waits:?}");
}

#[test]
fn level_none_is_done_when_the_socket_has_it_and_a_refusal_only_counts() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.clogged = true;
    scene.send("t", Some(0), "r1", Unanswered, 1).unwrap();
    assert!(scene.told().is_empty());
    let asked = scene.asked();
    let bytes = 32 + 16 + asked[0].payload.len() as u64;
    scene.event(Event::Sent { link: asked[0].link, bytes: bytes - 1 });
    assert!(scene.told().is_empty());
    scene.event(Event::Sent { link: asked[0].link, bytes: 1 });
    assert_eq!(scene.told(), [Told::Delivered { partition: 0, base: None, tokens: vec![1] }]);
    scene.clogged = false;
    scene.refuse(&asked[0], ErrorCode::StorageFull, 0);
    assert!(scene.told().is_empty());
    assert_eq!(scene.engine.counters().records_refused_unanswered, 1);
    assert_eq!(scene.engine.counters().protocol_errors, 0);
}

#[test]
fn the_memory_budget_refuses_with_full_and_frees_with_acks() {
    let mut config = config();
    config.producer.memory_bytes_max = 3500;
    let mut scene = Scene::with_topic(config, &[0]);
    let value = "v".repeat(1000);
    scene.produce(&value, 1);
    scene.produce(&value, 2);
    let full = scene.send("t", Some(0), &value, LeaderDurable, 3);
    assert_eq!(full, Err(Error::Full));
    let asked = scene.asked();
    scene.ack(&asked[0], 1);
    scene.produce(&value, 3);
}

#[test]
fn one_record_larger_than_a_batch_travels_alone_and_one_larger_than_a_frame_never() {
    let mut config = config();
    config.producer.batch_bytes_max = 4096;
    let mut scene = Scene::with_topic(config, &[0]);
    let value = "v".repeat(100_000);
    scene.produce(&value, 1);
    let asked = scene.asked();
    assert_eq!(asked[0].values(), [value]);
    // The scripted broker takes 1 MiB.
    scene.produce(&"v".repeat(2 << 20), 2);
    let [Told::Failed { error: Error::InvalidRecord(_), ref tokens }] = scene.told()[..] else {
        panic!()
    };
    assert_eq!(tokens, &[2]);
    let error = scene.send("t", Some(0), &"v".repeat(17 << 20), LeaderDurable, 3);
    assert!(matches!(error, Err(Error::InvalidRecord(_))));
}

#[test]
fn an_unknown_topic_fails_what_waits_for_it() {
    let mut scene = Scene::new(config());
    scene.produce("r1", 1);
    scene.produce("r2", 2);
    let asked = scene.greet();
    assert_eq!(asked.len(), 1);
    scene.refuse(&asked[0], ErrorCode::UnknownTopic, 0);
    let error = Error::UnknownTopic("t".into());
    assert_eq!(
        scene.told(),
        [
            Told::Failed { error: error.clone(), tokens: vec![1] },
            Told::Failed { error, tokens: vec![2] },
        ]
    );
    // Asked again for the next record.
    scene.produce("r3", 3);
    assert_eq!(scene.asked().len(), 1);
}

#[test]
fn a_moved_partition_is_looked_up_again_and_served_by_its_new_shard() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::NotLeader, 0);
    let describe = scene.asked();
    assert_eq!(describe[0].header.kind, FrameKind::TopicDescribe);
    scene.answer(&describe[0], &TopicDescribeReply { topic: topic("t", &[2]) });
    scene.sleep(25);
    let asked = scene.greet();
    assert_eq!(scene.links[&asked[0].link].shard, ShardId(2));
    assert_eq!(asked[0].values(), ["r1"]);
    scene.ack(&asked[0], 1);
    assert_eq!(scene.told(), [delivered(1, &[1])]);
}

#[test]
fn a_record_that_asked_no_answer_is_not_overtaken_when_its_partition_moves() {
    let mut scene = Scene::with_topic(config(), &[0, 0]);
    scene.send("t", Some(0), "r1", Unanswered, 1).unwrap();
    assert_eq!(scene.told(), [Told::Delivered { partition: 0, base: None, tokens: vec![1] }]);
    assert_eq!(scene.asked()[0].values(), ["r1"]);
    // Another partition is refused: the client learns that the first has moved to shard 2.
    scene.send("t", Some(1), "other", LeaderDurable, 2).unwrap();
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::NotLeader, 0);
    let describe = scene.asked();
    scene.answer(&describe[0], &TopicDescribeReply { topic: topic("t", &[2, 0]) });
    // Nobody knows whether shard 0 has taken r1. So r2 follows it, and asks.
    scene.send("t", Some(0), "r2", Unanswered, 3).unwrap();
    scene.send("t", Some(0), "r3", Unanswered, 4).unwrap();
    let asked = scene.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(scene.links[&asked[0].link].shard, ShardId(0));
    assert_eq!(asked[0].values(), ["r2"]);
    assert_eq!(asked[0].produce().durability, LeaderMemory);
    scene.ack(&asked[0], 1);
    let asked = scene.greet();
    let moved = asked.iter().find(|asked| scene.links[&asked.link].shard == ShardId(2)).unwrap();
    assert_eq!(moved.values(), ["r3"]);
    assert_eq!(moved.produce().durability, Unanswered);
}

#[test]
fn a_client_that_insists_on_a_shard_uses_no_other() {
    let mut config = config();
    config.insist_on_shard = Some(ShardId(2));
    let mut scene = Scene::with_topic(config, &[0, 1, 3]);
    for partition in 0..3 {
        scene.send("t", Some(partition), "r", LeaderDurable, 1).unwrap();
    }
    assert_eq!(scene.asked().len(), 3);
    assert!(scene.links.values().all(|far| far.shard == ShardId(2)));
    assert_eq!(scene.links.len(), 1);
}

#[test]
fn keys_keep_to_their_partition_and_keyless_records_go_round() {
    let mut scene = Scene::with_topic(config(), &[0, 0, 0, 0]);
    for token in 0..8 {
        let record = Scene::record("t", None, "r").level(LeaderDurable);
        scene.engine.produce(scene.now, &record, token, &mut scene.effects).unwrap();
        scene.carry_out();
    }
    let mut partitions: Vec<_> =
        scene.asked().iter().map(|asked| asked.produce().partition.0).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [100, 100, 101, 101, 102, 102, 103, 103]);

    let mut scene = Scene::with_topic(config(), &[0, 0, 0, 0]);
    let record = Scene::record("t", None, "r").key("21").level(LeaderDurable);
    scene.engine.produce(scene.now, &record, 1, &mut scene.effects).unwrap();
    scene.carry_out();
    let expected = 100 + crate::partition_of_key(b"21", 4);
    assert_eq!(scene.asked()[0].produce().partition, PartitionId(expected));
}

/// How many keyless records in turn went to each partition, as they were sent in one go.
fn turns_of_keyless(scene: &mut Scene, records: u64, value: &str) -> Vec<(u32, usize)> {
    let mut sent = BTreeMap::new();
    for token in 0..records {
        let record = Scene::record("t", None, value).level(LeaderDurable);
        scene.engine.produce(scene.now, &record, token, &mut scene.effects).unwrap();
        scene.carry_out();
    }
    // Acknowledged as they come, so that all leave; the tokens tell the order of the sends.
    loop {
        scene.sleep(1000);
        let asked = scene.asked();
        if asked.is_empty() {
            break;
        }
        asked.iter().for_each(|asked| scene.ack(asked, 0));
    }
    for told in scene.told() {
        let Told::Delivered { partition, tokens, .. } = told else { panic!("{told:?}") };
        sent.extend(tokens.into_iter().map(|token| (token, partition)));
    }
    let in_order: Vec<u32> = sent.into_values().collect();
    assert_eq!(in_order.len() as u64, records);
    in_order.chunk_by(|a, b| a == b).map(|turn| (turn[0], turn.len())).collect()
}

#[test]
fn keyless_records_fill_a_batch_for_one_partition_and_then_for_the_next() {
    let mut config = config();
    config.producer.linger_nanos = 1_000_000_000;
    config.producer.batch_bytes_max = 4096;
    let mut scene = Scene::with_topic(config, &[0, 0, 0]);
    let turns = turns_of_keyless(&mut scene, 120, &"v".repeat(400));
    // 408 bytes each at most, and each is taken for up to 50 more before it is written.
    assert!(turns.len() >= 12, "{turns:?}");
    for (number, &(partition, count)) in turns.iter().enumerate() {
        assert_eq!(partition, (turns[0].0 + number as u32) % 3, "{turns:?}");
        assert!((8..=9).contains(&count) || number == turns.len() - 1, "{turns:?}");
    }
}

#[test]
fn round_robin_takes_the_next_partition_for_every_record() {
    let mut config = config();
    config.producer.partitioner = crate::Partitioner::RoundRobin;
    config.producer.linger_nanos = 1_000_000_000;
    let mut scene = Scene::with_topic(config, &[0, 0, 0]);
    let turns = turns_of_keyless(&mut scene, 90, "v");
    assert_eq!(turns.len(), 90);
}

#[test]
fn closing_fails_everything_once_and_refuses_the_rest() {
    let mut scene = Scene::with_topic(config(), &[0]);
    for token in 1..=3 {
        scene.produce("r", token);
    }
    scene.engine.close(scene.now, &mut scene.effects);
    scene.carry_out();
    assert_eq!(
        scene.told(),
        [
            Told::Failed { error: Error::ConnectionLost, tokens: vec![1] },
            Told::Failed { error: Error::ConnectionLost, tokens: vec![2] },
            Told::Failed { error: Error::Closed, tokens: vec![3] },
        ]
    );
    assert_eq!(scene.send("t", Some(0), "r", LeaderDurable, 4), Err(Error::Closed));
    assert_eq!(scene.engine.next_wake(), None);
    assert!(scene.open_links().is_empty());
}
