//! What a history must be like: whatever a quorum's disks acknowledged is there, once, where it was said to be, in
//! order, alike for every reader and on every replica; and nothing is there that nobody sent.

use std::collections::BTreeMap;

use corelog_protocol::Durability;

use super::{Anomaly, History, Partition, Reader, Reading, Reply, SeenBatch, Send, Spot, Verdict};
use crate::verify::content::Identity;

/// Replicas of a lane that make a quorum of three.
const QUORUM: u64 = 2;

/// What the cluster holds, as the last consumer got it.
struct Held<'a> {
    partitions: BTreeMap<Partition, Vec<&'a SeenBatch>>,
    spots: BTreeMap<Identity, Spot>,
}

impl<'a> Held<'a> {
    fn batch_of(&self, spot: Spot) -> Option<&'a SeenBatch> {
        let batches = self.partitions.get(&spot.partition)?;
        let at = batches.partition_point(|batch| batch.end() <= spot.offset);
        batches.get(at).copied().filter(|batch| batch.base <= spot.offset)
    }

    fn end(&self, partition: Partition) -> u64 {
        let batches = self.partitions.get(&partition);
        batches.and_then(|batches| batches.last()).map_or(0, |batch| batch.end())
    }
}

impl History {
    /// Judges the run, whose topics have these partitions.
    pub fn check(&self, partitions: &[Partition]) -> Verdict {
        let mut verdict = Verdict::default();
        let empty = Reading::new(Reader::Last);
        let last = self.readings.iter().find(|reading| reading.reader == Reader::Last);
        let last = last.unwrap_or(&empty);
        for &partition in partitions {
            let (read, end) = (last.next_offset(partition), last.ends.get(&partition));
            if end.is_none_or(|end| read < *end) {
                let (topic, partition) = partition;
                let end = end.map_or("an end that nobody told".into(), u64::to_string);
                verdict.unknown.push(format!(
                    "topic {topic}, partition {partition} was read to {read} of {end}"
                ));
            }
        }
        let held = self.hold(last, &mut verdict);
        let is_known = verdict.unknown.is_empty();
        self.check_sends(&held, is_known, &mut verdict);
        for reading in &self.readings {
            match reading.reader {
                Reader::Last => verdict.held = reading.len(),
                Reader::Consumer(_) => verdict.consumed += reading.len(),
                Reader::Disk(_) => {
                    verdict.disks += 1;
                    verdict.on_disks += reading.len();
                }
            }
            if reading.reader != Reader::Last {
                self.compare(reading, &held, partitions, is_known, &mut verdict);
            }
        }
        self.check_copies(&held, &mut verdict);
        verdict.tails = self.tails;
        self.diverged.iter().for_each(|anomaly| verdict.note(anomaly.clone()));
        verdict
    }

    fn send(&self, identity: Identity) -> Option<&Send> {
        self.producers.get(identity.producer as usize)?.sends.get(identity.number as usize)
    }

    fn level(&self, identity: Identity) -> Durability {
        let producer = self.producers.get(identity.producer as usize);
        producer.map_or(Durability::None, |producer| producer.level)
    }

    /// Whether this run can have sent it there by then.
    fn is_possible(&self, identity: Identity, partition: Partition, at: u64) -> bool {
        let producer = self.producers.get(identity.producer as usize);
        producer.is_some_and(|producer| producer.topic == partition.0)
            && self.send(identity).is_some_and(|send| send.at <= at)
    }

