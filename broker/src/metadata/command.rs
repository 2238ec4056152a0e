//! What can be asked of the metadata, and its bytes in an entry of the group's log.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 2 | tag u8 | 0 u16 | fields
//! tag 1 Boot:        count u32, count x set                 of lanes 1, 2, 3, ...
//! tag 2 TopicCreate: name, retention_ms u64, retention_bytes u64, partitions u32, partitions x lane u32
//! tag 3 TopicDelete: name
//! tag 4 TopicAlter:  topic u32, given u16, retention_ms u64, retention_bytes u64, partitions u32,
//!                    lanes_from u32, count u32, count x lane u32
//! tag 5 BrokerRegister: broker
//! tag 6 BrokerRemove:   broker u32
//! tag 7 LaneEnter:      lane u32, epoch u64
//! tag 8 LaneLeader:     lane u32, epoch u64, broker u32, position
//! tag 9 LaneSettled:    lane u32, epoch u64
//! tag 10 LaneReplicas:  lane u32, epoch u64, set
//! tag 11 LaneMove:      lane u32, epoch u64, broker u32 (0: it is taken back)
//! tag 12 LaneHandOver:  lane u32, epoch u64, move u64
//! tag 13 BrokerDrain:   broker u32, is it draining u8
//! tag 14 LaneTransfer:  lane u32, epoch u64, broker u32
//! tag 15 LaneReplace:   lane u32, epoch u64, set
//! tag 16 LanesAdd:      first u32, count u32, count x set   of lanes first, first + 1, ...
//! set:      count u8, count x (broker u32, directory u16)
//! position: epoch u64, end u64
//! broker:   id u32, incarnation u64, life u64, address, rack, shards u16, directories u16
//! address:  4 u8, 4 bytes, port u16   or   6 u8, 16 bytes, port u16, flow u32, scope u32
//! ```
//! A name or a rack is its length as u16, then its bytes. An absent setting is 0. Of an alteration, bits 0, 1
//! and 2 of `given` say whether partitions, retention_ms and retention_bytes change; what does not is 0.

use std::sync::Arc;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId, TopicId};

use super::broker::BrokerRecord;
use super::codec::{BadBytes, Reader, Writer};
use super::lane::{LaneReplica, is_set, read_replicas, write_replicas};
use super::topic::{TopicChanges, TopicSettings, is_valid_name};
use crate::replica::Position;

pub const FORMAT: u8 = 2;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Once: which lanes there are, and the replicas of each, the preferred leader first.
    Boot {
        lanes: Vec<Arc<[LaneReplica]>>,
    },
    /// More lanes, the first of which has this number: the one after the last that there is.
    LanesAdd {
        first: LaneId,
        lanes: Vec<Arc<[LaneReplica]>>,
    },
    /// The lanes were chosen by who proposed, so that another way to choose never changes what an
    /// old entry means: partition `n` goes to `lanes[n]`.
    TopicCreate {
        name: Box<str>,
        settings: TopicSettings,
        lanes: Vec<LaneId>,
    },
    TopicDelete {
        name: Box<str>,
    },
    /// Names the topic by its id: one that was deleted and made anew meanwhile is not meant.
    TopicAlter {
        topic: TopicId,
        changes: TopicChanges,
        /// Partition `lanes_from + n` goes to `lanes[n]`. Another alteration may have come first, and
        /// have made some of them already: those lanes are passed over.
        lanes_from: u32,
        lanes: Vec<LaneId>,
    },
    /// A broker tells who and where it is: at its first start, and when that changed.
    BrokerRegister {
        record: BrokerRecord,
    },
    /// It has no replicas any more, and never comes back under this id.
    BrokerRemove {
        id: BrokerId,
    },
    /// The lane has no leader any more: its replicas shall promise this epoch.
    LaneEnter {
        lane: LaneId,
        epoch: Epoch,
    },
    /// Who leads in this epoch, and the end of its log for which it was chosen.
    LaneLeader {
        lane: LaneId,
        epoch: Epoch,
        broker: BrokerId,
        position: Position,
    },
    /// The leader of this epoch has committed an entry: the set before the last change counts no more.
    LaneSettled {
        lane: LaneId,
        epoch: Epoch,
    },
    /// Other replicas from this epoch on, which begins without a leader.
    LaneReplicas {
        lane: LaneId,
        epoch: Epoch,
        replicas: Arc<[LaneReplica]>,
    },
    /// The leader of this epoch shall hand the lane over to this broker; `None`: it shall lead on.
    LaneMove {
        lane: LaneId,
        epoch: Epoch,
        to: Option<BrokerId>,
    },
    /// The leader of this epoch has handed the lane over, as that move said: the next epoch is entered. Nothing if
    /// the move was taken back, since its leader takes batches again.
    LaneHandOver {
        lane: LaneId,
        epoch: Epoch,
        number: u64,
    },
    /// From now on this broker is to lead the lane whenever it can: a move as above, and if it comes about, the broker is
    /// the preferred leader. At once if it leads already.
    LaneTransfer {
        lane: LaneId,
        epoch: Epoch,
        to: BrokerId,
    },
    /// The leader of this epoch hands the lane over to itself, so that nothing is lost: the next epoch is entered with
    /// these replicas. They are those of `LaneReplicas`, which does not wait for the leader.
    LaneReplace {
        lane: LaneId,
        epoch: Epoch,
        replicas: Arc<[LaneReplica]>,
    },
    /// The broker shall lead nothing, until it is said again that it may.
    BrokerDrain {
        id: BrokerId,
        is_draining: bool,
    },
}

