//! Fetching: ahead, within the budget of a consumer. Each assignment stands in at most one fetch under
//! way that it still wants; what a fetch brings is checked before it is kept, in `accept.rs`.

use super::accept::{FetchedBatch, accept_entries};
use super::assignment::{AssignmentId, Stage};
use super::batches::is_place_unknown;
use super::consumer::{BUDGET_PARTS, ConsumerId};
use super::door::{Frame, Request};
use super::links::Wrong;
use super::time::{MILLIS, Monotonic, Now};
use super::{Effects, Engine, OutOfRange, RETRY_NANOS, Retry};
use crate::{Error, Refusal};
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::{
    FETCH_PARTITIONS_MAX, Fetch, FetchPartition, FetchReply, FetchedPartition,
};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Fetches under way per connection. The last two wait only briefly for data, so that a partition
/// that comes when all are under way is not left out for long.
const FETCHES_PER_LINK: usize = 8;
const FETCHES_LONG: usize = FETCHES_PER_LINK - 2;

/// What a partition in a fetch counts for, whether it has anything or not: broker and client look at each. A fetch of many is
/// answered for the first record of any of them and costs for all, so one is not begun while those before it have
/// not been worked off, but for a burst of ten of the largest. Few partitions never come to that; ten thousand are
/// asked for at most fifty times a second, and a record of theirs may wait for 20 ms.
const PARTITION_NANOS: u64 = 2_000;
const BURST_NANOS: u64 = 10 * FETCH_PARTITIONS_MAX as u64 * PARTITION_NANOS;

/// So often in a row an offset that was read up to may lie beyond the end, before it is believed:
/// half a minute.
const OUT_OF_RANGE_MAX: u32 = 40;

/// Left for the control part of a reply: 1,024 partitions of 48 bytes, and the header.
const REPLY_CONTROL_BYTES: usize = 64 << 10;

/// An assignment in a fetch under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFetch {
    assignment: AssignmentId,
    generation: u64,
    id: PartitionId,
}

impl<T> Engine<T> {
    /// A read was refused: try it again later, or tell the user.
    pub(super) fn on_read_refused(
        &mut self,
        now: Now,
        id: AssignmentId,
        refusal: Refusal,
        effects: &mut Effects<T>,
    ) {
        let Some(at) = self.assignments.get_mut(&id) else { return };
        let has_peers = self.cluster.is_known();
        let place_unknown = is_place_unknown(refusal.code, has_peers);
        // A read has no effect, so an indefinite failure of it does no harm either.
        let passing = !refusal.code.is_definite() && refusal.code != ErrorCode::Unrecognised;
        if !place_unknown && !passing && !refusal.code.may_retry() {
            self.fail_assignment(id, Error::Refused(refusal), effects);
            return;
        }
        let hint = refusal.hint_nanos();
        let (topic, redirects) = (at.topic, at.redirects);
        let wait = match place_unknown && has_peers {
            true => hint.max(self.redirect_nanos(redirects)),
            false => hint.max(RETRY_NANOS),
        };
        let retry_at = now.monotonic.after(wait);
        self.retries.insert((retry_at, Retry::Assignment(id)));
        if let Some(at) = self.assignments.get_mut(&id) {
            at.is_listed = true;
            if place_unknown {
                at.redirects = redirects.saturating_add(1);
                at.retry_at = Some(retry_at);
            }
        }
        if place_unknown {
            if redirects > 0 {
                self.turn_guide(now);
            }
            self.describe_topic(topic);
        }
    }

    pub(super) fn on_assignment_retry(&mut self, id: AssignmentId, effects: &mut Effects<T>) {
        let Some(at) = self.assignments.get_mut(&id) else { return };
        at.is_listed = false;
        at.retry_at = None;
        self.go_on(id, effects);
    }

    /// Asks for what an assignment needs next.
    pub(super) fn go_on(&mut self, id: AssignmentId, effects: &mut Effects<T>) {
        let Some(at) = self.assignments.get(&id) else { return };
        match at.stage {
            Stage::Locating(position) => self.start(id, position, effects),
            Stage::Fetching => self.want_fetch(id),
            Stage::Placing(_) | Stage::Failed => {}
        }
    }

