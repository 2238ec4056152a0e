//! The outcome of a check, in numbers and in words.

use std::collections::BTreeMap;

use corelog_protocol::Durability;

use super::Anomaly;

/// What became of the sends of one level.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    pub sent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Neither acknowledged nor refused.
    pub open: u64,
    /// Of those, what is there.
    pub open_seen: u64,
    /// Acknowledged at a level that a failure may undo, and gone.
    pub gone: u64,
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// By the level asked for, in the order of [`Durability::ALL`].
    pub tallies: [Tally; Durability::ALL.len()],
    /// Records that the cluster holds.
    pub held: u64,
    /// Records that consumers got while the run went on.
    pub consumed: u64,
    /// Disks that were read, and records found on them.
    pub disks: u64,
    pub on_disks: u64,
    /// Records that the cluster holds and a disk had not yet got, over all disks.
    pub behind: u64,
    /// Records in tails of leaders that were deposed, on disks whose brokers have not come to follow again.
    pub tails: u64,
    /// Why nothing can be said. Empty: something can.
    pub unknown: Vec<String>,
    pub found: BTreeMap<&'static str, u64>,
    /// The first of each kind.
    pub anomalies: Vec<Anomaly>,
}

/// Examples kept of each kind.
const KEPT: u64 = 5;

impl Verdict {
    pub(super) fn note(&mut self, anomaly: Anomaly) {
        let count = self.found.entry(anomaly.name()).or_default();
        *count += 1;
        if *count <= KEPT {
            self.anomalies.push(anomaly);
        }
    }

    pub fn tally(&self, level: Durability) -> &Tally {
        &self.tallies[usize::from(level.to_wire())]
    }

    /// Nothing is wrong, and everything was read.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty() && self.unknown.is_empty()
    }
}
