//! Everything at once, from many seeds; then all is healed, and the lane must take entries again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog_protocol::ids::{BrokerId, Epoch};

use super::world::{Totals, World};
use crate::planted::{self, Bug};
use crate::replica::LaneLog;
use crate::time::Nanos;

const SEEDS: u64 = 3_000;
const STEPS: u64 = 400;

fn act(world: &mut World) {
    let id = world.any();
    let is_up = world.is_up(id);
    match world.random.below(100) {
        0..=1 if is_up => {
            world.crash(id);
            if world.random.chance(1, 6) {
                world.rot(id);
            }
        }
        2 if world.random.chance(1, 4) => {
            for id in world.ids() {
                world.crash(id);
            }
        }
        3..=9 if !is_up => world.start(id),
        10..=12 if world.random.chance(1, 3) => world.enter(),
        13..=20 => world.name(),
        21..=34 => world.see(id),
        35..=50 => world.complete(id),
        51..=62 => world.flush(id),
        63..=70 => produce(world, id),
        71..=72 => tick(world, id),
        73 if !world.net.is_empty() => {
            let at = world.random.below(world.net.len() as u64) as usize;
            world.net.swap_remove(at);
        }
        _ if !world.net.is_empty() => {
            // Mostly in order, as a connection has it.
            let is_any = world.random.chance(1, 8);
            let at = if is_any { world.random.below(world.net.len() as u64) as usize } else { 0 };
            let keeps = world.random.chance(1, 20);
            world.deliver(at, keeps);
        }
        _ => {}
    }
}

fn tick(world: &mut World, id: BrokerId) {
    world.now = world.now + Nanos::from_millis(100);
    for peer in world.ids() {
        world.with(id, |replica, _, now| replica.on_heard(peer, now));
    }
    world.with(id, |replica, disk, now| replica.on_tick(disk, now));
}

fn produce(world: &mut World, id: BrokerId) {
    let serving = world.nodes[&id].replica.as_ref().and_then(|replica| replica.serves());
    if let Some(epoch) = serving {
        world.append(id, epoch);
        world.with(id, |_, _, _| {});
    }
}

/// All are up, everything arrives: somebody leads and commits.
fn heal(world: &mut World) {
    world.net.clear();
    for id in world.ids() {
        if !world.is_up(id) {
            world.start(id);
        }
    }
    let before = world.committed();
    for round in 0..400 {
        if world.committed() > before + 2 {
            break;
        }
        // Metadata tries another epoch when this one comes to nothing.
        if round % 80 == 79 {
            world.enter();
        }
        for id in world.ids() {
            world.see(id);
            for _ in 0..2 {
                world.complete(id);
                world.flush(id);
            }
            produce(world, id);
            tick(world, id);
        }
        for _ in 0..world.net.len() {
            world.deliver(0, false);
        }
        world.name();
    }
    assert!(world.committed() > before + 2, "I14: nothing is committed with all replicas there");
    // And all logs come to be equal.
    for _ in 0..200 {
        for id in world.ids() {
            world.see(id);
            world.complete(id);
            world.flush(id);
            tick(world, id);
        }
        for _ in 0..world.net.len() {
            world.deliver(0, false);
        }
    }
    let ends: Vec<_> = world.nodes.values().map(|node| node.disk.has()).collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "the logs differ: {ends:?}");
}

fn live(seed: u64) -> Totals {
    let mut world = World::new(seed);
    world.tears = seed.is_multiple_of(3);
    for _ in 0..STEPS {
        act(&mut world);
    }
    heal(&mut world);
    world.totals
}

#[test]
fn nothing_committed_is_lost_and_the_lane_goes_on() {
    let mut sum = Totals::default();
    for seed in 0..SEEDS {
        let totals = catch_unwind(AssertUnwindSafe(|| live(seed)));
        let totals = totals.unwrap_or_else(|_| panic!("seed {seed}"));
        sum.committed += totals.committed;
        sum.epochs += totals.epochs;
        sum.crashes += totals.crashes;
        sum.reopened += totals.reopened;
        sum.rotten += totals.rotten;
    }
    assert!(sum.committed > 4 * SEEDS && sum.epochs > 2 * SEEDS && sum.rotten > SEEDS / 20);
    assert!(sum.crashes > 5 * SEEDS && sum.reopened > 3 * SEEDS);
}

#[test]
fn planted_bugs_are_caught() {
    // One of them needs a longer story.
    for &bug in Bug::REPLICA.iter().filter(|bug| **bug != Bug::OlderEpochCommitted) {
        let is_caught = |seed: &u64| {
            planted::with(bug, || catch_unwind(AssertUnwindSafe(|| live(*seed))).is_err())
        };
        let caught = (0..20_000).find(is_caught);
        assert!(caught.is_some(), "{bug:?} is not noticed");
    }
}

#[test]
fn the_first_epoch_is_led_without_any_trouble() {
    let mut world = World::new(7);
    heal(&mut world);
    assert_eq!(world.view.epoch, Epoch(1));
    assert!(world.nodes.values().all(|node| node.disk.has().epoch == Epoch(1)));
}
