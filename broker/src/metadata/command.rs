//! What can be asked of the metadata, and its bytes in an entry of kind `Metadata`.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 1 | tag u8 | 0 u16 | fields
//! tag 1 Boot:        count u32, count x (lane u32, directory u16)
//! tag 2 TopicCreate: name, retention_ms u64, retention_bytes u64, partitions u32, partitions x lane u32
//! tag 3 TopicDelete: name
//! ```
//! A name is its length as u16, then its bytes. An absent setting is 0.

use corelog_protocol::ids::LaneId;

use super::codec::{BadBytes, Reader, Writer};
use super::topic::{LaneRecord, TopicSettings, is_valid_name};
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
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok(command)
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
            let mut writer = Writer::new(FORMAT, 1 + random.below(4) as u8);
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
