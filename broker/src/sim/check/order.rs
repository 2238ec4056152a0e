//! I4, the part about order: the records of a producer stand in each partition in the order in which they
//! were sent.
//!
//! One copy is excused, and nothing else. A batch that left whole on a connection that the client then gave
//! up is in doubt: the client tells its user so, and goes on with the next record over another
//! connection. The old bytes may still lie in a socket, or wait in the shard, and be appended later:
//!
//! ```text
//! client   7 ──▶ first connection   lost   8 ──▶ second connection
//! shard                                    8 appended            7 appended
//! ```
//! So a record may stand behind a later one of its producer if it was sent last on a connection that
//! had been given up when the later one was sent last. Without sequences no broker can know better; so of an
//! idempotent producer, unless it also asks for no answers, nothing is excused.

use std::collections::{BTreeMap, BTreeSet};

use super::record::RecordId;
use crate::sim::trace::{Checked, Violation};

/// The last time that a record was handed to a connection.
#[derive(Clone, Copy, Debug)]
struct Sending {
    link: u64,
    at: u64,
}

#[derive(Debug, Default)]
pub struct OrderCheck {
    /// By producer, then sequence.
    sent: Vec<Vec<Option<Sending>>>,
    /// When the client's side of a connection ended.
    given_up: BTreeMap<u64, u64>,
    /// Records whose place was compared with the one before.
    pub looked: u64,
    /// Records out of order that the rule excuses, each counted in each full read.
    pub excused: u64,
    /// Producers whose batches all carry sequences.
    strict: BTreeSet<u32>,
}

impl OrderCheck {
    /// This producer's batches all carry sequences: nothing is excused.
    pub fn demand_strictly(&mut self, producer: u32) {
        self.strict.insert(producer);
    }

    /// A client has handed a whole batch with this record to a connection.
    pub fn on_sent(&mut self, id: RecordId, link: u64, at: u64) {
        let (producer, sequence) = (id.producer as usize, id.sequence as usize);
        if self.sent.len() <= producer {
            self.sent.resize_with(producer + 1, Vec::new);
        }
        let sent = &mut self.sent[producer];
        if sent.len() <= sequence {
            sent.resize(sequence + 1, None);
        }
        sent[sequence] = Some(Sending { link, at });
    }

    /// A client has closed a connection, or was told that it is lost.
    pub fn on_given_up(&mut self, link: u64, at: u64) {
        self.given_up.entry(link).or_insert(at);
    }

    /// `records`: of one partition, by offset. `place` names it.
    pub fn check(
        &mut self,
        records: impl Iterator<Item = (u64, RecordId)>,
        place: &dyn std::fmt::Debug,
    ) -> Checked {
        let mut before: BTreeSet<RecordId> = BTreeSet::new();
        for (offset, id) in records {
            self.looked += 1;
            let last = RecordId { sequence: u32::MAX, ..id };
            for later in before.range(id..=last) {
                if *later == id || !self.is_excused(id, *later) {
                    let text = format!(
                        "{place:?} offset {offset}: {id:?} ({:?}) comes after {later:?} ({:?})",
                        self.sending(id),
                        self.sending(*later),
                    );
                    return Err(Violation::new("I4", text));
                }
            }
            self.excused += u64::from(before.range(id..=last).next().is_some());
            before.insert(id);
        }
        Ok(())
    }

    fn is_excused(&self, late: RecordId, later: RecordId) -> bool {
        if self.strict.contains(&late.producer) {
            return false;
        }
        let (Some(late), Some(later)) = (self.sending(late), self.sending(later)) else {
            return false;
        };
        self.given_up.get(&late.link).is_some_and(|given_up| *given_up <= later.at)
            && late.link != later.link
    }

    fn sending(&self, id: RecordId) -> Option<Sending> {
        *self.sent.get(id.producer as usize)?.get(id.sequence as usize)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u32) -> RecordId {
        RecordId { producer: 0, sequence }
    }

    fn read(check: &mut OrderCheck, sequences: &[u32]) -> bool {
        let records = sequences.iter().enumerate();
        check.check(records.map(|(at, sequence)| (at as u64, id(*sequence))), &"a").is_ok()
    }

    #[test]
    fn only_what_was_sent_on_a_connection_given_up_before_may_come_late() {
        let mut check = OrderCheck::default();
        check.on_sent(id(7), 1, 10);
        check.on_sent(id(8), 1, 11);
        check.on_given_up(1, 20);
        check.on_sent(id(9), 2, 30);
        assert!(read(&mut check, &[7, 8, 9]) && read(&mut check, &[9, 7, 8]));
        assert_eq!((check.looked, check.excused), (6, 2));
        assert!(!read(&mut check, &[8, 7]), "both went over the same connection");
        assert!(!read(&mut check, &[7, 7]), "a copy of itself is never excused");
        check.demand_strictly(0);
        assert!(!read(&mut check, &[9, 7, 8]), "sequences leave no excuse");
    }

    #[test]
    fn what_was_sent_again_over_the_new_connection_is_not_excused() {
        let mut check = OrderCheck::default();
        check.on_sent(id(7), 1, 10);
        check.on_given_up(1, 20);
        check.on_sent(id(7), 2, 30);
        check.on_sent(id(8), 2, 31);
        assert!(!read(&mut check, &[8, 7]));
    }

    #[test]
    fn a_connection_that_is_given_up_later_excuses_nothing() {
        let mut check = OrderCheck::default();
        check.on_sent(id(7), 1, 10);
        check.on_sent(id(8), 2, 15);
        check.on_given_up(1, 20);
        assert!(!read(&mut check, &[8, 7]));
    }
}
