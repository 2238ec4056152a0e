//! Fetch: stored entries of partitions led here, as they lie in the log, without a copy.
//!
//! A pass over the partitions asks the log for each. It may have to wait for the disk, and then
//! goes on where it was. If too little was found, the fetch waits for commits: it is on a list of
//! each of its partitions, and costs nothing until one of them grows or its time is up.

use std::ops::Range;

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{Offset, PartitionId, ShardId};
use corelog_protocol::message::{Fetch, FetchReply, FetchedPartition};

use super::event::Conn;
use super::jobs::JobId;
use super::lane::{Origin, Reader, Voice};
use super::message::{Answer, Token};
use super::partitions::Waiter;
use super::replies::{OVERLOADED, STOPPING};
use super::{Cx, Shard};
use crate::limits::{FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, FETCHES_MAX, PARTITIONS_PER_REQUEST_MAX};
use crate::log::{PartitionBounds, Read, ReadId};
use crate::memory::{Memory, Piece};
use crate::planted::{Bug, is_planted};
use crate::time::{Monotonic, Nanos};

/// Fetches that one step runs, and partitions of them; the others have the next turn.
const FETCHES_PER_STEP: usize = 256;
const PARTITIONS_PER_STEP: usize = 8 * PARTITIONS_PER_REQUEST_MAX;

/// The least that a read from the disk takes, however little is asked for.
const READ_BYTES_MIN: usize = 256 << 10;

/// What a partition may cost in the control part of a reply, and what the reply itself may.
const CONTROL_BYTES_PER_PARTITION: usize = 56;
const CONTROL_BYTES: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    /// To be run.
    No,
    /// For the disk: `None` if it could not even ask yet.
    Disk(u16, Option<ReadId>),
    /// For records of its partitions.
    Commit,
}

#[derive(Debug)]
pub(super) struct FetchJob {
    pub origin: Origin,
    fetch: Fetch,
    deadline: Monotonic,
    waiting: Waiting,
    /// Counts its waits for commits, so that lists may still name it after the end of one.
    wait: u32,
    /// The partition at which the pass is, and as what it is answered of.
    next: usize,
    voice: Voice,
    found: Vec<FetchedPartition>,
    pieces: Vec<Piece>,
    bytes: usize,
    has_error: bool,
    /// The pass had to wait for the disk, so that an early partition may have grown meanwhile.
    is_stale: bool,
    /// Bytes that have to come until it is run again.
    missing: u64,
    is_hurried: bool,
    held_bytes: usize,
    /// The part of them that the read under way may come to.
    read_bytes: usize,
}

impl FetchJob {
    fn is_in(&self, wait: u32) -> bool {
        self.waiting == Waiting::Commit && self.wait == wait
    }
}

/// What a reader is told: of what a follower cannot say, that the leader can.
fn of_voice(voice: Voice, code: ErrorCode) -> ErrorCode {
    match voice {
        Voice::Leader => code,
        Voice::Follower => ErrorCode::NotLeader,
    }
}

