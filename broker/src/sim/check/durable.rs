//! What the disk has, told in the words of the log: batches that a flush has covered.
//!
//! Reads the writes as they become durable, and whole files after a crash. Believes only the entry
//! format of the protocol; commit and segment headers are skipped unread.

use std::collections::{BTreeMap, BTreeSet};

use corelog_protocol::batch::BatchView;
use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use corelog_protocol::ids::{Lsn, Offset, PartitionId};

use super::record::{RecordId, record_ids};
use crate::limits::BLOCK_BYTES;
use crate::sim::trace::{Checked, Violation};

/// The commit header in front of the entries.
const COMMIT_HEADER_BYTES: usize = 64;

/// A batch at its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Placed {
    pub partition: PartitionId,
    pub base_offset: Offset,
    pub record_count: u32,
    pub body_crc: u32,
}

/// The LSNs of a lane that are durable in this life of the broker.
#[derive(Debug)]
struct Lane {
    dense_end: u64,
    ahead: BTreeSet<u64>,
}

/// What a partition held beyond all that its medium attests.
#[derive(Debug)]
pub struct Beyond {
    pub first: Offset,
    pub records: Vec<RecordId>,
}

#[derive(Debug, Default)]
pub struct DurableIndex {
    /// With the lane and the LSN of each.
    batches: BTreeMap<Placed, (u32, Lsn)>,
    lanes: BTreeMap<u32, Lane>,
    /// The records of each batch, kept if the medium of this run may break its word.
    records: Option<BTreeMap<Placed, Vec<RecordId>>>,
    pub entries: u64,
}

impl DurableIndex {
    /// Remembers which records each batch holds, so that [`DurableIndex::batches_from`] can tell.
    pub fn remember_records(&mut self) {
        self.records = Some(BTreeMap::new());
    }

    /// By partition, the least offset and the records of all batches that were ever on the medium
    /// from these LSNs of their lanes on.
    pub fn batches_from(&self, ends: &BTreeMap<u32, u64>) -> BTreeMap<PartitionId, Beyond> {
        let mut found: BTreeMap<PartitionId, Beyond> = BTreeMap::new();
        for (placed, (lane, lsn)) in &self.batches {
            if lsn.0 < ends.get(lane).copied().unwrap_or_default() {
                continue;
            }
            let beyond = found
                .entry(placed.partition)
                .or_insert_with(|| Beyond { first: placed.base_offset, records: Vec::new() });
            beyond.first = beyond.first.min(placed.base_offset);
            let records = self.records.as_ref().and_then(|records| records.get(placed));
            beyond.records.extend(records.into_iter().flatten());
        }
        found
    }

    /// A write that a flush has just covered. If it is a commit, whatever is not header or entry
    /// must be zeros: memory of the process does not belong on a disk.
    pub fn on_durable_write(&mut self, bytes: &[u8]) -> Checked {
        let mut end = COMMIT_HEADER_BYTES;
        for (header, body) in entries(bytes.get(COMMIT_HEADER_BYTES..).unwrap_or_default()) {
            if header.check_body(body).is_err() {
                return Err(Violation::new(
                    "I10",
                    format!("{header:?} was written with a body that is not its own"),
                ));
            }
            let padding =
                end + ENTRY_HEADER_BYTES + header.body_len as usize..end + header.entry_bytes();
            end = padding.end;
            if bytes.get(padding).unwrap_or_default().iter().any(|byte| *byte != 0) {
                return Err(Violation::new("format", format!("{header:?} is padded with garbage")));
            }
            self.insert(&header, body);
            if header.is_local() {
                continue;
            }
            let lane = self
                .lanes
                .entry(header.lane.0)
                .or_insert_with(|| Lane { dense_end: header.lsn.0, ahead: BTreeSet::new() });
            lane.ahead.insert(header.lsn.0);
            while lane.ahead.remove(&lane.dense_end) {
                lane.dense_end += 1;
            }
        }
        let rest = bytes.get(end..).unwrap_or_default();
        if end > COMMIT_HEADER_BYTES && rest.iter().any(|byte| *byte != 0) {
            return Err(Violation::new("format", "a commit is padded with garbage"));
        }
        Ok(())
    }

    /// The broker is down: whatever its files hold now is durable, and its next life counts anew.
    pub fn on_crash<'a>(&mut self, files: impl Iterator<Item = &'a [u8]>) {
        self.lanes.clear();
        for file in files {
            for block in (0..file.len()).step_by(BLOCK_BYTES) {
                let bytes = &file[(block + COMMIT_HEADER_BYTES).min(file.len())..];
                for (header, body) in entries(bytes) {
                    self.insert(&header, body);
                }
            }
        }
    }

    /// Whether the medium holds this batch at this place.
    pub fn holds(&self, placed: &Placed) -> bool {
        self.batches.contains_key(placed)
    }

    /// Whether everything up to this batch in its lane is on the medium too, so that recovery
    /// cannot find a hole before it.
    pub fn is_reachable(&self, placed: &Placed) -> bool {
        let Some((lane, lsn)) = self.batches.get(placed) else { return false };
        // A retry may be acknowledged before a lane has written anything in this life: what it stands on
        // was there when the life began.
        self.lanes.get(lane).is_none_or(|lane| lsn.0 < lane.dense_end)
    }

    fn insert(&mut self, header: &EntryHeader, body: &[u8]) {
        self.entries += 1;
        if header.kind == EntryKind::Batch {
            let placed = Placed {
                partition: header.partition,
                base_offset: header.base_offset,
                record_count: header.record_count,
                body_crc: header.body_crc,
            };
            self.batches.insert(placed, (header.lane.0, header.lsn));
            if let Some(records) = &mut self.records
                && let Ok(batch) = BatchView::parse(body)
            {
                records.insert(placed, record_ids(&batch).collect());
            }
        }
    }
}

/// The whole entries at the start of `bytes`, header and body.
pub fn entries(mut bytes: &[u8]) -> impl Iterator<Item = (EntryHeader, &[u8])> {
    std::iter::from_fn(move || {
        let header = EntryHeader::decode(bytes).ok()?;
        let body = bytes.get(ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES + header.body_len as usize)?;
        bytes = bytes.get(header.entry_bytes()..).unwrap_or_default();
        Some((header, body))
    })
}
