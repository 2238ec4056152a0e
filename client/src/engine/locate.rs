//! From a position that is no offset to the offset: the broker is asked.

use super::assignment::{AssignmentId, Position, Stage};
use super::links::Wrong;
use super::time::Now;
use super::{Effects, Engine};
use crate::Refusal;
use corelog_protocol::message::{Offsets, OffsetsAnswer, OffsetsQuery};

impl<T> Engine<T> {
    pub(super) fn encode_locate(
        &self,
        correlation: u64,
        id: AssignmentId,
        generation: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(at) = self.assignments.get(&id).filter(|at| at.generation == generation) else {
            return false;
        };
        let Some(partition) = self.partition_id(at) else { return false };
        let timestamp = match at.stage {
            Stage::Locating(Position::Time(time)) => Some(time),
            Stage::Locating(_) => None,
            _ => return false,
        };
        Offsets { partitions: vec![OffsetsQuery { partition, timestamp }] }
            .encode(correlation, out);
        true
    }

    pub(super) fn on_located(
        &mut self,
        now: Now,
        id: AssignmentId,
        generation: u64,
        answer: Result<OffsetsAnswer, Refusal>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        let Some(at) = self.assignments.get_mut(&id) else { return Ok(()) };
        let Stage::Locating(position) = at.stage else { return Ok(()) };
        if at.generation != generation {
            return Ok(());
        }
        match answer {
            Ok(OffsetsAnswer { error: None, log_start, committed_end, offset_at, .. }) => {
                at.next = match position {
                    Position::Beginning => log_start,
                    Position::End => committed_end,
                    Position::Time(_) => offset_at.unwrap_or(committed_end),
                    Position::Offset(offset) => offset,
                };
                at.stage = Stage::Fetching;
                at.redirects = 0;
                at.near.on_leader_told(committed_end);
                at.is_reached = !matches!(position, Position::Offset(_));
                self.want_fetch(id);
            }
            Ok(OffsetsAnswer { error: Some(code), .. }) => {
                let refusal = Refusal { code, retry_after_ms: 0, message: Box::from("") };
                self.on_read_refused(now, id, refusal, effects);
            }
            Err(refusal) => self.on_read_refused(now, id, refusal, effects),
        }
        Ok(())
    }
}
