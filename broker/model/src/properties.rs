//! What must always hold, and what must happen at least once lest the rest be said of nothing.

use stateright::Property;

use crate::authority;
use crate::config::Config;
use crate::log::{Log, Slot};
use crate::model::Lane;
use crate::state::{Broken, Replica, State};

/// Properties that a right protocol never breaks, and the examples that these bounds have room for.
pub fn all(config: &Config) -> Vec<Property<Lane>> {
    let mut all = vec![
        Property::always("I1 I3: what is committed never changes", |_, state| {
            !broke(state, Broken::CommittedChanged)
        }),
        Property::always("I1 I8: a later leader has what was committed", |_, state| {
            !broke(state, Broken::CommittedLost)
        }),
        Property::always("I1: what is committed can be read somewhere", |_, state| {
            can_be_read(state)
        }),
        Property::always("I7: an epoch has one leader at most", |_, state| {
            !broke(state, Broken::SecondLeader)
        }),
        Property::always("I7: acknowledged means equal to the leader's log", |_, state| {
            !broke(state, Broken::AckUnequal)
        }),
        Property::always("I8: a truncation takes nothing that was committed", |_, state| {
            !broke(state, Broken::CommittedTruncated)
        }),
        Property::always("I14: a lane whose replicas answered can be led", |lane: &Lane, state| {
            !authority::waits_for_ever(state, &lane.0)
        }),
        Property::sometimes("more than an epoch start is committed", |_, state: &State| {
            state.committed_end() > 1
        }),
    ];
    if config.epochs > 1 {
        all.push(Property::sometimes("leaders of two epochs commit", |_, state| {
            committing_epochs(state) > 1
        }));
    }
    if config.lazy_truncation {
        all.push(Property::sometimes("a truncation is under way", |_, state: &State| {
            state.replicas.iter().any(|replica| replica.undone.is_some())
        }));
    }
    if config.torn || config.rots > 0 {
        all.push(Property::sometimes("an undecided entry is fetched", |_, state: &State| {
            state
                .replicas
                .iter()
                .any(|replica| replica.log.iter().any(|slot| matches!(slot, Slot::Rewritten(_))))
        }));
        if config.epochs > 1 {
            all.push(Property::sometimes("an undecided entry is dropped", |_, state: &State| {
                state.replicas.iter().any(drops_undecided)
            }));
        }
    }
    if config.changes > 0 {
        all.push(Property::sometimes(
            "a change of the set is settled",
            |lane: &Lane, state: &State| {
                let changed = state.changes < lane.0.changes;
                changed
                    && state.has_leader
                    && !state.replicas.iter().any(|replica| replica.member_before)
            },
        ));
    }
    all
}

fn broke(state: &State, broken: Broken) -> bool {
    state.broken == Some(broken)
}

fn can_be_read(state: &State) -> bool {
    (1..).zip(state.committed).all(|(lsn, committed)| {
        committed.is_none_or(|committed| {
            let copy = Slot::Durable(committed.entry);
            state.replicas.iter().any(|replica| !replica.wiped && replica.log.at(lsn) == copy)
        })
    })
}

fn committing_epochs(state: &State) -> usize {
    let mut epochs: Vec<u8> =
        state.committed.iter().flatten().map(|committed| committed.epoch).collect();
    epochs.dedup();
    epochs.len()
}

/// It was named leader for a log that ends where something bad follows.
fn drops_undecided(replica: &Replica) -> bool {
    let bad_follows = |log: &Log| log.readable() < log.len();
    replica.named.is_some_and(|(epoch, position)| {
        epoch == replica.promised
            && replica.log.reads_through(position)
            && bad_follows(&replica.log)
    })
}
