//! The history of a run on a cluster: every send and its reply with their times, and everything that was read, by
//! whom. [`check`](History::check) names what must not be.
//!
//! Times are nanoseconds since the run began. Pure: no clock, no sockets, no files. A record is known by its value
//! ([`verify::content`](crate::verify::content)), of which every byte follows from its producer and number.

mod anomaly;
mod check;
mod lineage;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::ops::Range;

use corelog_protocol::Durability;

pub use crate::verify::Partition;
use crate::verify::content::{self, Identity};
pub use anomaly::{Anomaly, Reader, Spot};
pub use lineage::{Disk, Entry, Log};
pub use verdict::Verdict;

/// All that is known of a run.
pub struct History {
    seed: u64,
    producers: Vec<Producer>,
    /// What every consumer and every replica's disk gave.
    readings: Vec<Reading>,
    /// Where disks have parted that should not.
    diverged: Vec<Anomaly>,
    /// Records on disks that nobody was promised: tails of leaders that were deposed.
    tails: u64,
    /// What was sent then met planned operations alone.
    calm: Range<u64>,
}

struct Producer {
    topic: u32,
    keys: Option<u64>,
    level: Durability,
    sends: Vec<Send>,
}

#[derive(Clone, Copy)]
struct Send {
    at: u64,
    reply: Option<(u64, Reply)>,
}

/// What a producer was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Level `none` has no offset.
    Acknowledged { partition: u32, offset: Option<u64> },
    /// It has not happened and never will.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
}

/// A record as it was read: the identity in its value, if this run can have sent it so, key included.
pub type Seen = Option<Identity>;

/// A batch as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenBatch {
    pub base: u64,
    /// When, for what a consumer got while the run went on; `u64::MAX` for what was read behind its end.
    pub at: u64,
    pub records: Vec<Seen>,
}

impl SeenBatch {
    pub fn end(&self) -> u64 {
        self.base + self.records.len() as u64
    }
}

/// Everything that one reader got.
#[derive(Clone)]
pub struct Reading {
    pub reader: Reader,
    pub partitions: BTreeMap<Partition, Vec<SeenBatch>>,
    /// Of the last reading: the committed end of each partition, as its leader told it.
    pub ends: BTreeMap<Partition, u64>,
}

impl Reading {
    pub fn new(reader: Reader) -> Self {
        Self { reader, partitions: BTreeMap::new(), ends: BTreeMap::new() }
    }

    pub fn push(&mut self, partition: Partition, batch: SeenBatch) {
        self.partitions.entry(partition).or_default().push(batch);
    }

    /// The offset behind the last batch of a partition.
    pub fn next_offset(&self, partition: Partition) -> u64 {
        let last = self.partitions.get(&partition).and_then(|batches| batches.last());
        last.map_or(0, SeenBatch::end)
    }

    /// Records in it.
    pub fn len(&self) -> u64 {
        self.partitions.values().flatten().map(|batch| batch.records.len() as u64).sum()
    }

    /// Whether every partition was read to the committed end that its leader told.
    pub fn is_complete(&self, partitions: impl IntoIterator<Item = Partition>) -> bool {
        partitions
            .into_iter()
            .all(|at| self.ends.get(&at).is_some_and(|end| self.next_offset(at) >= *end))
    }
}

impl History {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            producers: Vec::new(),
            readings: Vec::new(),
            diverged: Vec::new(),
            tails: 0,
            calm: 0..0,
        }
    }

    /// A producer of one topic, with so many keys or none. Producers are numbered from 0.
    pub fn add_producer(&mut self, topic: u32, keys: Option<u64>, level: Durability) -> u32 {
        self.producers.push(Producer { topic, keys, level, sends: Vec::new() });
        (self.producers.len() - 1) as u32
    }

    /// The next record of a producer; it is under way from now on.
    pub fn on_send(&mut self, producer: u32, at: u64) -> Identity {
        let sends = &mut self.producers[producer as usize].sends;
        sends.push(Send { at, reply: None });
        Identity { producer, number: sends.len() as u64 - 1 }
    }

    /// The last word on a record.
    pub fn on_reply(&mut self, identity: Identity, at: u64, reply: Reply) {
        let producer = &mut self.producers[identity.producer as usize];
        producer.sends[identity.number as usize].reply = Some((at, reply));
    }

    /// What a record that was read is, by its key and value.
    pub fn recognise(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Seen {
        let identity = content::identify(self.seed, value?)?;
        let producer = self.producers.get(identity.producer as usize)?;
        let expected = producer.keys.map(|keys| content::key(identity, keys));
        (expected.as_ref().map(|key| &key[..]) == key).then_some(identity)
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn add_reading(&mut self, reading: Reading) {
        self.readings.push(reading);
    }

    /// Nothing that was sent in this time may be lost, at any level that is acknowledged, and no producer be told of an
    /// error.
    pub fn expect_calm(&mut self, calm: Range<u64>) {
        self.calm = calm;
    }

    /// All replicas' disks, each as far as it is one history with the others.
    pub fn add_disks(&mut self, disks: &[Disk]) {
        let settled = lineage::settle(disks);
        self.readings.extend(settled.readings);
        self.diverged.extend(settled.diverged);
        self.tails += settled.tails;
    }

    /// Whether the partition acknowledged a record of this level that was sent at `since` or later.
    pub fn has_acknowledged(&self, partition: Partition, level: Durability, since: u64) -> bool {
        let of_topic =
            |producer: &&Producer| producer.topic == partition.0 && producer.level == level;
        self.producers.iter().filter(of_topic).any(|producer| {
            let recent = producer.sends.iter().rev().take_while(|send| send.at >= since);
            recent.filter_map(|send| send.reply).any(|(_, reply)| {
                matches!(reply, Reply::Acknowledged { partition: at, .. } if at == partition.1)
            })
        })
    }

    /// When the partition acknowledged records of this level, ascending, ns.
    pub fn acknowledged_at(&self, partition: Partition, level: Durability) -> Vec<u64> {
        let of_topic =
            |producer: &&Producer| producer.topic == partition.0 && producer.level == level;
        let sends = self.producers.iter().filter(of_topic).flat_map(|producer| &producer.sends);
        let mut times: Vec<u64> = sends
            .filter_map(|send| match send.reply {
                Some((at, Reply::Acknowledged { partition: found, .. })) => {
                    (found == partition.1).then_some(at)
                }
                _ => None,
            })
            .collect();
        times.sort_unstable();
        times
    }
}