    /// Lists an assignment for the next fetch, if it may have one.
    pub(super) fn want_fetch(&mut self, id: AssignmentId) {
        let Some(at) = self.assignments.get(&id) else { return };
        let config = &self.consumers[at.consumer.0 as usize].config;
        if at.stage != Stage::Fetching
            || at.is_paused
            || at.is_fetching
            || at.is_listed
            || at.buffered_bytes >= config.partition_bytes_max as usize
        {
            return;
        }
        let topic = at.topic;
        match self.turn_to_source(id) {
            Some(door) => {
                self.doors[door].fetchable.push_back(id);
                if let Some(at) = self.assignments.get_mut(&id) {
                    at.is_listed = true;
                }
            }
            None => self.describe_topic(topic),
        }
    }

    /// Whether the fetches through a door cost so much lately that the next has to wait. Then it comes again.
    fn is_paced(&mut self, now: Now, door: usize) -> bool {
        let at = &mut self.doors[door];
        let may_at = Monotonic(at.fetches_free_at.0.saturating_sub(BURST_NANOS));
        if may_at <= now.monotonic {
            return false;
        }
        if !at.fetchable.is_empty() {
            self.retries.insert((may_at, Retry::Fetches(door)));
        }
        true
    }

    pub(super) fn send_fetches(&mut self, now: Now, door: usize, effects: &mut Effects<T>) {
        while let Some(link) = self.doors[door].open_link()
            && link.fetches < FETCHES_PER_LINK
        {
            let is_brief = link.fetches >= FETCHES_LONG;
            if self.is_paced(now, door) {
                return;
            }
            // Assignments of the first one's consumer; the others keep their place.
            let mut passed: Vec<AssignmentId> = Vec::new();
            let mut consumer = None;
            let mut asked: Vec<InFetch> = Vec::new();
            let mut partitions: Vec<FetchPartition> = Vec::new();
            let mut ids = BTreeSet::new();
            // Of them, asked of a broker that need not lead.
            let mut near = 0u64;
            while asked.len() < FETCH_PARTITIONS_MAX
                && let Some(id) = self.doors[door].fetchable.pop_front()
            {
                let Some(at) = self.assignments.get(&id) else { continue };
                let wanted = *consumer.get_or_insert(at.consumer);
                if at.consumer != wanted {
                    passed.push(id);
                    continue;
                }
                let config = &self.consumers[wanted.0 as usize].config;
                let place = (at.stage == Stage::Fetching && !at.is_paused)
                    .then(|| self.partition_id(at))
                    .flatten();
                let (next, generation) = (at.next, at.generation);
                if place.is_some_and(|partition| !ids.insert(partition)) {
                    // Assigned twice: a fetch names a partition once, the other has the next.
                    passed.push(id);
                    continue;
                }
                if let Some(at) = self.assignments.get_mut(&id) {
                    at.is_listed = false;
                    near += u64::from(place.is_some() && at.near.is_used);
                }
                if let Some(partition) = place {
                    asked.push(InFetch { assignment: id, generation, id: partition });
                    let bytes_max = config.partition_bytes_max;
                    partitions.push(FetchPartition { partition, offset: next, bytes_max });
                }
            }
            passed.into_iter().rev().for_each(|id| self.doors[door].fetchable.push_front(id));
            let Some(id) = consumer else { return };
            if asked.is_empty() {
                continue;
            }
            let at = &mut self.consumers[id.0 as usize];
            let part = at.config.ahead_bytes_max / BUDGET_PARTS;
            let wanted = asked.len().saturating_mul(at.config.partition_bytes_max as usize);
            let bytes_max = at
                .room()
                .min(part.max(at.config.partition_bytes_max as usize))
                .min(wanted)
                .min(self.config.frame_bytes_max.saturating_sub(REPLY_CONTROL_BYTES));
            if bytes_max == 0 {
                at.starved.extend(asked.iter().map(|one| one.assignment));
                for one in asked {
                    if let Some(at) = self.assignments.get_mut(&one.assignment) {
                        at.is_listed = true;
                    }
                }
                continue;
            }
            at.reserved += bytes_max;
            let wait = at.config.wait_ms_max;
            let message = Fetch {
                wait_max_ms: if is_brief { wait / 8 } else { wait },
                bytes_min: at.config.bytes_min,
                bytes_max: bytes_max as u32,
                partitions,
                any_replica: near > 0,
            };
            self.counters.fetches_of_followers += near;
            self.counters.fetches_of_leaders += asked.len() as u64 - near;
            for one in &asked {
                if let Some(at) = self.assignments.get_mut(&one.assignment) {
                    at.is_fetching = true;
                }
            }
            let free_at = self.doors[door].fetches_free_at.max(now.monotonic);
            let cost = asked.len() as u64 * PARTITION_NANOS;
            self.doors[door].fetches_free_at = free_at.after(cost);
            let patience = self.config.request_nanos_max + u64::from(wait) * MILLIS;
            let Some(link) = self.doors[door].open_link() else { return };
            link.fetches += 1;
            let request = Request::Fetch { consumer: id, asked, bytes_max };
            let correlation = link.begin(request, now.monotonic.after(patience));
            let mut bytes = Vec::new();
            message.encode(correlation, &mut bytes);
            self.send_frames(door, correlation, bytes, effects);
        }
    }

