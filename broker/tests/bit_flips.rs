//! I10 and I15 on a directory with several segments: no single bit makes the log serve something wrong,
//! panic, or lose more than the entry it is in. Every bit: `simulate --flips`.

use corelog_broker::sim::sweep::flips::{FlipCount, Target};
use corelog_broker::sim::threads::add_up;

const SEED: u64 = 7;

/// Of the bits within bodies, each so-many-th.
const STRIDE: u64 = 997;

#[test]
fn every_bit_of_headers_and_footers_and_some_of_bodies_is_noticed_or_harmless() {
    println!("seed {SEED}");
    let target = Target::build(SEED).unwrap();
    let flip = |part| target.flip(STRIDE, part, 2);
    let total = add_up(2, 2, flip, FlipCount::add, |_, _, _| ()).unwrap();
    println!("{total}, of a directory of {} bits", target.bits());
    assert!(total.harmless > 0);
    assert!(total.rebuilt > 0, "no flip hit a footer");
    assert!(total.marked > 100, "hardly a flip hit a batch");
}
