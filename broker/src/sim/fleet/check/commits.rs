//! I1, I2, I4, I6 of a lane's log: what is committed is on a quorum of disks when somebody says so, and stays for ever.
//!
//! Whoever says that an LSN is committed (an acknowledgment, an entry served to a consumer, a leader to its followers)
//! says so of everything below, too. At that moment a quorum of disks must hold one and the same entry at each LSN.
//! Batches among them have dense offsets, and each sequence of a producer is there once.

use std::collections::BTreeMap;

use corelog_protocol::entry::{EntryHeader, EntryKind};

use super::disks::{Disks, Id, Sequence};
use crate::sim::trace::{Checked, Violation};

#[derive(Clone, Copy, Debug)]
struct Committed {
    id: Id,
    /// The greatest epoch of the lane when it was seen committed: later leaders have it.
    by: u64,
}

#[derive(Debug, Default)]
struct Lane {
    log: Vec<Committed>,
    epoch_max: u64,
}

#[derive(Debug)]
pub struct Commits {
    quorum: usize,
    lanes: BTreeMap<u32, Lane>,
    /// The next offset of each partition.
    offsets: BTreeMap<u32, u64>,
    sequences: BTreeMap<Sequence, (u32, u64)>,
    pub looked: u64,
    pub sequences_looked: u64,
}

impl Commits {
    pub fn new(quorum: usize) -> Self {
        Self {
            quorum,
            lanes: BTreeMap::new(),
            offsets: BTreeMap::new(),
            sequences: BTreeMap::new(),
            looked: 0,
            sequences_looked: 0,
        }
    }

    pub fn see_epoch(&mut self, lane: u32, epoch: u64) {
        let lane = self.lanes.entry(lane).or_default();
        lane.epoch_max = lane.epoch_max.max(epoch);
    }

    /// Everything below `end` is committed, somebody says.
    pub fn claim(&mut self, lane: u32, end: u64, disks: &Disks, who: &str) -> Checked {
        let by = self.lanes.entry(lane).or_default().epoch_max;
        loop {
            let lsn = self.lanes.entry(lane).or_default().log.len() as u64;
            if lsn >= end {
                return Ok(());
            }
            match disks.most_held(lane, lsn) {
                Some((id, count)) if count >= self.quorum => {
                    self.looked += 1;
                    self.lanes.entry(lane).or_default().log.push(Committed { id, by });
                    self.on_committed(lane, lsn, id, disks)?;
                }
                _ => {
                    let text = format!(
                        "{who}: lane {lane} is committed below {end}, and {lsn} is not on a quorum of disks: {:?}",
                        disks.holders(lane, lsn)
                    );
                    return Err(Violation::new("I2", text));
                }
            }
        }
    }

    /// This entry is committed, somebody says.
    pub fn demand(&mut self, lane: u32, lsn: u64, id: Id, disks: &Disks, who: &str) -> Checked {
        self.claim(lane, lsn + 1, disks, who)?;
        let committed = self.lanes.get(&lane).and_then(|lane| lane.log.get(lsn as usize));
        match committed {
            Some(committed) if committed.id == id => Ok(()),
            _ => {
                let text = format!(
                    "{who}: lane {lane} LSN {lsn} is committed as {committed:?}, not {id:?}"
                );
                Err(Violation::new("I1", text))
            }
        }
    }

