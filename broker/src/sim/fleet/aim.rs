//! Power cuts that wait until something was said: what was promised then must be there afterwards.

use super::World;
use super::machine::DueCut;
use super::plan::{Aimed, Moment, Victim};
use crate::metadata::consensus::{Ballot, PeerBody, PeerMessage};
use crate::replica::{LaneMessage, LaneReport};

pub fn moment_of_report(report: &LaneReport) -> Option<Moment> {
    matches!(report, LaneReport::Answered(_)).then_some(Moment::Answered)
}

pub fn moment_of_message(message: &LaneMessage) -> Option<Moment> {
    match message {
        LaneMessage::Lead { .. } => Some(Moment::Led),
        LaneMessage::Follow { .. } => Some(Moment::Followed),
        LaneMessage::Ack { .. } => Some(Moment::Acknowledged),
        _ => None,
    }
}

pub fn moment_of_records(message: &PeerMessage) -> Option<Moment> {
    match &message.body {
        PeerBody::VoteReply { ballot: Ballot::Real, .. } => Some(Moment::Voted),
        PeerBody::AppendReply { .. } => Some(Moment::Recorded),
        _ => None,
    }
}

impl World {
    /// This was said by one broker to another.
    pub(super) fn aim(&mut self, moment: Option<Moment>, from: usize, to: usize) {
        let Some(moment) = moment.filter(|_| !self.ending.has_begun()) else { return };
        let Some(at) = self.aimed.iter().position(|aimed| aimed.moment == moment) else { return };
        if self.aimed[at].skips > 0 {
            self.aimed[at].skips -= 1;
            return;
        }
        let Aimed { victim, style, after, down, .. } = self.aimed.remove(at);
        self.tally.one("power cuts at a moment");
        self.line(|| format!("{moment:?} was said by {from} to {to}: power fails of {victim:?}"));
        let victims = match victim {
            Victim::Sender => vec![from],
            Victim::Receiver => vec![to],
            Victim::Both => vec![from, to],
            Victim::All => (0..self.plan.brokers).collect(),
        };
        for broker in victims {
            self.plan_power_cut(broker, DueCut { left: after, style, down });
        }
    }
}
