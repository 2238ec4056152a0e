//! Requests whose parts belong to several shards: asked in parallel, answered as one.
//!
//! The part that belongs here is a job like any other; the others are questions. A fetch that has
//! found something hurries its other parts, so that it does not wait for the slowest.

use corelog_protocol::ErrorCode;
use corelog_protocol::ids::{Offset, ShardId};
use corelog_protocol::message::{
    Fetch, FetchPartition, FetchReply, FetchedPartition, OffsetsAnswer, OffsetsQuery, OffsetsReply,
};

use super::effect::Effect;
use super::event::Conn;
use super::jobs::JobId;
use super::lane::Origin;
use super::message::{Answer, ShardMessage, Token};
use super::route::{Forward, ForwardKind};
use super::{Cx, Shard};
use crate::memory::{Memory, Piece};

#[derive(Debug)]
pub(super) struct Gather {
    conn: Conn,
    correlation: u64,
    /// Parts that have not been answered yet.
    open: u32,
    /// Those of them that are fetches: here, and elsewhere.
    local: Option<JobId>,
    remote: Vec<(ShardId, Token)>,
    is_hurried: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Fetch {
        wanted: Vec<FetchPartition>,
        found: Vec<FetchedPartition>,
        pieces: Vec<Piece>,
        bytes: usize,
    },
    Offsets {
        queries: Vec<OffsetsQuery>,
        answers: Vec<Option<OffsetsAnswer>>,
        /// Places of those that are answered here.
        local: Vec<u16>,
    },
    Status {
        prefix: String,
        shards: Vec<(ShardId, Vec<u64>)>,
    },
}

/// The items of a request that one shard serves, as places in the request.
type Part = (ShardId, Vec<u16>);

impl Shard {
    fn part(
        &self,
        parts: &mut Vec<Part>,
        partition: corelog_protocol::ids::PartitionId,
        any_replica: bool,
        at: usize,
    ) {
        let led_here = self.home_elsewhere(partition).ok();
        let copy = || self.view.copy_here(partition, self.config.shards).filter(|_| any_replica);
        // What nobody serves is refused here.
        let shard = led_here.or_else(copy).unwrap_or(self.config.shard);
        match parts.iter_mut().find(|(known, _)| *known == shard) {
            Some((_, places)) => places.push(at as u16),
            None => parts.push((shard, vec![at as u16])),
        }
    }

    fn start_gather(&mut self, conn: Conn, correlation: u64, parts: usize, what: What) -> JobId {
        let id = self.gathers.insert(Gather {
            conn,
            correlation,
            open: parts as u32,
            local: None,
            remote: Vec::new(),
            is_hurried: false,
            what,
        });
        if let Some(session) = self.sessions.answerable(conn) {
            session.gathers.push(id);
        }
        id
    }

