//! What must hold of several brokers, one checker per file. They listen to the wire, look at the disks, and believe
//! nobody.
//!
//! [`disks`] knows which entry each disk holds durably at each LSN, [`commits`] which entry is committed there for
//! ever, [`epochs`] who leads what and who acknowledges what, [`readers`] who may serve readers, [`metadata`] the Raft
//! group. What clients were told and saw is in [`crate::sim::check`].

pub mod commits;
pub mod disks;
pub mod epochs;
pub mod logs;
pub mod metadata;
pub mod readers;

use std::collections::BTreeSet;

use corelog_protocol::Durability;
use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::{Epoch, LaneId};
use corelog_protocol::produce::ProduceAck;

use crate::replica::LaneMessage;
use crate::sim::check::answers::{AnswerCheck, Request};
use crate::sim::check::durable::{Placed, entries};
use crate::sim::check::history::History;
use crate::sim::check::memory::MemoryCheck;
use crate::sim::check::order::OrderCheck;
use crate::sim::tally::Tally;
use crate::sim::trace::{Checked, Violation};

use commits::Commits;
use disks::Disks;
use epochs::EpochCheck;
use metadata::MetadataCheck;
use readers::ReaderCheck;

#[derive(Debug)]
pub struct Checks {
    pub history: History,
    pub order: OrderCheck,
    pub answers: AnswerCheck,
    pub memory: MemoryCheck,
    pub disks: Disks,
    pub commits: Commits,
    pub epochs: EpochCheck,
    pub metadata: MetadataCheck,
    pub readers: ReaderCheck,
    acks: u64,
    served: u64,
}

impl Checks {
    pub fn new(brokers: usize, replicas: usize) -> Self {
        Self {
            history: History::default(),
            order: OrderCheck::default(),
            answers: AnswerCheck::default(),
            memory: MemoryCheck::default(),
            disks: Disks::new(brokers),
            commits: Commits::new(replicas / 2 + 1),
            epochs: EpochCheck::default(),
            metadata: MetadataCheck::default(),
            readers: ReaderCheck::default(),
            acks: 0,
            served: 0,
        }
    }

    /// A write that a flush has just covered.
    pub fn on_durable_write(&mut self, broker: usize, bytes: &[u8]) -> Checked {
        for (header, id) in self.disks.on_durable_write(broker, bytes)? {
            self.commits.on_durable(broker, &header, id, &self.disks)?;
        }
        Ok(())
    }

