//! What recovery makes of an image: everything that can be read, and whether it stays so.
//!
//! A survey knows nothing of what the image should hold; [`crate::sim::sweep::ledger`] compares.

use std::sync::Arc;

use corelog_protocol::batch::{BatchBuilder, NewRecord};
use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::{Lsn, Offset, PartitionId};

use crate::log::{LogConfig, PartitionBounds, RecoveryReport, Retention};
use crate::sim::sweep::Checked;
use crate::sim::sweep::cow::{CowDisk, CowImage};
use crate::sim::sweep::rig::{Found, Rig, Seen};

/// The state that a recovery ends in.
#[derive(Clone, Debug)]
pub struct Survey {
    pub report: RecoveryReport,
    pub partitions: Vec<(PartitionId, Option<PartitionBounds>, Vec<Found>)>,
    /// Entries for the shard's fold, in LSN order.
    pub replayed: Vec<Seen>,
    pub next_lsn: Lsn,
}

impl Survey {
    /// The entries that can be read or were replayed, in LSN order.
    pub fn entries(&self) -> Vec<&Seen> {
        let found = self.partitions.iter().flat_map(|(_, _, found)| found);
        let read = found.filter_map(|found| match found {
            Found::Entry(seen) => Some(seen),
            Found::Corrupt(..) => None,
        });
        let mut entries: Vec<&Seen> = read.chain(&self.replayed).collect();
        entries.sort_by_key(|seen| seen.lsn);
        entries
    }

    pub fn corrupt(&self) -> impl Iterator<Item = (PartitionId, Offset, Offset)> + '_ {
        self.partitions.iter().flat_map(|(partition, _, found)| {
            found.iter().filter_map(|found| match found {
                Found::Corrupt(from, to) => Some((*partition, *from, *to)),
                Found::Entry(_) => None,
            })
        })
    }

    /// Recovery said nothing else the second time: the same entries at the same places.
    fn same_state(&self, other: &Self) -> Checked<()> {
        for (one, two) in self.partitions.iter().zip(&other.partitions) {
            if one != two {
                return Err(format!(
                    "I9: recovered {}, and the second time {}",
                    told(&one.1, &one.2),
                    told(&two.1, &two.2),
                ));
            }
        }
        if self.replayed != other.replayed {
            let lsns = |survey: &Self| -> Vec<u64> {
                survey.replayed.iter().map(|seen| seen.lsn.0).collect()
            };
            return Err(format!("I9: replayed {:?}, then {:?}", lsns(self), lsns(other)));
        }
        Ok(())
    }
}

fn told(bounds: &Option<PartitionBounds>, found: &[Found]) -> String {
    let found: Vec<String> = found
        .iter()
        .map(|found| match found {
            Found::Entry(seen) => format!("{}@{}", seen.base_offset, seen.lsn),
            Found::Corrupt(from, to) => format!("corrupt {from}..{to}"),
        })
        .collect();
    format!("{bounds:?} [{}]", found.join(" "))
}

/// What all surveys of a run share.
#[derive(Clone, Debug)]
pub struct Surveyor {
    pub config: LogConfig,
    pub partitions: Vec<PartitionId>,
    /// Later than all that the workload did.
    pub wall_ms: i64,
    probe: Arc<[u8]>,
}

/// Records in the batch that a survey appends.
const PROBE_RECORDS: u32 = 2;

impl Surveyor {
    pub fn new(config: LogConfig, partitions: Vec<PartitionId>, wall_ms: i64) -> Self {
        Self { config, partitions, wall_ms, probe: batch(PROBE_RECORDS, 40, 0xdead).into() }
    }

    pub fn boot(&self, image: &CowImage, seed: u64) -> Rig<CowDisk> {
        let partitions: Vec<_> =
            self.partitions.iter().map(|id| (*id, Retention::default())).collect();
        let disk = CowDisk::load(image);
        Rig::boot(self.config.clone(), disk, seed, self.wall_ms, &partitions)
    }

