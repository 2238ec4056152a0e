//! One partition's records on their way out: an open batch that gathers, closed ones that wait,
//! sent ones that are unanswered. Keeps their order, also when some are refused.
//!
//! ```text
//!  flying                         waiting
//!  [sent][refused][sent] ◄─ window ─ [closed][closed][open] ◄─ produce
//! ```
//! A refused batch may be sent again only if no later one was, or may have been, appended: while a
//! refused one stands in `flying` nothing more leaves, and when all there are refused they go back
//! to the front of `waiting`. If a later one was appended, the refused one fails for good. What asks for no
//! answer leaves when nothing before it waits for one: nobody could tell later in front of what it stands.

use super::line::{Line, Stamp};
use super::produce::Builder;
use super::time::Monotonic;
use crate::{Durability, Error};
use corelog_protocol::ids::{Epoch, LaneId, PartitionId};
use corelog_protocol::message::PartitionPlace;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Queue<T> {
    pub topic: usize,
    /// Within the topic.
    pub number: u32,
    pub id: PartitionId,
    pub lane: LaneId,
    /// Of the lane, in the newest place that was told.
    pub epoch: Epoch,
    /// Somebody leads the lane, as far as that place says. Nothing leaves while nobody does.
    pub is_led: bool,
    /// Refusals in a row of brokers that do not lead the lane.
    pub redirects: u32,
    pub door: usize,
    /// The partition moved: the door to use once nothing flies through the old one.
    pub next_door: Option<usize>,
    pub waiting: VecDeque<Batch<T>>,
    pub flying: VecDeque<Batch<T>>,
    /// It stands in its door's `ready`.
    pub is_ready: bool,
    /// After a refusal nothing leaves before this.
    pub not_before: Monotonic,
    /// After a refusal one batch at a time, until one is appended.
    pub is_narrow: bool,
    /// The last batch that left through the present door without asking for an answer, 0 for none: nobody
    /// knows whether the broker has taken it yet, and what leaves through another door could
    /// overtake it. Forgotten when a later one is acknowledged.
    pub unconfirmed: u64,
    pub line: Line,
}

#[derive(Debug)]
pub(super) struct Batch<T> {
    /// Grows over all batches of the engine.
    pub id: u64,
    pub level: Durability,
    pub stages: bool,
    pub tokens: Vec<T>,
    pub body: Body,
    /// Nothing is added any more.
    pub closed: bool,
    /// What it counts in the memory budget.
    pub bytes: usize,
    pub linger_until: Monotonic,
    /// When it was last sent.
    pub sent_at: Monotonic,
    /// It was closed because nothing more fitted.
    pub is_full: bool,
    pub deadline: Monotonic,
    /// The flush that waits for it.
    pub flush: u64,
    pub state: BatchState,
    /// Why it was sent again.
    pub refusal: Option<Error>,
    pub record_count: u32,
    /// By which the broker recognises it, once it has left. None for level `none`, which is never sent again.
    pub stamp: Option<Stamp>,
    /// Under which it left before, and may stand in the log; what became of it is to be found out with the new stamp.
    pub former: Option<Stamp>,
    /// As the how-manieth of its line it was stamped.
    pub place: u64,
    /// It left whole once, and no answer came.
    pub is_unsure: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Open(Box<Builder>),
    Built(Arc<Vec<u8>>),
}

/// Of a flying batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BatchState {
    Waiting,
    /// Where it ends in its connection's outgoing stream.
    Sent {
        end: u64,
    },
    /// It is as if it had not been sent. With why, and how long to wait, ns.
    Refused {
        error: Error,
        retry_nanos: u64,
    },
    /// Its user was told; its answer is still to come.
    Expired,
}

/// What became of flying batches: to be told to their users.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub batch: Batch<T>,
    pub error: Option<Error>,
}

impl<T> Batch<T> {
    pub(super) fn is_due(&self, now: Monotonic) -> bool {
        self.closed || self.linger_until <= now
    }

    /// It still gathers, and a record of at most `bytes` fits.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        match &self.body {
            Body::Open(builder) => !self.closed && builder.has_room(bytes),
            Body::Built(_) => false,
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn new(topic: usize, number: u32, place: &PartitionPlace, door: usize) -> Self {
        Self {
            topic,
            number,
            id: place.partition,
            lane: place.lane,
            epoch: place.epoch,
            is_led: true,
            redirects: 0,
            door,
            next_door: None,
            waiting: VecDeque::new(),
            flying: VecDeque::new(),
            is_ready: false,
            not_before: Monotonic(0),
            is_narrow: false,
            unconfirmed: 0,
            line: Line::default(),
        }
    }

