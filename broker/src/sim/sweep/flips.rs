//! Every bit of a data directory, flipped one at a time.
//!
//! The directory holds sealed segments with footers, checkpoints, an active segment and a prepared one,
//! and its lane has fallen idle, so that everything in it is known to be durable. Whatever the bit:
//! recovery ends, nothing wrong is served, at most the entry that holds the bit is lost, that is said
//! (`RangeCorrupt`), and all else is readable.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use corelog_protocol::ids::{Lsn, PartitionId};

use crate::disk::Place;
use crate::log::{PartitionBounds, Retention};
use crate::random::Random;
use crate::sim::disk::Image;
use crate::sim::sweep::Checked;
use crate::sim::sweep::cow::CowImage;
use crate::sim::sweep::life::Life;
use crate::sim::sweep::rig::{Found, Seen, small_config};
use crate::sim::sweep::survey::{Survey, Surveyor};

/// An entry in a file.
#[derive(Clone, Debug)]
struct Located {
    bytes: Range<u64>,
    lsn: Lsn,
    is_local: bool,
    kind: EntryKind,
}

/// A directory to be flipped, and what it holds when nothing is.
pub struct Target {
    image: Image,
    shared: CowImage,
    surveyor: Surveyor,
    intact: Survey,
    entries: BTreeMap<Place, Vec<Located>>,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct FlipCount {
    pub flips: u64,
    /// Nothing was missing and recovery found nothing wrong.
    pub harmless: u64,
    /// Nothing was missing, though recovery or a read had to go round the damage.
    pub rebuilt: u64,
    /// The entry with the bit is marked, and all the others are there.
    pub marked: u64,
}

impl FlipCount {
    pub fn add(&mut self, other: &Self) {
        self.flips += other.flips;
        self.harmless += other.harmless;
        self.rebuilt += other.rebuilt;
        self.marked += other.marked;
    }
}

impl fmt::Display for FlipCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flips, harmless, rebuilt, marked } = self;
        write!(f, "{flips} bits: {harmless} harmless, {rebuilt} gone round, {marked} marked")
    }
}

impl Target {
    /// Fills a directory: three sealed segments, batches large and small, entries for the shard's
    /// fold, and a tail of small commits.
    pub fn build(seed: u64) -> Checked<Self> {
        let partitions: Vec<_> =
            [21, 22, 23].map(|id| (PartitionId(id), Retention::default())).to_vec();
        let ids: Vec<PartitionId> = partitions.iter().map(|(id, _)| *id).collect();
        let mut life = Life::begin(small_config(), partitions, seed).recovered()?;
        let mut random = Random::new(seed);
        while life.rig.heard.rolls < 4 {
            let id = ids[random.below(3) as usize];
            let bytes = [60, 900, 5_000, 9_000][random.below(4) as usize];
            let records = 1 + random.below(3) as u32;
            life.append_patiently(id, records, bytes / records as usize)?;
            if random.chance(1, 5) {
                let _ = life.append_state(id, 50);
            }
            life.go_on(random.below(4) as usize);
        }
        for number in 0..8 {
            life.append_patiently(ids[number % 3], 2, 100)?;
            life.go_on(number % 3);
        }
        let _ = life.append_state(ids[0], 50);
        life.idle()?;
        let image = life.rig.disk.settled();
        let trial = life.end("flips");
        let shared = CowImage::from(image.clone());
        let (intact, _) = trial.surveyor.look(&shared, seed)?;
        trial.ledger.check(&intact, trial.steps.len())?;
        let entries = image.files.iter().map(|(place, bytes)| (place.clone(), locate(bytes)));
        let entries: BTreeMap<_, _> = entries.collect();
        let surveyor = trial.surveyor;
        let target = Self { image, shared, surveyor, intact, entries };
        target.demand_variety()?;
        Ok(target)
    }

