//! What can be asked of the metadata, and its bytes in an entry of kind `Metadata`.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 1 | tag u8 | 0 u16 | fields
//! tag 1 Boot:        count u32, count x (lane u32, directory u16)
//! tag 2 TopicCreate: name, retention_ms u64, retention_bytes u64, partitions u32, partitions x lane u32
//! tag 3 TopicDelete: name
//! tag 4 TopicAlter:  topic u32, given u16, retention_ms u64, retention_bytes u64, partitions u32,
//!                    lanes_from u32, count u32, count x lane u32
//! ```
//! A name is its length as u16, then its bytes. An absent setting is 0. Of an alteration, bits 0, 1
//! and 2 of `given` say whether partitions, retention_ms and retention_bytes change; what does not is 0.

use corelog_protocol::ids::{LaneId, TopicId};

use super::codec::{BadBytes, Reader, Writer};
use super::topic::{LaneRecord, TopicChanges, TopicSettings, is_valid_name};
use crate::disk::DirectoryId;

pub const FORMAT: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// The first of all: the lanes that this broker leads.
    Boot {
        lanes: Vec<LaneRecord>,
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
}

impl Command {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Boot { lanes } => {
                let mut writer = Writer::new(FORMAT, 1);
                writer.u32(lanes.len() as u32);
                for lane in lanes {
                    writer.u32(lane.id.0);
                    writer.u16(lane.directory.0);
                }
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
                writer.u16(
                    u16::from(changes.partitions.is_some())
                        | u16::from(changes.retention_ms.is_some()) << 1
                        | u16::from(changes.retention_bytes.is_some()) << 2,
                );
                writer.u64(changes.retention_ms.unwrap_or(0));
                writer.u64(changes.retention_bytes.unwrap_or(0));
                writer.u32(changes.partitions.unwrap_or(0));
                writer.u32(*lanes_from);
                writer.u32(lanes.len() as u32);
                for lane in lanes {
                    writer.u32(lane.0);
                }
                writer.finish()
            }
        }
    }

    /// Reads what `encode` wrote; anything else is refused.
    pub fn decode(body: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(body, FORMAT)?;
        let command = match tag {
            1 => Self::Boot {
                lanes: reader.list(|reader| {
                    let id = LaneId(reader.u32()?);
                    Ok(LaneRecord { id, directory: DirectoryId(reader.u16()?) })
                })?,
            },
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
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok(command)
    }
}

fn read_alteration(reader: &mut Reader<'_>) -> Result<Command, BadBytes> {
    let topic = TopicId(reader.u32()?);
    let given = reader.u16()?;
    if given > 0b111 {
        return Err(BadBytes);
    }
    let retention_ms = read_given(given, 1, reader.u64()?)?;
    let retention_bytes = read_given(given, 2, reader.u64()?)?;
    let partitions = read_given(given, 0, u64::from(reader.u32()?))?.map(|count| count as u32);
    let lanes_from = reader.u32()?;
    let lanes = reader.list(|reader| reader.u32().map(LaneId))?;
    let changes = TopicChanges { partitions, retention_ms, retention_bytes };
    Ok(Command::TopicAlter { topic, changes, lanes_from, lanes })
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
    use crate::random::Random;

    fn samples() -> Vec<Command> {
        let settings =
            TopicSettings { partitions: 2, retention_ms: Some(60_000), retention_bytes: None };
        vec![
            Command::Boot {
                lanes: vec![
                    LaneRecord { id: LaneId(1), directory: DirectoryId(0) },
                    LaneRecord { id: LaneId(2), directory: DirectoryId(1) },
                ],
            },
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
        ]
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
            let mut writer = Writer::new(FORMAT, 1 + random.below(5) as u8);
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