    /// The oldest batch that is not done.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.flying.front().or(self.waiting.front()).map(|batch| batch.id)
    }

    /// The front batch may leave, as far as this partition is concerned.
    pub(super) fn may_send(&self, now: Monotonic, window: usize) -> bool {
        let window = if self.is_narrow { 1 } else { window };
        self.waiting.front().is_some_and(|batch| batch.is_due(now) || self.waiting.len() > 1)
            && self.is_led
            && self.not_before <= now
            && self.flying.len() < window
            && (self.next_door.is_none() || self.needs_confirmation())
            && !self.has_refused()
            && self.flying.iter().all(|batch| self.is_current(batch))
            && self.waiting.front().is_some_and(|batch| self.keeps_order(batch))
    }

    /// The batch may leave behind what is unanswered: it can be told from it, and stays behind it.
    fn keeps_order(&self, batch: &Batch<T>) -> bool {
        let mut unanswered = self
            .flying
            .iter()
            .filter(|batch| batch.level.is_acknowledged() && batch.state != BatchState::Expired);
        if !batch.level.is_acknowledged() {
            return unanswered.next().is_none();
        }
        // A batch that has been answered no longer counts as flying, but the broker remembers it instead of an older one.
        let oldest = unanswered.find(|batch| batch.stamp.is_some());
        batch.stamp.is_some() || oldest.is_none_or(|oldest| self.line.has_room_after(oldest))
    }

    /// The batch is not of an epoch that is over: what left with such a stamp comes back first.
    fn is_current(&self, batch: &Batch<T>) -> bool {
        batch.stamp.is_none_or(|stamp| stamp.epoch == self.line.epoch)
    }

    /// Something of the same epoch that left before this batch will yet be sent again, or answered.
    pub(super) fn has_earlier(&self, id: u64) -> bool {
        let earlier = self.flying.iter().take_while(|batch| batch.id != id);
        let mut stamped = earlier.filter(|batch| batch.stamp.is_some() && self.is_current(batch));
        stamped.any(|batch| batch.state != BatchState::Expired)
    }

    /// The queue waits to change its door, and must first hear that all before was taken: its next
    /// batch still leaves through the old one, and asks for an answer whatever its level.
    pub(super) fn needs_confirmation(&self) -> bool {
        self.next_door.is_some() && self.unconfirmed > 0 && self.flying.is_empty()
    }

    /// Through which door the partition is reached, once what flies has landed.
    pub(super) fn target(&self) -> usize {
        self.next_door.unwrap_or(self.door)
    }

    pub(super) fn has_refused(&self) -> bool {
        self.flying.iter().any(|batch| matches!(batch.state, BatchState::Refused { .. }))
    }

    /// The answer to a batch was success. Refused ones before it were overtaken.
    pub(super) fn on_appended(&mut self, id: u64, done: &mut Vec<Done<T>>) {
        self.is_narrow = false;
        self.remove(id, None, true, done);
    }

    /// The fate of a batch is known or given up. `maybe_appended` says whether it may stand in the log.
    pub(super) fn on_failed(
        &mut self,
        id: u64,
        error: Error,
        maybe_appended: bool,
        done: &mut Vec<Done<T>>,
    ) {
        self.remove(id, Some(error), maybe_appended, done);
    }

    fn remove(
        &mut self,
        id: u64,
        error: Option<Error>,
        maybe_appended: bool,
        done: &mut Vec<Done<T>>,
    ) {
        let Some(mut at) = self.flying.iter().position(|batch| batch.id == id) else {
            return;
        };
        if maybe_appended {
            let mut earlier = 0;
            while earlier < at {
                // One with a stamp may be sent again: the broker sees to the order.
                let stamp = self.flying[earlier].stamp;
                if let (BatchState::Refused { error, .. }, None) =
                    (&self.flying[earlier].state, stamp)
                {
                    let error = error.clone();
                    let batch = self.flying.remove(earlier).expect("in range");
                    done.push(Done { batch, error: Some(error) });
                    at -= 1;
                } else {
                    earlier += 1;
                }
            }
        }
        let batch = self.flying.remove(at).expect("in range");
        done.push(Done { batch, error });
    }

    /// A batch was refused and may be sent again, if order allows.
    pub(super) fn on_refused(&mut self, id: u64, error: Error, retry_nanos: u64) {
        if let Some(batch) = self.flying.iter_mut().find(|batch| batch.id == id) {
            batch.state = BatchState::Refused { error, retry_nanos };
        }
    }

    /// If all that flew is refused, it waits again, in order. Call after each change of `flying`.
    pub(super) fn settle(&mut self, now: Monotonic) -> bool {
        let all_refused =
            self.flying.iter().all(|batch| matches!(batch.state, BatchState::Refused { .. }));
        if self.flying.is_empty() || !all_refused {
            return false;
        }
        while let Some(mut batch) = self.flying.pop_back() {
            let state = std::mem::replace(&mut batch.state, BatchState::Waiting);
            if let BatchState::Refused { error, retry_nanos } = state {
                self.not_before = self.not_before.max(now.after(retry_nanos));
                self.is_narrow |= retry_nanos > 0;
                batch.refusal = Some(error);
            }
            self.waiting.push_front(batch);
        }
        true
    }
}