    /// A fetch is over, whatever came of it. Gives those that are still where they were.
    fn end_fetch(&mut self, consumer: ConsumerId, asked: &[InFetch], bytes_max: usize) {
        self.consumers[consumer.0 as usize].reserved -= bytes_max;
        for one in asked {
            if let Some(at) = self.assignments.get_mut(&one.assignment)
                && at.generation == one.generation
            {
                at.is_fetching = false;
            }
        }
    }

    pub(super) fn on_fetch_lost(
        &mut self,
        consumer: ConsumerId,
        asked: &[InFetch],
        bytes_max: usize,
    ) {
        self.end_fetch(consumer, asked, bytes_max);
        for one in asked {
            self.want_fetch(one.assignment);
        }
        self.feed_starved(consumer);
    }

    /// The answers to fetches of which nothing is wanted any more are not waited for, so that they do not take the
    /// budget of others meanwhile.
    pub(super) fn forget_fetches(&mut self, door: usize) {
        let assignments = &self.assignments;
        let is_wanted = |one: &InFetch| {
            let at = assignments.get(&one.assignment);
            at.is_some_and(|at| at.generation == one.generation)
        };
        let Some(link) = &mut self.doors[door].link else { return };
        for (consumer, asked, bytes_max) in link.take_fetches(is_wanted) {
            self.end_fetch(consumer, &asked, bytes_max);
            self.feed_starved(consumer);
        }
    }

    pub(super) fn on_fetch_refused(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        asked: &[InFetch],
        bytes_max: usize,
        refusal: &Refusal,
        effects: &mut Effects<T>,
    ) {
        self.end_fetch(consumer, asked, bytes_max);
        for one in asked {
            if self.is_current(one) {
                match self.is_of_follower(one) {
                    true => self.on_follower_refused(one.assignment, refusal.code),
                    false => self.on_read_refused(now, one.assignment, refusal.clone(), effects),
                }
            }
            self.want_fetch(one.assignment);
        }
        self.feed_starved(consumer);
    }

    fn is_current(&self, one: &InFetch) -> bool {
        let at = self.assignments.get(&one.assignment);
        at.is_some_and(|at| at.generation == one.generation && at.stage == Stage::Fetching)
    }

    fn is_of_follower(&self, one: &InFetch) -> bool {
        self.assignments.get(&one.assignment).is_some_and(|at| at.near.is_used)
    }

    pub(super) fn on_fetch_reply(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        asked: &[InFetch],
        bytes_max: usize,
        frame: Frame<'_>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        self.end_fetch(consumer, asked, bytes_max);
        let outcome = self.keep_fetched(now, asked, frame, effects);
        for one in asked {
            self.want_fetch(one.assignment);
        }
        self.feed_starved(consumer);
        outcome
    }

    fn keep_fetched(
        &mut self,
        now: Now,
        asked: &[InFetch],
        frame: Frame<'_>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        let header = *frame.header();
        if header.kind != FrameKind::FetchReply {
            return Err("an answer of the wrong kind");
        }
        let control = header.control(frame.bytes()).map_err(|_| "a damaged control part")?;
        let reply = FetchReply::decode(control).map_err(|_| "a malformed fetch reply")?;
        let total: usize = reply.partitions.iter().map(|fetched| fetched.bytes as usize).sum();
        if total != header.payload_len as usize {
            return Err("a fetch reply of another length");
        }
        let (buffer, mut start) = match frame {
            _ if total == 0 => (Arc::default(), 0),
            Frame::Owned(_, bytes) => (Arc::new(bytes), header.payload_range().start),
            Frame::Borrowed(_, bytes) => {
                let payload = bytes.get(header.payload_range()).unwrap_or_default();
                (Arc::new(payload.to_vec()), 0)
            }
        };
        // Answers may come in any order, and some be left out: a broker that gathers them from
        // several shards takes them as they come. Usually each follows the one before.
        let mut questions: VecDeque<&InFetch> = asked.iter().collect();
        for fetched in &reply.partitions {
            let found = questions.iter().position(|one| one.id == fetched.partition);
            let Some(one) = found.and_then(|at| questions.remove(at)) else {
                return Err("a partition that was not asked for");
            };
            let range = start..start + fetched.bytes as usize;
            start = range.end;
            if self.is_current(one) {
                self.keep_partition(now, one, fetched, &buffer, range, effects);
            }
        }
        Ok(())
    }