    /// Its connection is gone: what was found is given back, the parts that wait need not.
    pub(super) fn abandon_gather<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        let Some(gather) = self.gathers.remove(id) else { return };
        let What::Fetch { pieces, .. } = gather.what else { return };
        for piece in pieces {
            cx.memory.release(piece.slot);
        }
        if let Some(local) = gather.local {
            self.abandon_fetch(cx, local);
        }
        if !gather.is_hurried {
            for (to, token) in gather.remote {
                let message = Box::new(ShardMessage::FetchHurry { token });
                cx.effects.push(Effect::Tell { to, message });
            }
        }
    }

    pub(super) fn gather_fetch<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        fetch: Fetch,
    ) {
        let mut parts = Vec::new();
        for (at, wanted) in fetch.partitions.iter().enumerate() {
            self.part(&mut parts, wanted.partition, fetch.any_replica, at);
        }
        let count = parts.len() as u32;
        let wanted = fetch.partitions.clone();
        let what = What::Fetch { wanted, found: Vec::new(), pieces: Vec::new(), bytes: 0 };
        let gather = self.start_gather(conn, correlation, parts.len(), what);
        for (shard, places) in parts {
            let partitions = places.iter().map(|&at| fetch.partitions[usize::from(at)]).collect();
            // Each part may fill its share, and wakes the whole when it has its share of the least.
            let part = Fetch {
                wait_max_ms: fetch.wait_max_ms,
                bytes_min: fetch.bytes_min.div_ceil(count),
                bytes_max: (fetch.bytes_max.min(self.config.frame_bytes_max as u32) / count).max(1),
                partitions,
                any_replica: fetch.any_replica,
            };
            if shard == self.config.shard {
                let id = self.start_fetch(cx, Origin::Gather(gather), part);
                if let Some(gather) = self.gathers.get_mut(gather) {
                    gather.local = Some(id);
                }
                continue;
            }
            let held_bytes = 512 + places.len() * 96;
            let kind = ForwardKind::Part { gather, places };
            let forward = Forward { shard, kind, held_bytes };
            let message = |token| ShardMessage::Fetch { token, fetch: part };
            self.counters.requests_forwarded += 1;
            self.ask_part(cx, gather, forward, message);
        }
    }

    /// Asks for a part, or notes that it cannot be asked for.
    fn ask_part<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        gather: JobId,
        forward: Forward,
        message: impl FnOnce(Token) -> ShardMessage,
    ) {
        let shard = forward.shard;
        let places = match &forward.kind {
            ForwardKind::Part { places, .. } => places.clone(),
            _ => Vec::new(),
        };
        match self.forward(cx, forward, message) {
            Some(token) => {
                if let Some(gather) = self.gathers.get_mut(gather) {
                    gather.remote.push((shard, token));
                }
            }
            None => {
                let refused = Answer::Refused(super::replies::OVERLOADED);
                self.gather_answer(cx, gather, shard, Token(u64::MAX), &places, refused);
            }
        }
    }

    pub(super) fn gather_offsets<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        queries: Vec<OffsetsQuery>,
    ) {
        let mut parts = Vec::new();
        for (at, query) in queries.iter().enumerate() {
            self.part(&mut parts, query.partition, false, at);
        }
        let local = parts.iter().find(|(shard, _)| *shard == self.config.shard);
        let local = local.map_or_else(Vec::new, |(_, places)| places.clone());
        let answers = vec![None; queries.len()];
        let what = What::Offsets { queries: queries.clone(), answers, local };
        let gather = self.start_gather(conn, correlation, parts.len(), what);
        for (shard, places) in parts {
            let part = places.iter().map(|&at| queries[usize::from(at)]).collect();
            if shard == self.config.shard {
                self.start_offsets(cx, Origin::Gather(gather), part);
                continue;
            }
            let held_bytes = 512 + places.len() * 64;
            let kind = ForwardKind::Part { gather, places };
            let forward = Forward { shard, kind, held_bytes };
            let message = |token| ShardMessage::Offsets { token, queries: part };
            self.counters.requests_forwarded += 1;
            self.ask_part(cx, gather, forward, message);
        }
    }

    pub(super) fn gather_status<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        prefix: String,
    ) {
        let own = (self.config.shard, self.counter_values(cx));
        let what = What::Status { prefix, shards: vec![own] };
        let parts = usize::from(self.config.shards);
        let gather = self.start_gather(conn, correlation, parts, what);
        for shard in (0..self.config.shards).map(ShardId) {
            if shard != self.config.shard {
                let kind = ForwardKind::Part { gather, places: Vec::new() };
                let forward = Forward { shard, kind, held_bytes: 0 };
                self.ask_part(cx, gather, forward, |token| ShardMessage::Status { token });
            }
        }
        self.part_done(cx, gather);
    }

    /// The part of a fetch that belongs here.
    pub(super) fn gather_fetched<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: JobId,
        partitions: Vec<FetchedPartition>,
        new: Vec<Piece>,
    ) {
        let Some(gather) = self.gathers.get_mut(id) else {
            for piece in new {
                cx.memory.release(piece.slot);
            }
            return;
        };
        gather.local = None;
        self.add_fetched(cx, id, partitions, new);
        self.part_done(cx, id);
    }

    fn add_fetched<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: JobId,
        mut partitions: Vec<FetchedPartition>,
        new: Vec<Piece>,
    ) {
        let cap = self.config.frame_bytes_max;
        let Some(gather) = self.gathers.get_mut(id) else { return };
        let What::Fetch { found, pieces, bytes, .. } = &mut gather.what else {
            unreachable!("a fetch was gathered")
        };
        let more: usize = partitions.iter().map(|fetched| fetched.bytes as usize).sum();
        let is_news = more > 0 || partitions.iter().any(|fetched| fetched.error.is_some());
        if *bytes > 0 && *bytes + more > cap {
            // Too much for one answer: asked for again, it comes with the next.
            partitions.iter_mut().for_each(|fetched| fetched.bytes = 0);
            for piece in new {
                cx.memory.release(piece.slot);
            }
        } else {
            *bytes += more;
            pieces.extend(new);
        }
        found.append(&mut partitions);
        if !is_news || gather.is_hurried {
            return;
        }
        gather.is_hurried = true;
        let local = gather.local;
        for &(to, token) in &gather.remote {
            let message = Box::new(ShardMessage::FetchHurry { token });
            cx.effects.push(Effect::Tell { to, message });
        }
        if let Some(local) = local {
            self.hurry_fetch(local);
        }
    }

    /// The part of an offsets request that belongs here.
    pub(super) fn gather_offsets_here<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: JobId,
        new: Vec<OffsetsAnswer>,
    ) {
        let Some(gather) = self.gathers.get_mut(id) else { return };
        let What::Offsets { local, .. } = &mut gather.what else {
            unreachable!("offsets were gathered")
        };
        let places = std::mem::take(local);
        self.add_offsets(id, &places, new);
        self.part_done(cx, id);
    }

    fn add_offsets(&mut self, id: JobId, places: &[u16], new: Vec<OffsetsAnswer>) {
        let Some(gather) = self.gathers.get_mut(id) else { return };
        let What::Offsets { answers, queries, .. } = &mut gather.what else {
            unreachable!("offsets were gathered")
        };
        for (&at, answer) in places.iter().zip(new) {
            assert!(queries[usize::from(at)].partition == answer.partition);
            answers[usize::from(at)] = Some(answer);
        }
    }

    /// Another shard has answered its part.
    pub(super) fn gather_answer<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: JobId,
        shard: ShardId,
        token: Token,
        places: &[u16],
        answer: Answer,
    ) {
        let is_roomy = match &answer {
            Answer::Fetched { payload, .. } => self.can_hold(cx.memory, payload.len()),
            _ => true,
        };
        let Some(gather) = self.gathers.get_mut(id) else { return };
        gather.remote.retain(|&(_, known)| known != token);
        match (answer, &mut gather.what) {
            (Answer::Fetched { mut partitions, payload }, What::Fetch { .. }) => {
                let mut pieces = Vec::new();
                if !is_roomy {
                    // One commit may wake many forwarded fetches at once.
                    for fetched in partitions.iter_mut().filter(|fetched| fetched.bytes > 0) {
                        fetched.bytes = 0;
                        fetched.error = Some(ErrorCode::Overloaded);
                    }
                } else if !payload.is_empty() {
                    let slot = cx.memory.allocate(payload.len());
                    cx.memory.bytes_mut(slot)[..payload.len()].copy_from_slice(&payload);
                    pieces.push(Piece::new(slot, 0, payload.len()));
                }
                self.add_fetched(cx, id, partitions, pieces);
            }
            (Answer::Offsets(new), What::Offsets { .. }) => self.add_offsets(id, places, new),
            (Answer::Counters(values), What::Status { shards, .. }) => shards.push((shard, values)),
            (Answer::Refused(refusal), What::Fetch { wanted, .. }) => {
                let partitions = places
                    .iter()
                    .map(|&at| refused_partition(wanted[usize::from(at)], refusal.code))
                    .collect();
                self.add_fetched(cx, id, partitions, Vec::new());
            }
            (Answer::Refused(refusal), What::Offsets { queries, answers, .. }) => {
                for &at in places {
                    answers[usize::from(at)] =
                        Some(refused_offsets(queries[usize::from(at)], refusal.code));
                }
            }
            // A shard that cannot be asked is missing in the answer.
            (Answer::Refused(_), What::Status { .. }) => {}
            (answer, _) => unreachable!("a part was answered with {answer:?}"),
        }
        self.part_done(cx, id);
    }

    fn part_done<M: Memory>(&mut self, cx: &mut Cx<'_, M>, id: JobId) {
        let Some(gather) = self.gathers.get_mut(id) else { return };
        gather.open -= 1;
        if gather.open > 0 {
            return;
        }
        let gather = self.gathers.remove(id).expect("looked up above");
        let Gather { conn, correlation, what, .. } = gather;
        self.end_request(conn);
        if let Some(session) = self.sessions.answerable(conn) {
            session.gathers.retain(|&known| known != id);
        }
        match what {
            What::Fetch { found, mut pieces, .. } => {
                let reply = FetchReply { partitions: found };
                self.send_with_payload(cx, conn, correlation, &reply, &mut pieces);
            }
            What::Offsets { queries, answers, .. } => {
                let missing = |query| refused_offsets(query, ErrorCode::UnknownPartition);
                let partitions = queries
                    .into_iter()
                    .zip(answers)
                    .map(|(query, answer)| answer.unwrap_or_else(|| missing(query)))
                    .collect();
                self.send_message(cx, conn, correlation, &OffsetsReply { partitions });
            }
            What::Status { prefix, shards } => {
                self.send_status(cx, conn, correlation, &prefix, shards);
            }
        }
    }
}

fn refused_partition(wanted: FetchPartition, code: ErrorCode) -> FetchedPartition {
    FetchedPartition {
        partition: wanted.partition,
        error: Some(code),
        log_start: Offset(0),
        committed_end: Offset(0),
        bytes: 0,
        corrupt: None,
    }
}

pub(super) fn refused_offsets(query: OffsetsQuery, code: ErrorCode) -> OffsetsAnswer {
    OffsetsAnswer {
        partition: query.partition,
        error: Some(code),
        log_start: Offset(0),
        committed_end: Offset(0),
        offset_at: None,
    }
}