    /// Something became durable: a later leader must not have written over what is committed.
    pub fn on_durable(
        &mut self,
        broker: usize,
        header: &EntryHeader,
        id: Id,
        disks: &Disks,
    ) -> Checked {
        self.see_epoch(header.lane.0, id.epoch);
        let lane = &self.lanes[&header.lane.0];
        match lane.log.get(header.lsn.0 as usize) {
            Some(committed) if committed.id != id && id.epoch > committed.by => {
                let text = format!(
                    "broker {broker} writes {header:?} over {:?}, which is committed",
                    disks.known(header.lane.0, committed.id.epoch, header.lsn.0)
                );
                Err(Violation::new("I1", text))
            }
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, lane: u32, lsn: u64, id: Id, disks: &Disks) -> Checked {
        let Some(known) = disks.known(lane, id.epoch, lsn) else { return Ok(()) };
        if known.header.kind == EntryKind::Batch {
            let next = self.offsets.entry(known.header.partition.0).or_default();
            if known.header.base_offset.0 != *next {
                let text =
                    format!("the next offset is {next}, and {:?} is committed", known.header);
                return Err(Violation::new("I4", text));
            }
            *next += u64::from(known.header.record_count);
        }
        if let Some(sequence) = known.sequence {
            self.sequences_looked += 1;
            if let Some(other) = self.sequences.insert(sequence, (lane, lsn)) {
                let text = format!("{sequence:?} is committed at {other:?} and at {lane}, {lsn}");
                return Err(Violation::new("I6", text));
            }
        }
        Ok(())
    }

    /// By lane, what is committed.
    pub fn lanes(&self) -> impl Iterator<Item = (u32, impl Iterator<Item = Id> + '_)> {
        self.lanes.iter().map(|(lane, log)| (*lane, log.log.iter().map(|committed| committed.id)))
    }

    /// The first committed LSN that this broker's disk does not hold, if any.
    pub fn first_missing(&self, broker: usize, disks: &Disks) -> Option<(u32, u64)> {
        let lanes = self.lanes.iter();
        let mut missing = lanes.filter_map(|(lane, known)| {
            let lacks =
                |lsn: &usize| disks.at(broker, *lane, *lsn as u64) != Some(known.log[*lsn].id);
            // Replicas lack a tail, so that a look from the end is short.
            let first = (0..known.log.len()).rev().take_while(lacks).last()?;
            Some((*lane, first as u64))
        });
        missing.next()
    }

    pub fn quorum(&self) -> usize {
        self.quorum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_protocol::ids::{Epoch, LaneId, Lsn, Offset, PartitionId};

    fn entry(epoch: u64, lsn: u64) -> Vec<u8> {
        let body =
            [&crc32c::crc32c(&lsn.to_le_bytes()).to_le_bytes()[..], &lsn.to_le_bytes()].concat();
        let header = EntryHeader {
            kind: EntryKind::EpochStart,
            body_len: body.len() as u32,
            record_count: 0,
            partition: PartitionId(0),
            body_crc: u32::from_le_bytes(body[..4].try_into().unwrap()),
            lsn: Lsn(lsn),
            epoch: Epoch(epoch),
            base_offset: Offset(0),
            append_time: 0,
            lane: LaneId(1),
        };
        let mut commit = vec![0; 64];
        commit.extend_from_slice(&header.encode());
        commit.extend_from_slice(&body);
        commit.resize(commit.len().next_multiple_of(8), 0);
        commit
    }

    fn write(
        disks: &mut Disks,
        commits: &mut Commits,
        broker: usize,
        epoch: u64,
        lsn: u64,
    ) -> Checked {
        for (header, id) in disks.on_durable_write(broker, &entry(epoch, lsn))? {
            commits.on_durable(broker, &header, id, disks)?;
        }
        Ok(())
    }

    #[test]
    fn committed_means_on_a_quorum_of_disks_and_for_ever() {
        let (mut disks, mut commits) = (Disks::new(3), Commits::new(2));
        write(&mut disks, &mut commits, 0, 1, 0).unwrap();
        assert!(commits.claim(1, 1, &disks, "a").is_err(), "one disk is no quorum");
        write(&mut disks, &mut commits, 1, 1, 0).unwrap();
        commits.claim(1, 1, &disks, "a").unwrap();
        write(&mut disks, &mut commits, 2, 1, 0).unwrap();
        assert!(write(&mut disks, &mut commits, 2, 2, 0).is_err(), "a later leader has it");
    }

    #[test]
    fn a_leader_that_was_left_behind_may_write_what_nobody_commits() {
        let (mut disks, mut commits) = (Disks::new(3), Commits::new(2));
        for broker in 0..2 {
            write(&mut disks, &mut commits, broker, 2, 0).unwrap();
        }
        commits.claim(1, 1, &disks, "a").unwrap();
        write(&mut disks, &mut commits, 2, 1, 0).unwrap();
        assert_eq!(commits.first_missing(2, &disks), Some((1, 0)));
        assert_eq!(commits.first_missing(1, &disks), None);
    }

    #[test]
    fn what_a_power_cut_keeps_of_a_write_that_no_flush_covered_came_last() {
        let mut disks = Disks::new(3);
        let epoch = |disks: &Disks, broker| disks.at(broker, 1, 16).map(|id| id.epoch);
        let (old, new) = (entry(3, 16), entry(4, 16));
        let mut both = old.clone();
        both.resize(4096, 0);
        both.extend_from_slice(&new);
        both.resize(8192, 0);
        disks.on_durable_write(0, &old).unwrap();
        disks.on_power_cut(0, false, [&both[..]].into_iter()).unwrap();
        assert_eq!(epoch(&disks, 0), Some(4));
        // What was there before is no news, whatever its epoch.
        disks.on_durable_write(1, &new).unwrap();
        disks.on_durable_write(1, &old).unwrap();
        disks.on_power_cut(1, false, [&both[..]].into_iter()).unwrap();
        assert_eq!(epoch(&disks, 1), Some(3));
        disks.on_power_cut(1, true, [&new[..]].into_iter()).unwrap();
        assert_eq!(epoch(&disks, 1), Some(3), "it has rotted, and what it replaced is not back");
        disks.on_power_cut(1, false, [&new[..]].into_iter()).unwrap();
        assert_eq!(epoch(&disks, 1), Some(4), "the other one is gone");
    }
}
