//! A consumer that has a rack reads from the follower in it, and from the leader whenever that does not go well: each
//! record once, in order.

use super::consuming::{error, take, values};
use super::trio::*;
use crate::Durability::QuorumDurable;
use crate::Error;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::Offset;

/// Broker 1 leads, each broker is in a rack of its own, and broker 3 follows well.
fn racks() -> Trio {
    let mut trio = Trio::new(|_| {});
    for (id, rack) in [(1, "a"), (2, "b"), (3, "c")] {
        trio.broker(id).rack = rack;
    }
    trio.broker(3).follows_to = Some(u64::MAX);
    trio.is_prompt = true;
    trio
}

fn send(trio: &mut Trio, tokens: std::ops::RangeInclusive<u64>) {
    for token in tokens {
        trio.scene.send("t", Some(0), &format!("r{token}"), QuorumDurable, token).unwrap();
        trio.run(2);
    }
}

fn reader(trio: &mut Trio, rack: &str, from: u64) -> ConsumerId {
    let consumer = trio.scene.engine.consumer(ConsumerConfig::default().in_rack(rack));
    let (now, from) = (trio.scene.now, Position::Offset(Offset(from)));
    trio.scene.engine.assign(now, consumer, "t", 0, from, &mut trio.scene.effects);
    trio.scene.carry_out();
    consumer
}

/// The values of all batches that can be taken now.
fn read(trio: &mut Trio, consumer: ConsumerId) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(fetched) = take(&mut trio.scene, consumer) {
        for (offset, value) in values(Some(fetched)) {
            assert_eq!(value, format!("r{}", offset + 1));
            found.push(value);
        }
    }
    found
}

fn named(tokens: std::ops::RangeInclusive<u64>) -> Vec<String> {
    tokens.map(|token| format!("r{token}")).collect()
}

fn fetches(trio: &Trio) -> [usize; 3] {
    [1, 2, 3].map(|id| trio.count(id, FrameKind::Fetch))
}

#[test]
fn the_follower_in_the_rack_is_read_and_the_leader_is_not() {
    let mut trio = racks();
    send(&mut trio, 1..=2);
    let consumer = reader(&mut trio, "c", 0);
    trio.run(20);
    assert_eq!(read(&mut trio, consumer), named(1..=2));
    send(&mut trio, 3..=4);
    trio.run(20);
    assert_eq!(read(&mut trio, consumer), named(3..=4));
    let [leader, other, follower] = fetches(&trio);
    assert_eq!((leader, other), (0, 0));
    assert!(follower >= 2);
    let counters = *trio.scene.engine.counters();
    assert_eq!((counters.records_fetched, counters.records_of_followers), (4, 4));
    assert_eq!(counters.fetches_of_followers, follower as u64);
    assert_eq!((counters.fetches_of_leaders, counters.followers_left), (0, 0));
}

#[test]
fn without_a_rack_or_with_one_of_nobody_or_of_the_leader_the_leader_is_read() {
    for rack in ["", "nowhere", "a"] {
        let mut trio = racks();
        send(&mut trio, 1..=3);
        let consumer = reader(&mut trio, rack, 0);
        trio.run(20);
        assert_eq!(read(&mut trio, consumer), named(1..=3), "{rack}");
        let [leader, other, follower] = fetches(&trio);
        assert!(leader > 0);
        assert_eq!((other, follower), (0, 0), "{rack}");
        assert_eq!(trio.scene.engine.counters().records_of_followers, 0);
    }
}

#[test]
fn the_rack_of_the_client_is_that_of_its_consumers() {
    let mut trio = Trio::new(|config| config.rack = Some("c".into()));
    for (id, rack) in [(1, "a"), (3, "c")] {
        trio.broker(id).rack = rack;
    }
    trio.broker(3).follows_to = Some(u64::MAX);
    send(&mut trio, 1..=1);
    let consumer = trio.scene.engine.consumer(ConsumerConfig::default());
    let now = trio.scene.now;
    let from = Position::Offset(Offset(0));
    trio.scene.engine.assign(now, consumer, "t", 0, from, &mut trio.scene.effects);
    trio.scene.carry_out();
    trio.run(20);
    assert_eq!(read(&mut trio, consumer), named(1..=1));
    assert_eq!(fetches(&trio)[0], 0);
}

