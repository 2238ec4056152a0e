//! What a replica tells whoever leads the metadata.

use corelog_protocol::ids::{BrokerId, Epoch, LaneId};

use super::load::LaneLoad;
use super::position::FenceAnswer;
use super::progress::LaneProgress;
use crate::metadata::codec::{BadBytes, Reader, Writer};
use crate::metadata::command::read_flag;

const FORMAT: u8 = 1;

/// May be lost, and is told again while it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneReport {
    /// The lane is fenced, and this is what the replica has.
    Answered(FenceAnswer),
    /// Named leader of this epoch, it does not lead it (any more): another epoch is needed.
    Resigned { lane: LaneId, epoch: Epoch },
    /// The epoch start is committed in the new set of replicas: the one before it counts no more.
    Settled { lane: LaneId, epoch: Epoch },
    /// The leader of this epoch would have one of these lead, the first the rather: they are caught up. `is_leaving`:
    /// it wants to lead no more itself; else the first is the preferred leader.
    Offered { lane: LaneId, epoch: Epoch, to: Vec<BrokerId>, is_leaving: bool },
    /// The leader of this epoch serves, and this is how far its followers are. Told each second.
    Progress(LaneProgress),
    /// What the lane costs its leader, told with the progress once it is known.
    Load(LaneLoad),
    /// Its leader takes no batches, all that it took is committed, and durable at the target of this move.
    HandedOver { lane: LaneId, epoch: Epoch, number: u64 },
}

impl LaneReport {
    pub fn lane(&self) -> LaneId {
        match self {
            Self::Answered(answer) => answer.lane,
            Self::Progress(progress) => progress.lane,
            Self::Load(load) => load.lane,
            Self::Resigned { lane, .. }
            | Self::Settled { lane, .. }
            | Self::Offered { lane, .. }
            | Self::HandedOver { lane, .. } => *lane,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let (tag, lane, epoch) = match self {
            Self::Answered(answer) => return answer.encode(),
            Self::Progress(progress) => {
                let mut writer = Writer::new(FORMAT, 6);
                progress.write(&mut writer);
                return writer.finish();
            }
            Self::Load(load) => {
                let mut writer = Writer::new(FORMAT, 7);
                load.write(&mut writer);
                return writer.finish();
            }
            Self::Resigned { lane, epoch } => (2, lane, epoch),
            Self::Settled { lane, epoch } => (3, lane, epoch),
            Self::Offered { lane, epoch, .. } => (4, lane, epoch),
            Self::HandedOver { lane, epoch, .. } => (5, lane, epoch),
        };
        let mut writer = Writer::new(FORMAT, tag);
        writer.u32(lane.0);
        writer.u64(epoch.0);
        match self {
            Self::Offered { to, is_leaving, .. } => {
                writer.u8(u8::from(*is_leaving));
                writer.u32(to.len() as u32);
                to.iter().for_each(|to| writer.u32(to.0));
            }
            Self::HandedOver { number, .. } => writer.u64(*number),
            Self::Answered(_)
            | Self::Progress(_)
            | Self::Load(_)
            | Self::Resigned { .. }
            | Self::Settled { .. } => {}
        }
        writer.finish()
    }

    /// # Errors
    /// If `encode` did not write this.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
        if tag == 1 {
            return FenceAnswer::decode(bytes).map(Self::Answered);
        }
        if tag == 6 {
            let progress = LaneProgress::read(&mut reader)?;
            reader.finish()?;
            return Ok(Self::Progress(progress));
        }
        if tag == 7 {
            let load = LaneLoad::read(&mut reader)?;
            reader.finish()?;
            return Ok(Self::Load(load));
        }
        let lane = LaneId(reader.u32()?);
        let epoch = Epoch(reader.u64()?);
        let report = match tag {
            2 => Self::Resigned { lane, epoch },
            3 => Self::Settled { lane, epoch },
            4 => {
                let is_leaving = read_flag(&mut reader)?;
                let to = reader.list(|reader| reader.u32().map(BrokerId))?;
                Self::Offered { lane, epoch, to, is_leaving }
            }
            5 => Self::HandedOver { lane, epoch, number: reader.u64()? },
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{FollowerProgress, Position, Rates};
    use corelog_protocol::ids::Lsn;

    #[test]
    fn reports_survive_their_bytes_and_no_flipped_bit_does() {
        let has = Position { epoch: Epoch(3), end: Lsn(70) };
        let answer = FenceAnswer { lane: LaneId(5), epoch: Epoch(6), has, perhaps: has };
        let reports = [
            LaneReport::Answered(answer),
            LaneReport::Resigned { lane: LaneId(5), epoch: Epoch(6) },
            LaneReport::Settled { lane: LaneId(7), epoch: Epoch(8) },
            LaneReport::Offered {
                lane: LaneId(7),
                epoch: Epoch(8),
                to: vec![BrokerId(3), BrokerId(1)],
                is_leaving: true,
            },
            LaneReport::HandedOver { lane: LaneId(7), epoch: Epoch(8), number: 90 },
            LaneReport::Progress(LaneProgress {
                lane: LaneId(7),
                epoch: Epoch(8),
                end: Lsn(1_000),
                followers: vec![FollowerProgress {
                    broker: BrokerId(3),
                    durable: Lsn(900),
                    is_caught_up: true,
                }],
            }),
            LaneReport::Load(LaneLoad {
                lane: LaneId(7),
                epoch: Epoch(8),
                rates: Rates { bytes_in: 1 << 30, records_in: 9, bytes_out: 1 << 40, requests: 3 },
            }),
        ];
        for report in reports {
            let bytes = report.encode();
            assert_eq!(LaneReport::decode(&bytes), Ok(report.clone()));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(LaneReport::decode(&flipped), Err(BadBytes), "bit {bit}");
            }
        }
    }
}
