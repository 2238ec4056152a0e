//! Which entries on the replicas' disks are one history, and which are the tail of a leader that was deposed.
//!
//! An entry is known by its LSN and its epoch. The log that ends in the latest epoch, and reaches furthest in it, is the
//! *trunk*: its leader was chosen by a quorum, so it has all that was ever acknowledged. Another disk has the
//! same entries up to some LSN. What it has from there on is of older epochs, and gives way when it follows again:
//!
//! ```text
//!   A  1 1 1 1 2 2 3 3 3     the trunk
//!   B  1 1 1 1 2 2 3         is behind
//!   C  1 1 1 1 1 1           led epoch 1; two entries that B never got
//! ```
//!
//! Nothing in a tail counts as a copy. A log that goes on with the trunk after it parted from it, has another entry under
//! the same LSN and epoch, or parts from it in the trunk's own last epoch, has diverged.

use std::collections::BTreeMap;

use super::{Anomaly, Partition, Reader, Reading, SeenBatch};

/// What lies under one LSN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub epoch: u64,
    /// Of its header, which has the body's in it.
    pub checksum: u32,
    /// Of a batch of the run.
    pub batch: Option<(Partition, SeenBatch)>,
}

/// One replica of a lane, by LSN.
pub type Log = BTreeMap<u64, Entry>;

/// The lanes that one broker has on its disk.
#[derive(Clone, Default, Debug)]
pub struct Disk {
    pub broker: u32,
    pub lanes: BTreeMap<u32, Log>,
}

/// What the disks hold, tails left out.
#[derive(Default)]
pub struct Settled {
    pub readings: Vec<Reading>,
    pub diverged: Vec<Anomaly>,
    /// Records in tails.
    pub tails: u64,
}

pub fn settle(disks: &[Disk]) -> Settled {
    let mut settled = Settled::default();
    for disk in disks {
        let reader = Reader::Disk(disk.broker);
        let mut reading = Reading::new(reader);
        for (&lane, log) in &disk.lanes {
            let mut diverged = |lsn| settled.diverged.push(Anomaly::Forked { lane, lsn, reader });
            epochs_that_fall(log).for_each(&mut diverged);
            // Of equals the first.
            let logs = disks.iter().rev().filter_map(|disk| disk.lanes.get(&lane));
            let trunk = logs.max_by_key(reach);
            let parted = trunk.and_then(|trunk| parting(log, trunk, diverged));
            for (lsn, entry) in log {
                let Some((partition, batch)) = &entry.batch else { continue };
                if parted.is_some_and(|parted| *lsn >= parted) {
                    settled.tails += batch.records.len() as u64;
                } else {
                    reading.push(*partition, batch.clone());
                }
            }
        }
        settled.readings.push(reading);
    }
    settled
}

/// The last epoch, and the last LSN in it.
fn reach(log: &&Log) -> Option<(u64, u64)> {
    log.last_key_value().map(|(lsn, entry)| (entry.epoch, *lsn))
}

fn epochs_that_fall(log: &Log) -> impl Iterator<Item = u64> {
    let pairs = log.iter().zip(log.iter().skip(1));
    pairs.filter(|((_, one), (_, next))| next.epoch < one.epoch).map(|(_, (lsn, _))| *lsn)
}

