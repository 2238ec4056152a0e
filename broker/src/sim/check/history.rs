//! I1, I3, I4, I5: what clients were told and what they read must fit together, over crashes.

use std::collections::{BTreeMap, BTreeSet};

use super::record::RecordId;
use crate::sim::trace::{Checked, Violation};

/// A partition of a topic of the run. Topics are numbered by the run, and never made twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PartitionRef {
    pub topic: usize,
    pub partition: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Open,
    /// Acknowledged at this place.
    Acked(PartitionRef, u64),
    /// Acknowledged without a place: level `none`.
    Sent,
    Definite,
    Indefinite,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    topic: usize,
    bytes: u32,
    wall_ms: i64,
    fate: Fate,
    seen: Option<(PartitionRef, u64)>,
    /// The medium lost it, and no promise about it is left.
    is_void: bool,
}

impl Sent {
    fn acked(&self) -> Option<(PartitionRef, u64)> {
        match self.fate {
            Fate::Acked(place, offset) => Some((place, offset)),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Partition {
    /// Acknowledged durable, by offset.
    acked: BTreeMap<u64, RecordId>,
    /// Seen by a consumer, by offset.
    seen: BTreeMap<u64, RecordId>,
    /// The least offset whose record the medium lost beyond all that it attests.
    void_from: Option<u64>,
}

/// What retention a topic has, if any.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kept {
    pub age_ms: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct Topic {
    kept: Kept,
    deleted: bool,
}

#[derive(Debug, Default)]
pub struct History {
    topics: Vec<Topic>,
    partitions: BTreeMap<PartitionRef, Partition>,
    /// By producer, then sequence.
    sent: Vec<Vec<Sent>>,
    pub read_back: u64,
    pub failures: u64,
    pub definite: u64,
    pub indefinite: u64,
    pub indefinite_seen: u64,
    /// Durable records that damage has made unreadable, with a typed error.
    pub lost_to_damage: u64,
    /// Durable records that the medium lost beyond all that it attests.
    pub voided: u64,
}

/// What a full read of a partition found, while nothing else happened.
#[derive(Debug, Default)]
pub struct ReadBack {
    pub log_start: u64,
    pub committed_end: u64,
    pub records: BTreeMap<u64, RecordId>,
    /// Ranges that the broker called corrupt, end excluded.
    pub corrupt: Vec<(u64, u64)>,
}

impl History {
    pub fn add_topic(&mut self, kept: Kept) -> usize {
        self.topics.push(Topic { kept, deleted: false });
        self.topics.len() - 1
    }

    /// From here on nothing is promised about this topic.
    pub fn on_deleting(&mut self, topic: usize) {
        self.topics[topic].deleted = true;
    }

    pub fn is_deleted(&self, topic: usize) -> bool {
        self.topics[topic].deleted
    }

    pub fn add_producer(&mut self) -> u32 {
        self.sent.push(Vec::new());
        self.sent.len() as u32 - 1
    }

    /// A record is about to be handed to a client.
    pub fn on_send(&mut self, producer: u32, topic: usize, bytes: usize, wall_ms: i64) -> RecordId {
        let sent = &mut self.sent[producer as usize];
        let sequence = sent.len() as u32;
        sent.push(Sent {
            topic,
            bytes: bytes as u32,
            wall_ms,
            fate: Fate::Open,
            seen: None,
            is_void: false,
        });
        RecordId { producer, sequence }
    }

    /// `offset`: none at level `none`. `durable`: the level reached survives a crash.
    pub fn on_delivered(
        &mut self,
        id: RecordId,
        place: PartitionRef,
        offset: Option<u64>,
        durable: bool,
    ) -> Checked {
        let sent = self.record(id)?;
        if sent.fate != Fate::Open {
            return Err(Violation::new(
                "client",
                format!("{id:?} is delivered after {:?}", sent.fate),
            ));
        }
        let Some(offset) = offset else {
            sent.fate = Fate::Sent;
            return Ok(());
        };
        sent.fate = Fate::Acked(place, offset);
        match sent.seen {
            Some(seen) if seen != (place, offset) => {
                return Err(Violation::new(
                    "I4",
                    format!("{id:?} was seen at {seen:?} and acknowledged at {place:?} {offset}"),
                ));
            }
            _ => {}
        }
        if !durable || sent.is_void {
            return Ok(());
        }
        let partition = self.partitions.entry(place).or_default();
        let other =
            partition.acked.insert(offset, id).or_else(|| partition.seen.get(&offset).copied());
        match other {
            Some(other) if other != id => {
                let text = format!(
                    "{place:?} offset {offset} was acknowledged for {id:?} and belongs to {other:?}"
                );
                Err(Violation::new("I4", text))
            }
            _ => Ok(()),
        }
    }

    pub fn on_failed(&mut self, id: RecordId, definite: bool) -> Checked {
        self.failures += 1;
        *(if definite { &mut self.definite } else { &mut self.indefinite }) += 1;
        let sent = self.record(id)?;
        if sent.fate != Fate::Open {
            return Err(Violation::new("client", format!("{id:?} fails after {:?}", sent.fate)));
        }
        sent.fate = if definite { Fate::Definite } else { Fate::Indefinite };
        match sent.seen {
            Some(seen) if definite => Err(Violation::new(
                "I5",
                format!("{id:?} failed for certain and was seen at {seen:?}"),
            )),
            _ => Ok(()),
        }
    }

    /// A consumer has read a record whose bytes agree with its identity.
    pub fn on_seen(
        &mut self,
        id: RecordId,
        bytes: usize,
        place: PartitionRef,
        offset: u64,
    ) -> Checked {
        let sent = self.record(id)?;
        if sent.topic != place.topic || sent.bytes as usize != bytes {
            return Err(Violation::new(
                "I10",
                format!("{id:?} was read at {place:?} {offset}, it was sent as {sent:?}"),
            ));
        }
        match (sent.fate, sent.seen) {
            (Fate::Definite, _) => {
                let text = format!("{id:?} failed for certain and is at {place:?} offset {offset}");
                return Err(Violation::new("I5", text));
            }
            (_, Some(seen)) if seen != (place, offset) => {
                let text = format!("{id:?} is at {seen:?} and at {place:?} offset {offset}");
                return Err(Violation::new("I5", text));
            }
            (Fate::Acked(at, acked), _) if (at, acked) != (place, offset) => {
                let text = format!(
                    "{id:?} was acknowledged at {at:?} {acked} and read at {place:?} {offset}"
                );
                return Err(Violation::new("I4", text));
            }
            _ if sent.is_void => return Ok(()),
            (fate, None) => {
                sent.seen = Some((place, offset));
                if fate == Fate::Indefinite {
                    self.indefinite_seen += 1;
                }
            }
            _ => {}
        }
        let partition = self.partitions.entry(place).or_default();
        let seen =
            partition.seen.insert(offset, id).or_else(|| partition.acked.get(&offset).copied());
        match seen {
            Some(other) if other != id => {
                let text = format!("{place:?} offset {offset} was {other:?} and is now {id:?}");
                Err(Violation::new("I3", text))
            }
            _ => Ok(()),
        }
    }

    /// The medium lost these records of a partition, the first of them at offset `first`, and nothing on it
    /// attests that they were durable: from now on each may be there or not, its offset may belong to
    /// another, and the partition may have ended at the first.
    pub fn void(&mut self, first: u64, records: &[RecordId]) {
        let mut place = None;
        for id in records {
            let Ok(sent) = self.record(*id) else { continue };
            sent.is_void = true;
            let seen = sent.seen.take();
            for (at, offset) in seen.into_iter().chain(sent.acked()) {
                place = Some(at);
                let Some(partition) = self.partitions.get_mut(&at) else { continue };
                if partition.acked.get(&offset) == Some(id) {
                    partition.acked.remove(&offset);
                    self.voided += 1;
                }
                if partition.seen.get(&offset) == Some(id) {
                    partition.seen.remove(&offset);
                }
            }
        }
        // Of which nobody was told anything, nothing was promised.
        if let Some(partition) = place.and_then(|place| self.partitions.get_mut(&place)) {
            partition.void_from = Some(partition.void_from.map_or(first, |from| from.min(first)));
        }
    }

    /// Whether the medium has lost so much that a partition may have ended here.
    pub fn may_have_ended(&self, place: PartitionRef, end: u64) -> bool {
        let from = self.partitions.get(&place).and_then(|partition| partition.void_from);
        from.is_some_and(|from| from <= end)
    }

    /// The topics' partitions about which something is promised.
    pub fn promised(&self) -> BTreeSet<PartitionRef> {
        let places = self.partitions.keys().copied();
        places.filter(|place| !self.topics[place.topic].deleted).collect()
    }

    /// The end that a partition must have by now: after all that was acknowledged or seen.
    pub fn end_at_least(&self, place: PartitionRef) -> u64 {
        let Some(partition) = self.partitions.get(&place) else { return 0 };
        let last = |known: &BTreeMap<u64, RecordId>| {
            known.last_key_value().map_or(0, |(offset, _)| offset + 1)
        };
        last(&partition.acked).max(last(&partition.seen))
    }

    /// Compares a full read with all that was promised. `damaged`: the medium of this run broke its
    /// word, so that typed gaps are in order; wrong bytes never are, nor an end that falls.
    pub fn check_read_back(
        &mut self,
        place: PartitionRef,
        read: &ReadBack,
        wall_ms: i64,
        damaged: bool,
    ) -> Checked {
        let Some(partition) = self.partitions.get(&place) else { return Ok(()) };
        let at = |offset: u64| format!("{place:?} offset {offset}");
        for (offset, id) in partition.acked.iter().chain(&partition.seen) {
            // Later ones came after the bounds were asked for.
            if *offset < read.log_start || *offset >= read.committed_end {
                continue;
            }
            match read.records.get(offset) {
                Some(found) if found == id => self.read_back += 1,
                Some(found) => {
                    let text = format!("{} was {id:?} and is now {found:?}", at(*offset));
                    return Err(Violation::new("I1", text));
                }
                None if damaged => {
                    let typed =
                        read.corrupt.iter().any(|(first, end)| (*first..*end).contains(offset));
                    if !typed {
                        let text = format!(
                            "{} held {id:?}; after damage it is gone without a typed error ({}..{}, corrupt {:?})",
                            at(*offset),
                            read.log_start,
                            read.committed_end,
                            read.corrupt
                        );
                        return Err(Violation::new("I10", text));
                    }
                    self.lost_to_damage += 1;
                }
                None => {
                    let text = format!(
                        "{} held {id:?} and is gone (log {}..{})",
                        at(*offset),
                        read.log_start,
                        read.committed_end
                    );
                    return Err(Violation::new("I1", text));
                }
            }
        }
        if !damaged && !read.corrupt.is_empty() {
            return Err(Violation::new(
                "I10",
                format!("{place:?} reports corruption that never was: {:?}", read.corrupt),
            ));
        }
        self.check_dense(place, read)?;
        self.check_retention(place, read, wall_ms)
    }

    /// I4: every offset is there, or refused. The order is seen by [`super::order`].
    fn check_dense(&self, place: PartitionRef, read: &ReadBack) -> Checked {
        let corrupt: u64 = read.corrupt.iter().map(|(first, end)| end - first).sum();
        let expected = read.committed_end - read.log_start;
        if read.records.len() as u64 + corrupt < expected {
            let text = format!(
                "{place:?} has {} records in {}..{}",
                read.records.len(),
                read.log_start,
                read.committed_end
            );
            return Err(Violation::new("I4", text));
        }
        Ok(())
    }

    /// I1 ends with retention, but only there.
    fn check_retention(&self, place: PartitionRef, read: &ReadBack, wall_ms: i64) -> Checked {
        if read.log_start == 0 {
            return Ok(());
        }
        let Partition { acked, seen, .. } = &self.partitions[&place];
        let Kept { age_ms, bytes } = self.topics[place.topic].kept;
        // A lower bound of what stays: values alone, without keys and headers.
        let kept: u64 = read
            .records
            .values()
            .map(|id| u64::from(self.sent_of(*id).bytes) + OVERHEAD_BYTES_MAX)
            .sum();
        // What is damaged is kept, too: the medium changed it, not retention.
        let mut damaged = 0;
        for &(from, end) in &read.corrupt {
            let known: BTreeMap<u64, RecordId> = acked
                .range(from..end)
                .chain(seen.range(from..end))
                .map(|(at, id)| (*at, *id))
                .collect();
            if (known.len() as u64) < end - from {
                // How long records were whose end nobody was told cannot be said.
                return Ok(());
            }
            let bytes = known.values().map(|id| u64::from(self.sent_of(*id).bytes));
            damaged += bytes.map(|bytes| bytes + OVERHEAD_BYTES_MAX).sum::<u64>();
        }
        let kept = kept + damaged;
        let by_size = bytes.is_some_and(|bytes| kept >= bytes);
        let gone = acked.range(..read.log_start).chain(seen.range(..read.log_start));
        let youngest = gone.map(|(_, id)| self.sent_of(*id).wall_ms).max();
        let by_age = age_ms
            .is_some_and(|age| youngest.is_none_or(|youngest| wall_ms - youngest >= age as i64));
        if by_size || by_age {
            return Ok(());
        }
        let text = format!(
            "{place:?} starts at {}: {kept} bytes are kept of {bytes:?}, the youngest gone is {youngest:?} at {wall_ms} (age {age_ms:?})",
            read.log_start
        );
        Err(Violation::new("I1", text))
    }

    fn sent_of(&self, id: RecordId) -> &Sent {
        &self.sent[id.producer as usize][id.sequence as usize]
    }

    fn record(&mut self, id: RecordId) -> Result<&mut Sent, Violation> {
        let sent = self
            .sent
            .get_mut(id.producer as usize)
            .and_then(|sent| sent.get_mut(id.sequence as usize));
        sent.ok_or_else(|| Violation::new("I10", format!("{id:?} was never sent")))
    }

    /// Records whose fate is not known to their producer.
    pub fn open(&self) -> u64 {
        let open = self.sent.iter().flatten().filter(|sent| sent.fate == Fate::Open);
        open.count() as u64
    }
}

/// A record alone in its batch: entry header, batch header, record framing, key, padding.
const OVERHEAD_BYTES_MAX: u64 = 64 + 48 + 24 + 16 + 8;

impl ReadBack {
    /// Whether every offset up to the end was read or refused.
    pub fn is_complete(&self) -> bool {
        let read = self.records.last_key_value().map_or(self.log_start, |(offset, _)| offset + 1);
        let refused = self.corrupt.iter().map(|(_, end)| *end).max().unwrap_or_default();
        read.max(refused) >= self.committed_end
    }
}
