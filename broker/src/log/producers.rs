//! Who produced what lately: for each producer and partition the last batches, so that one that comes again is
//! recognised (idempotence as in Kafka's KIP-98). A fold over the batches of the lane, in the order of LSNs: the same after
//! a restart, after truncation, and after the segments that held the batches have expired, since the first entry
//! of each segment carries it (`format/checkpoint.rs`).
//!
//! Bounded twice: a producer that wrote nothing to a partition for a day is forgotten, and beyond the configured
//! number the one that was silent longest. Both follow from the log alone, so that every fold forgets the same.
//!
//! Whoever has forgotten must not take a retry for news: until a day after the last batch that may be forgotten,
//! a first batch that was sent before is unknown, not new.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use corelog_protocol::batch::BatchHeader;
use corelog_protocol::ids::{Epoch, Lsn, Offset, PartitionId, ProducerId};
use corelog_protocol::produce::FormerStamp;

use super::format::checkpoint::{BatchImage, ProducerImage, REMEMBERED};
use crate::planted::{Bug, is_planted};

/// No slot.
const NONE: u32 = u32::MAX;

/// What a batch says of its producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub partition: PartitionId,
    pub producer: ProducerId,
    pub epoch: u16,
    /// Of the first record.
    pub sequence: u32,
    pub record_count: u32,
    /// Of the whole batch: tells a retry from other bytes under the same sequence.
    pub crc: u32,
}

impl Claim {
    /// Of a batch with this header and this checksum; `None` if it names no producer.
    pub fn of(partition: PartitionId, header: &BatchHeader, crc: u32) -> Option<Self> {
        (header.producer_id != ProducerId(0)).then_some(Self {
            partition,
            producer: header.producer_id,
            epoch: header.producer_epoch,
            sequence: header.base_sequence,
            record_count: header.record_count,
            crc,
        })
    }

    /// From the head of a stored batch; `None` if it names no producer.
    pub fn read(partition: PartitionId, batch: &[u8]) -> Option<Self> {
        let crc = u32::from_le_bytes(*batch.first_chunk()?);
        let records_len = u32::from_le_bytes(*batch.get(8..)?.first_chunk()?);
        let len = corelog_protocol::batch::BATCH_HEADER_BYTES + records_len as usize;
        Self::of(partition, &BatchHeader::check(batch, len).ok()?, crc)
    }
}

/// A batch that was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    pub sequence: u32,
    pub record_count: u32,
    pub crc: u32,
    pub lsn: Lsn,
    pub base_offset: Offset,
    /// The lane's.
    pub epoch: Epoch,
    pub append_time: i64,
}

impl Known {
    /// The batch of this claim, appended there.
    pub fn new(
        claim: &Claim,
        lsn: Lsn,
        base_offset: Offset,
        epoch: Epoch,
        append_time: i64,
    ) -> Self {
        let Claim { sequence, record_count, crc, .. } = *claim;
        Self { sequence, record_count, crc, lsn, base_offset, epoch, append_time }
    }

    fn next(&self) -> u32 {
        self.sequence.wrapping_add(self.record_count)
    }
}

/// What is to become of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is the next: append it.
    New,
    /// It is there already.
    Duplicate(Known),
    /// It is there already, but too many have come since to say where.
    DuplicateForgotten,
    /// Its sequence was used for other bytes.
    Mismatch,
    /// One before it has not come.
    Gap,
    /// A later epoch of its producer has written.
    Fenced,
    /// Nothing is known of its producer, and it is not the first, or the first may be forgotten.
    Unknown,
}

#[derive(Debug)]
struct Producer {
    key: (PartitionId, ProducerId),
    epoch: u16,
    /// Oldest first.
    batches: [Known; REMEMBERED],
    count: usize,
    /// When it wrote last, ms.
    time: i64,
    older: u32,
    newer: u32,
}

