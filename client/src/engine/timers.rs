//! What time brings: lingering ends, deadlines, retries, overdue answers.

use super::objective::Objective;
use super::produce::Due;
use super::time::{Monotonic, Now};
use super::{Effects, Engine, Retry};

impl<T> Engine<T> {
    /// When to tell [`Event::Timer`](super::Event::Timer), if nothing else happens before. May be
    /// early, and may lie in the past: then tell it at once.
    #[must_use]
    pub fn next_wake(&self) -> Option<Monotonic> {
        if self.is_closed {
            return None;
        }
        [
            self.producer.lingering.front().map(|&(at, ..)| at),
            self.producer.deadlines.front().map(|&(at, _)| at),
            self.retries.first().map(|&(at, _)| at),
            self.objective.as_ref().and_then(Objective::due),
            self.next_wake_of_links(),
            self.next_wake_of_requests(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn on_timer(&mut self, now: Now, effects: &mut Effects<T>) {
        while let Some(&(at, queue, batch)) = self.producer.lingering.front() {
            let gone = self.producer.queues[queue].oldest().is_none_or(|oldest| oldest > batch);
            if at > now.monotonic && !gone {
                break;
            }
            self.producer.lingering.pop_front();
            if !gone {
                if let Some(last) = self.producer.queues[queue].waiting.back_mut()
                    && last.id == batch
                {
                    // It may have been brought forward.
                    last.linger_until = last.linger_until.min(at);
                }
                self.wake_queue(now.monotonic, queue);
            }
        }
        while let Some(&(at, retry)) = self.retries.first()
            && at <= now.monotonic
        {
            self.retries.remove(&(at, retry));
            match retry {
                Retry::Queue(queue) => self.wake_queue(now.monotonic, queue),
                Retry::Topic(topic) => self.on_topic_retry(topic),
                Retry::Assignment(assignment) => self.on_assignment_retry(assignment, effects),
                Retry::Request(request) => self.on_admin_retry(request, effects),
                Retry::Fetches(_) => {}
            }
        }
        self.on_timer_deadlines(now, effects);
        self.on_timer_requests(now, effects);
        self.on_timer_links(now, effects);
    }

    fn on_timer_deadlines(&mut self, now: Now, effects: &mut Effects<T>) {
        while let Some(&(at, due)) = self.producer.deadlines.front() {
            if at > now.monotonic && !self.is_settled(due) {
                break;
            }
            self.producer.deadlines.pop_front();
            match due {
                Due::Batch { queue, batch } => self.on_batch_deadline(now, queue, batch, effects),
                Due::Pending { topic } => self.expire_pending(now, topic, effects),
            }
        }
    }

    /// Nothing is left that this deadline is for.
    pub(super) fn is_settled(&self, due: Due) -> bool {
        match due {
            Due::Batch { queue, batch } => {
                self.producer.queues[queue].oldest().is_none_or(|oldest| oldest > batch)
            }
            Due::Pending { topic } => self.topics[topic].pending.is_empty(),
        }
    }

    /// Forgets deadlines and lingers at the front that are settled: one batch brings one of each,
    /// so forgetting up to two of each keeps the lists as short as what is outstanding.
    pub(super) fn forget_settled(&mut self) {
        for _ in 0..2 {
            if let Some(&(_, due)) = self.producer.deadlines.front()
                && self.is_settled(due)
            {
                self.producer.deadlines.pop_front();
            }
            if let Some(&(_, queue, batch)) = self.producer.lingering.front()
                && self.producer.queues[queue].oldest().is_none_or(|oldest| oldest > batch)
            {
                self.producer.lingering.pop_front();
            }
        }
    }
}
