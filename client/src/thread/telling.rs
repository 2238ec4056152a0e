//! What became of records is told after the lock is released, perhaps by several threads at once.
//! A flush that is done may be told only when all that was told before it has arrived: this keeps
//! count of who is still telling.

use super::delivery::Outcome;
use super::signal::Signal;
use std::sync::Arc;

/// Outcomes that left the lock together. Lower numbers left first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket(u64);

/// Who tells, and which flushes wait for them. Lives under the lock.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    next: u64,
    /// Few: one per thread that tells, and a few of the IO thread.
    open: Vec<Ticket>,
    /// Flushes, each behind the last ticket that it waits for.
    flushes: Vec<(Ticket, Arc<Signal<()>>)>,
}

impl Tellings {
    pub(super) fn begin(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.open.push(ticket);
        ticket
    }

    pub(super) fn end(&mut self, ticket: Ticket) {
        self.open.retain(|open| *open != ticket);
    }

    /// Everything that this flush waits for is answered: it stands in outcomes that left, or that
    /// leave with the next ticket.
    pub(super) fn on_flushed(&mut self, signal: Arc<Signal<()>>) {
        self.flushes.push((Ticket(self.next), signal));
    }

    /// The flushes for which nobody is telling any more, to be told outside the lock.
    pub(super) fn released(&mut self) -> Vec<Arc<Signal<()>>> {
        let Self { open, flushes, .. } = self;
        flushes
            .extract_if(.., |(last, _)| open.iter().all(|open| open > last))
            .map(|(_, signal)| signal)
            .collect()
    }

    /// All that wait, whoever is telling.
    pub(super) fn give_up(&mut self) -> Vec<Arc<Signal<()>>> {
        self.flushes.drain(..).map(|(_, signal)| signal).collect()
    }
}

/// What the IO thread is to tell.
#[derive(Debug, Default)]
pub(super) struct Untold {
    pub outcomes: Vec<Outcome>,
    pub tickets: Vec<Ticket>,
    pub flushes: Vec<Arc<Signal<()>>>,
}

impl Untold {
    pub(super) fn is_empty(&self) -> bool {
        self.outcomes.is_empty() && self.flushes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(tellings: &mut Tellings) -> Arc<Signal<()>> {
        let signal = Arc::new(Signal::default());
        tellings.on_flushed(Arc::clone(&signal));
        signal
    }

    #[test]
    fn a_flush_waits_for_outcomes_of_its_own_step_and_of_those_before_but_not_for_later_ones() {
        let mut tellings = Tellings::default();
        let before = tellings.begin();
        flush(&mut tellings);
        let own = tellings.begin();
        let later = tellings.begin();
        assert!(tellings.released().is_empty());
        tellings.end(own);
        assert!(tellings.released().is_empty(), "an older one is still being told");
        tellings.end(before);
        assert_eq!(tellings.released().len(), 1, "a later one does not hold it");
        tellings.end(later);
        assert!(tellings.released().is_empty(), "each is told once");
    }

    #[test]
    fn with_nobody_telling_a_flush_is_told_at_once() {
        let mut tellings = Tellings::default();
        flush(&mut tellings);
        assert_eq!(tellings.released().len(), 1);
        assert!(tellings.released().is_empty(), "each is told once");
    }
}