    /// A machine lost its power: whatever its files hold now is durable.
    pub fn on_power_cut<'a>(
        &mut self,
        broker: usize,
        has_rotted: bool,
        files: impl Iterator<Item = &'a [u8]>,
    ) -> Checked {
        self.disks.on_power_cut(broker, has_rotted, files)
    }

    /// I2: what an acknowledgment says is true on the disks, in the moment in which it is said.
    pub fn on_ack(
        &mut self,
        broker: usize,
        request: &Request,
        ack: &ProduceAck,
        tally: &mut Tally,
    ) -> Checked {
        let Request::Produce { partition, durability, body_crc, record_count } = *request else {
            return Err(Violation::new("I12", format!("{ack:?} answers {request:?}")));
        };
        tally.add(level_name(ack.level), u64::from(record_count));
        let faithful = ack.partition == partition && ack.record_count == record_count;
        if !faithful || durability == Durability::None {
            return Err(Violation::new("I12", format!("{ack:?} does not answer {request:?}")));
        }
        let is_enough = match durability {
            Durability::QuorumDurable => ack.level == Durability::QuorumDurable,
            Durability::LeaderDurable => ack.level.is_durable(),
            Durability::QuorumMemory => {
                matches!(ack.level, Durability::QuorumMemory | Durability::QuorumDurable)
            }
            Durability::None | Durability::LeaderMemory => true,
        };
        if !is_enough {
            return Err(Violation::new("I2", format!("asked for {durability}, got {ack:?}")));
        }
        if !ack.level.is_durable() {
            return Ok(());
        }
        self.acks += 1;
        let placed = Placed { partition, base_offset: ack.base_offset, record_count, body_crc };
        let Some((lane, lsn, id)) = self.disks.find(&placed, ack.epoch) else {
            let text =
                format!("broker {broker}: {ack:?} left before its batch was durable anywhere");
            return Err(Violation::new("I2", text));
        };
        if ack.level == Durability::QuorumDurable {
            return self.commits.demand(lane, lsn, id, &self.disks, &format!("{ack:?}"));
        }
        match self.disks.at(broker, lane, lsn) {
            Some(own) if own == id => Ok(()),
            _ => {
                let text = format!("broker {broker}: {ack:?} left before its disk had the batch");
                Err(Violation::new("I2", text))
            }
        }
    }

    /// I3 and I10: fetches carry only committed batches, with sound checksums. `has`: whether the shard that answers has
    /// this lane; else another one gave the entries, some time ago.
    pub fn on_served(
        &mut self,
        broker: usize,
        has: impl Fn(LaneId) -> bool,
        payload: &[u8],
    ) -> Checked {
        let mut lanes = BTreeSet::new();
        let mut read = 0;
        for (header, body) in entries(payload) {
            read += header.entry_bytes();
            if let Err(error) = header.check_body(body) {
                return Err(Violation::new("I10", format!("{header:?} was served: {error}")));
            }
            if header.kind != EntryKind::Batch {
                return Err(Violation::new("I3", format!("{header:?} was served to a consumer")));
            }
            self.served += 1;
            let (lane, lsn, id) = (header.lane.0, header.lsn.0, disks::id_of(&header));
            self.commits.demand(lane, lsn, id, &self.disks, &format!("{header:?} served"))?;
            lanes.extend(has(header.lane).then_some(lane));
        }
        for lane in lanes {
            self.readers.on_served(broker, lane)?;
        }
        if read != payload.len() {
            let text = format!("a fetch was answered with bytes that are no entry, at {read}");
            return Err(Violation::new("I10", text));
        }
        Ok(())
    }

    /// What one broker says to another of a lane.
    pub fn on_lane_message(
        &mut self,
        from: (usize, u64),
        to: usize,
        (lane, epoch): (LaneId, Epoch),
        message: &LaneMessage,
        payload: &[u8],
    ) -> Checked {
        if let LaneMessage::Append { first, committed, .. } = message {
            let mut next = first.0;
            for (header, body) in entries(payload) {
                if header.is_local() {
                    continue;
                }
                let sound = header.check_body(body).is_ok() && header.lane == lane;
                if !sound || header.lsn.0 != next || header.epoch > epoch {
                    let text = format!(
                        "broker {} sends {header:?} in {epoch} at {next}: sound {sound}",
                        from.0
                    );
                    return Err(Violation::new("I7", text));
                }
                next += 1;
                self.disks.note(&header, body)?;
            }
            self.commits.see_epoch(lane.0, epoch.0);
            self.commits.claim(lane.0, committed.0, &self.disks, &format!("broker {}", from.0))?;
        }
        self.readers.on_message(from.0, (lane.0, epoch.0), message);
        self.epochs.on_message(from, to, (lane.0, epoch.0), message, &self.disks)
    }

    /// How much each checker looked at.
    pub fn count(&self, tally: &mut Tally) {
        tally.add("checked I1 records read back", self.history.read_back);
        tally.add("checked I1 committed entries", self.commits.looked);
        tally.add("checked I2 acks against the disks", self.acks);
        tally.add("checked I3 entries served", self.served);
        tally.add("fetches served by followers", self.readers.by_followers);
        tally.add("checked I4 records in order", self.order.looked);
        tally.add("checked I5 failures never seen", self.history.failures);
        tally.add("checked I6 batches with sequences", self.commits.sequences_looked);
        tally.add("checked I7 acknowledged entries", self.epochs.acks_looked);
        tally.add("checked I7 epochs led", self.epochs.led());
        tally.add("checked I7 entries compared", self.disks.compared);
        tally.add("checked I12 requests answered", self.answers.looked);
        tally.add("checked metadata versions", self.metadata.versions_looked);
        tally.add("leader changes", self.epochs.led());
        tally.add("metadata terms led", self.metadata.terms());
    }
}

fn level_name(level: Durability) -> &'static str {
    match level {
        Durability::None => "records acknowledged none",
        Durability::LeaderMemory => "records acknowledged leader_memory",
        Durability::LeaderDurable => "records acknowledged leader_durable",
        Durability::QuorumMemory => "records acknowledged quorum_memory",
        Durability::QuorumDurable => "records acknowledged quorum_durable",
    }
}