#[test]
fn a_follower_that_refuses_is_left_for_its_leader_and_tried_again_some_seconds_later() {
    let mut trio = racks();
    // As a broker does that does not know such fetches, too.
    trio.broker(3).follows_to = None;
    send(&mut trio, 1..=2);
    let consumer = reader(&mut trio, "c", 0);
    trio.run(50);
    assert_eq!(read(&mut trio, consumer), named(1..=2), "from the leader, at once");
    assert_eq!(fetches(&trio)[2], 1);
    trio.broker(3).follows_to = Some(u64::MAX);
    trio.run(2_000);
    send(&mut trio, 3..=3);
    assert_eq!(read(&mut trio, consumer), named(3..=3));
    assert_eq!(fetches(&trio)[2], 1, "it is not asked meanwhile");
    trio.run(4_000);
    // The fetch that waits at the leader is served there, and the next one goes to the follower.
    send(&mut trio, 4..=6);
    trio.run(50);
    assert_eq!(read(&mut trio, consumer), named(4..=6));
    assert!(fetches(&trio)[2] > 1);
    assert_eq!(trio.scene.engine.counters().followers_left, 1);
}

#[test]
fn a_follower_that_falls_silent_is_left_and_so_is_one_that_hangs_up_or_cannot_be_reached() {
    for way in 0..3 {
        let mut trio = racks();
        if way == 2 {
            trio.broker(3).is_down = true;
        }
        send(&mut trio, 1..=2);
        let consumer = reader(&mut trio, "c", 0);
        trio.run(50);
        match way {
            0 => trio.broker(3).is_silent = true,
            1 => trio.kill(3),
            _ => {}
        }
        send(&mut trio, 3..=4);
        trio.run(1_600);
        assert_eq!(read(&mut trio, consumer), named(1..=4), "way {way}");
        assert!(fetches(&trio)[0] > 0);
        // It is back, and is read again when it may be tried.
        let broker = trio.broker(3);
        (broker.is_down, broker.is_silent) = (false, false);
        trio.cut(3);
        trio.run(12_000);
        send(&mut trio, 5..=7);
        trio.run(50);
        assert_eq!(read(&mut trio, consumer), named(5..=7), "way {way}");
        assert!(trio.scene.engine.counters().records_of_followers > 0, "way {way}");
    }
}

#[test]
fn what_a_silent_follower_was_asked_for_does_not_take_the_budget_of_its_consumer() {
    let mut trio = racks();
    send(&mut trio, 1..=1);
    let config = ConsumerConfig {
        ahead_bytes_max: 64 << 10,
        partition_bytes_max: 64 << 10,
        ..ConsumerConfig::default()
    };
    let consumer = trio.scene.engine.consumer(config.in_rack("c"));
    let (now, from) = (trio.scene.now, Position::Offset(Offset(0)));
    trio.scene.engine.assign(now, consumer, "t", 0, from, &mut trio.scene.effects);
    trio.scene.carry_out();
    trio.run(20);
    assert_eq!(read(&mut trio, consumer), named(1..=1));
    trio.broker(3).is_silent = true;
    send(&mut trio, 2..=2);
    trio.run(1_600);
    assert_eq!(
        read(&mut trio, consumer),
        named(2..=2),
        "the whole budget was asked of the follower"
    );
}

#[test]
fn a_follower_that_does_not_keep_up_is_left() {
    let mut trio = racks();
    // Told by its leader: there are four.
    trio.broker(3).follows_to = None;
    send(&mut trio, 1..=4);
    let consumer = reader(&mut trio, "c", 0);
    trio.run(50);
    assert_eq!(read(&mut trio, consumer), named(1..=4));
    // It follows, and knows of two.
    trio.broker(3).follows_to = Some(2);
    trio.run(5_500);
    send(&mut trio, 5..=6);
    trio.run(4_000);
    assert_eq!(read(&mut trio, consumer), named(5..=6), "nothing is taken to be out of range");
    assert!(fetches(&trio)[2] >= 2);
    assert_eq!(trio.scene.engine.counters().records_of_followers, 0);
    assert!(trio.scene.engine.counters().followers_left >= 2);
}

