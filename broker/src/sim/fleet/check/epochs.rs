//! I7: an epoch of a lane is led by one life of one broker, and what a follower acknowledges is on its disk and equal to
//! the leader's.

use std::collections::BTreeMap;

use super::disks::Disks;
use crate::replica::LaneMessage;
use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct EpochCheck {
    /// By lane and epoch: the broker, and its life.
    leaders: BTreeMap<(u32, u64), (usize, u64)>,
    /// By follower, lane and epoch: what was compared.
    acked: BTreeMap<(usize, u64, u32, u64), u64>,
    pub acks_looked: u64,
}

impl EpochCheck {
    pub fn led(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub fn on_message(
        &mut self,
        from: (usize, u64),
        to: usize,
        (lane, epoch): (u32, u64),
        message: &LaneMessage,
        disks: &Disks,
    ) -> Checked {
        match message {
            LaneMessage::Lead { .. } | LaneMessage::Append { .. } => {
                let leader = *self.leaders.entry((lane, epoch)).or_insert(from);
                if leader != from {
                    let text =
                        format!("lane {lane} epoch {epoch} is led by {leader:?} and by {from:?}");
                    return Err(Violation::new("I7", text));
                }
                Ok(())
            }
            LaneMessage::Follow { durable, .. } => {
                self.acked.insert((from.0, from.1, lane, epoch), 0);
                self.on_ack(from, to, (lane, epoch), durable.0, disks)
            }
            LaneMessage::Ack { durable, .. } => {
                self.on_ack(from, to, (lane, epoch), durable.0, disks)
            }
            _ => Ok(()),
        }
    }

    fn on_ack(
        &mut self,
        from: (usize, u64),
        to: usize,
        (lane, epoch): (u32, u64),
        durable: u64,
        disks: &Disks,
    ) -> Checked {
        let compared = self.acked.entry((from.0, from.1, lane, epoch)).or_default();
        for lsn in *compared..durable {
            self.acks_looked += 1;
            let Some(own) = disks.at(from.0, lane, lsn) else {
                let text = format!(
                    "broker {} acknowledges lane {lane} below {durable} in epoch {epoch}, and {lsn} is not on its disk",
                    from.0
                );
                return Err(Violation::new("I2", text));
            };
            // What the leader has written and not flushed is of its own epoch. One that has joined a later epoch, of which
            // the follower has not heard, does not listen any more.
            let differs = disks
                .at(to, lane, lsn)
                .is_some_and(|led| led != own && (own.epoch..=epoch).contains(&led.epoch));
            if differs || own.epoch > epoch {
                let text = format!(
                    "broker {} acknowledges lane {lane} LSN {lsn} in epoch {epoch} with {own:?}; the leader {to} has {:?}",
                    from.0,
                    disks.at(to, lane, lsn)
                );
                return Err(Violation::new("I7", text));
            }
        }
        *compared = (*compared).max(durable);
        Ok(())
    }
}
