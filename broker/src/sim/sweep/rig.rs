//! One log over one disk, on a clock of its own, driven to any moment that a test wants.
//!
//! Carries out the log's orders, in the order given or in one that a seed chose, and writes down what the log
//! says. Decides nothing for it.

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use corelog_protocol::ids::{ClusterId, Incarnation, LaneId, Lsn, Offset, PartitionId};

use crate::disk::{DirectoryId, DiskDone, DiskError, DiskOrder, OpId};
use crate::log::{
    AppendError, Appended, Body, Io, Log, LogConfig, LogEvent, LogFailure, NewEntry, OpIds, Read,
    ReadId, RecoveryReport, Retention,
};
use crate::memory::{Memory, Piece};
use crate::random::Random;
use crate::shard::effect::{Effect, Effects};
use crate::sim::disk::{Fault, SimDisk};
use crate::sim::memory::SimMemory;
use crate::sim::sweep::Checked;
use crate::time::{Monotonic, Nanos, Now, Wall};

/// A disk that a rig can drive. What is between `start` and `finish` is in flight.
pub trait Device {
    fn start(&mut self, op: OpId, order: DiskOrder, memory: &mut SimMemory);
    fn finish(&mut self, op: OpId, refused: Option<DiskError>, memory: &mut SimMemory) -> DiskDone;
    /// How many steps were recorded so far.
    fn steps(&self) -> usize;
}

impl Device for SimDisk {
    fn start(&mut self, op: OpId, order: DiskOrder, memory: &mut SimMemory) {
        SimDisk::start(self, 0, op, order, memory);
    }

    fn finish(&mut self, op: OpId, refused: Option<DiskError>, memory: &mut SimMemory) -> DiskDone {
        SimDisk::finish(self, 0, op, refused.map(Fault::Refuse), memory)
    }

    fn steps(&self) -> usize {
        self.trace().len()
    }
}

/// What an order is, as far as a choice of the next to complete depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderKind {
    Write,
    Flush,
    Other,
}

/// An entry as it was read or replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub lsn: Lsn,
    pub epoch: u64,
    pub kind: EntryKind,
    pub partition: PartitionId,
    pub base_offset: Offset,
    pub record_count: u32,
    pub body: Vec<u8>,
}

/// All that the log said since it was made.
#[derive(Default, Debug)]
pub struct Heard {
    pub recovered: Option<RecoveryReport>,
    /// How many steps the disk had recorded when each `Durable` came, and through where.
    pub durable: Vec<(usize, Lsn)>,
    pub failed: Option<LogFailure>,
    pub stopped: bool,
    pub rooms: u64,
    pub rolls: u64,
    pub replayed: Vec<Seen>,
    reads: Vec<(ReadId, Read, Vec<Piece>)>,
}

/// What a read of a whole partition found, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    Entry(Seen),
    /// From inclusive, to exclusive.
    Corrupt(Offset, Offset),
}

pub struct Rig<D> {
    pub log: Log,
    pub disk: D,
    pub memory: SimMemory,
    pub heard: Heard,
    pub now: Now,
    in_flight: Vec<(OpId, OrderKind)>,
    effects: Effects,
    ops: OpIds,
    /// `None`: orders complete in the order given.
    shuffle: Option<Random>,
    /// The next order of this kind is refused with an IO error.
    pub refuse: Option<OrderKind>,
}

/// Rounds after which a log that is still busy counts as hung.
const ROUNDS_MAX: u32 = 20_000;

/// Segments of 64 KiB, bodies of up to 16 KiB, and commits that do not wait for company.
pub fn small_config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        segment_bytes_first: 64 << 10,
        body_bytes_max: 16 << 10,
        records_per_entry_max: 1 << 10,
        gather_bytes: 1,
        tail_cache_bytes: 64 << 10,
        ..LogConfig::new(LaneId(1), DirectoryId(0), ClusterId(77), Incarnation(5), 3)
    }
}