impl Command {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Boot { lanes } => {
                let mut writer = Writer::new(FORMAT, 1);
                writer.u32(lanes.len() as u32);
                lanes.iter().for_each(|set| write_replicas(&mut writer, set));
                writer.finish()
            }
            Self::TopicCreate { name, settings, lanes } => {
                assert!(lanes.len() == settings.partitions as usize);
                let mut writer = Writer::new(FORMAT, 2);
                writer.text(name);
                writer.optional(settings.retention_ms);
                writer.optional(settings.retention_bytes);
                writer.u32(lanes.len() as u32);
                for lane in lanes {
                    writer.u32(lane.0);
                }
                writer.finish()
            }
            Self::TopicDelete { name } => {
                let mut writer = Writer::new(FORMAT, 3);
                writer.text(name);
                writer.finish()
            }
            Self::TopicAlter { topic, changes, lanes_from, lanes } => {
                let mut writer = Writer::new(FORMAT, 4);
                writer.u32(topic.0);
                write_changes(&mut writer, changes);
                writer.u32(*lanes_from);
                writer.u32(lanes.len() as u32);
                for lane in lanes {
                    writer.u32(lane.0);
                }
                writer.finish()
            }
            Self::BrokerRegister { record } => {
                let mut writer = Writer::new(FORMAT, 5);
                record.write(&mut writer);
                writer.finish()
            }
            Self::BrokerRemove { id } => {
                let mut writer = Writer::new(FORMAT, 6);
                writer.u32(id.0);
                writer.finish()
            }
            Self::LaneEnter { lane, epoch } => of_lane(7, *lane, *epoch).finish(),
            Self::LaneLeader { lane, epoch, broker, position } => {
                let mut writer = of_lane(8, *lane, *epoch);
                writer.u32(broker.0);
                position.write(&mut writer);
                writer.finish()
            }
            Self::LaneSettled { lane, epoch } => of_lane(9, *lane, *epoch).finish(),
            Self::LaneReplicas { lane, epoch, replicas } => {
                let mut writer = of_lane(10, *lane, *epoch);
                write_replicas(&mut writer, replicas);
                writer.finish()
            }
            Self::LaneMove { lane, epoch, to } => {
                let mut writer = of_lane(11, *lane, *epoch);
                writer.u32(to.map_or(0, |to| to.0));
                writer.finish()
            }
            Self::LaneHandOver { lane, epoch, number } => {
                let mut writer = of_lane(12, *lane, *epoch);
                writer.u64(*number);
                writer.finish()
            }
            Self::LaneTransfer { lane, epoch, to } => {
                let mut writer = of_lane(14, *lane, *epoch);
                writer.u32(to.0);
                writer.finish()
            }
            Self::LaneReplace { lane, epoch, replicas } => {
                let mut writer = of_lane(15, *lane, *epoch);
                write_replicas(&mut writer, replicas);
                writer.finish()
            }
            Self::LanesAdd { first, lanes } => {
                let mut writer = Writer::new(FORMAT, 16);
                writer.u32(first.0);
                writer.u32(lanes.len() as u32);
                lanes.iter().for_each(|set| write_replicas(&mut writer, set));
                writer.finish()
            }
            Self::BrokerDrain { id, is_draining } => {
                let mut writer = Writer::new(FORMAT, 13);
                writer.u32(id.0);
                writer.u8(u8::from(*is_draining));
                writer.finish()
            }
        }
    }

    /// Reads what `encode` wrote; anything else is refused.
    pub fn decode(body: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(body, FORMAT)?;
        let command = match tag {
            1 => Self::Boot { lanes: reader.list(read_set)? },
            2 => {
                let name: Box<str> = reader.text()?.into();
                let retention_ms = reader.optional()?;
                let retention_bytes = reader.optional()?;
                let lanes = reader.list(|reader| reader.u32().map(LaneId))?;
                let partitions = u32::try_from(lanes.len()).map_err(|_| BadBytes)?;
                let settings = TopicSettings { partitions, retention_ms, retention_bytes };
                if !settings.is_valid() || !is_valid_name(&name) {
                    return Err(BadBytes);
                }
                Self::TopicCreate { name, settings, lanes }
            }
            3 => Self::TopicDelete { name: reader.text()?.into() },
            4 => read_alteration(&mut reader)?,
            5 => Self::BrokerRegister { record: BrokerRecord::read(&mut reader)? },
            6 => Self::BrokerRemove { id: BrokerId(reader.u32()?) },
            7..=12 | 14 | 15 => read_of_lane(tag, &mut reader)?,
            13 => {
                let id = BrokerId(reader.u32()?);
                Self::BrokerDrain { id, is_draining: read_flag(&mut reader)? }
            }
            16 => Self::LanesAdd { first: LaneId(reader.u32()?), lanes: reader.list(read_set)? },
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok(command)
    }
}

