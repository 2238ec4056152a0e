//! Leaders move, brokers go and come back, and a client of three brokers goes on.

use super::consuming::{error, take, values};
use super::peer::*;
use super::trio::*;
use crate::Durability::{LeaderMemory, None as Unanswered, QuorumDurable};
use crate::Error;
use crate::engine::random::Random;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::Offset;

fn send(trio: &mut Trio, token: u64) {
    trio.scene.send("t", Some(0), &format!("r{token}"), QuorumDurable, token).unwrap();
}

fn delivered(tokens: std::ops::RangeInclusive<u64>) -> Vec<Told> {
    let one = |token| Told::Delivered { partition: 0, base: Some(token - 1), tokens: vec![token] };
    tokens.map(one).collect()
}

/// One record failed, since there is no such topic.
fn assert_told_unknown(trio: &mut Trio) {
    let told = trio.scene.told();
    let [Told::Failed { error, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*error, Error::UnknownTopic("t".into()));
}

/// Of what was delivered since it was last asked, in order.
fn tokens(trio: &mut Trio) -> Vec<u64> {
    let tokens = |told| match told {
        Told::Delivered { tokens, .. } => tokens,
        told => panic!("{told:?}"),
    };
    trio.scene.told().into_iter().flat_map(tokens).collect()
}

fn named(tokens: std::ops::RangeInclusive<u64>) -> Vec<String> {
    tokens.map(|token| format!("r{token}")).collect()
}

/// A client that has delivered its first record, to broker 1.
fn started() -> Trio {
    let mut trio = Trio::new(|_| {});
    send(&mut trio, 1);
    trio.run(5);
    assert_eq!(trio.scene.told(), delivered(1..=1));
    trio
}

#[test]
fn one_address_is_enough_to_reach_all_and_its_connection_is_used_on() {
    let mut trio = Trio::new(|config| config.addresses = vec![address(2)]);
    send(&mut trio, 1);
    trio.run(5);
    assert_eq!(trio.scene.told(), delivered(1..=1));
    assert_eq!(trio.scene.links.len(), 2, "one to ask, one to the leader");
    trio.elect(2);
    trio.tell_all();
    send(&mut trio, 2);
    trio.run(50);
    assert_eq!(trio.scene.told(), delivered(2..=2));
    assert_eq!(trio.scene.links.len(), 2, "the one that asks leads now");
}

#[test]
fn a_broker_that_has_not_joined_is_left_for_the_next_address() {
    let mut trio = Trio::new(|config| config.addresses = vec![address(3), address(2)]);
    trio.broker(3).is_joining = true;
    let deadline = trio.scene.now.monotonic.after(5_000_000_000);
    let (now, list) = (trio.scene.now, AdminRequest::ListTopics);
    trio.scene.engine.request(now, list, deadline, &mut trio.scene.effects);
    send(&mut trio, 1);
    trio.run(1_000);
    assert!(trio.values() == named(1..=1), "nobody else was asked");
    let told = trio.scene.told();
    assert_eq!(told.len(), 2);
    assert!(told.iter().any(|it| matches!(it, Told::Answered(Ok(_)))), "{told:?}");
    // One address is all there is: it is asked again until it has joined.
    let mut trio = Trio::new(|config| config.addresses = vec![address(3)]);
    trio.broker(3).is_joining = true;
    send(&mut trio, 1);
    trio.run(1_000);
    assert_eq!((trio.values(), trio.scene.links.len()), (vec![], 1));
    trio.broker(3).is_joining = false;
    trio.run(1_000);
    assert_eq!(trio.values(), named(1..=1));
}

#[test]
fn what_flies_while_the_leader_moves_stands_in_the_log_once_and_in_order() {
    let mut trio = started();
    trio.elect(2);
    // The old leader takes all three in, and says later that it does not know.
    (2..=4).for_each(|token| send(&mut trio, token));
    trio.run(3);
    assert_eq!(trio.values(), named(1..=1));
    trio.tell_all();
    (5..=6).for_each(|token| send(&mut trio, token));
    trio.run(100);
    assert_eq!(tokens(&mut trio), [2, 3, 4, 5, 6]);
    assert_eq!(trio.values(), named(1..=6));
    assert_eq!(trio.scene.engine.memory_used(), 0);
}

#[test]
fn what_the_leader_appended_before_it_died_is_known_to_the_next_one() {
    let mut trio = started();
    trio.is_mute = true;
    (2..=4).for_each(|token| send(&mut trio, token));
    trio.run(3);
    assert_eq!(trio.values(), named(1..=4));
    assert!(trio.scene.told().is_empty());
    trio.is_mute = false;
    trio.kill(1);
    trio.elect(3);
    trio.run(200);
    assert!(trio.scene.told().is_empty(), "nobody has told the others yet");
    trio.tell(3);
    trio.tell(2);
    send(&mut trio, 5);
    trio.run(1_100);
    assert_eq!(trio.scene.told(), delivered(2..=5));
    assert_eq!(trio.values(), named(1..=5));
}

#[test]
fn a_leader_that_falls_silent_is_left_behind_when_another_one_leads() {
    let mut trio = started();
    trio.broker(1).is_silent = true;
    (2..=3).for_each(|token| send(&mut trio, token));
    trio.run(2_000);
    assert!(trio.scene.told().is_empty(), "it may be slow: nobody else leads");
    assert!(trio.count(2, FrameKind::TopicDescribe) + trio.count(3, FrameKind::TopicDescribe) > 0);
    trio.elect(2);
    trio.tell(2);
    trio.tell(3);
    trio.run(1_100);
    assert_eq!(trio.scene.told(), delivered(2..=3));
    assert_eq!(trio.values(), named(1..=3));
}

#[test]
fn a_slow_leader_is_not_left_and_its_answers_count() {
    let mut trio = started();
    send(&mut trio, 2);
    let asked: Vec<Asked> = trio.scene.asked();
    assert_eq!(asked.len(), 1);
    trio.run(3_000);
    assert!(!trio.scene.links[&asked[0].link].closed);
    trio.scene.ack(&asked[0], 1);
    assert_eq!(trio.scene.told(), delivered(2..=2));
}

#[test]
fn brokers_that_name_each_other_are_asked_ever_less_often() {
    let mut trio = started();
    // Broker 1 says that 2 leads, and 2, which is behind, says 1.
    trio.broker(1).view = View { leader: 2, epoch: 2 };
    trio.broker(3).is_down = true;
    trio.cut(3);
    trio.asked.clear();
    send(&mut trio, 2);
    trio.run(10_000);
    assert!(trio.scene.told().is_empty());
    let produced = trio.count(1, FrameKind::Produce) + trio.count(2, FrameKind::Produce);
    let described =
        trio.count(1, FrameKind::TopicDescribe) + trio.count(2, FrameKind::TopicDescribe);
    assert!((5..40).contains(&produced), "{produced}");
    assert!((5..80).contains(&described), "{described}");
    trio.elect(2);
    trio.tell_all();
    trio.run(1_100);
    assert_eq!(trio.scene.told(), delivered(2..=2));
}

#[test]
fn epochs_that_always_grow_do_not_make_it_spin() {
    let mut trio = started();
    trio.asked.clear();
    send(&mut trio, 2);
    // Each says that the other one leads, with an epoch above all before.
    for round in 0..2_000 {
        for id in 1..=3 {
            trio.broker(id).view = View { leader: id % 3 + 1, epoch: 10 + round };
        }
        trio.truth = View { leader: 0, epoch: 10 + round };
        trio.run(1);
    }
    let produced: usize = (1..=3).map(|id| trio.count(id, FrameKind::Produce)).sum();
    assert!((3..40).contains(&produced), "{produced}");
}

#[test]
fn another_broker_at_the_address_of_an_old_one_is_not_taken_for_it() {
    let mut trio = started();
    trio.kill(1);
    send(&mut trio, 2);
    trio.run(5);
    // It is back without its data: brokers 2 and 3 do not know it yet, and it believes to lead.
    let stale = trio.describe(2).brokers;
    trio.broker(1).is_down = false;
    trio.broker(1).incarnation = 999;
    assert_ne!(trio.describe(2).brokers, stale);
    trio.elect(2);
    trio.tell(2);
    trio.tell(3);
    trio.run(1_100);
    assert_eq!(trio.scene.told(), delivered(2..=2));
    assert_eq!(trio.scene.engine.counters().protocol_errors, 0);
    // From the new list it is known, and may lead.
    trio.elect(1);
    trio.tell_all();
    send(&mut trio, 3);
    trio.run(100);
    assert_eq!(trio.scene.told(), delivered(3..=3));
}

#[test]
fn a_hello_that_names_another_incarnation_is_answered_and_others_are_asked() {
    let mut trio = started();
    // The list that was told says 101: what answers there says 999.
    trio.kill(1);
    trio.run(5);
    trio.brokers[0].incarnation = 999;
    trio.broker(1).is_down = false;
    send(&mut trio, 2);
    trio.run(30);
    let hellos = trio.count(1, FrameKind::Hello);
    assert!(hellos >= 1);
    trio.elect(3);
    trio.tell(2);
    trio.tell(3);
    trio.run(1_100);
    assert_eq!(trio.scene.told(), delivered(2..=2));
    assert_eq!(trio.scene.engine.counters().protocol_errors, 0);
}

#[test]
fn all_gone_and_back_is_only_time() {
    let mut trio = started();
    (1..=3).for_each(|id| trio.kill(id));
    (2..=5).for_each(|token| send(&mut trio, token));
    trio.run(10_000);
    assert!(trio.scene.told().is_empty());
    let connects = trio.scene.engine.counters().connects;
    assert!(connects < 100, "{connects}");
    (1..=3).for_each(|id| trio.broker(id).is_down = false);
    trio.elect(2);
    trio.tell_all();
    trio.run(3_100);
    assert_eq!(tokens(&mut trio), [2, 3, 4, 5]);
    assert_eq!(trio.values(), named(1..=5));
}

#[test]
fn nobody_leads_and_the_deadline_says_that_it_did_not_leave() {
    let mut trio = Trio::new(|config| config.producer.delivery_nanos_max = 2_000_000_000);
    trio.elect(0);
    trio.tell_all();
    send(&mut trio, 1);
    trio.run(2_100);
    let error = Error::DeadlineExceeded { sent: false };
    assert_eq!(trio.scene.told(), [Told::Failed { error, tokens: vec![1] }]);
    send(&mut trio, 2);
    trio.run(20);
    trio.elect(3);
    trio.tell_all();
    trio.run(1_100);
    assert_eq!(trio.values(), ["r2"]);
}

#[test]
fn a_consumer_goes_on_at_the_new_leader_without_a_gap() {
    let mut trio = started();
    let consumer = trio.scene.engine.consumer(ConsumerConfig::default());
    let (now, from) = (trio.scene.now, Position::Offset(Offset(0)));
    trio.scene.engine.assign(now, consumer, "t", 0, from, &mut trio.scene.effects);
    trio.scene.carry_out();
    trio.run(5);
    assert_eq!(values(take(&mut trio.scene, consumer)), [(0, "r1".into())]);
    // Its fetch waits at broker 1, which is gone.
    trio.run(5);
    trio.kill(1);
    trio.elect(2);
    trio.tell(2);
    trio.tell(3);
    send(&mut trio, 2);
    trio.run(100);
    assert_eq!(values(take(&mut trio.scene, consumer)), [(1, "r2".into())]);
    // The next one falls silent.
    trio.broker(2).is_silent = true;
    trio.elect(3);
    trio.tell(3);
    trio.run(2_500);
    send(&mut trio, 3);
    trio.run(1_100);
    assert_eq!(values(take(&mut trio.scene, consumer)), [(2, "r3".into())]);
    assert!(take(&mut trio.scene, consumer).is_none());
}

#[test]
fn an_offset_that_was_read_up_to_is_not_out_of_range_at_a_leader_that_has_just_begun() {
    let mut trio = started();
    let consumer = trio.scene.engine.consumer(ConsumerConfig::default());
    for (from, is_told) in [(0, false), (7, true)] {
        let (now, from) = (trio.scene.now, Position::Offset(Offset(from)));
        let scene = &mut trio.scene;
        let assignment = scene.engine.assign(now, consumer, "t", 0, from, &mut scene.effects);
        scene.carry_out();
        trio.run(1);
        while take(&mut trio.scene, consumer).is_some() {}
        // What it asks next is answered as if nothing were committed.
        trio.scene.engine.seek(now, assignment, from, &mut trio.scene.effects);
        trio.scene.carry_out();
        let asked = trio.scene.asked();
        let fetch = asked.iter().rfind(|asked| asked.header.kind == FrameKind::Fetch).unwrap();
        let reply = match is_told {
            false => fetch_reply(fetch, 1, &[(100, entry(100, 0, &["r1"]))]),
            true => out_of_range(fetch, 1),
        };
        trio.scene.bytes(fetch.link, &reply);
        if is_told {
            let told = error(take(&mut trio.scene, consumer));
            assert!(matches!(told, Error::OffsetOutOfRange { .. }));
            continue;
        }
        let asked = trio.scene.asked();
        trio.scene.bytes(asked[0].link, &out_of_range(&asked[0], 0));
        assert_eq!(values(take(&mut trio.scene, consumer)), [(0, "r1".into())]);
        assert!(take(&mut trio.scene, consumer).is_none(), "asked again, and nothing told");
        send(&mut trio, 2);
        trio.run(100);
        assert_eq!(values(take(&mut trio.scene, consumer)), [(1, "r2".into())]);
        trio.scene.engine.unassign(trio.scene.now, assignment, &mut trio.scene.effects);
    }
}

fn out_of_range(asked: &Asked, end: u64) -> Vec<u8> {
    use corelog_protocol::message::*;
    let fetched = FetchedPartition {
        partition: asked.fetch().partitions[0].partition,
        error: Some(ErrorCode::OffsetOutOfRange),
        log_start: Offset(0),
        committed_end: Offset(end),
        bytes: 0,
        corrupt: None,
    };
    let reply = FetchReply { partitions: vec![fetched] };
    Encoder::new().encode(&reply, asked.header.correlation).to_vec()
}

#[test]
fn a_question_is_asked_of_another_broker_when_the_first_is_silent_or_gone() {
    let mut trio = started();
    for spoil in 0..2 {
        let guide = (1..=3).max_by_key(|&id| trio.count(id, FrameKind::TopicDescribe)).unwrap();
        match spoil {
            0 => trio.broker(guide).is_silent = true,
            _ => trio.kill(guide),
        }
        let deadline = trio.scene.now.monotonic.after(5_000_000_000);
        let (now, list) = (trio.scene.now, AdminRequest::ListTopics);
        trio.scene.engine.request(now, list, deadline, &mut trio.scene.effects);
        trio.scene.carry_out();
        trio.run(1_000);
        assert_eq!(trio.scene.told(), [Told::Answered(Ok(AdminReply::Topics(Vec::new())))]);
        trio.broker(guide).is_silent = false;
        trio.asked.clear();
        trio.run(2_000);
    }
}

#[test]
fn questions_about_partitions_that_nobody_leads_do_not_ask_without_a_pause() {
    let mut trio = started();
    trio.truth = View { leader: 0, epoch: 10 };
    trio.tell_all();
    let deadline = trio.scene.now.monotonic.after(5_000_000_000);
    for _ in 0..3 {
        let (now, at) = (trio.scene.now, Position::End);
        let question = AdminRequest::Offsets { topic: "t".into(), partition: 0, at };
        trio.scene.engine.request(now, question, deadline, &mut trio.scene.effects);
        trio.scene.carry_out();
    }
    trio.asked.clear();
    trio.run(1_000);
    assert_eq!(trio.scene.told(), []);
    let asked: usize = (1..=3).map(|id| trio.count(id, FrameKind::TopicDescribe)).sum();
    assert!((2..40).contains(&asked), "{asked} times in a second");
}

#[test]
fn a_topic_that_brokers_do_not_know_yet_is_waited_for() {
    let mut trio = Trio::new(|config| config.addresses = vec![address(2)]);
    trio.denies_topics = Some(50);
    send(&mut trio, 1);
    let (now, name) = (trio.scene.now, "t".to_owned());
    let deadline = now.monotonic.after(5_000_000_000);
    let question = AdminRequest::DescribeTopic { name };
    trio.scene.engine.request(now, question, deadline, &mut trio.scene.effects);
    trio.scene.carry_out();
    trio.run(300);
    assert_eq!(trio.scene.told(), []);
    trio.denies_topics = None;
    trio.run(100);
    let told = trio.scene.told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.contains(&delivered(1..=1)[0]), "{told:?}");

    // Not for ever, if nobody ever knows it.
    let mut trio = Trio::new(|config| config.addresses = vec![address(2)]);
    trio.denies_topics = Some(50);
    send(&mut trio, 1);
    trio.run(1_000);
    assert_told_unknown(&mut trio);
}