impl<D: Device> Rig<D> {
    /// Makes a log and starts its recovery; nothing has been completed yet.
    pub fn boot(
        config: LogConfig,
        disk: D,
        seed: u64,
        wall_ms: i64,
        partitions: &[(PartitionId, Retention)],
    ) -> Self {
        let mut random = Random::new(seed);
        let memory = SimMemory::new(random.next_u64());
        let mut rig = Self {
            log: Log::new(config, random),
            disk,
            memory,
            heard: Heard::default(),
            now: Now { monotonic: Monotonic(1_000_000_000), wall: Wall(wall_ms) },
            in_flight: Vec::new(),
            effects: Effects::default(),
            ops: OpIds::default(),
            shuffle: None,
            refuse: None,
        };
        for (partition, retention) in partitions {
            rig.log.open_partition(*partition, *retention);
        }
        rig.call(|log, io| log.start(io));
        rig
    }

    /// Orders complete in a random order from now on.
    pub fn shuffle(&mut self, seed: u64) {
        self.shuffle = Some(Random::new(seed));
    }

    /// Recovers to the end.
    pub fn recover(&mut self) -> Checked<RecoveryReport> {
        self.run("recovery", |rig| rig.heard.recovered.is_some())?;
        Ok(self.heard.recovered.clone().expect("heard just now"))
    }

