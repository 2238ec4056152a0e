//! What is overheard between clients and brokers.

use corelog_protocol::ErrorCode;
use corelog_protocol::batch::BatchView;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::LaneId;
use corelog_protocol::message::ErrorReply;
use corelog_protocol::produce::ProduceAck;

use super::World;
use super::streams::Owner;
use crate::sim::check::record::record_ids;
use crate::sim::trace::Violation;

impl World {
    /// What a client hands over, before any of it travels.
    pub(super) fn overhear_client(&mut self, stream: usize, bytes: &[u8]) {
        let mut tap = std::mem::take(&mut self.streams[stream].ways[0].tap);
        tap.feed(bytes);
        while let Some((header, frame)) = tap.frame() {
            if header.kind == FrameKind::Produce {
                let batch =
                    header.payload(frame).ok().and_then(|batch| BatchView::parse(batch).ok());
                for id in batch.iter().flat_map(record_ids) {
                    self.checks.order.on_sent(id, stream as u64, self.now);
                }
            }
        }
        self.streams[stream].ways[0].tap = tap;
    }

    /// What arrives at a shard.
    pub(super) fn overhear_arrival(&mut self, stream: usize, way: usize, bytes: &[u8]) {
        if way != 0 || !matches!(self.streams[stream].ends[0].owner, Owner::Client { .. }) {
            return;
        }
        let mut tap = std::mem::take(&mut self.streams[stream].ways[0].tap_arrived);
        tap.feed(bytes);
        while let Some((header, frame)) = tap.frame() {
            let checked = self.checks.answers.on_request(stream as u64, self.now, &header, frame);
            self.check(checked);
        }
        self.streams[stream].ways[0].tap_arrived = tap;
    }

    /// What a shard says, in the moment in which it says it.
    pub(super) fn overhear(&mut self, stream: usize, end: usize, bytes: &[u8]) {
        let Owner::Shard { broker, life, shard, .. } = self.streams[stream].ends[end].owner else {
            return;
        };
        let is_client = matches!(self.streams[stream].ends[1 - end].owner, Owner::Client { .. });
        let mut tap = std::mem::take(&mut self.streams[stream].ways[end].tap);
        tap.feed(bytes);
        while let Some((header, frame)) = tap.frame() {
            let control = header.control(frame).unwrap_or_default();
            let payload = header.payload(frame).unwrap_or_default();
            if is_client {
                self.overhear_answer(stream, (broker, shard), &header, control, payload);
            } else if end == 0 {
                let to = self.streams[stream].ends[1].host;
                self.overhear_peer((broker, life), to, header.kind, control, payload);
            }
        }
        if tap.is_lost() {
            self.violated(Violation::new("I12", "a shard sent bytes that are no frames"));
        }
        self.streams[stream].ways[end].tap = tap;
    }

    fn overhear_answer(
        &mut self,
        stream: usize,
        (broker, shard): (usize, usize),
        header: &corelog_protocol::frame::FrameHeader,
        control: &[u8],
        payload: &[u8],
    ) {
        let partial = self.streams[stream].ways[0].tap_arrived.partial();
        let early = self.checks.answers.on_early_answer(stream as u64, header, partial);
        let answered = match early {
            Some(request) => Ok(request),
            None => self.checks.answers.on_answer(stream as u64, header),
        };
        let request = match answered {
            Ok(request) => request,
            Err(violation) => return self.violated(violation),
        };
        match header.kind {
            FrameKind::ProduceAck => match ProduceAck::decode(control) {
                Ok(ack) => {
                    let checked = self.checks.on_ack(broker, &request, &ack, &mut self.tally);
                    self.check(checked);
                }
                Err(error) => self.violated(Violation::new("I12", error.to_string())),
            },
            FrameKind::FetchReply => {
                let process = self.machines[broker].process.as_ref();
                let shards = process.map_or(1, |process| process.shards.len().max(1));
                let has = |lane: LaneId| usize::from(lane.shard(shards as u16).0) == shard;
                let checked = self.checks.on_served(broker, has, payload);
                self.check(checked);
            }
            FrameKind::Error => {
                let code = ErrorReply::decode(control).ok().map(|reply| reply.code);
                self.tally.one(refusal_name(code));
                self.line(|| format!("broker {broker} refuses {request:?} with {code:?}"));
            }
            _ => {}
        }
    }
}

fn refusal_name(code: Option<ErrorCode>) -> &'static str {
    match code {
        Some(ErrorCode::NotLeader) => "refusals NotLeader",
        Some(ErrorCode::OutcomeUnknown) => "refusals OutcomeUnknown",
        Some(ErrorCode::Recovering) => "refusals Recovering",
        Some(ErrorCode::Overloaded) => "refusals Overloaded",
        Some(ErrorCode::Stopping) => "refusals Stopping",
        Some(ErrorCode::UnknownTopic) => "refusals UnknownTopic",
        Some(ErrorCode::UnknownPartition) => "refusals UnknownPartition",
        Some(_) => "refusals of other kinds",
        None => "refusals that cannot be read",
    }
}
