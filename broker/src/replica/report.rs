//! What a replica tells whoever leads the metadata.

use corelog_protocol::ids::{Epoch, LaneId};

use super::position::FenceAnswer;
use crate::metadata::codec::{BadBytes, Reader, Writer};

const FORMAT: u8 = 1;

/// May be lost, and is told again while it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneReport {
    /// The lane is fenced, and this is what the replica has.
    Answered(FenceAnswer),
    /// Named leader of this epoch, it does not lead it (any more): another epoch is needed.
    Resigned { lane: LaneId, epoch: Epoch },
    /// The epoch start is committed in the new set of replicas: the one before it counts no more.
    Settled { lane: LaneId, epoch: Epoch },
}

impl LaneReport {
    pub fn lane(&self) -> LaneId {
        match self {
            Self::Answered(answer) => answer.lane,
            Self::Resigned { lane, .. } | Self::Settled { lane, .. } => *lane,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let (tag, lane, epoch) = match self {
            Self::Answered(answer) => return answer.encode(),
            Self::Resigned { lane, epoch } => (2, lane, epoch),
            Self::Settled { lane, epoch } => (3, lane, epoch),
        };
        let mut writer = Writer::new(FORMAT, tag);
        writer.u32(lane.0);
        writer.u64(epoch.0);
        writer.finish()
    }

    /// # Errors
    /// If `encode` did not write this.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
        if tag == 1 {
            return FenceAnswer::decode(bytes).map(Self::Answered);
        }
        let lane = LaneId(reader.u32()?);
        let epoch = Epoch(reader.u64()?);
        reader.finish()?;
        match tag {
            2 => Ok(Self::Resigned { lane, epoch }),
            3 => Ok(Self::Settled { lane, epoch }),
            _ => Err(BadBytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Position;
    use corelog_protocol::ids::Lsn;

    #[test]
    fn reports_survive_their_bytes_and_no_flipped_bit_does() {
        let has = Position { epoch: Epoch(3), end: Lsn(70) };
        let answer = FenceAnswer { lane: LaneId(5), epoch: Epoch(6), has, perhaps: has };
        let reports = [
            LaneReport::Answered(answer),
            LaneReport::Resigned { lane: LaneId(5), epoch: Epoch(6) },
            LaneReport::Settled { lane: LaneId(7), epoch: Epoch(8) },
        ];
        for report in reports {
            let bytes = report.encode();
            assert_eq!(LaneReport::decode(&bytes), Ok(report));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(LaneReport::decode(&flipped), Err(BadBytes), "bit {bit}");
            }
        }
    }
}