    /// Moves the position if the user wants that; else gives the error.
    fn on_out_of_range(
        &mut self,
        now: Now,
        id: AssignmentId,
        fetched: &FetchedPartition,
        effects: &mut Effects<T>,
    ) -> Option<Error> {
        let has_peers = self.cluster.is_known();
        let at = self.assignments.get_mut(&id)?;
        let FetchedPartition { log_start, committed_end, .. } = *fetched;
        let asked = at.next;
        if has_peers && at.is_reached && asked > committed_end && at.redirects < OUT_OF_RANGE_MAX {
            // It was there: this broker leads no more, or not for long enough to know what is committed.
            let message = Box::from("behind");
            let refusal = Refusal { code: ErrorCode::NotLeader, retry_after_ms: 0, message };
            self.on_read_refused(now, id, refusal, effects);
            return None;
        }
        let target = match self.consumers[at.consumer.0 as usize].config.out_of_range {
            OutOfRange::Error => {
                return Some(Error::OffsetOutOfRange { asked, log_start, committed_end });
            }
            OutOfRange::Earliest => log_start,
            OutOfRange::Latest => committed_end,
        };
        tracing::warn!(
            topic = %at.name, partition = at.partition, %asked, %target,
            "the offset is out of range: going on at another one"
        );
        at.next = target;
        self.counters.positions_moved += 1;
        // Not at once: a broker that says so for ever is not asked for ever without a pause.
        at.is_listed = true;
        self.retries.insert((now.monotonic.after(RETRY_NANOS), Retry::Assignment(id)));
        None
    }

    fn keep_partition(
        &mut self,
        now: Now,
        one: &InFetch,
        fetched: &FetchedPartition,
        buffer: &Arc<Vec<u8>>,
        range: std::ops::Range<usize>,
        effects: &mut Effects<T>,
    ) {
        let Some(at) = self.assignments.get_mut(&one.assignment) else { return };
        let mut batch = FetchedBatch::empty(one.assignment, &at.name, at.partition, buffer);
        let is_near = at.near.is_used;
        let mut kept = 0;
        let accepted = accept_entries(&mut batch, one.id, &mut at.next, fetched, range, |batch| {
            kept += batch.bytes();
            self.counters.records_fetched += batch.record_count();
            if is_near {
                self.counters.records_of_followers += batch.record_count();
            }
            at.buffered.push_back(batch);
        });
        if fetched.error.is_none() {
            at.redirects = 0;
            // What a follower does not know of it may not be there at all.
            at.is_reached |= !is_near || at.next <= fetched.committed_end;
            if !is_near {
                at.near.on_leader_told(fetched.committed_end);
            }
        }
        at.buffered_bytes += kept;
        self.consumers[at.consumer.0 as usize].used += kept;
        let error = match (accepted, fetched.error) {
            (Err(error), _) => Some(error),
            (Ok(()), None) if is_near => {
                self.judge_follower(one.assignment, fetched.committed_end, kept);
                None
            }
            (Ok(()), None) => None,
            (Ok(()), Some(code)) if is_near => {
                self.on_follower_refused(one.assignment, code);
                None
            }
            (Ok(()), Some(ErrorCode::OffsetOutOfRange)) => {
                self.on_out_of_range(now, one.assignment, fetched, effects)
            }
            (Ok(()), Some(ErrorCode::RangeCorrupt)) => {
                let range = fetched
                    .corrupt
                    .clone()
                    .unwrap_or_else(|| at.next..Offset(at.next.0.saturating_add(1)));
                Some(Error::RangeCorrupt { first: range.start, end: range.end })
            }
            (Ok(()), Some(code)) => {
                let refusal = Refusal { code, retry_after_ms: 0, message: Box::from("") };
                self.on_read_refused(now, one.assignment, refusal, effects);
                None
            }
        };
        match error {
            Some(error) => self.fail_assignment(one.assignment, error, effects),
            None => self.note_readable(one.assignment, effects),
        }
    }
}