    /// Recovers and reads everything, once.
    pub fn look(&self, image: &CowImage, seed: u64) -> Checked<(Survey, Rig<CowDisk>)> {
        let mut rig = self.boot(image, seed);
        let report = rig.recover()?;
        let behind = |rig: &Rig<CowDisk>| {
            let bounds = self.partitions.iter().filter_map(|id| rig.log.partition(*id));
            bounds.into_iter().any(|bounds| bounds.committed_end < bounds.next_offset)
        };
        rig.run("commit after recovery", |rig| !behind(rig))?;
        let survey = self.read(&mut rig, report)?;
        Ok((survey, rig))
    }

    fn read(&self, rig: &mut Rig<CowDisk>, report: RecoveryReport) -> Checked<Survey> {
        let mut partitions = Vec::new();
        for id in &self.partitions {
            let found = rig.read_all(*id)?;
            partitions.push((*id, rig.log.partition(*id), found));
        }
        let replayed = std::mem::take(&mut rig.heard.replayed);
        Ok(Survey { report, partitions, replayed, next_lsn: rig.log.next_lsn() })
    }

    /// Recovers, and demands all that must hold whatever was on the disk before: the log takes
    /// appends at the next offsets, and a second recovery changes nothing, with and without them.
    pub fn survey(&self, image: &CowImage, seed: u64) -> Checked<Survey> {
        let (first, mut rig) = self.look(image, seed)?;
        rig.settle()?;
        let untouched = rig.disk.image();
        self.append_to_all(&mut rig)?;
        let cut_off = rig.disk.image();
        rig.stop()?;
        let (again, _) = self.look(&untouched, seed ^ 1)?;
        first.same_state(&again)?;

        // Whatever is in flight on this disk is lost, which is one more kind of crash.
        let (grown, _) = self.look(&cut_off, seed ^ 2)?;
        for ((id, before, _), (_, after, found)) in first.partitions.iter().zip(&grown.partitions) {
            let Some(after) = after else { return Err(format!("I1: {id:?} is gone")) };
            let base = before.map_or(Offset(0), |bounds| bounds.next_offset);
            let kept = found.iter().any(|found| {
                matches!(found, Found::Entry(seen)
                    if seen.base_offset == base && seen.body[..] == self.probe[..])
            });
            if !kept || after.next_offset != base.advance(u64::from(PROBE_RECORDS)) {
                return Err(format!("I1: {id:?}: appended at {base}, then {after:?}"));
            }
        }
        Ok(first)
    }

    fn append_to_all(&self, rig: &mut Rig<CowDisk>) -> Checked<()> {
        let mut last = None;
        for id in &self.partitions {
            let before = rig.log.partition(*id);
            let next = before.map_or(Offset(0), |bounds| bounds.next_offset);
            // A busy pipeline or a segment that is not ready yet: try again a little later.
            let appended = loop {
                match rig.append(EntryKind::Batch, *id, PROBE_RECORDS, &self.probe) {
                    Ok(appended) => break appended,
                    Err(error) if !rig.round() => {
                        return Err(format!("an append after recovery: {error:?}"));
                    }
                    Err(_) => {}
                }
                if rig.now.monotonic.0 > 3_600_000_000_000 {
                    return Err("an append after recovery is refused for an hour".into());
                }
            };
            if appended.base_offset != next {
                return Err(format!("I4: {id:?}: {next} was next, {:?} was given", appended));
            }
            last = Some(appended.lsn);
        }
        rig.run("durability after recovery", |rig| rig.durable_through() >= last)
    }
}

/// A batch of `records` records with values of `bytes` bytes, filled from `fill`.
pub fn batch(records: u32, bytes: usize, fill: u64) -> Vec<u8> {
    let mut random = crate::random::Random::new(fill);
    let mut builder = BatchBuilder::new(1 << 20, records);
    let mut value = vec![0; bytes];
    for _ in 0..records {
        for chunk in value.chunks_mut(8) {
            chunk.copy_from_slice(&random.next_u64().to_le_bytes()[..chunk.len()]);
        }
        let record = NewRecord { timestamp: 7, value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("a batch far below its bounds");
    }
    builder.finish().to_vec()
}