impl Producer {
    fn batches(&self) -> &[Known] {
        &self.batches[..self.count]
    }
}

/// All of a lane.
#[derive(Debug)]
pub struct Producers {
    by_key: BTreeMap<(PartitionId, ProducerId), u32>,
    slots: Vec<Producer>,
    free: Vec<u32>,
    /// Ends of the list in the order of their last batches.
    oldest: u32,
    newest: u32,
    count_max: usize,
    idle_ms_max: i64,
    /// No batch that was forgotten before its day was over is younger, ms. `None`: there is none.
    forgotten_time: Option<i64>,
}

impl Producers {
    pub fn new(count_max: usize, idle_ms_max: i64) -> Self {
        Self {
            by_key: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            count_max: count_max.max(1),
            idle_ms_max,
            forgotten_time: None,
        }
    }

    /// For a checkpoint: what [`Self::load`] must be told.
    pub fn forgotten_time(&self) -> Option<i64> {
        self.forgotten_time
    }

    /// Batches were lost, the youngest of them at most this old, ms since 1970.
    pub fn on_lost(&mut self, time: i64) {
        self.forgotten_time = self.forgotten_time.max(Some(time));
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    fn find(&self, claim: &Claim) -> Option<u32> {
        self.by_key.get(&(claim.partition, claim.producer)).copied()
    }

    /// `sent_before`: it may stand in the log already.
    pub fn judge(&self, claim: &Claim, sent_before: bool) -> Verdict {
        let is_first = claim.sequence == 0;
        let Some(at) = self.find(claim) else {
            let may_be_forgotten =
                sent_before && self.forgotten_time.is_some() && !is_planted(Bug::SentBeforeIgnored);
            return if is_first && !may_be_forgotten { Verdict::New } else { Verdict::Unknown };
        };
        let producer = &self.slots[at as usize];
        if claim.epoch != producer.epoch {
            return match (claim.epoch > producer.epoch, is_first) {
                (true, true) => Verdict::New,
                (true, false) => Verdict::Gap,
                (false, _) if is_planted(Bug::OldEpochAccepted) => Verdict::New,
                (false, _) => Verdict::Fenced,
            };
        }
        let Some(last) = producer.batches().last() else { return Verdict::Unknown };
        if claim.sequence == last.next() {
            return Verdict::New;
        }
        let same = producer.batches().iter().find(|known| known.sequence == claim.sequence);
        if let Some(known) = same {
            let is_same = known.record_count == claim.record_count && known.crc == claim.crc;
            if is_planted(Bug::DuplicateAppended) {
                return Verdict::New;
            }
            return if is_same { Verdict::Duplicate(*known) } else { Verdict::Mismatch };
        }
        if !is_behind(claim.sequence, last.next()) {
            return if is_planted(Bug::GapAccepted) { Verdict::New } else { Verdict::Gap };
        }
        let first = producer.batches()[0].sequence;
        match is_behind(claim.sequence, first) {
            true => Verdict::DuplicateForgotten,
            false => Verdict::Mismatch,
        }
    }

    /// Of a batch that may stand in the log under a former stamp, and has one of a later epoch now: both are judged at
    /// once, so that no copy under the former one can come in between.
    pub fn judge_renewed(&self, claim: &Claim, former: FormerStamp) -> Verdict {
        let known = self.find(claim).map(|at| &self.slots[at as usize]);
        let Some(producer) = known.filter(|producer| producer.epoch < claim.epoch) else {
            // Nothing is known of it, or something of the later epoch, whose first batch was judged like this.
            return self.judge(claim, true);
        };
        if claim.sequence != 0 {
            return Verdict::Gap;
        }
        match producer.epoch.cmp(&former.epoch) {
            Ordering::Less => return Verdict::New,
            // What came before that epoch is not remembered.
            Ordering::Greater => return Verdict::Unknown,
            Ordering::Equal if is_planted(Bug::FormerStampIgnored) => return Verdict::New,
            Ordering::Equal => {}
        }
        let same = producer.batches().iter().find(|known| known.sequence == former.sequence);
        if let Some(known) = same {
            // The stamp is part of the checksum, so that cannot be compared.
            let is_same = known.record_count == claim.record_count;
            return if is_same { Verdict::Duplicate(*known) } else { Verdict::Mismatch };
        }
        let [Some(first), Some(last)] = [producer.batches().first(), producer.batches().last()]
        else {
            return Verdict::Unknown;
        };
        if former.sequence == last.next() || !is_behind(former.sequence, last.next()) {
            return Verdict::New;
        }
        match is_behind(former.sequence, first.sequence) {
            true => Verdict::DuplicateForgotten,
            false => Verdict::Mismatch,
        }
    }

    /// Takes note of a batch that was appended or found.
    pub fn record(&mut self, claim: &Claim, known: Known) {
        self.forget_silent(known.append_time);
        let at = match self.find(claim) {
            Some(at) => {
                self.unlink(at);
                at
            }
            None => {
                while self.by_key.len() >= self.count_max {
                    let evicted = self.forget(self.oldest);
                    self.on_lost(evicted);
                }
                self.insert(claim, known)
            }
        };
        let producer = &mut self.slots[at as usize];
        if producer.epoch != claim.epoch {
            (producer.epoch, producer.count) = (claim.epoch, 0);
        }
        if producer.count == REMEMBERED {
            producer.batches.copy_within(1.., 0);
            producer.count -= 1;
        }
        producer.batches[producer.count] = known;
        producer.count += 1;
        producer.time = known.append_time;
        self.link_newest(at);
    }

    fn insert(&mut self, claim: &Claim, known: Known) -> u32 {
        let key = (claim.partition, claim.producer);
        let producer = Producer {
            key,
            epoch: claim.epoch,
            batches: [known; REMEMBERED],
            count: 0,
            time: known.append_time,
            older: NONE,
            newer: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = producer;
                at
            }
            None => {
                self.slots.push(producer);
                self.slots.len() as u32 - 1
            }
        };
        self.by_key.insert(key, at);
        at
    }