fn of_lane(tag: u8, lane: LaneId, epoch: Epoch) -> Writer {
    let mut writer = Writer::new(FORMAT, tag);
    writer.u32(lane.0);
    writer.u64(epoch.0);
    writer
}

fn read_of_lane(tag: u8, reader: &mut Reader<'_>) -> Result<Command, BadBytes> {
    let lane = LaneId(reader.u32()?);
    let epoch = Epoch(reader.u64()?);
    match tag {
        7 => Ok(Command::LaneEnter { lane, epoch }),
        8 => {
            let broker = BrokerId(reader.u32()?);
            Ok(Command::LaneLeader { lane, epoch, broker, position: Position::read(reader)? })
        }
        9 => Ok(Command::LaneSettled { lane, epoch }),
        10 => Ok(Command::LaneReplicas { lane, epoch, replicas: read_set(reader)? }),
        11 => {
            let to = Some(BrokerId(reader.u32()?)).filter(|to| to.0 > 0);
            Ok(Command::LaneMove { lane, epoch, to })
        }
        12 => Ok(Command::LaneHandOver { lane, epoch, number: reader.u64()? }),
        14 => Ok(Command::LaneTransfer { lane, epoch, to: BrokerId(reader.u32()?) }),
        15 => Ok(Command::LaneReplace { lane, epoch, replicas: read_set(reader)? }),
        _ => Err(BadBytes),
    }
}

pub(crate) fn read_flag(reader: &mut Reader<'_>) -> Result<bool, BadBytes> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(BadBytes),
    }
}

fn read_set(reader: &mut Reader<'_>) -> Result<Arc<[LaneReplica]>, BadBytes> {
    let replicas = read_replicas(reader)?;
    if is_set(&replicas) { Ok(replicas.into()) } else { Err(BadBytes) }
}

fn read_alteration(reader: &mut Reader<'_>) -> Result<Command, BadBytes> {
    let topic = TopicId(reader.u32()?);
    let changes = read_changes(reader)?;
    let lanes_from = reader.u32()?;
    let lanes = reader.list(|reader| reader.u32().map(LaneId))?;
    Ok(Command::TopicAlter { topic, changes, lanes_from, lanes })
}

/// Which of them are given, then each of them.
pub(super) fn write_changes(writer: &mut Writer, changes: &TopicChanges) {
    writer.u16(
        u16::from(changes.partitions.is_some())
            | u16::from(changes.retention_ms.is_some()) << 1
            | u16::from(changes.retention_bytes.is_some()) << 2,
    );
    writer.u64(changes.retention_ms.unwrap_or(0));
    writer.u64(changes.retention_bytes.unwrap_or(0));
    writer.u32(changes.partitions.unwrap_or(0));
}

pub(super) fn read_changes(reader: &mut Reader<'_>) -> Result<TopicChanges, BadBytes> {
    let given = reader.u16()?;
    if given > 0b111 {
        return Err(BadBytes);
    }
    let retention_ms = read_given(given, 1, reader.u64()?)?;
    let retention_bytes = read_given(given, 2, reader.u64()?)?;
    let partitions = read_given(given, 0, u64::from(reader.u32()?))?.map(|count| count as u32);
    Ok(TopicChanges { partitions, retention_ms, retention_bytes })
}