    /// One call into the log, with what follows from it.
    pub fn call<R>(&mut self, call: impl FnOnce(&mut Log, &mut Io<'_, SimMemory>) -> R) -> R {
        let mut io = Io {
            now: self.now,
            memory: &mut self.memory,
            effects: &mut self.effects,
            ops: &mut self.ops,
        };
        let result = call(&mut self.log, &mut io);
        // Events first: an acknowledgment may leave before any of the effects is carried out.
        self.listen();
        for effect in std::mem::take(&mut self.effects.list) {
            match effect {
                Effect::Disk { op, order } => {
                    let kind = match &order {
                        DiskOrder::Write { .. } => OrderKind::Write,
                        DiskOrder::Flush { .. } => OrderKind::Flush,
                        _ => OrderKind::Other,
                    };
                    if let DiskOrder::Write { slot, len, .. } = &order {
                        check_padding(&self.memory.bytes(*slot)[..*len as usize]);
                    }
                    self.disk.start(op, order, &mut self.memory);
                    self.in_flight.push((op, kind));
                }
                Effect::Turn | Effect::Wake { .. } => {}
                other => panic!("a log ordered {other:?}"),
            }
        }
        result
    }

    fn listen(&mut self) {
        while let Some(event) = self.log.poll_event() {
            match event {
                LogEvent::Recovered(report) => self.heard.recovered = Some(report),
                LogEvent::Durable { through, .. } => {
                    let earlier = self.heard.durable.last().map(|(_, lsn)| *lsn);
                    assert!(earlier < Some(through), "durable {through} after {earlier:?}");
                    self.heard.durable.push((self.disk.steps(), through));
                }
                LogEvent::Failed(failure) => self.heard.failed = Some(failure),
                LogEvent::Stopped => self.heard.stopped = true,
                LogEvent::Room => self.heard.rooms += 1,
                LogEvent::Rolled { .. } => self.heard.rolls += 1,
                LogEvent::Replayed(replayed) => {
                    self.heard.replayed.push(Seen {
                        lsn: replayed.lsn,
                        epoch: replayed.epoch.0,
                        kind: EntryKind::from_wire(replayed.kind).expect("a known kind"),
                        partition: replayed.partition,
                        base_offset: Offset(0),
                        record_count: 0,
                        body: self.memory.piece(replayed.body).to_vec(),
                    });
                    self.memory.release(replayed.body.slot);
                }
                LogEvent::CopiesDone { .. } => unreachable!("nobody follows"),
                LogEvent::ReadDone { read, answer, pieces } => {
                    self.heard.reads.push((read, answer, pieces));
                }
                LogEvent::LookupDone { .. }
                | LogEvent::ReadRoom
                | LogEvent::LogStartMoved
                | LogEvent::Damaged { .. }
                | LogEvent::Resumed => {}
            }
        }
    }

    /// What would happen next: a turn if the log wants one, else a completion, else the clock goes on to the
    /// log's next deadline. False if nothing ever would.
    pub fn round(&mut self) -> bool {
        let eager = self.shuffle.as_mut().is_some_and(|random| random.chance(1, 3));
        if self.log.wants_turn() && (!eager || self.in_flight.is_empty()) {
            self.call(Log::on_turn);
        } else if !self.in_flight.is_empty() {
            self.complete_one();
        } else if let Some(deadline) = self.log.next_deadline() {
            self.pass(deadline - self.now.monotonic);
        } else {
            return false;
        }
        true
    }

    /// Completes one order in flight, if there is one.
    pub fn complete_one(&mut self) -> bool {
        if self.in_flight.is_empty() {
            return false;
        }
        let chosen = match &mut self.shuffle {
            Some(random) => random.below(self.in_flight.len() as u64) as usize,
            None => 0,
        };
        let (op, kind) = self.in_flight.remove(chosen);
        let refused = self.refuse.take_if(|refuse| *refuse == kind).map(|_| DiskError::Io);
        self.now.monotonic = self.now.monotonic + Nanos::from_micros(50);
        let done = self.disk.finish(op, refused, &mut self.memory);
        self.call(|log, io| log.on_disk(io, op, done));
        true
    }

    /// Time passes; the log is woken.
    pub fn pass(&mut self, length: Nanos) {
        self.now.monotonic = self.now.monotonic + length;
        self.now.wall.0 += length.as_millis() as i64;
        self.call(Log::on_wake);
    }

    /// Goes on until `done` says so; a log that fails meanwhile, falls silent or never ends is a violation.
    pub fn run(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Checked<()> {
        let failed_before = self.heard.failed;
        for _ in 0..ROUNDS_MAX {
            if done(self) {
                return Ok(());
            }
            if self.heard.failed != failed_before {
                return Err(format!("{what}: the log failed: {:?}", self.heard.failed));
            }
            if !self.round() {
                return Err(format!("{what}: the log waits for nothing"));
            }
        }
        Err(format!("{what}: no end after {ROUNDS_MAX} rounds"))
    }

    /// Until nothing is in flight and nothing is put off. The clock does not go on to deadlines.
    pub fn settle(&mut self) -> Checked<()> {
        for _ in 0..ROUNDS_MAX {
            if self.log.wants_turn() {
                self.call(Log::on_turn);
            } else if !self.complete_one() {
                return Ok(());
            }
        }
        Err(format!("settling: no end after {ROUNDS_MAX} rounds"))
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn durable_through(&self) -> Option<Lsn> {
        self.heard.durable.last().map(|(_, through)| *through)
    }

    pub fn append(
        &mut self,
        kind: EntryKind,
        partition: PartitionId,
        record_count: u32,
        body: &[u8],
    ) -> Result<Appended, AppendError> {
        let body = Body::Bytes(body);
        let kind = kind.to_wire();
        let entry = NewEntry {
            kind,
            partition,
            partition_at: 0,
            record_count,
            body,
            crc_checked: true,
            claim: None,
            awaited: true,
        };
        self.call(|log, io| log.append(io, entry))
    }

    /// I3: a reader sees nothing that is not durable yet, wherever it asks.
    pub fn check_visible(&mut self, partition: PartitionId) -> Checked<()> {
        let Some(bounds) = self.log.partition(partition) else { return Ok(()) };
        let newest = Offset(bounds.next_offset.0.saturating_sub(1)).max(bounds.log_start);
        for offset in [bounds.log_start, bounds.committed_end, newest] {
            let (answer, bytes) = self.read(partition, offset, 64 << 10)?;
            if matches!(answer, Read::Ready { .. }) {
                let durable_end = self.log.durable_end();
                let read = entries(&bytes)?;
                if let Some(seen) = read.iter().find(|seen| seen.lsn >= durable_end) {
                    let lsn = seen.lsn;
                    return Err(format!("I3: LSN {lsn} is served, durable below {durable_end}"));
                }
            }
        }
        Ok(())
    }

    /// A clean stop, after which the pool is empty.
    pub fn stop(&mut self) -> Checked<()> {
        self.call(|log, io| log.stop(io));
        self.run("a clean stop", |rig| rig.heard.stopped)?;
        self.settle()?;
        match self.memory.leaks().first() {
            Some(leak) => Err(format!("I12: after a clean stop {leak:?}")),
            None => Ok(()),
        }
    }

    /// Reads a partition from its log start to its committed end.
    pub fn read_all(&mut self, partition: PartitionId) -> Checked<Vec<Found>> {
        let mut found = Vec::new();
        let Some(bounds) = self.log.partition(partition) else { return Ok(found) };
        let mut offset = bounds.log_start;
        while offset < bounds.committed_end {
            let (answer, bytes) = self.read(partition, offset, 32 << 10)?;
            let before = offset;
            match answer {
                Read::Ready { .. } => {
                    for seen in entries(&bytes)? {
                        if seen.partition != partition || seen.base_offset > offset {
                            return Err(format!("{partition:?} at {offset}: read {seen:?}"));
                        }
                        offset = seen.base_offset.advance(u64::from(seen.record_count));
                        found.push(Found::Entry(seen));
                    }
                }
                Read::Corrupt { from, to } => {
                    if from > offset {
                        return Err(format!("{partition:?} at {offset}: corrupt only from {from}"));
                    }
                    found.push(Found::Corrupt(from.max(offset), to));
                    offset = to;
                }
                other => return Err(format!("{partition:?} at {offset} of {bounds:?}: {other:?}")),
            }
            if offset <= before {
                return Err(format!("{partition:?}: the read at {before} does not go on"));
            }
        }
        Ok(found)
    }

    /// One read, to its answer, with the bytes of its pieces.
    pub fn read(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        bytes_max: u32,
    ) -> Checked<(Read, Vec<u8>)> {
        let mut pieces = Vec::new();
        let mut answer =
            self.call(|log, io| log.read(io, (partition, 0), offset, bytes_max, &mut pieces));
        if let Read::Waiting(id) = answer {
            self.run("a read", |rig| rig.heard.reads.iter().any(|(read, ..)| *read == id))?;
            let index = self.heard.reads.iter().position(|(read, ..)| *read == id);
            (_, answer, pieces) = self.heard.reads.remove(index.expect("heard just now"));
        }
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend_from_slice(self.memory.piece(piece));
            self.memory.release(piece.slot);
        }
        Ok((answer, bytes))
    }
}

/// A commit ends in zeros: what was in the buffer before is nobody's business.
fn check_padding(bytes: &[u8]) {
    let Some((header, _)) = bytes.split_first_chunk::<64>() else { return };
    if header.starts_with(b"CRLC") {
        let length = u32::from_le_bytes([header[32], header[33], header[34], header[35]]);
        let padding = bytes.get(length as usize..).expect("a commit within its write");
        assert!(padding.iter().all(|byte| *byte == 0), "the padding of a commit is not zero");
    }
}

/// Takes the answer of a read apart, and believes nothing.
fn entries(mut bytes: &[u8]) -> Checked<Vec<Seen>> {
    let mut seen = Vec::new();
    if bytes.is_empty() {
        return Err("a read is ready with no bytes".into());
    }
    while !bytes.is_empty() {
        let header = EntryHeader::decode(bytes).map_err(|error| format!("served: {error}"))?;
        let end = ENTRY_HEADER_BYTES + header.body_len as usize;
        let body = bytes.get(ENTRY_HEADER_BYTES..end).ok_or("served: half an entry")?;
        header.check_body(body).map_err(|error| format!("served: {error}"))?;
        seen.push(Seen {
            lsn: header.lsn,
            epoch: header.epoch.0,
            kind: header.kind,
            partition: header.partition,
            base_offset: header.base_offset,
            record_count: header.record_count,
            body: body.to_vec(),
        });
        bytes = bytes.get(header.entry_bytes()..).ok_or("served: half an entry")?;
    }
    Ok(seen)
}