    fn forget_silent(&mut self, now_ms: i64) {
        while let Some(oldest) = self.slots.get(self.oldest as usize)
            && oldest.time.saturating_add(self.idle_ms_max) < now_ms
        {
            self.forget(self.oldest);
        }
        // Whose day is over is forgotten anyway.
        self.forgotten_time =
            self.forgotten_time.filter(|time| time.saturating_add(self.idle_ms_max) >= now_ms);
    }

    /// Returns when it wrote last.
    fn forget(&mut self, at: u32) -> i64 {
        self.unlink(at);
        let Producer { key, time, .. } = self.slots[at as usize];
        self.by_key.remove(&key);
        self.free.push(at);
        time
    }

    fn link_newest(&mut self, at: u32) {
        let newest = std::mem::replace(&mut self.newest, at);
        let producer = &mut self.slots[at as usize];
        (producer.older, producer.newer) = (newest, NONE);
        match self.slots.get_mut(newest as usize) {
            Some(before) => before.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Producer { older, newer, .. } = self.slots[at as usize];
        match self.slots.get_mut(older as usize) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(after) => after.older = older,
            None => self.newest = older,
        }
    }

    /// For a checkpoint: the one that was silent longest first.
    pub fn images(&self) -> Vec<ProducerImage> {
        let mut images = Vec::with_capacity(self.len());
        let mut at = self.oldest;
        while let Some(producer) = self.slots.get(at as usize) {
            let mut batches = [BatchImage::default(); REMEMBERED];
            for (image, known) in batches.iter_mut().zip(producer.batches()) {
                *image = BatchImage {
                    base_offset: known.base_offset.0,
                    lsn: known.lsn.0,
                    epoch: known.epoch.0,
                    append_time: known.append_time,
                    sequence: known.sequence,
                    record_count: known.record_count,
                    crc: known.crc,
                };
            }
            images.push(ProducerImage {
                producer: producer.key.1.0,
                partition: producer.key.0.0,
                epoch: producer.epoch,
                count: producer.count as u16,
                batches,
            });
            at = producer.newer;
        }
        images
    }