/// What is not given was written as 0.
fn read_given(given: u16, bit: u32, value: u64) -> Result<Option<u64>, BadBytes> {
    match (given >> bit & 1, value) {
        (1, value) => Ok(Some(value)),
        (_, 0) => Ok(None),
        _ => Err(BadBytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::random::Random;
    use corelog_protocol::ids::{Incarnation, Lsn};

    fn set(replicas: &[(u32, u16)]) -> Arc<[LaneReplica]> {
        let replica = |&(broker, directory): &(u32, u16)| LaneReplica {
            broker: BrokerId(broker),
            directory: DirectoryId(directory),
        };
        replicas.iter().map(replica).collect()
    }

    fn samples() -> Vec<Command> {
        let settings =
            TopicSettings { partitions: 2, retention_ms: Some(60_000), retention_bytes: None };
        vec![
            Command::Boot { lanes: vec![set(&[(1, 0)]), set(&[(3, 1), (1, 0), (2, 7)])] },
            Command::TopicCreate {
                name: "orders".into(),
                settings,
                lanes: vec![LaneId(2), LaneId(1)],
            },
            Command::TopicDelete { name: "orders".into() },
            Command::TopicAlter {
                topic: TopicId(7),
                changes: TopicChanges {
                    partitions: Some(3),
                    retention_ms: Some(0),
                    retention_bytes: None,
                },
                lanes_from: 2,
                lanes: vec![LaneId(1)],
            },
            Command::BrokerRegister { record: broker("10.0.0.7:7421") },
            Command::BrokerRegister { record: broker("[fe80::1%3]:7421") },
            Command::BrokerRemove { id: BrokerId(2) },
            Command::LaneEnter { lane: LaneId(3), epoch: Epoch(9) },
            Command::LaneLeader {
                lane: LaneId(3),
                epoch: Epoch(9),
                broker: BrokerId(2),
                position: Position { epoch: Epoch(8), end: Lsn(1_000) },
            },
            Command::LaneSettled { lane: LaneId(3), epoch: Epoch(9) },
            Command::LaneReplicas {
                lane: LaneId(3),
                epoch: Epoch(10),
                replicas: set(&[(2, 0), (4, 1)]),
            },
            Command::LaneMove { lane: LaneId(3), epoch: Epoch(9), to: Some(BrokerId(1)) },
            Command::LaneMove { lane: LaneId(3), epoch: Epoch(9), to: None },
            Command::LaneHandOver { lane: LaneId(3), epoch: Epoch(9), number: 77 },
            Command::BrokerDrain { id: BrokerId(2), is_draining: true },
            Command::LaneTransfer { lane: LaneId(3), epoch: Epoch(9), to: BrokerId(1) },
            Command::LaneReplace {
                lane: LaneId(3),
                epoch: Epoch(9),
                replicas: set(&[(2, 0), (4, 1)]),
            },
            Command::LanesAdd { first: LaneId(7), lanes: vec![set(&[(3, 1), (1, 0), (2, 7)])] },
        ]
    }

    fn broker(address: &str) -> BrokerRecord {
        BrokerRecord {
            id: BrokerId(4),
            incarnation: Incarnation(11),
            life: 12,
            address: address.parse().unwrap(),
            rack: "r1".into(),
            shards: 2,
            directories: 3,
        }
    }

    #[test]
    fn sets_and_brokers_that_cannot_be_are_refused() {
        for replicas in [&[][..], &[(1, 0), (1, 1)], &[(0, 0)], &[(1, 0); 9]] {
            let command = Command::Boot { lanes: vec![set(replicas)] };
            assert_eq!(Command::decode(&command.encode()), Err(BadBytes), "{replicas:?}");
        }
        let good = broker("1.2.3.4:5");
        for record in [
            BrokerRecord { id: BrokerId(0), ..good.clone() },
            BrokerRecord { shards: 0, ..good.clone() },
            BrokerRecord { shards: u16::MAX, ..good.clone() },
            BrokerRecord { directories: 0, ..good.clone() },
            BrokerRecord { rack: "x".repeat(300).into(), ..good.clone() },
        ] {
            let command = Command::BrokerRegister { record };
            assert_eq!(Command::decode(&command.encode()), Err(BadBytes), "{command:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for command in samples() {
            assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        for command in samples() {
            let bytes = command.encode();
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Command::decode(&bad), Err(BadBytes), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert_eq!(Command::decode(&bytes[..len]), Err(BadBytes), "cut at {len}");
            }
        }
    }

    #[test]
    fn random_fields_behind_a_good_checksum_never_panic() {
        let mut random = Random::new(7);
        let mut read = 0;
        for _ in 0..20_000 {
            let mut writer = Writer::new(FORMAT, 1 + random.below(15) as u8);
            for _ in 0..random.below(8) {
                // Small values now and then, so that lengths are sometimes right.
                match random.below(3) {
                    0 => writer.u16(random.below(4) as u16),
                    1 => writer.u32(random.below(4) as u32),
                    _ => writer.u64(random.next_u64()),
                }
            }
            read += u32::from(Command::decode(&writer.finish()).is_ok());
        }
        assert!(read > 0, "some must have been well formed, or nothing was tried");
    }
}
