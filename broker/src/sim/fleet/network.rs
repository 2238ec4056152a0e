//! Which ways between hosts pass, and which do not.

use std::collections::BTreeMap;

use super::{Action, World};
use crate::sim::fleet::plan::CutWay;

/// Ways from one host to another. Brokers are the first hosts, clients follow.
#[derive(Debug, Default)]
pub struct Network {
    /// How many faults cut each way.
    cuts: BTreeMap<(usize, usize), u32>,
    /// How often everything has healed at once.
    heals: u32,
    /// Until when dialing a broker fails half of the time.
    pub dials_fail_until: BTreeMap<usize, u64>,
}

impl World {
    pub(super) fn host_of_client(&self, client: usize) -> usize {
        self.plan.brokers + client
    }

    /// A machine without power is cut off, too.
    pub(super) fn passes(&self, from: usize, to: usize) -> bool {
        let is_on = |host: usize| self.machines.get(host).is_none_or(|machine| machine.is_on);
        !self.network.cuts.contains_key(&(from, to)) && is_on(from) && is_on(to)
    }

    pub(super) fn cut(&mut self, ways: Vec<(usize, usize)>, length: u64) {
        for way in &ways {
            *self.network.cuts.entry(*way).or_default() += 1;
        }
        self.after(length, Action::Mend { ways, heals: self.network.heals });
    }

    pub(super) fn mend(&mut self, ways: &[(usize, usize)], heals: u32) {
        if heals != self.network.heals {
            // Healed before, with everything else.
            return;
        }
        for way in ways {
            let Some(count) = self.network.cuts.get_mut(way) else { continue };
            *count -= 1;
            if *count == 0 {
                self.network.cuts.remove(way);
            }
        }
        self.pump_everything();
    }

    pub(super) fn mend_everything(&mut self) {
        self.network.cuts.clear();
        self.network.heals += 1;
        self.network.dials_fail_until.clear();
        self.pump_everything();
    }

    /// The ways between a host and others.
    pub(super) fn ways_between(
        host: usize,
        others: impl Iterator<Item = usize>,
        way: CutWay,
        is_inward: bool,
    ) -> Vec<(usize, usize)> {
        let mut ways = Vec::new();
        for other in others.filter(|other| *other != host) {
            if way == CutWay::Both || !is_inward {
                ways.push((host, other));
            }
            if way == CutWay::Both || is_inward {
                ways.push((other, host));
            }
        }
        ways
    }
}