    /// Becomes what a checkpoint holds.
    pub fn load(&mut self, images: &[ProducerImage], forgotten_time: Option<i64>) {
        *self = Self::new(self.count_max, self.idle_ms_max);
        for image in images {
            for batch in image.batches.iter().take(usize::from(image.count)) {
                let claim = Claim {
                    partition: PartitionId(image.partition),
                    producer: ProducerId(image.producer),
                    epoch: image.epoch,
                    sequence: batch.sequence,
                    record_count: batch.record_count,
                    crc: batch.crc,
                };
                let (lsn, base_offset) = (Lsn(batch.lsn), Offset(batch.base_offset));
                let epoch = Epoch(batch.epoch);
                let known = Known::new(&claim, lsn, base_offset, epoch, batch.append_time);
                self.record(&claim, known);
            }
        }
        self.forgotten_time = self.forgotten_time.max(forgotten_time);
    }
}

/// Sequences go round: what is less than half of them back is behind, the rest ahead.
fn is_behind(sequence: u32, mark: u32) -> bool {
    mark.wrapping_sub(sequence) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_protocol::checksum::crc32c;

    const P: PartitionId = PartitionId(7);

    fn claim(producer: u64, epoch: u16, sequence: u32, record_count: u32) -> Claim {
        let crc = crc32c(&[sequence.to_le_bytes(), record_count.to_le_bytes()].concat());
        let producer = ProducerId(producer);
        Claim { partition: P, producer, epoch, sequence, record_count, crc }
    }

    fn judge(producers: &Producers, claim: &Claim) -> Verdict {
        producers.judge(claim, false)
    }

    fn record(producers: &mut Producers, claim: &Claim, lsn: u64, time: i64) {
        assert_eq!(judge(producers, claim), Verdict::New, "{claim:?}");
        let known = Known::new(claim, Lsn(lsn), Offset(10 * lsn), Epoch(1), time);
        producers.record(claim, known);
    }

    #[test]
    fn each_batch_is_judged_by_what_came_before() {
        let mut producers = Producers::new(10, 1_000);
        assert_eq!(judge(&producers, &claim(1, 0, 5, 1)), Verdict::Unknown);
        for (lsn, sequence) in (0..).zip([0, 3, 6, 9, 12, 15, 18]) {
            record(&mut producers, &claim(1, 0, sequence, 3), lsn, 0);
        }
        for (lsn, sequence) in (2..).zip([6, 9, 12, 15, 18]) {
            let Verdict::Duplicate(known) = judge(&producers, &claim(1, 0, sequence, 3)) else {
                panic!("{sequence} is remembered");
            };
            assert_eq!((known.lsn, known.base_offset), (Lsn(lsn), Offset(10 * lsn)));
        }
        assert_eq!(judge(&producers, &claim(1, 0, 3, 3)), Verdict::DuplicateForgotten);
        assert_eq!(judge(&producers, &claim(1, 0, 18, 2)), Verdict::Mismatch);
        let other = Claim { crc: 1, ..claim(1, 0, 18, 3) };
        assert_eq!(judge(&producers, &other), Verdict::Mismatch);
        assert_eq!(judge(&producers, &claim(1, 0, 19, 1)), Verdict::Mismatch, "within a batch");
        assert_eq!(judge(&producers, &claim(1, 0, 22, 1)), Verdict::Gap);
        assert_eq!(judge(&producers, &claim(1, 1, 21, 1)), Verdict::Gap, "an epoch begins with 0");
        assert_eq!(judge(&producers, &claim(2, 0, 0, 1)), Verdict::New, "another producer");
        record(&mut producers, &claim(1, 1, 0, 1), 9, 0);
        assert_eq!(judge(&producers, &claim(1, 0, 21, 1)), Verdict::Fenced);
        assert_eq!(judge(&producers, &claim(1, 1, 1, 1)), Verdict::New);
    }

    #[test]
    fn sequences_go_round() {
        let mut producers = Producers::new(10, 1_000);
        // As if 2^32 - 3 records had come before.
        let images = [ProducerImage {
            producer: 1,
            partition: P.0,
            epoch: 0,
            count: 1,
            batches: [BatchImage { sequence: u32::MAX - 4, record_count: 2, ..Default::default() };
                REMEMBERED],
        }];
        producers.load(&images, None);
        record(&mut producers, &claim(1, 0, u32::MAX - 2, 5), 1, 0);
        record(&mut producers, &claim(1, 0, 2, 1), 2, 0);
        assert_eq!(judge(&producers, &claim(1, 0, 0, 1)), Verdict::Mismatch);
        assert_eq!(judge(&producers, &claim(1, 0, 4, 1)), Verdict::Gap);
        assert_eq!(judge(&producers, &claim(1, 0, u32::MAX - 9, 2)), Verdict::DuplicateForgotten);
    }

    #[test]
    fn the_silent_are_forgotten_first_and_the_images_bring_all_back() {
        let mut producers = Producers::new(3, 1_000);
        for producer in 1..=3 {
            record(&mut producers, &claim(producer, 0, 0, 1), producer, 0);
        }
        record(&mut producers, &claim(1, 0, 1, 1), 4, 10);
        record(&mut producers, &claim(4, 0, 0, 1), 5, 20);
        assert_eq!(judge(&producers, &claim(2, 0, 1, 1)), Verdict::Unknown, "the longest silent");
        let mut again = Producers::new(3, 1_000);
        again.load(&producers.images(), producers.forgotten_time());
        assert_eq!(again.images(), producers.images());
        record(&mut producers, &claim(5, 0, 0, 1), 6, 1_015);
        let left: Vec<u64> = producers.images().iter().map(|image| image.producer).collect();
        assert_eq!(left, [4, 5], "1 was silent for more than a second");
        assert_eq!(producers.len(), 2);
    }

    #[test]
    fn a_renewed_batch_is_judged_by_both_of_its_stamps() {
        let mut producers = Producers::new(2, 1_000);
        let renewed = |producers: &Producers, claim: &Claim, epoch, sequence| {
            producers.judge_renewed(claim, FormerStamp { epoch, sequence })
        };
        let new = claim(1, 1, 0, 3);
        assert_eq!(
            renewed(&producers, &new, 0, 5),
            Verdict::New,
            "nothing came, nothing is forgotten"
        );
        for (lsn, sequence) in (0..).zip([0, 3, 6, 9, 12, 15]) {
            record(&mut producers, &claim(1, 0, sequence, 3), lsn, 0);
        }
        let Verdict::Duplicate(known) = renewed(&producers, &new, 0, 12) else {
            panic!("it is there under its former stamp");
        };
        assert_eq!(known.lsn, Lsn(4));
        assert_eq!(renewed(&producers, &new, 0, 0), Verdict::DuplicateForgotten);
        assert_eq!(renewed(&producers, &new, 0, 13), Verdict::Mismatch);
        assert_eq!(renewed(&producers, &claim(1, 1, 0, 2), 0, 12), Verdict::Mismatch);
        assert_eq!(renewed(&producers, &new, 0, 18), Verdict::New, "it is the next");
        assert_eq!(renewed(&producers, &new, 0, 21), Verdict::New, "one before it has not come");
        assert_eq!(renewed(&producers, &claim(1, 1, 3, 3), 0, 21), Verdict::Gap, "not the first");
        assert_eq!(
            renewed(&producers, &claim(1, 3, 0, 3), 2, 0),
            Verdict::New,
            "epoch 2 never came"
        );
        // It is appended, and the epoch before is over.
        let known = Known::new(&new, Lsn(9), Offset(90), Epoch(1), 0);
        producers.record(&new, known);
        assert_eq!(judge(&producers, &claim(1, 0, 18, 3)), Verdict::Fenced);
        assert_eq!(renewed(&producers, &new, 0, 21), Verdict::Duplicate(known));
        assert_eq!(renewed(&producers, &claim(1, 1, 3, 3), 0, 24), Verdict::New);
        assert_eq!(renewed(&producers, &claim(1, 2, 0, 3), 0, 24), Verdict::Unknown);
        // Where producers are forgotten, it may be there.
        for other in 2..5 {
            record(&mut producers, &claim(other, 0, 0, 1), 10 + other, 0);
        }
        assert_eq!(renewed(&producers, &claim(1, 2, 0, 3), 1, 3), Verdict::Unknown);
    }

    #[test]
    fn a_first_batch_that_was_sent_before_is_new_unless_it_may_be_forgotten() {
        let mut producers = Producers::new(2, 1_000);
        let (first, second) = (claim(1, 0, 0, 1), claim(1, 0, 1, 1));
        let again = |producers: &Producers, claim: &Claim| producers.judge(claim, true);
        assert_eq!(again(&producers, &first), Verdict::New, "nothing was forgotten");
        record(&mut producers, &first, 1, 10);
        assert_eq!(again(&producers, &second), Verdict::New);
        record(&mut producers, &claim(2, 0, 0, 1), 2, 20);
        record(&mut producers, &claim(3, 0, 0, 1), 3, 30);
        // The first was evicted: it cannot be told from the first batch of a new producer.
        assert_eq!(again(&producers, &first), Verdict::Unknown);
        assert_eq!(
            judge(&producers, &first),
            Verdict::New,
            "but one that leaves for the first time is"
        );
        assert_eq!(again(&producers, &claim(3, 0, 1, 1)), Verdict::New, "who is known goes on");
        assert_eq!(again(&producers, &claim(3, 1, 0, 1)), Verdict::New, "also in a new epoch");
        // A restart says the same.
        let mut loaded = Producers::new(2, 1_000);
        loaded.load(&producers.images(), producers.forgotten_time());
        assert_eq!(again(&loaded, &first), Verdict::Unknown);
        // Its day is over with everyone's of that time.
        record(&mut producers, &claim(3, 0, 1, 1), 4, 1_010);
        assert_eq!(again(&producers, &first), Verdict::Unknown);
        record(&mut producers, &claim(3, 0, 2, 1), 5, 1_011);
        assert_eq!(again(&producers, &first), Verdict::New);
        // What was lost counts as evicted.
        producers.on_lost(1_020);
        assert_eq!(again(&producers, &first), Verdict::Unknown);
    }

    #[test]
    fn what_a_batch_claims_is_read_from_its_head_alone() {
        let mut builder = corelog_protocol::batch::BatchBuilder::new(1 << 16, 10);
        let record =
            corelog_protocol::batch::NewRecord { value: Some(&[1; 500]), ..Default::default() };
        builder.push(&record).unwrap();
        assert_eq!(Claim::read(P, builder.finish()), None);
        builder.set_producer(ProducerId(9), 3, 77);
        let batch = builder.finish().to_vec();
        let crc = u32::from_le_bytes(*batch.first_chunk().unwrap());
        let expected = Claim {
            partition: P,
            producer: ProducerId(9),
            epoch: 3,
            sequence: 77,
            record_count: 1,
            crc,
        };
        assert_eq!(Claim::read(P, &batch), Some(expected));
        assert_eq!(Claim::read(P, &batch[..48]), Some(expected));
        assert_eq!(Claim::read(P, &batch[..47]), None);
    }
}