#[test]
fn who_leads_the_metadata_denies_a_topic_at_once() {
    let mut trio = Trio::new(|config| config.addresses = vec![address(2)]);
    trio.denies_topics = Some(0);
    send(&mut trio, 1);
    trio.run(5);
    assert_told_unknown(&mut trio);
}

#[test]
fn what_left_before_its_topic_is_denied_is_in_doubt() {
    let mut trio = started();
    trio.is_mute = true;
    send(&mut trio, 2);
    trio.run(3);
    assert_eq!(trio.values(), named(1..=2), "it stands in the log, and nobody said so");
    // The leader is gone for good, and the others have never heard of the topic.
    trio.kill(1);
    trio.denies_topics = Some(0);
    send(&mut trio, 3);
    trio.run(2_000);
    let mut told = trio.scene.told();
    told.sort_by_key(|told| matches!(told, Told::Failed { tokens, .. } if tokens[0] == 3));
    let [Told::Failed { error: doubt, tokens: first }, Told::Failed { error, tokens }] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((first, tokens), (&vec![2], &vec![3]));
    assert!(!doubt.is_definite(), "{doubt}");
    assert_eq!(*error, Error::UnknownTopic("t".into()));
}

#[test]
fn a_refusal_by_who_leads_no_more_is_no_error_whatever_followed_it() {
    let mut trio = started();
    trio.elect(2);
    trio.tell(1);
    for token in 2..=7 {
        let level = if token % 2 == 0 { QuorumDurable } else { Unanswered };
        trio.scene.send("t", Some(0), &format!("r{token}"), level, token).unwrap();
    }
    trio.run(50);
    trio.tell_all();
    trio.run(1_100);
    let told = trio.scene.told();
    let delivered = |told: &Told| matches!(told, Told::Delivered { .. });
    assert!(told.iter().all(delivered), "{told:?}");
    assert_eq!(trio.values(), named(1..=7));
}

