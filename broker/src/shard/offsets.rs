//! Where partitions begin and end, and which offset had which time. A look-up by time may have to
//! read the disk; the queries are answered one after the other.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameHeader;
use corelog_protocol::message::{OffsetsAnswer, OffsetsQuery, OffsetsReply};

use super::event::Conn;
use super::gather::refused_offsets;
use super::jobs::JobId;
use super::lane::{Origin, Reader};
use super::message::Answer;
use super::replies::{OVERLOADED, STOPPING};
use super::{Cx, Shard};
use crate::limits::FETCHES_MAX;
use crate::log::Lookup;
use crate::memory::Memory;

#[derive(Debug)]
pub(super) struct OffsetsJob {
    origin: Origin,
    queries: Vec<OffsetsQuery>,
    answers: Vec<OffsetsAnswer>,
    held_bytes: usize,
}

impl Shard {
    pub(super) fn on_offsets_request<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        queries: Vec<OffsetsQuery>,
    ) {
        if let Some(session) = self.sessions.answerable(conn) {
            session.requests += 1;
        }
        let elsewhere = queries.iter().any(|query| self.partitions.get(query.partition).is_none());
        if elsewhere {
            self.gather_offsets(cx, conn, header.correlation, queries);
        } else {
            let origin = Origin::Conn { conn, correlation: header.correlation };
            self.start_offsets(cx, origin, queries);
        }
    }

    pub(super) fn start_offsets<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        queries: Vec<OffsetsQuery>,
    ) {
        let refusal = if self.stopping.is_some() {
            Some(STOPPING)
        } else if self.offsets.len() >= FETCHES_MAX || !self.can_hold(cx.memory, 0) {
            Some(OVERLOADED)
        } else {
            None
        };
        let held_bytes = 256 + queries.len() * 64;
        self.held_bytes += held_bytes;
        let answers = Vec::with_capacity(queries.len());
        let mut job = OffsetsJob { origin, queries, answers, held_bytes };
        if let Some(refusal) = refusal {
            let refused = job.queries.iter().map(|&query| refused_offsets(query, refusal.code));
            job.answers = refused.collect();
        }
        let id = self.offsets.insert(job);
        self.run_offsets(cx, id);
    }

    /// Goes on with the first query that has no answer.
    pub(super) fn run_offsets<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        loop {
            let Some(job) = self.offsets.get_mut(id) else { return };
            let Some(&query) = job.queries.get(job.answers.len()) else { break };
            let local = self.partitions.get(query.partition).map(|found| usize::from(found.lane));
            let Some(lane) = local else {
                let code = self.unknown_partition(query.partition).code;
                self.add_answer(id, refused_offsets(query, code));
                continue;
            };
            let target = &mut self.lanes[lane];
            if let Some(code) = target.unreadable() {
                self.add_answer(id, refused_offsets(query, code));
                continue;
            }
            let Some(bounds) = target.log.partition(query.partition) else {
                self.add_answer(id, refused_offsets(query, ErrorCode::UnknownPartition));
                continue;
            };
            let mut answer = OffsetsAnswer {
                partition: query.partition,
                error: None,
                log_start: bounds.log_start,
                committed_end: bounds.committed_end,
                offset_at: None,
            };
            if let Some(time) = query.timestamp {
                let io = &mut cx.io(&mut self.ops);
                match target.log.offset_at_time(io, query.partition, time) {
                    Lookup::Found(offset) => answer.offset_at = offset,
                    Lookup::Waiting(read) => {
                        target.reads.insert(read, Reader::Offsets(id));
                        return;
                    }
                    Lookup::Busy => {
                        target.reads_put_off.push_back(Reader::Offsets(id));
                        return;
                    }
                    Lookup::UnknownPartition => answer.error = Some(ErrorCode::UnknownPartition),
                    Lookup::Failed => answer.error = Some(ErrorCode::StorageUnavailable),
                }
            }
            self.add_answer(id, answer);
        }
        self.finish_offsets(cx, id);
    }

    fn add_answer(&mut self, id: JobId, answer: OffsetsAnswer) {
        if let Some(job) = self.offsets.get_mut(id) {
            job.answers.push(answer);
        }
    }

    /// The disk has answered the query that it was asked for.
    pub(super) fn on_offsets_lookup<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: JobId,
        lookup: Lookup,
    ) {
        let Some(job) = self.offsets.get_mut(id) else { return };
        let query = job.queries[job.answers.len()];
        let lane = self.partitions.get(query.partition).map(|local| usize::from(local.lane));
        let bounds = lane.and_then(|lane| self.lanes[lane].log.partition(query.partition));
        let answer = match (bounds, lookup) {
            (None, _) | (_, Lookup::UnknownPartition) => {
                refused_offsets(query, ErrorCode::UnknownPartition)
            }
            (Some(bounds), lookup) => OffsetsAnswer {
                partition: query.partition,
                error: (!matches!(lookup, Lookup::Found(_)))
                    .then_some(ErrorCode::StorageUnavailable),
                log_start: bounds.log_start,
                committed_end: bounds.committed_end,
                offset_at: if let Lookup::Found(offset) = lookup { offset } else { None },
            },
        };
        self.add_answer(id, answer);
        self.run_offsets(cx, id);
    }

    fn finish_offsets<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        let Some(job) = self.offsets.remove(id) else { return };
        self.held_bytes -= job.held_bytes;
        match job.origin {
            Origin::Conn { conn, correlation } => {
                self.end_request(conn);
                let reply = OffsetsReply { partitions: job.answers };
                self.send_message(cx, conn, correlation, &reply);
            }
            Origin::Gather(gather) => self.gather_offsets_here(cx, gather, job.answers),
            origin => self.answer(cx, origin, Answer::Offsets(job.answers)),
        }
    }
}
