//! What lanes cost their leaders is measured, told, and evened out by itself.

use corelog_protocol::ids::{BrokerId, LaneId};

use super::moving::Story;
use crate::limits::LOAD_NOISE;
use crate::metadata::balance::BalanceConfig;
use crate::sim::cluster::{Cluster, number};
use crate::time::Nanos;

/// Six lanes, of which each broker leads two, and a partition in each. Only those of the broker in the first place of two
/// busy ones are written from now on.
fn two_busy_lanes(balance: Option<BalanceConfig>) -> (Story, usize, [LaneId; 2]) {
    let cluster = Cluster::with(&[1, 1, 1], move |config| config.balance = balance);
    let mut story = Story::with(cluster, 6);
    let busy = (story.keeper() + 1) % 3;
    let leaders = story.leaders();
    assert!((0..3).all(|at| leaders.iter().filter(|id| **id == Some(at)).count() == 2));
    let mut at = 0..;
    story.partitions.retain(|_| leaders[at.next().expect("endless")] == Some(busy));
    let lanes = [story.partitions[0].1, story.partitions[1].1];
    (story, busy, lanes)
}

/// Often, so that the story is short.
const OFTEN: BalanceConfig = BalanceConfig { every: Nanos::from_secs(2), noise: LOAD_NOISE };

#[test]
fn a_leader_measures_what_is_taken_and_served_and_every_broker_tells() {
    let (mut story, busy, lanes) = two_busy_lanes(None);
    story.go_on(200);
    for broker in 0..3 {
        let status = story.status(broker);
        for lane in &status.lanes {
            let load = lane.load.expect("it is led, and has been for long");
            if !lanes.contains(&lane.lane) {
                assert_eq!(load, corelog_protocol::message::LaneLoad::default());
                continue;
            }
            assert_eq!(lane.leader, Some(number(busy)));
            // About one batch of one record each 50 ms; the mean began with silence.
            assert!((10..=20).contains(&load.requests), "{load:?}");
            assert!((10..=20).contains(&load.records_in), "{load:?}");
            assert!(load.bytes_in > 10 * load.records_in, "{load:?}");
            assert_eq!(load.bytes_out, 0);
            // Once to each of two followers, and some for each request.
            assert_eq!(load.load, 2 * load.bytes_in + 4_096 * load.requests);
        }
    }
    let before = story.status(0).lane(lanes[0]).and_then(|lane| lane.load).expect("measured");
    story.check();
    story.cluster.pass(Nanos::from_secs(2));
    let after = story.status(0).lane(lanes[0]).and_then(|lane| lane.load).expect("measured");
    assert!(after.bytes_out > 0 && after.requests < before.requests, "{after:?}");
}

#[test]
fn one_of_two_busy_lanes_is_led_elsewhere_by_itself_without_loss_and_there_it_stays() {
    let (mut story, busy, lanes) = two_busy_lanes(Some(OFTEN));
    story.go_on(300);
    let led_by = |story: &Story, broker: usize| {
        lanes.iter().filter(|lane| story.leader(**lane) == Some(broker)).count()
    };
    assert_eq!(led_by(&story, busy), 1);
    let balanced = |story: &Story| -> u64 {
        (0..3).map(|at| story.cluster.counter(at, 0, "leaders_balanced")).sum()
    };
    assert_eq!(balanced(&story), 1);
    let preferred: Vec<BrokerId> = lanes.iter().map(|lane| story.lane(*lane).preferred()).collect();
    let epochs = lanes.map(|lane| story.lane(lane).epoch);
    story.go_on(400);
    let leaders = lanes.map(|lane| story.lane(lane).leader_id());
    assert_eq!(leaders.to_vec(), preferred.into_iter().map(Some).collect::<Vec<_>>());
    assert_eq!(lanes.map(|lane| story.lane(lane).epoch), epochs);
    assert_eq!(balanced(&story), 1);
    story.check();
}

#[test]
fn without_the_setting_and_while_a_broker_drains_all_stays() {
    let (mut story, busy, lanes) = two_busy_lanes(None);
    story.go_on(300);
    assert_eq!(lanes.map(|lane| story.leader(lane)), [Some(busy); 2]);
    let (mut story, busy, lanes) = two_busy_lanes(Some(OFTEN));
    // Of the two others.
    let drains = number(story.keeper());
    story.operate(corelog_protocol::message::Operation::Drain { broker: drains });
    story.go_on(300);
    assert_eq!(lanes.map(|lane| story.leader(lane)), [Some(busy); 2]);
    story.check();
}
