//! What was given to a log and what the log answered, with the moment of each, and the comparison with
//! what a recovery found.

use std::collections::{BTreeMap, BTreeSet};

use corelog_protocol::ids::{Lsn, Offset, PartitionId};

use crate::log::PartitionBounds;
use crate::sim::sweep::Checked;
use crate::sim::sweep::rig::Seen;
use crate::sim::sweep::survey::Survey;

/// An entry that the log has taken.
#[derive(Clone, Debug)]
pub struct Given {
    pub seen: Seen,
    /// How many steps the disk had made by then.
    pub appended_at: usize,
}

#[derive(Clone, Default, Debug)]
pub struct Ledger {
    /// By LSN.
    given: BTreeMap<Lsn, Given>,
    /// Steps of the disk, and through which LSN everything was acknowledged durable then.
    acknowledged: Vec<(usize, Lsn)>,
    /// CRCs of bodies that were refused: the caller was told that they are nowhere.
    refused: BTreeSet<u32>,
    /// Stored bytes that retention must leave to a partition.
    retention: BTreeMap<PartitionId, u64>,
    /// Where partitions began when this life did.
    starts: BTreeMap<PartitionId, Offset>,
}

impl Ledger {
    /// Everything that a survey found, as the state that must never change any more.
    pub fn from_survey(survey: &Survey) -> Self {
        let given = survey.entries().into_iter().map(|seen| {
            let given = Given { seen: seen.clone(), appended_at: 0 };
            (seen.lsn, given)
        });
        let given: BTreeMap<Lsn, Given> = given.collect();
        let acknowledged = given.last_key_value().map(|(lsn, _)| (0, *lsn));
        let start = |bounds: &PartitionBounds| bounds.log_start;
        let starts = survey.partitions.iter();
        let starts = starts.filter_map(|(id, bounds, _)| Some((*id, bounds.as_ref().map(start)?)));
        let (acknowledged, starts) = (acknowledged.into_iter().collect(), starts.collect());
        Self { given, acknowledged, starts, ..Self::default() }
    }

    pub fn give(&mut self, seen: Seen, appended_at: usize) {
        let earlier = self.given.insert(seen.lsn, Given { seen, appended_at });
        assert!(earlier.is_none(), "an LSN was given twice: {earlier:?}");
    }

    pub fn refuse(&mut self, body: &[u8]) {
        self.refused.insert(crc_of(body));
    }

    pub fn acknowledge(&mut self, step: usize, through: Lsn) {
        self.acknowledged.push((step, through));
    }

    /// Whole batches beyond the newest `bytes` of the partition may go.
    pub fn retain(&mut self, partition: PartitionId, bytes: u64) {
        self.retention.insert(partition, bytes);
    }

    pub fn len(&self) -> usize {
        self.given.len()
    }

    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    pub fn refusals(&self) -> usize {
        self.refused.len()
    }

    /// Through which LSN everything was acknowledged when the disk had made `steps` steps.
    pub fn acknowledged_at(&self, steps: usize) -> Option<Lsn> {
        self.acknowledged.iter().rev().find(|(step, _)| *step <= steps).map(|(_, lsn)| *lsn)
    }

    /// The greatest offset that retention may have moved the log start to.
    fn log_start_max(&self, partition: PartitionId, steps: usize) -> Offset {
        let first = self.starts.get(&partition).copied().unwrap_or_default();
        let Some(keep) = self.retention.get(&partition) else {
            return first;
        };
        let mut bytes = 0;
        let of = self.given.values().rev().filter(|given| given.seen.partition == partition);
        for given in of.filter(|given| given.appended_at <= steps && given.seen.record_count > 0) {
            bytes += given.seen.body.len() as u64;
            if bytes >= *keep {
                return given.seen.base_offset.max(first);
            }
        }
        first
    }

    /// Compares with what a recovery found after `steps` steps and a crash. Nothing is corrupt after a mere
    /// crash, so that nothing may be missing.
    pub fn check(&self, survey: &Survey, steps: usize) -> Checked<()> {
        if survey.report.entries_corrupt > 0 {
            return Err(format!("a crash is taken for corruption: {:?}", survey.report));
        }
        if let Some(corrupt) = survey.corrupt().next() {
            return Err(format!("a crash is taken for corruption: {corrupt:?}"));
        }
        let entries = survey.entries();
        for seen in &entries {
            self.check_known(seen, steps)?;
        }
        for pair in entries.windows(2) {
            if pair[0].lsn == pair[1].lsn {
                return Err(format!("I5: LSN {} is there twice", pair[0].lsn));
            }
        }
        let acknowledged = self.acknowledged_at(steps);
        let last = entries.last().map(|seen| seen.lsn).max(acknowledged);
        let starts: BTreeMap<PartitionId, Offset> = survey
            .partitions
            .iter()
            .map(|(id, bounds, _)| (*id, bounds.map_or(Offset(0), |bounds| bounds.log_start)))
            .collect();
        for (partition, start) in &starts {
            let max = self.log_start_max(*partition, steps);
            if *start > max {
                return Err(format!("I1: {partition:?} starts at {start}, {max} is kept"));
            }
        }
        let present: BTreeSet<Lsn> = entries.iter().map(|seen| seen.lsn).collect();
        let mut ends: BTreeMap<PartitionId, Offset> = BTreeMap::new();
        for (lsn, given) in self.given.iter().filter(|(lsn, _)| Some(**lsn) <= last) {
            let Seen { partition, base_offset, record_count, .. } = given.seen;
            let end = base_offset.advance(u64::from(record_count));
            let is_batch = record_count > 0;
            let expired = is_batch && starts.get(&partition).is_some_and(|start| end <= *start);
            if !present.contains(lsn) && !expired {
                let what = if Some(*lsn) <= acknowledged { "I1: acknowledged" } else { "a hole:" };
                return Err(format!(
                    "{what} {partition:?} offset {base_offset} LSN {lsn} is gone, though {last:?} \
                     is there or was acknowledged"
                ));
            }
            if is_batch {
                ends.insert(partition, end);
            }
        }
        for (partition, bounds, _) in &survey.partitions {
            let next = bounds.map_or(Offset(0), |bounds| bounds.next_offset);
            let end = ends.get(partition).copied().unwrap_or_default();
            if next != end {
                return Err(format!("I4: the next offset of {partition:?} is {next}, not {end}"));
            }
        }
        if Some(survey.next_lsn) <= last {
            return Err(format!("I4: {} is the next LSN, after {last:?}", survey.next_lsn));
        }
        Ok(())
    }

    fn check_known(&self, seen: &Seen, steps: usize) -> Checked<()> {
        if self.refused.contains(&crc_of(&seen.body)) {
            return Err(format!("I5: what was refused is there: {}", told(seen)));
        }
        match self.given.get(&seen.lsn) {
            Some(given) if given.seen == *seen && given.appended_at <= steps => Ok(()),
            Some(given) => {
                Err(format!("I1: {} was given, {} is there", told(&given.seen), told(seen)))
            }
            None => Err(format!("I5: never given, or truncated: {}", told(seen))),
        }
    }
}

fn crc_of(body: &[u8]) -> u32 {
    body.first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc))
}

fn told(seen: &Seen) -> String {
    format!(
        "LSN {} epoch {} {:?} {:?} offset {} x{} crc {:08x}",
        seen.lsn,
        seen.epoch,
        seen.kind,
        seen.partition,
        seen.base_offset,
        seen.record_count,
        crc_of(&seen.body),
    )
}
