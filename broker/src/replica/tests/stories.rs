//! Orderings that lose data when done otherwise, one by one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog_protocol::ids::{BrokerId, Epoch};

use super::world::World;
use crate::planted::{self, Bug};
use crate::replica::LaneLog;

const A: BrokerId = BrokerId(1);
const B: BrokerId = BrokerId(2);
const C: BrokerId = BrokerId(3);

/// These see what metadata says, and what they are ordered is done.
fn settle(world: &mut World, ids: &[BrokerId]) {
    for _ in 0..3 {
        for &id in ids {
            world.see(id);
            world.complete(id);
        }
    }
}

/// Fences these and lets `leader` begin, alone.
fn lead(world: &mut World, leader: BrokerId, fenced: &[BrokerId]) {
    settle(world, fenced);
    while world.view.leader.is_none_or(|(named, _)| named != leader) {
        world.view.leader = None;
        world.name();
    }
    settle(world, &[leader]);
}

/// Delivers what is on its way between these two, once.
fn deliver(world: &mut World, from: BrokerId, to: BrokerId) {
    while let Some(at) = world.net.iter().position(|sent| (sent.from, sent.to) == (from, to)) {
        world.deliver(at, false);
        world.complete(to);
    }
}

/// Figure 8 of Raft: an entry of an earlier epoch on a quorum is not committed by that alone.
fn older_entry_on_a_quorum() {
    let mut world = World::new(1);
    world.batch_max = 1;
    // A begins epoch 1, and is alone with its epoch start.
    lead(&mut world, A, &[A, B]);
    world.flush(A);
    world.net.clear();
    // B begins epoch 2 with what B and C have, and is alone with its own.
    world.enter();
    lead(&mut world, B, &[B, C]);
    world.flush(B);
    world.net.clear();
    // A leads epoch 3. C has its first entry, of epoch 1, and that alone.
    world.enter();
    lead(&mut world, A, &[A, C]);
    world.flush(A);
    for _ in 0..2 {
        deliver(&mut world, A, C);
        deliver(&mut world, C, A);
    }
    while world.nodes[&C].disk.next_lsn().0 < 1 {
        deliver(&mut world, A, C);
    }
    world.flush(C);
    if let Some(at) = world.net.iter().position(|sent| (sent.from, sent.to) == (C, A)) {
        world.deliver(at, false);
    }
    world.net.clear();
    // B has an entry of epoch 2, so it leads epoch 4, and A's goes.
    world.enter();
    lead(&mut world, B, &[B, C]);
    assert_eq!(world.view.epoch, Epoch(4));
}

#[test]
fn older_entry_on_a_quorum_is_not_committed() {
    older_entry_on_a_quorum();
    let bug = Bug::OlderEpochCommitted;
    let told = || catch_unwind(AssertUnwindSafe(older_entry_on_a_quorum));
    assert!(planted::with(bug, told).is_err(), "{bug:?} is not noticed");
}
