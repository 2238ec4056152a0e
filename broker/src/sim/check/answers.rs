//! I12, the part that clients feel: each request gets exactly one answer, or its connection closes.

use std::collections::{BTreeMap, BTreeSet};

use corelog_protocol::Durability;
use corelog_protocol::batch::BatchView;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::PartitionId;
use corelog_protocol::produce::Produce;

use crate::sim::trace::{Checked, Violation};

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    Produce { partition: PartitionId, durability: Durability, body_crc: u32, record_count: u32 },
    Other(FrameKind),
}

impl Request {
    pub fn read(header: &FrameHeader, frame: &[u8]) -> Self {
        let produce = || {
            let control = header.control(frame).ok()?;
            let produce = Produce::decode(control).ok()?;
            let batch = BatchView::check_header(header.payload(frame).ok()?).ok()?;
            Some(Request::Produce {
                partition: produce.partition,
                durability: produce.durability,
                body_crc: batch.stored_crc(),
                record_count: batch.header().record_count,
            })
        };
        match header.kind {
            FrameKind::Produce => produce().unwrap_or(Request::Other(FrameKind::Produce)),
            kind => Request::Other(kind),
        }
    }

    fn needs_answer(&self) -> bool {
        !matches!(self, Request::Produce { durability: Durability::None, .. })
    }
}

/// By link and correlation.
#[derive(Debug, Default)]
pub struct AnswerCheck {
    open: BTreeMap<(u64, u64), (u64, Request)>,
    /// Refused by its header alone; the rest of the frame is still to come.
    early: BTreeSet<(u64, u64)>,
    pub looked: u64,
}

impl AnswerCheck {
    pub fn on_request(
        &mut self,
        link: u64,
        now: u64,
        header: &FrameHeader,
        frame: &[u8],
    ) -> Checked {
        if self.early.remove(&(link, header.correlation)) {
            return Ok(());
        }
        let request = Request::read(header, frame);
        match self.open.insert((link, header.correlation), (now, request)) {
            Some((_, earlier)) if earlier.needs_answer() => {
                let text =
                    format!("a client reused correlation {} of {earlier:?}", header.correlation);
                Err(Violation::new("client", text))
            }
            _ => Ok(()),
        }
    }

    /// A frame may be refused before all of it has come: `partial` is the one that has not.
    pub fn on_early_answer(
        &mut self,
        link: u64,
        header: &FrameHeader,
        partial: Option<FrameHeader>,
    ) -> Option<Request> {
        let partial = partial.filter(|partial| partial.correlation == header.correlation)?;
        let is_new =
            header.kind == FrameKind::Error && self.early.insert((link, header.correlation));
        self.looked += u64::from(is_new);
        is_new.then_some(Request::Other(partial.kind))
    }

    /// The request that a frame answers.
    pub fn on_answer(&mut self, link: u64, header: &FrameHeader) -> Result<Request, Violation> {
        self.looked += 1;
        match self.open.remove(&(link, header.correlation)) {
            Some((_, request)) => Ok(request),
            None => {
                let text =
                    format!("{} {} answers no open request", header.kind, header.correlation);
                Err(Violation::new("I12", text))
            }
        }
    }

    /// The client closes a connection. What it asked and the shard has heard must not have waited
    /// for longer than `patience`: a request that is dropped in silence ends so.
    pub fn on_given_up(&self, link: u64, now: u64, patience: u64) -> Checked {
        let open = self.open.range((link, 0)..=(link, u64::MAX));
        Self::check_waiting(open, now, patience)
    }

    /// Whether a request has waited for longer than this.
    pub fn has_waiting(&self, now: u64, length: u64) -> bool {
        Self::check_waiting(self.open.iter(), now, length).is_err()
    }

    pub fn on_closed(&mut self, link: u64) {
        let open = self.open.range((link, 0)..=(link, u64::MAX)).map(|(key, _)| *key);
        for key in open.collect::<Vec<_>>() {
            self.open.remove(&key);
        }
    }

    /// Nothing may wait longer than `patience` for its answer.
    pub fn check_patience(&self, now: u64, patience: u64) -> Checked {
        Self::check_waiting(self.open.iter(), now, patience)
    }

    fn check_waiting<'a>(
        mut open: impl Iterator<Item = (&'a (u64, u64), &'a (u64, Request))>,
        now: u64,
        patience: u64,
    ) -> Checked {
        let late = open.find(|(_, (since, request))| {
            request.needs_answer() && now.saturating_sub(*since) > patience
        });
        match late {
            Some(((link, correlation), (since, request))) => {
                let waited = (now - since) / 1_000_000;
                let text = format!(
                    "{request:?} (link {link}, correlation {correlation}) has had no answer for {waited} ms"
                );
                Err(Violation::new("I12", text))
            }
            None => Ok(()),
        }
    }
}
