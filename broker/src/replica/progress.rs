//! How far the followers of a lane are, by word of its leader.

use corelog_protocol::ids::{BrokerId, Epoch, LaneId, Lsn};

use crate::metadata::codec::{BadBytes, Reader, Writer};
use crate::metadata::command::read_flag;

/// The leader serves in this epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneProgress {
    pub lane: LaneId,
    pub epoch: Epoch,
    /// Of the leader's log.
    pub end: Lsn,
    pub followers: Vec<FollowerProgress>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerProgress {
    pub broker: BrokerId,
    /// It has flushed everything below, as far as the leader has heard.
    pub durable: Lsn,
    /// It had at the last tick what there was at the tick before.
    pub is_caught_up: bool,
}

impl LaneProgress {
    pub fn follower(&self, broker: BrokerId) -> Option<&FollowerProgress> {
        self.followers.iter().find(|follower| follower.broker == broker)
    }

    /// How many entries a follower lacks or has not flushed.
    pub fn behind(&self, follower: &FollowerProgress) -> u64 {
        self.end.0.saturating_sub(follower.durable.0)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.lane.0);
        writer.u64(self.epoch.0);
        writer.u64(self.end.0);
        writer.u32(self.followers.len() as u32);
        for follower in &self.followers {
            writer.u32(follower.broker.0);
            writer.u64(follower.durable.0);
            writer.u8(u8::from(follower.is_caught_up));
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let (lane, epoch) = (LaneId(reader.u32()?), Epoch(reader.u64()?));
        let end = Lsn(reader.u64()?);
        let followers = reader.list(|reader| {
            Ok(FollowerProgress {
                broker: BrokerId(reader.u32()?),
                durable: Lsn(reader.u64()?),
                is_caught_up: read_flag(reader)?,
            })
        })?;
        Ok(Self { lane, epoch, end, followers })
    }
}
