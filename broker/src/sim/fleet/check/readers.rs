//! I3, what it means for followers. A broker that has promised an epoch of a lane serves its readers again when it follows,
//! or leads, in that epoch or a later one: what it had before may not be what the new leader has.

use std::collections::BTreeMap;

use crate::replica::{LaneMessage, LaneReport};
use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct ReaderCheck {
    /// By broker and lane: the greatest epoch that it has told to have promised.
    promised: BTreeMap<(usize, u32), u64>,
    /// And the greatest in which it has said that it follows, or leads.
    joined: BTreeMap<(usize, u32), u64>,
    /// By lane and epoch.
    leaders: BTreeMap<(u32, u64), usize>,
    /// Answers with entries from brokers that followed.
    pub by_followers: u64,
}

impl ReaderCheck {
    pub fn on_report(&mut self, broker: usize, report: &LaneReport) {
        if let LaneReport::Answered(answer) = report {
            let promised = self.promised.entry((broker, answer.lane.0)).or_default();
            *promised = answer.epoch.0.max(*promised);
        }
    }

    pub fn on_message(&mut self, broker: usize, (lane, epoch): (u32, u64), message: &LaneMessage) {
        match message {
            LaneMessage::Lead { .. } | LaneMessage::Append { .. } => {
                self.leaders.insert((lane, epoch), broker);
            }
            LaneMessage::Follow { .. } => {}
            _ => return,
        }
        let joined = self.joined.entry((broker, lane)).or_default();
        *joined = epoch.max(*joined);
    }

    /// The shard that has a lane has sent entries of it to a client.
    pub fn on_served(&mut self, broker: usize, lane: u32) -> Checked {
        let of = |epochs: &BTreeMap<(usize, u32), u64>| epochs.get(&(broker, lane)).copied();
        let (promised, joined) = (of(&self.promised), of(&self.joined));
        let led = joined.and_then(|epoch| self.leaders.get(&(lane, epoch)));
        // A leader of a lane that it has alone says nothing to anybody.
        let Some(joined) = joined.filter(|_| led != Some(&broker)) else { return Ok(()) };
        if promised.is_some_and(|promised| promised > joined) {
            let text = format!(
                "broker {broker} has promised {promised:?} of lane {lane}, and serves what it had in {joined}"
            );
            return Err(Violation::new("I3", text));
        }
        self.by_followers += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{FenceAnswer, Position};
    use corelog_protocol::ids::{Epoch, LaneId, Lsn};

    #[test]
    fn a_promise_ends_what_a_follower_serves_until_it_follows_again() {
        let mut check = ReaderCheck::default();
        let follow = LaneMessage::Follow { next: Lsn(0), durable: Lsn(0) };
        check.on_message(1, (1, 1), &follow);
        check.on_served(1, 1).unwrap();
        let (has, perhaps) = (Position::default(), Position::default());
        let answer = FenceAnswer { lane: LaneId(1), epoch: Epoch(2), has, perhaps };
        check.on_report(1, &LaneReport::Answered(answer));
        assert!(check.on_served(1, 1).is_err());
        check.on_served(1, 2).unwrap();
        check.on_message(1, (1, 2), &follow);
        check.on_served(1, 1).unwrap();
        check.on_report(1, &LaneReport::Answered(answer));
        check.on_served(1, 1).unwrap();
        assert_eq!(check.by_followers, 3);
    }
}
