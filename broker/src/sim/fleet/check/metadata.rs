//! The Raft group of the metadata: one leader in a term, one vote of each member in it, and one state at each version,
//! on whatever broker.

use std::collections::BTreeMap;

use crate::metadata::State;
use crate::metadata::consensus::{Ballot, PeerBody, PeerMessage};
use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct MetadataCheck {
    /// By term.
    leaders: BTreeMap<u64, usize>,
    /// By term and voter.
    votes: BTreeMap<(u64, usize), u64>,
    /// By version, a hash of the state, and who showed it first.
    states: BTreeMap<u64, (u32, usize)>,
    pub versions_looked: u64,
}

impl MetadataCheck {
    pub fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub fn on_message(&mut self, from: usize, message: &PeerMessage) -> Checked {
        match &message.body {
            PeerBody::Append { .. }
            | PeerBody::Heartbeat { .. }
            | PeerBody::Snapshot(_)
            | PeerBody::TimeoutNow => {
                let leader = *self.leaders.entry(message.term).or_insert(from);
                if leader != from {
                    let text = format!("term {} is led by {leader} and by {from}", message.term);
                    return Err(Violation::new("raft", text));
                }
            }
            PeerBody::VoteReply { ballot: Ballot::Real, is_granted: true, .. } => {
                let to = message.to.0;
                let vote = *self.votes.entry((message.term, from)).or_insert(to);
                if vote != to {
                    let text =
                        format!("{from} votes for {vote} and for {to} in term {}", message.term);
                    return Err(Violation::new("raft", text));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A broker shows this state to its shards.
    pub fn on_view(&mut self, broker: usize, state: &State) -> Checked {
        self.versions_looked += 1;
        let hash = crc32c::crc32c(&state.image());
        let (first, by) = *self.states.entry(state.version()).or_insert((hash, broker));
        if first != hash {
            let text = format!(
                "brokers {by} and {broker} have different metadata of version {}",
                state.version()
            );
            return Err(Violation::new("raft", text));
        }
        Ok(())
    }
}