#[test]
fn what_was_lost_with_its_leader_does_not_stop_what_follows() {
    let mut trio = started();
    trio.scene.send("t", Some(0), "r2", LeaderMemory, 2).unwrap();
    trio.run(3);
    assert_eq!(trio.scene.told(), delivered(2..=2), "only the leader has it");
    trio.is_mute = true;
    (3..=4).for_each(|token| send(&mut trio, token));
    trio.run(3);
    trio.is_mute = false;
    // The next leader lacks r2, and so all behind it.
    trio.log.truncate(1);
    trio.kill(1);
    trio.elect(2);
    trio.tell(2);
    trio.tell(3);
    send(&mut trio, 5);
    trio.run(1_100);
    let at = |base, token| Told::Delivered { partition: 0, base: Some(base), tokens: vec![token] };
    assert_eq!(trio.scene.told(), [at(1, 3), at(2, 4), at(3, 5)]);
    assert_eq!(trio.values(), ["r1", "r3", "r4", "r5"]);
    assert_eq!(trio.scene.engine.counters().producer_epochs, 1);
}

/// Leaders, views, silences and deaths by chance. In the end everybody is there: each record is told
/// once, what was acknowledged stands once and in order, and what was surely not appended is not there.
#[test]
fn by_chance() {
    let (mut moved, mut failed, mut told_all) = (0, 0, 0);
    for seed in 0..300 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut trio = Trio::new(|config| config.producer.delivery_nanos_max = 3_000_000_000);
        let mut token = 0;
        for _ in 0..60 {
            match random.below(12) {
                0..=4 => {
                    for _ in 0..=random.below(4) {
                        token += 1;
                        send(&mut trio, token);
                    }
                }
                5 => {
                    trio.elect(random.below(4) as u32);
                    moved += 1;
                }
                6 => trio.tell(1 + random.below(3) as u32),
                7 => trio.kill(1 + random.below(3) as u32),
                8 => trio.broker(1 + random.below(3) as u32).is_down = false,
                9 => {
                    let id = 1 + random.below(3) as u32;
                    // What it was asked meanwhile is lost, and so are its connections.
                    trio.cut(id);
                    trio.broker(id).is_silent ^= true;
                }
                10 => trio.cut(1 + random.below(3) as u32),
                _ => {
                    (1..=3).for_each(|id| trio.cut(id));
                    trio.is_mute ^= true;
                }
            }
            let width = random.below(10);
            let ms = random.below(1 << width);
            trio.run(ms);
        }
        trio.is_mute = false;
        for id in 1..=3 {
            trio.cut(id);
            trio.broker(id).is_down = false;
            trio.broker(id).is_silent = false;
        }
        trio.elect(1 + random.below(3) as u32);
        trio.tell_all();
        // Batches that wait since before are delivered, or late.
        trio.run(4_000);
        token += 1;
        send(&mut trio, token);
        trio.run(2_000);
        let stands = trio.values();
        let mut once = stands.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), stands.len(), "a record stands twice: {stands:?}");
        let mut seen = Vec::new();
        let mut last_base = None;
        for told in trio.scene.told() {
            match told {
                Told::Delivered { base, tokens, .. } => {
                    assert!(base > last_base, "out of order: {base:?} after {last_base:?}");
                    last_base = base;
                    for (at, token) in tokens.iter().enumerate() {
                        let place = base.unwrap() as usize + at;
                        assert_eq!(stands.get(place), Some(&format!("r{token}")));
                    }
                    seen.extend(tokens);
                }
                Told::Failed { error, tokens } => {
                    failed += tokens.len();
                    for token in tokens.iter().filter(|_| error.is_definite()) {
                        assert!(!stands.contains(&format!("r{token}")), "{error}: r{token} stands");
                    }
                    seen.extend(tokens);
                }
                told => panic!("{told:?}"),
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=token).collect::<Vec<_>>());
        assert!(stands.contains(&format!("r{token}")), "the last one found everybody well");
        assert_eq!(trio.scene.engine.memory_used(), 0);
        assert_eq!(trio.scene.engine.counters().protocol_errors, 0);
        told_all += seen.len();
    }
    // It looked at something.
    assert!(moved > 500 && failed > 100 && told_all > 10_000, "{moved} {failed} {told_all}");
}
