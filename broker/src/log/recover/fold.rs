//! The fold over what survived: bounds of partitions, the index of each walked segment, and the
//! entries that the shard folds itself.
//!
//! Bounds only grow, and several witnesses carry them (entries, checkpoints, footers, log starts),
//! so each is the maximum of all that is intact. An entry that is lost, header and all, may have
//! taken offsets that nobody remembers: then every partition not heard of since skips more offsets
//! than it can have taken. So no offset is ever given out twice.

use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::ids::{Lsn, Offset, PartitionId};

use super::decide::{Accepted, Verdict};
use super::walk::Item;
use crate::disk::FileId;
use crate::log::epochs::Epochs;
use crate::log::format::POSITION_MAX;
use crate::log::format::checkpoint::{self, PartitionImage};
use crate::log::format::footer::SegmentIndex;
use crate::log::format::log_start;
use crate::log::partitions::Partitions;
use crate::log::producers::{Claim, Known, Producers};
use crate::log::segment::{Active, Indexed, Sealed};
use crate::log::{LogConfig, is_folded_by_shard};
use crate::planted::{Bug, is_planted};

/// More offsets than any partition has given out, unless the bytes are forged.
const SKIP_MAX: u64 = POSITION_MAX / 4;

#[derive(Debug)]
pub struct Fold {
    producers: Producers,
    epochs: Epochs,
    /// The LSN after the last one folded.
    next: Option<Lsn>,
    /// The first LSN folded.
    first: Option<Lsn>,
    /// Something that knows all partitions was folded: a checkpoint or a footer.
    is_witnessed: bool,
    /// Entries lost without a trace since a witness that knows all partitions.
    unsure: u64,
    /// The LSN after the last of them.
    unsure_end: Lsn,
    accepted: Vec<Accepted>,
    current: Option<Accepted>,
    building: Option<Active>,
    from_index: bool,
    /// The LSN that comes next in the walk of this segment.
    walked: Lsn,
    /// The walk of this segment came by a checkpoint of the log itself.
    has_checkpoint: bool,
    /// A walk met something that it could not read: perhaps a batch of a producer.
    has_missed: bool,
    replays: Vec<(EntryHeader, Vec<u8>)>,
    time_max: i64,
    corrupt_ranges: u64,
    offset_floor: u64,
}

impl Fold {
    pub fn new(config: &LogConfig) -> Self {
        Self {
            producers: Producers::new(config.producers_max, config.producer_idle_ms_max),
            epochs: Epochs::default(),
            next: None,
            first: None,
            is_witnessed: false,
            unsure: 0,
            unsure_end: Lsn(0),
            accepted: Vec::new(),
            current: None,
            building: None,
            from_index: false,
            walked: Lsn(0),
            has_checkpoint: false,
            has_missed: false,
            replays: Vec::new(),
            time_max: 0,
            corrupt_ranges: 0,
            offset_floor: 0,
        }
    }

    /// What the batches said of their producers.
    pub fn take_producers(&mut self) -> Producers {
        std::mem::replace(&mut self.producers, Producers::new(1, 0))
    }

    /// Which epochs the entries are of.
    pub fn take_epochs(&mut self) -> Epochs {
        std::mem::take(&mut self.epochs)
    }

    /// Turns to a segment: (sequence, file, bytes, nonce).
    pub fn begin(&mut self, verdict: &Verdict, segment: usize, file: (u64, FileId, u64, u64)) {
        let (sequence, file, file_bytes, nonce) = file;
        let accepted = verdict.accepted.iter().filter(|accepted| accepted.segment == segment);
        self.accepted.clear();
        self.accepted.extend(accepted.copied());
        self.current = None;
        self.from_index = false;
        let first_lsn = self.accepted.first().map_or(Lsn(0), |accepted| accepted.first_lsn);
        let mut building = Active::new(sequence, file, file_bytes, nonce, first_lsn);
        if let Some(last) = self.accepted.last() {
            building.position = last.end_position;
        }
        self.building = Some(building);
    }