/// Where the tail of `log` begins, if it has one.
fn parting(log: &Log, trunk: &Log, mut diverged: impl FnMut(u64)) -> Option<u64> {
    let last_epochs = [reach(&log)?.0, reach(&trunk)?.0];
    let mut parted = None;
    for (&lsn, entry) in log {
        match trunk.get(&lsn) {
            Some(other) if other.epoch == entry.epoch => {
                if parted.is_some() || other.checksum != entry.checksum {
                    diverged(lsn);
                }
            }
            // A log that was begun anew has no more than its leader's oldest segment.
            None if parted.is_none() && trunk.keys().next().is_none_or(|first| lsn < *first) => {}
            _ => {
                if parted.is_none() && last_epochs[0] == last_epochs[1] {
                    diverged(lsn);
                }
                parted = parted.or(Some(lsn));
            }
        }
    }
    parted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::content::Identity;

    const LANE: u32 = 3;

    /// A log of one-record batches with these epochs, from LSN 0. Record and checksum follow from LSN and epoch.
    fn log(epochs: &[u64]) -> Log {
        let entry = |(lsn, &epoch): (u64, &u64)| {
            let identity = Identity { producer: epoch as u32, number: lsn };
            let batch = SeenBatch { base: lsn, at: u64::MAX, records: vec![Some(identity)] };
            let checksum = (100 * epoch + lsn) as u32;
            (lsn, Entry { epoch, checksum, batch: Some(((0, 0), batch)) })
        };
        (0..).zip(epochs).map(entry).collect()
    }

    fn settle_logs(logs: [Log; 3]) -> Settled {
        let disk = |(broker, log)| Disk { broker, lanes: BTreeMap::from([(LANE, log)]) };
        settle(&(1..).zip(logs).map(disk).collect::<Vec<_>>())
    }

    /// Records left on each disk, records in tails, and where they have diverged: broker and LSN.
    fn outcome(logs: [Log; 3]) -> (Vec<u64>, u64, Vec<(u32, u64)>) {
        let settled = settle_logs(logs);
        let place = |anomaly: &Anomaly| match *anomaly {
            Anomaly::Forked { lane: LANE, lsn, reader: Reader::Disk(broker) } => (broker, lsn),
            ref other => panic!("{other}"),
        };
        let diverged = settled.diverged.iter().map(place).collect();
        (settled.readings.iter().map(Reading::len).collect(), settled.tails, diverged)
    }

    #[test]
    fn a_log_that_is_behind_has_no_tail() {
        let logs = [log(&[1, 1, 2, 2]), log(&[1, 1, 2]), log(&[])];
        assert_eq!(outcome(logs), (vec![4, 3, 0], 0, vec![]));
    }

    #[test]
    fn what_a_deposed_leader_alone_had_is_its_tail() {
        let logs = [log(&[1, 1, 2, 2]), log(&[1, 1, 2]), log(&[1, 1, 1, 1, 1])];
        assert_eq!(outcome(logs), (vec![4, 3, 2], 3, vec![]));
    }

    #[test]
    fn an_epoch_that_nobody_followed_is_a_tail_also_where_the_trunk_has_an_older_one() {
        // B led epoch 2 alone, from LSN 2 on; A and C had more of epoch 1, and went on with it.
        let logs = [log(&[1, 1, 1, 3, 3]), log(&[1, 1, 2]), log(&[1, 1, 1, 3])];
        assert_eq!(outcome(logs), (vec![5, 2, 4], 1, vec![]));
    }

    #[test]
    fn a_tail_that_reaches_further_than_the_trunk_is_one() {
        let logs = [log(&[1, 1, 2]), log(&[1, 1, 2]), log(&[1, 1, 1, 1, 1, 1])];
        assert_eq!(outcome(logs), (vec![3, 3, 2], 4, vec![]));
    }

    #[test]
    fn who_goes_on_with_the_trunk_over_entries_of_its_own_has_diverged() {
        let logs = [log(&[1, 1, 2, 2, 3]), log(&[1, 1, 2, 2, 3]), log(&[1, 1, 1, 2, 3])];
        assert_eq!(outcome(logs).2, [(3, 2), (3, 3), (3, 4)]);
        let logs = [log(&[1, 1, 2, 2, 3]), log(&[1, 1, 2, 2, 3]), log(&[1, 1, 1, 2])];
        assert_eq!(outcome(logs).2, [(3, 3)]);
    }

    #[test]
    fn another_entry_of_the_same_epoch_is_divergence() {
        let mut other = log(&[1, 1, 2]);
        other.get_mut(&1).expect("there").checksum = 7;
        assert_eq!(outcome([log(&[1, 1, 2, 2]), log(&[1, 1, 2]), other]).2, [(3, 1)]);
        // Also when what follows is a tail.
        let mut other = log(&[1, 1, 1, 1]);
        other.get_mut(&0).expect("there").checksum = 7;
        let (left, tails, diverged) = outcome([log(&[1, 1, 2, 2]), log(&[1, 1, 2]), other]);
        assert_eq!((left, tails, diverged), (vec![4, 3, 2], 2, vec![(3, 0)]));
    }

    #[test]
    fn epochs_never_fall() {
        let logs = [log(&[1, 3, 3, 3]), log(&[1, 3, 3]), log(&[1, 2, 1])];
        assert_eq!(outcome(logs).2, [(3, 2)]);
    }

    #[test]
    fn lanes_are_settled_one_by_one() {
        let with = |broker, one: &[u64], two: &[u64]| Disk {
            broker,
            lanes: BTreeMap::from([(1, log(one)), (2, log(two))]),
        };
        let disks = [with(1, &[1, 1, 1], &[5]), with(2, &[1, 2], &[5, 5])];
        let settled = settle(&disks);
        let left: Vec<u64> = settled.readings.iter().map(Reading::len).collect();
        assert_eq!((left, settled.tails, settled.diverged), (vec![2, 4], 2, vec![]));
    }
}
