//! Which entry each disk holds durably at each LSN of a lane. Reads the writes as they become durable, and whole files
//! after a power cut; believes only the entry format of the protocol.
//!
//! I7, the part that needs no more: the leader of an epoch writes one log. So (lane, epoch, LSN) names one entry, on
//! whatever disk it is found and whoever sends it.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use corelog_protocol::batch::BatchView;
use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::ids::{Epoch, ProducerId};

use crate::limits::BLOCK_BYTES;
use crate::sim::check::durable::{Placed, entries};
use crate::sim::trace::{Checked, Violation};

/// The commit header in front of the entries.
const COMMIT_HEADER_BYTES: usize = 64;

/// An entry, by all of its bytes: two of the same id are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Id {
    pub epoch: u64,
    header_crc: u32,
    body_crc: u32,
}

/// A batch that its producer numbered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sequence {
    pub partition: u32,
    pub producer: u64,
    pub epoch: u16,
    pub first: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub header: EntryHeader,
    pub id: Id,
    pub sequence: Option<Sequence>,
}

#[derive(Debug)]
pub struct Disks {
    /// By broker, then lane and LSN: what became durable there last.
    held: Vec<BTreeMap<(u32, u64), Id>>,
    /// And all that ever became durable there.
    seen: Vec<BTreeMap<(u32, u64), BTreeSet<Id>>>,
    /// By lane, epoch and LSN: every entry that was ever durable or sent.
    known: BTreeMap<(u32, u64, u64), Known>,
    /// Where batches are, by lane, LSN and epoch.
    places: BTreeMap<Placed, BTreeSet<(u32, u64, u64)>>,
    pub compared: u64,
}

pub fn id_of(header: &EntryHeader) -> Id {
    Id {
        epoch: header.epoch.0,
        header_crc: crc32c::crc32c(&header.encode()),
        body_crc: header.body_crc,
    }
}

pub fn placed_of(header: &EntryHeader) -> Placed {
    Placed {
        partition: header.partition,
        base_offset: header.base_offset,
        record_count: header.record_count,
        body_crc: header.body_crc,
    }
}

fn sequence_of(header: &EntryHeader, body: &[u8]) -> Option<Sequence> {
    if header.kind != EntryKind::Batch {
        return None;
    }
    let batch = *BatchView::check_header(body).ok()?.header();
    (batch.producer_id != ProducerId(0)).then_some(Sequence {
        partition: header.partition.0,
        producer: batch.producer_id.0,
        epoch: batch.producer_epoch,
        first: batch.base_sequence,
    })
}

/// The entries of data lanes in a block and behind it that are whole and take an LSN.
fn replicated(bytes: &[u8]) -> impl Iterator<Item = (EntryHeader, &[u8])> {
    let inside = bytes.get(COMMIT_HEADER_BYTES..).unwrap_or_default();
    entries(inside).filter(|(header, body)| {
        header.lane.0 != 0 && !header.is_local() && header.check_body(body).is_ok()
    })
}

impl Disks {
    pub fn new(brokers: usize) -> Self {
        Self {
            held: vec![BTreeMap::new(); brokers],
            seen: vec![BTreeMap::new(); brokers],
            known: BTreeMap::new(),
            places: BTreeMap::new(),
            compared: 0,
        }
    }

    /// A write that a flush has just covered on this broker. Returns the entries in it.
    pub fn on_durable_write(
        &mut self,
        broker: usize,
        bytes: &[u8],
    ) -> Result<Vec<(EntryHeader, Id)>, Violation> {
        let mut found = Vec::new();
        for (header, body) in replicated(bytes) {
            self.note(&header, body)?;
            let id = id_of(&header);
            self.hold(broker, (header.lane.0, header.lsn.0), id);
            found.push((header, id));
        }
        Ok(found)
    }

    /// What a power cut left of files is durable. Of what lies at one LSN, what came last counts while it is there: that is
    /// what was not known to be durable, a write that no flush covered and that the cut kept. What is there no more, since
    /// it has rotted, was there last all the same: what it had replaced is not back.
    pub fn on_power_cut<'a>(
        &mut self,
        broker: usize,
        has_rotted: bool,
        files: impl Iterator<Item = &'a [u8]>,
    ) -> Checked {
        let mut found: BTreeMap<(u32, u64), BTreeSet<Id>> = BTreeMap::new();
        for file in files {
            for block in (0..file.len()).step_by(BLOCK_BYTES) {
                for (header, body) in replicated(&file[block..]) {
                    self.note(&header, body)?;
                    let key = (header.lane.0, header.lsn.0);
                    found.entry(key).or_default().insert(id_of(&header));
                }
            }
        }
        for (key, ids) in found {
            let is_there = |id: &&Id| has_rotted || ids.contains(id);
            let held = self.held[broker].get(&key).filter(is_there).copied();
            let seen = self.seen[broker].get(&key);
            let is_fresh = |id: &&Id| seen.is_none_or(|seen| !seen.contains(id));
            let fresh = ids.iter().rev().find(is_fresh).copied();
            if let Some(last) = fresh.or(held).or(ids.last().copied()) {
                self.hold(broker, key, last);
            }
        }
        Ok(())
    }

    fn hold(&mut self, broker: usize, key: (u32, u64), id: Id) {
        self.held[broker].insert(key, id);
        self.seen[broker].entry(key).or_default().insert(id);
    }

    /// An entry that is durable somewhere, or sent: the only one of its epoch and LSN.
    pub fn note(&mut self, header: &EntryHeader, body: &[u8]) -> Checked {
        let (lane, epoch, lsn) = (header.lane.0, header.epoch.0, header.lsn.0);
        let id = id_of(header);
        match self.known.entry((lane, epoch, lsn)) {
            Slot::Vacant(slot) => {
                slot.insert(Known { header: *header, id, sequence: sequence_of(header, body) });
            }
            Slot::Occupied(slot) => {
                self.compared += 1;
                if slot.get().id != id {
                    let text = format!("two entries of one epoch: {:?}, {header:?}", slot.get());
                    return Err(Violation::new("I7", text));
                }
                return Ok(());
            }
        }
        if header.kind == EntryKind::Batch {
            self.places.entry(placed_of(header)).or_default().insert((lane, lsn, epoch));
        }
        Ok(())
    }

    pub fn known(&self, lane: u32, epoch: u64, lsn: u64) -> Option<&Known> {
        self.known.get(&(lane, epoch, lsn))
    }

    /// Where the batch of an acknowledgment lies.
    pub fn find(&self, placed: &Placed, epoch: Epoch) -> Option<(u32, u64, Id)> {
        let places = self.places.get(placed)?;
        let (lane, lsn, epoch) = places.iter().find(|(_, _, of)| *of == epoch.0)?;
        Some((*lane, *lsn, self.known(*lane, *epoch, *lsn)?.id))
    }

    pub fn at(&self, broker: usize, lane: u32, lsn: u64) -> Option<Id> {
        self.held[broker].get(&(lane, lsn)).copied()
    }

    /// The entry that the most disks hold at an LSN, and how many.
    pub fn most_held(&self, lane: u32, lsn: u64) -> Option<(Id, usize)> {
        let mut counts: BTreeMap<Id, usize> = BTreeMap::new();
        for held in &self.held {
            if let Some(id) = held.get(&(lane, lsn)) {
                *counts.entry(*id).or_default() += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count)
    }

    /// Which entry each broker holds at an LSN, for texts.
    pub fn holders(&self, lane: u32, lsn: u64) -> Vec<Option<Id>> {
        (0..self.held.len()).map(|broker| self.at(broker, lane, lsn)).collect()
    }
}
