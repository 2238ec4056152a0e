//! The protocol holds within every small set of bounds, and all that it is about happens there.

use corelog_model::config::Config;
use corelog_model::explorations::SMALL;
use corelog_model::search::{explore, shortest};

/// Two at a time, as many as the machine is expected to have cores.
#[test]
fn every_small_exploration_ends_without_a_counterexample() {
    let (left, right): (Vec<_>, Vec<_>) =
        SMALL.iter().enumerate().partition(|(index, _)| index % 2 == 0);
    std::thread::scope(|scope| {
        for half in [left, right] {
            scope.spawn(move || {
                for (_, (name, config)) in half {
                    let explored = explore(*config, 1).unwrap_or_else(|found| {
                        panic!("{name}: {}, by {:#?}", found.0, found.1.into_actions());
                    });
                    assert!(
                        explored.states > 10_000,
                        "{name} is too small to say anything: {explored:?}"
                    );
                    println!("{name}: {explored:?}");
                }
            });
        }
    });
}

#[test]
fn two_rotten_copies_of_three_are_more_than_the_protocol_stands() {
    assert!(shortest(Config::new(1, 1).rots(1)).is_none());
    assert!(shortest(Config::new(1, 1).rots(2)).is_some());
}