#[test]
fn a_follower_is_not_left_because_nothing_comes() {
    let mut trio = racks();
    send(&mut trio, 1..=2);
    let consumer = reader(&mut trio, "c", 0);
    trio.run(20_000);
    send(&mut trio, 3..=3);
    trio.run(20);
    assert_eq!(read(&mut trio, consumer), named(1..=3));
    assert_eq!(fetches(&trio)[0], 0);
    assert_eq!(trio.scene.engine.counters().followers_left, 0);
}

#[test]
fn a_leader_in_the_rack_that_falls_silent_is_not_waited_for_as_a_follower() {
    let mut trio = racks();
    trio.elect(3);
    trio.tell_all();
    send(&mut trio, 1..=2);
    let consumer = reader(&mut trio, "c", 0);
    trio.run(50);
    assert_eq!(read(&mut trio, consumer), named(1..=2));
    trio.broker(3).is_silent = true;
    trio.elect(2);
    trio.tell(1);
    trio.tell(2);
    trio.run(2_000);
    send(&mut trio, 3..=4);
    trio.run(1_500);
    assert_eq!(read(&mut trio, consumer), named(3..=4));
}

#[test]
fn an_offset_that_nobody_has_had_is_for_the_leader_to_judge() {
    let mut trio = racks();
    trio.is_strict = true;
    send(&mut trio, 1..=3);
    let consumer = reader(&mut trio, "c", 1_000);
    trio.run(1_000);
    let told = error(take(&mut trio.scene, consumer));
    assert!(matches!(told, Error::OffsetOutOfRange { asked: Offset(1_000), .. }), "{told:?}");
}

#[test]
fn reading_goes_on_in_order_while_leaders_change_and_followers_come_and_go() {
    let mut trio = racks();
    let consumer = reader(&mut trio, "c", 0);
    let mut found = Vec::new();
    let mut next = 1;
    for round in 0..12 {
        let leader = [2, 3, 1][round % 3];
        send(&mut trio, next..=next + 2);
        next += 3;
        found.extend(read(&mut trio, consumer));
        // Nobody follows in the new epoch yet.
        (1..=3).for_each(|id| trio.broker(id).follows_to = None);
        trio.elect(leader);
        trio.run(5);
        trio.tell_all();
        trio.run(1_200);
        for id in (1..=3).filter(|id| *id != leader) {
            trio.broker(id).follows_to = Some(u64::MAX);
        }
        trio.run(5_200);
        send(&mut trio, next..=next + 2);
        next += 3;
        trio.run(200);
        found.extend(read(&mut trio, consumer));
        assert_eq!(found, named(1..=next - 1), "round {round}");
    }
    let counters = trio.scene.engine.counters();
    assert!(counters.records_of_followers >= 12, "{counters:?}");
    assert!(counters.records_of_followers < counters.records_fetched);
    assert_eq!(counters.records_fetched, next - 1);
}

#[test]
fn a_follower_is_asked_through_the_shard_that_has_its_copy() {
    let mut trio = racks();
    send(&mut trio, 1..=1);
    let consumer = reader(&mut trio, "c", 0);
    trio.run(20);
    assert_eq!(read(&mut trio, consumer), named(1..=1));
    let lane = trio.describe(1).places[0].lane;
    let far = trio.scene.links.values().find(|far| far.address == address(3)).expect("a link");
    assert_eq!(far.shard, lane.shard(4));
}

#[test]
fn a_refusal_of_the_whole_fetch_by_a_follower_is_no_error_either() {
    for code in [ErrorCode::Overloaded, ErrorCode::Stopping, ErrorCode::Malformed] {
        let mut trio = racks();
        trio.refuses_near = Some(code);
        send(&mut trio, 1..=1);
        let consumer = reader(&mut trio, "c", 0);
        trio.run(100);
        assert_eq!(read(&mut trio, consumer), named(1..=1), "{code}");
        assert_eq!(trio.scene.engine.counters().followers_left, 1, "{code}");
    }
}