/// Whether a fetch names a partition more than once.
pub(super) fn has_duplicates(fetch: &Fetch) -> bool {
    let ids = || fetch.partitions.iter().map(|wanted| wanted.partition);
    if ids().is_sorted_by(|a, b| a < b) {
        return false;
    }
    let mut sorted: Vec<PartitionId> = ids().collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

impl Shard {
    pub(super) fn on_fetch_request<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        fetch: Fetch,
    ) {
        self.counters.fetches += 1;
        let origin = Origin::Conn { conn, correlation: header.correlation };
        if !self.may_fetch(cx, &fetch) {
            return self.refuse(cx, origin, FrameKind::Fetch.to_wire(), OVERLOADED);
        }
        let is_elsewhere = |id: PartitionId| self.partitions.get(id).is_none();
        let elsewhere = fetch.partitions.iter().any(|wanted| is_elsewhere(wanted.partition));
        if let Some(session) = self.sessions.answerable(conn) {
            session.requests += 1;
        }
        if elsewhere {
            self.gather_fetch(cx, conn, header.correlation, fetch);
        } else {
            self.start_fetch(cx, origin, fetch);
        }
    }

    fn may_fetch<M: Memory>(&self, cx: &Cx<'_, M>, fetch: &Fetch) -> bool {
        let bytes = fetch.bytes_max.min(FETCH_BYTES_MAX) as usize;
        self.fetches.len() < FETCHES_MAX
            && self.can_hold(cx.memory, bytes.min(self.config.frame_bytes_max) / 4)
    }

    pub(super) fn on_forwarded_fetch<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        shard: ShardId,
        token: Token,
        fetch: Fetch,
    ) {
        self.counters.requests_adopted += 1;
        let origin = Origin::Shard { shard, token };
        let kind = FrameKind::Fetch.to_wire();
        if self.stopping.is_some() {
            return self.refuse(cx, origin, kind, STOPPING);
        }
        if !self.may_fetch(cx, &fetch) {
            return self.refuse(cx, origin, kind, OVERLOADED);
        }
        let id = self.start_fetch(cx, origin, fetch);
        self.adopted_fetches.insert((shard.0, token), id);
    }

    /// Puts a fetch on the list of those to run. Bounds are clamped to ours.
    pub(super) fn start_fetch<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        mut fetch: Fetch,
    ) -> JobId {
        fetch.wait_max_ms = fetch.wait_max_ms.min(FETCH_WAIT_MS_MAX);
        fetch.bytes_max = fetch.bytes_max.clamp(1, FETCH_BYTES_MAX);
        fetch.bytes_min = fetch.bytes_min.min(fetch.bytes_max);
        let wait = Nanos::from_millis(u64::from(fetch.wait_max_ms));
        let held_bytes = 512 + fetch.partitions.len() * 96;
        self.held_bytes += held_bytes;
        let job = FetchJob {
            origin,
            deadline: cx.now.monotonic + wait,
            waiting: Waiting::No,
            wait: 0,
            next: 0,
            voice: Voice::Leader,
            found: Vec::with_capacity(fetch.partitions.len()),
            pieces: Vec::new(),
            bytes: 0,
            has_error: false,
            is_stale: false,
            missing: 0,
            is_hurried: wait == Nanos(0),
            held_bytes,
            read_bytes: 0,
            fetch,
        };
        let id = self.fetches.insert(job);
        if let Origin::Conn { conn, .. } = origin
            && let Some(session) = self.sessions.answerable(conn)
        {
            session.fetches.push(id);
        }
        self.fetches_ready.push_back(id);
        id
    }

    /// Runs fetches that can go on. Returns whether there was any.
    pub(super) fn run_ready_fetches<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> bool {
        let mut ran = false;
        let mut left = PARTITIONS_PER_STEP;
        for _ in 0..FETCHES_PER_STEP {
            if left == 0 {
                break;
            }
            let Some(id) = self.fetches_ready.pop_front() else { break };
            ran = true;
            let partitions = self.fetches.get(id).map_or(0, |job| job.fetch.partitions.len());
            left = left.saturating_sub(partitions);
            self.run_fetch(cx, id);
        }
        ran
    }

    fn run_fetch<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        let Some(job) = self.fetches.get_mut(id) else { return };
        match job.waiting {
            Waiting::Disk(..) => return,
            Waiting::Commit => self.unpark(id),
            Waiting::No => {}
        }
        let frame_bytes_max = self.config.frame_bytes_max;
        loop {
            // A read may take a buffer from the disk that lives as long as its slowest reader.
            let free = self.room(cx.memory);
            let Some(job) = self.fetches.get_mut(id) else { return };
            let Some(&wanted) = job.fetch.partitions.get(job.next) else { break };
            let Some(local) = self.partitions.get_mut(wanted.partition) else {
                let code = self.unknown_partition(wanted.partition).code;
                self.found(id, wanted.partition, Err(code), 0, None);
                continue;
            };
            let lane = usize::from(local.lane);
            let target = &mut self.lanes[lane];
            match target.answers(job.fetch.any_replica, cx.now.monotonic) {
                Ok(voice) => job.voice = voice,
                Err(code) => {
                    self.found(id, wanted.partition, Err(code), 0, None);
                    continue;
                }
            }
            let found = target.log.partition_at(wanted.partition, local.log_at);
            let Some((log_at, bounds)) = found else {
                let code = of_voice(job.voice, ErrorCode::UnknownPartition);
                self.found(id, wanted.partition, Err(code), 0, None);
                continue;
            };
            local.log_at = log_at;
            if job.voice == Voice::Follower && wanted.offset > bounds.committed_end {
                // The leader may have more, and the reader have had it from there.
                self.found(id, wanted.partition, Ok(bounds), 0, None);
                continue;
            }
            let control = CONTROL_BYTES + job.fetch.partitions.len() * CONTROL_BYTES_PER_PARTITION;
            let room = (job.fetch.bytes_max as usize)
                .min(frame_bytes_max.saturating_sub(control))
                .saturating_sub(job.bytes);
            if room == 0 && job.bytes > 0 {
                self.found(id, wanted.partition, Ok(bounds), 0, None);
                continue;
            }
            let bytes_max = wanted.bytes_max.clamp(1, room.max(1) as u32);
            let read_bytes = (bytes_max as usize).max(READ_BYTES_MIN);
            if read_bytes > free && wanted.offset < bounds.committed_end {
                if job.bytes > 0 {
                    // What there is goes out, and makes room for the rest.
                    job.is_hurried = true;
                    self.found(id, wanted.partition, Ok(bounds), 0, None);
                } else {
                    self.found(id, wanted.partition, Err(ErrorCode::Overloaded), 0, None);
                }
                continue;
            }
            let before = job.pieces.len();
            let io = &mut cx.io(&mut self.ops);
            let place = (wanted.partition, log_at);
            let read = target.log.read(io, place, wanted.offset, bytes_max, &mut job.pieces);
            match read {
                Read::Waiting(read) => {
                    target.reads.insert(read, Reader::Fetch(id));
                    job.waiting = Waiting::Disk(lane as u16, Some(read));
                    job.is_stale = true;
                    job.read_bytes = read_bytes;
                    job.held_bytes += read_bytes;
                    self.held_bytes += read_bytes;
                    return;
                }
                Read::Busy => {
                    target.reads_put_off.push_back(Reader::Fetch(id));
                    job.waiting = Waiting::Disk(lane as u16, None);
                    job.is_stale = true;
                    return;
                }
                read => self.take_read(cx, id, read, before, bounds),
            }
        }
        self.end_pass(cx, id);
    }

    /// The answer of the log for the partition at which the pass is. Its pieces are those from
    /// `before` on.
    fn take_read<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: JobId,
        read: Read,
        before: usize,
        bounds: PartitionBounds,
    ) {
        let Some(job) = self.fetches.get_mut(id) else { return };
        let (partition, voice) = (job.fetch.partitions[job.next].partition, job.voice);
        match read {
            Read::Ready { bytes } => {
                let listed: usize =
                    job.pieces[before..].iter().map(|piece| piece.len as usize).sum();
                assert!(listed == bytes as usize, "pieces hold what was announced");
                let partitions = job.fetch.partitions.len().min(job.found.len() + 1);
                let control = CONTROL_BYTES + partitions * CONTROL_BYTES_PER_PARTITION;
                let whole = job.bytes + bytes as usize + control;
                if job.bytes > 0 && whole > self.config.frame_bytes_max {
                    // One large entry too many for this answer: the next one begins with it.
                    for piece in job.pieces.drain(before..) {
                        cx.memory.release(piece.slot);
                    }
                    return self.found(id, partition, Ok(bounds), 0, None);
                }
                job.bytes += bytes as usize;
                self.counters.follower_reads += u64::from(voice == Voice::Follower);
                self.found(id, partition, Ok(bounds), bytes, None);
            }
            Read::AtEnd => self.found(id, partition, Ok(bounds), 0, None),
            Read::OutOfRange { .. } => {
                let code = of_voice(voice, ErrorCode::OffsetOutOfRange);
                self.found_error(id, partition, code, bounds, None);
            }
            Read::Corrupt { .. } if is_planted(Bug::CorruptRangeUnsaid) => {
                self.found(id, partition, Ok(bounds), 0, None);
            }
            Read::Corrupt { .. } if voice == Voice::Follower => {
                if let Some(local) = self.partitions.get(partition) {
                    self.repair_follower(cx, usize::from(local.lane));
                }
                self.found_error(id, partition, ErrorCode::NotLeader, bounds, None);
            }
            Read::Corrupt { .. } if self.is_read_elsewhere(cx, partition) => {
                self.found_error(id, partition, ErrorCode::NotLeader, bounds, None);
            }
            Read::Corrupt { from, to } => {
                let range = Some(from..to).filter(|range| range.start < range.end);
                self.found_error(id, partition, ErrorCode::RangeCorrupt, bounds, range);
            }
            Read::UnknownPartition => {
                let code = of_voice(voice, ErrorCode::UnknownPartition);
                self.found(id, partition, Err(code), 0, None);
            }
            Read::Failed => {
                let code = of_voice(voice, ErrorCode::StorageUnavailable);
                self.found_error(id, partition, code, bounds, None);
            }
            Read::Waiting(_) | Read::Busy => unreachable!("handled where the lane is known"),
        }
    }

    /// Something of the partition is damaged here, and another broker is to lead it, which has it whole.
    fn is_read_elsewhere<M: Memory>(&mut self, cx: &mut Cx<'_, M>, partition: PartitionId) -> bool {
        let lane = self.partitions.get(partition).map(|local| usize::from(local.lane));
        lane.is_some_and(|lane| self.gives_way(cx, lane))
    }

    fn found_error(
        &mut self,
        id: JobId,
        partition: PartitionId,
        code: ErrorCode,
        bounds: PartitionBounds,
        corrupt: Option<Range<Offset>>,
    ) {
        self.found(id, partition, Ok(bounds), 0, corrupt);
        if let Some(job) = self.fetches.get_mut(id) {
            job.has_error = true;
            job.found.last_mut().expect("just added").error = Some(code);
        }
    }

    /// Notes what the pass found in a partition, and goes on to the next.
    fn found(
        &mut self,
        id: JobId,
        partition: PartitionId,
        bounds: Result<PartitionBounds, ErrorCode>,
        bytes: u32,
        corrupt: Option<Range<Offset>>,
    ) {
        let Some(job) = self.fetches.get_mut(id) else { return };
        let (log_start, committed_end) =
            bounds.map_or_else(|_| Default::default(), |b| (b.log_start, b.committed_end));
        job.has_error |= bounds.is_err();
        let error = bounds.err();
        job.found.push(FetchedPartition {
            partition,
            error,
            log_start,
            committed_end,
            bytes,
            corrupt,
        });
        job.next += 1;
    }

    /// All partitions were asked: answer, or wait for more.
    fn end_pass<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        let now = cx.now.monotonic;
        let is_stopping = self.stopping.is_some();
        let Some(job) = self.fetches.get_mut(id) else { return };
        let is_enough = job.bytes >= job.fetch.bytes_min as usize
            || job.has_error
            || job.is_hurried
            || is_stopping
            || job.deadline <= now;
        if is_enough {
            return self.finish_fetch(cx, id);
        }
        let grew = job.is_stale
            && job.found.iter().any(|found| {
                let lane = self.partitions.get(found.partition).map(|local| local.lane);
                let log = lane.map(|lane| &self.lanes[usize::from(lane)].log);
                let bounds = log.and_then(|log| log.partition(found.partition));
                bounds.is_none_or(|bounds| bounds.committed_end != found.committed_end)
            });
        for piece in job.pieces.drain(..) {
            cx.memory.release(piece.slot);
        }
        job.missing = u64::from(job.fetch.bytes_min) - job.bytes as u64;
        job.next = 0;
        job.bytes = 0;
        job.is_stale = false;
        job.found.clear();
        if grew {
            self.fetches_ready.push_back(id);
            return;
        }
        self.counters.fetch_waits += 1;
        job.waiting = Waiting::Commit;
        let (deadline, waiter) = (job.deadline, Waiter { fetch: id, wait: job.wait });
        if !is_planted(Bug::LongPollForgotten) {
            self.timers.fetches.insert((deadline, id));
        }
        let fetches = &self.fetches;
        let waits =
            |known: Waiter| fetches.get(known.fetch).is_some_and(|job| job.is_in(known.wait));
        let Some(job) = fetches.get(id) else { return };
        for wanted in &job.fetch.partitions {
            if let Some(partition) = self.partitions.get_mut(wanted.partition) {
                partition.push_waiter(waiter, waits);
                let log = &mut self.lanes[usize::from(partition.lane)].log;
                log.hurry();
                log.watch();
            }
        }
    }

    /// Ends a wait. The lists of its partitions name the fetch until they are searched, but as one
    /// in a wait that is over.
    fn unpark(&mut self, id: JobId) {
        let Some(job) = self.fetches.get_mut(id) else { return };
        job.waiting = Waiting::No;
        job.wait = job.wait.wrapping_add(1);
        self.timers.fetches.remove(&(job.deadline, id));
    }

    /// A partition has `bytes` more of committed entries.
    #[inline]
    pub(super) fn wake_waiters(&mut self, partition: PartitionId, bytes: u32) {
        let Some(partition) = self.partitions.get_mut(partition) else { return };
        let (fetches, ready) = (&mut self.fetches, &mut self.fetches_ready);
        partition.waiters.retain(|waiter| {
            let job = fetches.get_mut(waiter.fetch).filter(|job| job.is_in(waiter.wait));
            let Some(job) = job.filter(|job| job.missing > 0) else { return false };
            job.missing = job.missing.saturating_sub(u64::from(bytes));
            if job.missing == 0 {
                ready.push_back(waiter.fetch);
            }
            job.missing > 0
        });
    }

    /// The partition is gone: who waits for its records is told so.
    pub(super) fn hurry_waiters(&mut self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            if self.fetches.get(waiter.fetch).is_some_and(|job| job.is_in(waiter.wait)) {
                self.hurry_fetch(waiter.fetch);
            }
        }
    }

    /// Lets a fetch answer with what there is.
    pub(super) fn hurry_fetch(&mut self, id: JobId) {
        let Some(job) = self.fetches.get_mut(id) else { return };
        job.is_hurried = true;
        if job.waiting == Waiting::Commit {
            self.fetches_ready.push_back(id);
        }
    }

    /// The disk has answered.
    pub(super) fn on_fetch_read<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: JobId,
        read: Read,
        pieces: Vec<Piece>,
    ) {
        let Some(job) = self.fetches.get_mut(id) else {
            for piece in pieces {
                cx.memory.release(piece.slot);
            }
            return;
        };
        job.waiting = Waiting::No;
        // From now on the pool counts what was read.
        let read_bytes = std::mem::take(&mut job.read_bytes);
        job.held_bytes -= read_bytes;
        self.held_bytes -= read_bytes;
        let before = job.pieces.len();
        job.pieces.extend(pieces);
        let partition = job.fetch.partitions[job.next].partition;
        let lane = self.partitions.get(partition).map(|local| usize::from(local.lane));
        let now = cx.now.monotonic;
        let serves = |lane: &usize| {
            job.voice == Voice::Leader || self.lanes[*lane].answers(true, now).is_ok()
        };
        let lane = lane.filter(serves);
        let bounds = lane.and_then(|lane| self.lanes[lane].log.partition(partition));
        match bounds {
            Some(bounds) if !matches!(read, Read::Busy | Read::Waiting(_)) => {
                self.take_read(cx, id, read, before, bounds);
            }
            _ => {
                // Deleted meanwhile, or it serves readers no more.
                let job = self.fetches.get_mut(id).expect("looked up above");
                for piece in job.pieces.drain(before..) {
                    cx.memory.release(piece.slot);
                }
                let code = of_voice(job.voice, ErrorCode::UnknownPartition);
                self.found(id, partition, Err(code), 0, None);
            }
        }
        self.fetches_ready.push_back(id);
    }

    /// There may be room for a read that was put off.
    pub(super) fn retry_fetch(&mut self, id: JobId) {
        let Some(job) = self.fetches.get_mut(id) else { return };
        if matches!(job.waiting, Waiting::Disk(_, None)) {
            job.waiting = Waiting::No;
            self.fetches_ready.push_back(id);
        }
    }

    fn finish_fetch<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        let Some(mut job) = self.fetches.remove(id) else { return };
        self.held_bytes -= job.held_bytes;
        self.counters.fetch_bytes_out += job.bytes as u64;
        for found in job.found.iter().filter(|found| found.bytes > 0) {
            if let Some(local) = self.partitions.get(found.partition) {
                let traffic = &mut self.lanes[usize::from(local.lane)].traffic;
                traffic.on_served(u64::from(found.bytes));
            }
        }
        match job.origin {
            Origin::Conn { conn, correlation } => {
                if let Some(session) = self.sessions.answerable(conn) {
                    session.requests -= 1;
                    session.fetches.retain(|&known| known != id);
                }
                let reply = FetchReply { partitions: job.found };
                self.send_with_payload(cx, conn, correlation, &reply, &mut job.pieces);
            }
            Origin::Shard { shard, token } => {
                self.adopted_fetches.remove(&(shard.0, token));
                let mut payload = Vec::with_capacity(job.bytes);
                for piece in job.pieces {
                    payload.extend_from_slice(cx.memory.piece(piece));
                    cx.memory.release(piece.slot);
                }
                // Until the other shard has it.
                self.held_bytes += payload.len();
                let answer = Answer::Fetched { partitions: job.found, payload };
                self.answer(cx, job.origin, answer);
            }
            Origin::Gather(gather) => {
                self.gather_fetched(cx, gather, job.found, job.pieces);
            }
            Origin::Nobody => unreachable!("somebody asked"),
        }
    }

    /// Its connection is gone: whatever it held is given back.
    pub(super) fn abandon_fetch<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        let Some(job) = self.fetches.get_mut(id) else { return };
        match job.waiting {
            Waiting::Commit => self.unpark(id),
            Waiting::Disk(lane, Some(read)) => {
                let lane = &mut self.lanes[usize::from(lane)];
                lane.reads.remove(&read);
                lane.log.cancel_read(&mut cx.io(&mut self.ops), read);
            }
            Waiting::Disk(_, None) | Waiting::No => {}
        }
        let Some(job) = self.fetches.remove(id) else { return };
        self.held_bytes -= job.held_bytes;
        for piece in job.pieces {
            cx.memory.release(piece.slot);
        }
    }
}