    fn demand_variety(&self) -> Checked<()> {
        let located = || self.entries.values().flatten();
        let holds = |kind| located().filter(|located| located.kind == kind).count();
        let segments = self.entries.values().filter(|located| !located.is_empty()).count();
        let story = [
            ("several segments", segments >= 4),
            ("a prepared segment", segments < self.entries.len()),
            ("batches", holds(EntryKind::Batch) >= 20),
            ("checkpoints", holds(EntryKind::Checkpoint) >= 3),
            ("padding", holds(EntryKind::Padding) >= 1),
            ("all entries", located().count() >= self.intact.entries().len()),
        ];
        match story.iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(format!("the directory to flip lacks {what}")),
            None => Ok(()),
        }
    }

    pub fn files(&self) -> usize {
        self.image.files.len()
    }

    pub fn bits(&self) -> u64 {
        self.image.bytes() as u64 * 8
    }

    /// Flips bits one at a time: all of headers, footers and whatever else is not the inside of a body or
    /// zeros, and of those each `stride`-th. Of all these, the ones that fall to `part` of `parts`.
    pub fn flip(&self, stride: u64, part: u64, parts: u64) -> Checked<FlipCount> {
        let mut count = FlipCount::default();
        let mut number = 0;
        for (place, bytes) in &self.image.files {
            let located = &self.entries[place];
            let inside = |at: u64| located.iter().find(|located| located.bytes.contains(&at));
            for (index, word) in bytes.chunks(8).enumerate() {
                let at = index as u64 * 8;
                let entry = inside(at);
                let in_body = entry.is_some_and(|entry| {
                    at >= entry.bytes.start + ENTRY_HEADER_BYTES as u64 + 8
                        && at + 16 < entry.bytes.end
                });
                let plain = in_body || word.iter().all(|byte| *byte == 0);
                for bit in at * 8..(at + word.len() as u64) * 8 {
                    if plain && !bit.is_multiple_of(stride) {
                        continue;
                    }
                    number += 1;
                    if number % parts == part {
                        let name = || format!("bit {} of byte {} of {place:?}", bit % 8, bit / 8);
                        let flip = || self.flip_one(place, bit, entry, &mut count);
                        crate::sim::sweep::guarded(&name, flip)?;
                    }
                }
            }
        }
        Ok(count)
    }

    fn flip_one(
        &self,
        place: &Place,
        bit: u64,
        entry: Option<&Located>,
        count: &mut FlipCount,
    ) -> Checked<()> {
        let mut image = self.shared.clone();
        image.flip_bit(place, bit);
        let (survey, rig) = self.surveyor.look(&image, bit)?;
        let lost = self.lost(&survey, entry.is_some())?;
        let allowed = entry.filter(|entry| !entry.is_local).map(|entry| entry.lsn);
        if let Some(lsn) = lost.iter().find(|lsn| Some(**lsn) != allowed) {
            let lost = lost.len();
            return Err(format!("LSN {lsn} is lost ({lost} in all), the bit is in {entry:?}"));
        }
        let epoch_before = self.intact.report.epoch;
        if survey.report.epoch < epoch_before {
            let epoch = survey.report.epoch;
            return Err(format!("I7: epoch {epoch}, {epoch_before} without the flip"));
        }
        count.flips += 1;
        let counters = rig.log.counters();
        let clean = survey.report == self.intact.report && counters.corrupt_entries == 0;
        match (lost.is_empty(), clean) {
            (true, true) => count.harmless += 1,
            (true, false) => count.rebuilt += 1,
            (false, _) => count.marked += 1,
        }
        Ok(())
    }

    /// The entries that are missing. Anything else that differs is an error.
    ///
    /// With the header of an entry that no index knows, its partition and length are lost too. Then other
    /// partitions may leave offsets out, marked as corrupt, to be sure that none is given twice.
    fn lost(&self, survey: &Survey, may_skip: bool) -> Checked<Vec<Lsn>> {
        let mut lost = Vec::new();
        for ((id, intact_bounds, intact), (_, bounds, found)) in
            self.intact.partitions.iter().zip(&survey.partitions)
        {
            if bounds != intact_bounds && !(may_skip && skips(*intact_bounds, *bounds)) {
                return Err(format!("I4: {id:?}: {bounds:?} instead of {intact_bounds:?}"));
            }
            let mut intact = intact
                .iter()
                .filter_map(|found| match found {
                    Found::Entry(seen) => Some(seen),
                    Found::Corrupt(..) => None,
                })
                .peekable();
            for found in found {
                match found {
                    Found::Entry(seen) => {
                        let expected = intact.next();
                        if expected != Some(seen) {
                            return Err(format!("I10: {}", differs(expected, seen)));
                        }
                    }
                    Found::Corrupt(from, to) => {
                        while let Some(seen) = intact.next_if(|seen| seen.base_offset < *to) {
                            let end = seen.base_offset.advance(u64::from(seen.record_count));
                            if seen.base_offset < *from || end > *to {
                                return Err(format!("I5: {id:?}: {from}..{to} cuts a batch"));
                            }
                            lost.push(seen.lsn);
                        }
                    }
                }
            }
            if let Some(seen) = intact.next() {
                return Err(format!("I1: {id:?} ends before offset {}", seen.base_offset));
            }
        }
        for seen in &survey.replayed {
            if !self.intact.replayed.contains(seen) {
                return Err(format!("I10: replayed LSN {} is not what was given", seen.lsn));
            }
        }
        let missing = self.intact.replayed.iter().filter(|seen| !survey.replayed.contains(seen));
        lost.extend(missing.map(|seen| seen.lsn));
        Ok(lost)
    }
}

/// The same partition, with offsets left out at its end.
fn skips(intact: Option<PartitionBounds>, found: Option<PartitionBounds>) -> bool {
    match (intact, found) {
        (Some(intact), Some(found)) => {
            intact.log_start == found.log_start && intact.next_offset < found.next_offset
        }
        _ => false,
    }
}

fn differs(expected: Option<&Seen>, seen: &Seen) -> String {
    let lsn = expected.map(|seen| seen.lsn);
    format!("LSN {} at offset {} where {lsn:?} was", seen.lsn, seen.base_offset)
}

/// The intact entries of a file.
fn locate(bytes: &[u8]) -> Vec<Located> {
    let mut located = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let header = EntryHeader::decode(&bytes[at..]).ok();
        let entry = header.filter(|header| {
            let body = at + ENTRY_HEADER_BYTES..at + ENTRY_HEADER_BYTES + header.body_len as usize;
            bytes.get(body).is_some_and(|body| header.check_body(body).is_ok())
        });
        match entry {
            Some(header) => {
                let end = at + header.entry_bytes();
                let (lsn, kind, is_local) = (header.lsn, header.kind, header.is_local());
                located.push(Located { bytes: at as u64..end as u64, lsn, kind, is_local });
                at = end;
            }
            None => at += 8,
        }
    }
    located
}