    /// Takes the last reading for what the cluster holds, and looks for what is wrong with it alone.
    fn hold<'a>(&self, last: &'a Reading, verdict: &mut Verdict) -> Held<'a> {
        let mut held = Held { partitions: BTreeMap::new(), spots: BTreeMap::new() };
        for (&partition, batches) in &last.partitions {
            check_dense(partition, batches, last.reader, verdict);
            let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
            // Of the records so far, the one that was sent last.
            let mut youngest: Option<(u64, Identity, Spot)> = None;
            for batch in batches {
                for (offset, seen) in (batch.base..).zip(&batch.records) {
                    let spot = Spot { partition, offset };
                    let possible = seen.filter(|seen| self.is_possible(*seen, partition, batch.at));
                    let Some(identity) = possible else {
                        verdict.note(Anomaly::Phantom { spot, reader: last.reader });
                        continue;
                    };
                    if let Some(first) = held.spots.insert(identity, spot) {
                        held.spots.insert(identity, first);
                        verdict.note(Anomaly::Duplicate { identity, first, second: spot });
                        continue;
                    }
                    let before = newest.entry(identity.producer).or_insert(identity.number);
                    if *before > identity.number {
                        verdict.note(Anomaly::Reordered { identity, spot, behind: *before });
                    }
                    *before = (*before).max(identity.number);
                    self.check_times(identity, spot, &mut youngest, verdict);
                }
                self.check_whole(partition, batch, last.reader, verdict);
            }
            held.partitions.insert(partition, batches.iter().collect());
        }
        held
    }

    /// Who was sent after another was acknowledged comes behind it.
    fn check_times(
        &self,
        identity: Identity,
        spot: Spot,
        youngest: &mut Option<(u64, Identity, Spot)>,
        verdict: &mut Verdict,
    ) {
        let Some(send) = self.send(identity) else { return };
        if let (Some((reply, Reply::Acknowledged { offset: Some(_), .. })), Some((sent, first, at))) =
            (send.reply, *youngest)
            && sent > reply
        {
            let (other, other_spot) = (identity, spot);
            verdict.note(Anomaly::Overtook { identity: first, spot: at, other, other_spot });
        }
        if youngest.is_none_or(|(sent, ..)| send.at > sent) {
            *youngest = Some((send.at, identity, spot));
        }
    }

    /// The records of a batch have one fate.
    fn check_whole(
        &self,
        partition: Partition,
        batch: &SeenBatch,
        reader: Reader,
        verdict: &mut Verdict,
    ) {
        let fate = |identity: &Identity| match self.send(*identity).and_then(|send| send.reply) {
            Some((_, Reply::Acknowledged { .. })) => 0,
            Some((_, Reply::Refused)) => 1,
            Some((_, Reply::Unknown)) | None => 2,
        };
        let mut fates = batch.records.iter().flatten().map(fate);
        let first = fates.next();
        if fates.any(|fate| Some(fate) != first) {
            let spot = Spot { partition, offset: batch.base };
            let records = batch.records.len() as u64;
            verdict.note(Anomaly::SplitBatch { spot, records, reader });
        }
    }

    /// Every acknowledgment, against what is held.
    fn check_sends(&self, held: &Held<'_>, is_known: bool, verdict: &mut Verdict) {
        let mut told_of: BTreeMap<Spot, Identity> = BTreeMap::new();
        for (number, producer) in (0..).zip(&self.producers) {
            let level = usize::from(producer.level.to_wire());
            for (send, at) in producer.sends.iter().zip(0..) {
                let identity = Identity { producer: number, number: at };
                let found = held.spots.get(&identity).copied();
                verdict.tallies[level].sent += 1;
                let is_calm = self.calm.contains(&send.at);
                if is_calm && !matches!(send.reply, Some((_, Reply::Acknowledged { .. }))) {
                    verdict.note(Anomaly::Disturbed { identity });
                }
                let tally = &mut verdict.tallies[level];
                match send.reply.map(|(_, reply)| reply) {
                    None | Some(Reply::Unknown) => {
                        tally.open += 1;
                        tally.open_seen += u64::from(found.is_some());
                    }
                    Some(Reply::Refused) => {
                        tally.refused += 1;
                        if let Some(spot) = found {
                            verdict.note(Anomaly::Refused { identity, spot });
                        }
                    }
                    Some(Reply::Acknowledged { offset: None, .. }) => {
                        tally.acknowledged += 1;
                        tally.gone += u64::from(found.is_none());
                    }
                    Some(Reply::Acknowledged { partition, offset: Some(offset) }) => {
                        tally.acknowledged += 1;
                        let told = Spot { partition: (producer.topic, partition), offset };
                        let is_promise = producer.level == Durability::QuorumDurable;
                        match found {
                            Some(found) if found != told => {
                                verdict.note(Anomaly::Misplaced { identity, told, found });
                            }
                            None if is_promise && is_known => {
                                verdict.note(Anomaly::Lost { identity, told });
                            }
                            None => {
                                tally.gone += 1;
                                if is_calm && is_known {
                                    verdict.note(Anomaly::Dropped { identity, told });
                                }
                            }
                            Some(_) => {}
                        }
                        if is_promise && let Some(other) = told_of.insert(told, identity) {
                            let spot = told;
                            verdict.note(Anomaly::OffsetConflict { identity, other, spot });
                        }
                    }
                }
            }
        }
    }

    /// What another reader got, against what is held.
    fn compare(
        &self,
        reading: &Reading,
        held: &Held<'_>,
        partitions: &[Partition],
        is_known: bool,
        verdict: &mut Verdict,
    ) {
        let reader = reading.reader;
        let is_disk = matches!(reader, Reader::Disk(_));
        for (&partition, batches) in &reading.partitions {
            check_dense(partition, batches, reader, verdict);
            for batch in batches {
                let spot = Spot { partition, offset: batch.base };
                // Where a disk reaches further than the leader's committed end, nobody was promised anything.
                let is_beyond = batch.base >= held.end(partition);
                if is_beyond && (is_disk || !is_known) {
                    continue;
                }
                let same = held.batch_of(spot);
                let is_split = same.is_some_and(|same| {
                    same.records.len() != batch.records.len() && shares_a_start(same, batch)
                });
                if is_split {
                    let records = batch.records.len() as u64;
                    verdict.note(Anomaly::SplitBatch { spot, records, reader });
                }
                for (offset, seen) in (batch.base..).zip(&batch.records) {
                    let spot = Spot { partition, offset };
                    let possible = seen.filter(|seen| self.is_possible(*seen, partition, batch.at));
                    let Some(seen) = possible else {
                        verdict.note(Anomaly::Phantom { spot, reader });
                        continue;
                    };
                    let there = held.batch_of(spot).and_then(|batch| {
                        batch.records.get((offset - batch.base) as usize).copied().flatten()
                    });
                    if there == Some(seen) {
                        continue;
                    }
                    verdict.note(match is_disk {
                        true => Anomaly::Divergence { spot, reader },
                        false => Anomaly::Vanished { spot, seen, reader },
                    });
                }
            }
        }
        if is_disk {
            let behind = |at: &Partition| held.end(*at).saturating_sub(reading.next_offset(*at));
            verdict.behind += partitions.iter().map(behind).sum::<u64>();
        }
    }

    /// What a quorum's disks acknowledged is on a quorum's disks. Nothing is said unless three were read.
    fn check_copies(&self, held: &Held<'_>, verdict: &mut Verdict) {
        let disks: Vec<&Reading> =
            self.readings.iter().filter(|at| matches!(at.reader, Reader::Disk(_))).collect();
        if disks.len() < 3 {
            return;
        }
        for (&identity, &spot) in &held.spots {
            let reply = self.send(identity).and_then(|send| send.reply);
            let is_told = matches!(reply, Some((_, Reply::Acknowledged { .. })));
            if !is_told || self.level(identity) != Durability::QuorumDurable {
                continue;
            }
            let copies = disks.iter().filter(|disk| has(disk, spot)).count() as u64;
            if copies < QUORUM {
                verdict.note(Anomaly::TooFewCopies { identity, spot, copies });
            }
        }
    }
}

fn has(reading: &Reading, spot: Spot) -> bool {
    let Some(batches) = reading.partitions.get(&spot.partition) else { return false };
    let at = batches.partition_point(|batch| batch.end() <= spot.offset);
    batches.get(at).is_some_and(|batch| batch.base <= spot.offset)
}

fn shares_a_start(one: &SeenBatch, other: &SeenBatch) -> bool {
    one.base == other.base && one.records.first() == other.records.first()
}

/// Offsets of a partition begin with 0 and have no holes: nothing is removed in a run.
fn check_dense(partition: Partition, batches: &[SeenBatch], reader: Reader, verdict: &mut Verdict) {
    let mut next = 0;
    for batch in batches {
        if batch.base != next {
            let spot = Spot { partition, offset: next };
            verdict.note(Anomaly::Gap { spot, found: batch.base, reader });
        }
        next = batch.end();
    }
}