    pub fn has_commits(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// The segment's entries will come, all of them if nothing is damaged.
    pub fn begin_walk(&mut self) {
        self.walked = self.accepted.first().map_or(Lsn(0), |accepted| accepted.first_lsn);
        self.has_checkpoint = false;
    }

    /// `is_base`: the log relies on this segment's checkpoint. It takes no LSN, so no gap shows that it is gone.
    pub fn end_walk(&mut self, is_base: bool) {
        self.has_missed |= is_base && !self.has_checkpoint;
        let end = self.accepted.last().map_or(Lsn(0), |accepted| accepted.end_lsn);
        self.has_missed |= self.walked != end;
    }

    /// Whether the batches, and with them what is known of producers, are perhaps not all.
    pub fn has_missed(&self) -> bool {
        self.has_missed
    }

    /// A footer stands for all entries of its segment, but for those that the shard folds.
    pub fn on_index(&mut self, partitions: &mut Partitions, index: &SegmentIndex) {
        self.from_index = true;
        self.reach(Lsn(index.first_lsn));
        for part in &index.partitions {
            let partition = partitions.ensure(PartitionId(part.partition));
            partition.next_offset = partition.next_offset.max(Offset(part.next_offset));
            partition.bytes += part.bytes;
            partition.seen_lsn = Lsn(index.end_lsn);
        }
        self.on_states(partitions, &index.states);
        self.epochs.load(&index.epochs);
        self.time_max = self.time_max.max(index.time_max);
        self.next = Some(Lsn(index.end_lsn));
    }

    fn on_states(&mut self, partitions: &mut Partitions, states: &[PartitionImage]) {
        for state in states {
            let partition = partitions.ensure(PartitionId(state.partition));
            partition.log_start = partition.log_start.max(Offset(state.log_start));
            partition.next_offset = partition.next_offset.max(Offset(state.next_offset));
            partition.deleted |= state.deleted == 1;
        }
        self.unsure = 0;
        self.is_witnessed = true;
    }

    /// Takes note of entries that are missing before this LSN.
    fn reach(&mut self, lsn: Lsn) {
        self.first.get_or_insert(lsn);
        if let Some(next) = self.next
            && next < lsn
        {
            self.unsure += lsn.0 - next.0;
            self.unsure_end = lsn;
        }
    }

    pub fn on_item(&mut self, partitions: &mut Partitions, item: &Item<'_>) {
        match item {
            Item::Commit { position } if !self.from_index => {
                self.current =
                    self.accepted.iter().find(|accepted| accepted.position == *position).copied();
            }
            Item::Commit { .. } => self.current = self.accepted.first().copied(),
            Item::Entry { header, position, body } => {
                // What is local has the LSN of what follows it.
                let counts = |commit: Accepted| {
                    let is_within = header.next_lsn() <= commit.end_lsn;
                    header.lsn >= commit.first_lsn && is_within
                };
                if self.current.is_some_and(counts) {
                    self.on_entry(partitions, header, *position, *body);
                }
            }
            Item::End(_) => self.current = None,
        }
    }

    fn on_entry(
        &mut self,
        partitions: &mut Partitions,
        header: &EntryHeader,
        position: u64,
        body: Option<&[u8]>,
    ) {
        if header.kind == EntryKind::Batch {
            self.note_producer(header, body);
        }
        let is_own_checkpoint = header.is_local() && header.kind == EntryKind::Checkpoint;
        let image = body.filter(|_| is_own_checkpoint).and_then(checkpoint::decode);
        if let Some(image) = &image {
            self.producers.load(&image.producers, image.forgotten_time);
            self.has_checkpoint = true;
        }
        let is_lost = match header.kind {
            EntryKind::Batch => body.is_none(),
            _ => is_own_checkpoint && image.is_none(),
        };
        self.has_missed |= is_lost || header.lsn != self.walked;
        self.walked = header.next_lsn();
        if self.from_index {
            self.replay(header, body);
            return;
        }
        self.reach(header.lsn);
        self.next = Some(header.next_lsn());
        if !header.is_local() {
            self.epochs.note(header.epoch, header.lsn);
        }
        self.time_max = self.time_max.max(header.append_time);
        if let Some(building) = &mut self.building {
            building.time_max = building.time_max.max(header.append_time);
            building.epoch_last = building.epoch_last.max(header.epoch.0);
        }
        match header.kind {
            EntryKind::Batch => self.on_batch(partitions, header, position),
            EntryKind::Checkpoint if is_own_checkpoint => {
                if let Some(image) = &image {
                    self.on_states(partitions, &image.partitions);
                    self.epochs.load(&image.epochs);
                }
            }
            EntryKind::LogStart if is_planted(Bug::LogStartForgotten) => {}
            EntryKind::LogStart => {
                for (partition, start) in body.and_then(log_start::decode).into_iter().flatten() {
                    let partition = partitions.ensure(partition);
                    partition.log_start = partition.log_start.max(start);
                    partition.next_offset = partition.next_offset.max(start);
                }
            }
            EntryKind::EpochStart | EntryKind::Padding => {}
            _ => self.replay(header, body),
        }
    }

    fn on_batch(&mut self, partitions: &mut Partitions, header: &EntryHeader, position: u64) {
        partitions.ensure(header.partition);
        let Some(at) = partitions.find(header.partition) else { return };
        let partition = &mut partitions.list[at as usize];
        if header.base_offset > partition.next_offset.max(partition.log_start)
            && partition.seen_lsn > Lsn(0)
        {
            self.corrupt_ranges += 1;
        }
        let bytes = header.entry_bytes() as u64;
        let next = header.next_offset();
        partition.next_offset = partition.next_offset.max(next);
        if is_planted(Bug::StaleBytesAccepted) {
            partition.next_offset = next;
        }
        partition.bytes += bytes;
        partition.seen_lsn = header.lsn;
        let entry = Indexed {
            base: header.base_offset.0,
            lsn: header.lsn.0,
            position,
            bytes,
            time: header.append_time,
        };
        if let Some(building) = &mut self.building {
            building.index(at, partition, entry);
        }
    }

    fn note_producer(&mut self, header: &EntryHeader, body: Option<&[u8]>) {
        let claim = body.and_then(|head| Claim::read(header.partition, head));
        if let Some(claim) = claim {
            let EntryHeader { lsn, base_offset, epoch, append_time, .. } = *header;
            let known = Known::new(&claim, lsn, base_offset, epoch, append_time);
            self.producers.record(&claim, known);
        }
    }

    fn replay(&mut self, header: &EntryHeader, body: Option<&[u8]>) {
        if !is_folded_by_shard(header) {
            return;
        }
        if let Some(building) = &mut self.building {
            building.replay_end = header.lsn.0 + 1;
        }
        if let Some(body) = body {
            self.replays.push((*header, body.to_vec()));
        }
    }

    pub fn take_replays(&mut self) -> Vec<(EntryHeader, Vec<u8>)> {
        std::mem::take(&mut self.replays)
    }

    /// The segment as it will be read from.
    pub fn seal(&mut self, partitions: &Partitions) -> Sealed {
        let end_lsn = self.accepted.last().map_or(Lsn(0), |accepted| accepted.end_lsn);
        let building = self.building.take().expect("begun before it is sealed");
        building.seal(partitions, &self.epochs, end_lsn).0
    }

    /// All segments are folded. Returns the number of corrupt ranges.
    pub fn end(&mut self, partitions: &mut Partitions, next_lsn: Lsn, records_max: u64) -> u64 {
        self.reach(next_lsn);
        if let (false, Some(first)) = (self.is_witnessed, self.first) {
            // What the dropped segments held, the lost checkpoint told: perhaps all of a partition.
            self.unsure = self.unsure.saturating_add(first.0);
            self.unsure_end = self.unsure_end.max(first);
        }
        if self.unsure > 0 {
            let skip = self.unsure.saturating_mul(records_max).min(SKIP_MAX);
            self.offset_floor = skip;
            for partition in &mut partitions.list {
                if partition.seen_lsn < self.unsure_end {
                    let next = partition.next_offset.0.saturating_add(skip);
                    partition.next_offset = Offset(next.min(POSITION_MAX));
                    self.corrupt_ranges += 1;
                }
            }
        }
        for partition in &mut partitions.list {
            if is_planted(Bug::OffsetReusedAfterCrash) {
                partition.next_offset = Offset(partition.next_offset.0.saturating_sub(1));
            }
            partition.next_offset = partition.next_offset.max(partition.log_start);
            partition.committed_end = partition.next_offset;
        }
        self.corrupt_ranges
    }

    pub fn time_max(&self) -> i64 {
        self.time_max
    }

    /// Where partitions begin that were not heard of: theirs may be what was lost.
    pub fn offset_floor(&self) -> Offset {
        Offset(self.offset_floor)
    }
}
