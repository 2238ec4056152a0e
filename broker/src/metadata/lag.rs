//! Which brokers do not take what the metadata's group has agreed on, although they are heard. Pure: the leader of the group
//! says how far each one's disk is.
//!
//! A broker whose disk stands still hears of no change: it leads what others lead by now, does not know new topics, and
//! takes no batches for a lane whose move was taken back. It may lead nothing until it has caught up.

use std::collections::{BTreeMap, BTreeSet};

use corelog_protocol::ids::BrokerId;

use crate::time::{Monotonic, Nanos};

/// What was agreed on so long ago is on the disk of a broker that takes part.
pub const LAG_PATIENCE: Nanos = Nanos::from_secs(3);

/// What a broker shall have, and since when it could.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owed {
    index: u64,
    since: Monotonic,
}

/// See the module's page.
#[derive(Clone, Default, Debug)]
pub struct Lag {
    owed: BTreeMap<BrokerId, Owed>,
    behind: BTreeSet<BrokerId>,
}

impl Lag {
    /// The leadership was gained: nothing is known of the others.
    pub fn reset(&mut self) {
        self.owed.clear();
        self.behind.clear();
    }

    /// Everything up to `agreed` is agreed on, and these brokers have so much of it on their disks. True if others are
    /// behind than before.
    pub fn look(
        &mut self,
        now: Monotonic,
        agreed: u64,
        others: impl Iterator<Item = (BrokerId, u64)>,
    ) -> bool {
        let others: BTreeMap<BrokerId, u64> = others.collect();
        self.owed.retain(|broker, _| others.contains_key(broker));
        let mut behind = BTreeSet::new();
        for (broker, has) in others {
            let new = Owed { index: agreed, since: now };
            let owed = self.owed.entry(broker).or_insert(new);
            if has >= owed.index {
                *owed = new;
            } else if now >= owed.since + LAG_PATIENCE {
                behind.insert(broker);
            }
        }
        let is_news = behind != self.behind;
        self.behind = behind;
        is_news
    }

    pub fn is_behind(&self, broker: BrokerId) -> bool {
        self.behind.contains(&broker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BrokerId = BrokerId(1);
    const B: BrokerId = BrokerId(2);

    #[test]
    fn who_lacks_for_long_what_was_agreed_on_is_behind_until_it_has_it() {
        let mut lag = Lag::default();
        let at = |ms| Monotonic(0) + Nanos::from_millis(ms);
        let patience = LAG_PATIENCE.0 / 1_000_000;
        assert!(!lag.look(at(0), 5, [(A, 5), (B, 4)].into_iter()));
        // A follows what is ever newer, a little behind; B stands still.
        for step in 1..patience / 100 {
            let others = [(A, 4 + step), (B, 4)].into_iter();
            assert!(!lag.look(at(100 * step), 5 + step, others), "{step}");
        }
        assert!(lag.look(at(patience), 100, [(A, 90), (B, 4)].into_iter()));
        assert!(lag.is_behind(B) && !lag.is_behind(A));
        assert!(!lag.look(at(patience + 1), 100, [(A, 90), (B, 4)].into_iter()), "no news");
        assert!(lag.look(at(patience + 2), 100, [(A, 90), (B, 5)].into_iter()));
        assert!(!lag.is_behind(B), "it has what it lacked, and time for the rest");
        assert!(!lag.look(at(2 * patience), 100, [(A, 100), (B, 99)].into_iter()));
        assert!(lag.look(at(3 * patience), 100, [(A, 100), (B, 99)].into_iter()));
        assert!(
            lag.look(at(3 * patience), 100, [(A, 100)].into_iter()),
            "it is no member any more"
        );
        lag.reset();
        assert!(!lag.is_behind(B));
    }
}
