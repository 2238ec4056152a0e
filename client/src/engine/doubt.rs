//! Silence. A broker of a cluster that owes an answer and says nothing may be gone without a word, or be cut off
//! from the others: then another one is asked whether it still leads. Its connection is closed only
//! if it does not, since what is under way through it can then be sent to who does.

use super::Engine;
use super::cluster::ANYBODY;
use super::door::{Ask, Door};
use super::time::{Monotonic, Now};

impl<T> Engine<T> {
    /// When a connection of a broker is to be doubted. Never, if there is nobody else to ask.
    pub(super) fn next_doubt(&self, door: &Door) -> Option<Monotonic> {
        let has_peers = door.broker != ANYBODY || self.cluster.is_known();
        let link = door.link.as_ref().filter(|_| has_peers)?;
        link.next_doubt(self.config.doubt_nanos, self.config.request_nanos_max)
    }

    /// Doubts a connection, if it is time: questions that any broker can answer are asked of another one,
    /// and where all topics are.
    pub(super) fn doubt(&mut self, now: Now, door: usize) {
        if self.next_doubt(&self.doors[door]).is_none_or(|at| at > now.monotonic) {
            return;
        }
        let (nanos, request_max) = (self.config.doubt_nanos, self.config.request_nanos_max);
        let broker = self.doors[door].broker;
        let Some(link) = &mut self.doors[door].link else { return };
        let is_first = !link.is_doubted();
        if !link.begin_doubt(now.monotonic, nanos, request_max) {
            return;
        }
        tracing::debug!(%broker, "silent: asking another broker");
        if self.cluster.guide == broker {
            self.turn_guide(now);
        }
        let requests = &self.requests;
        let is_question = |ask: &Ask| match ask {
            Ask::Describe(_) => true,
            Ask::Locate(..) => false,
            Ask::Admin(id) => requests.get(id).is_some_and(|asked| asked.is_question_to_any()),
        };
        if let Some(link) = &mut self.doors[door].link {
            let asks = link.take_asks(is_question);
            self.doors[door].asks.extend(asks);
            self.move_asks(door);
        }
        self.leave_followers_behind(door);
        if is_first {
            self.refresh_topics();
        }
    }

    pub(super) fn is_doubted(&self, door: usize) -> bool {
        self.doors[door].link.as_ref().is_some_and(|link| link.is_doubted())
    }
}
