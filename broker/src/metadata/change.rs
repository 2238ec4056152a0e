//! What somebody wants to be changed, as it travels to the leader of the metadata, and what became of it.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 1 | tag u8 | 0 u16 | token u64 | fields
//! tag 1 TopicCreate:    name, partitions u32, retention_ms u64, retention_bytes u64
//! tag 2 TopicDelete:    name
//! tag 3 TopicAlter:     name, given u16, retention_ms u64, retention_bytes u64, partitions u32
//! tag 4 BrokerRegister: broker
//! tag 5 Transfer:       is it only asked about u8, lane u32, broker u32
//! tag 6 Drain:          is it only asked about u8, broker u32
//! tag 7 Undrain:        is it only asked about u8, broker u32
//! tag 8 Replace:        is it only asked about u8, lane u32, count u32, count x broker u32
//! tag 9 Remove:         is it only asked about u8, broker u32
//! tag 10 AddLanes:      is it only asked about u8, lane u32, broker u32
//! tag 16 decided:       version u64, outcome u8, topic u32 (0, but for outcome 0), only for outcome 8 an obstacle
//! tag 17 refused:       code u16, retry_after_ms u32
//! outcomes: 0 done, 1 noted, 2 topic exists, 3 unknown topic, 4 invalid, 5 fewer partitions, 6 limit reached,
//!           7 it was only asked about, and is possible, 8 obstructed
//! obstacle: number u8, lane u32, broker u32, entries u64, as in an OperateReply
//! ```
//! Names, settings and brokers are as in commands.

use corelog_protocol::ErrorCode;
use corelog_protocol::ids::{BrokerId, LaneId, TopicId};
use corelog_protocol::message::{Obstacle, Operation};

use super::broker::BrokerRecord;
use super::codec::{BadBytes, Reader, Writer};
use super::command::{Command, read_changes, read_flag, write_changes};
use super::operation::{self, Heard};
use super::state::{Outcome, State};
use super::topic::{TopicChanges, TopicSettings, is_valid_name};

const FORMAT: u8 = 1;

/// A wished change of the metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    TopicCreate {
        name: Box<str>,
        settings: TopicSettings,
    },
    TopicDelete {
        name: Box<str>,
    },
    TopicAlter {
        name: Box<str>,
        changes: TopicChanges,
    },
    /// A broker tells who and where it is.
    BrokerRegister {
        record: BrokerRecord,
    },
    /// A planned change, or the question whether it could be done: see `operation.rs`.
    Operate {
        operation: Operation,
        check_only: bool,
    },
}

/// A change on its way to the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedChange {
    /// Chosen by who asks. 0: no answer is wanted.
    pub token: u64,
    pub change: Change,
}

/// What the leader answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeReply {
    pub token: u64,
    pub result: ChangeResult,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeResult {
    /// What it came to, and the version of the state from which on it holds.
    Decided { outcome: Outcome, version: u64 },
    /// It was not proposed, or nobody knows what became of it, as the code says.
    Refused { code: ErrorCode, retry_after_ms: u32 },
}

impl Change {
    /// The command that would do it in this state. `heard`: what is known of brokers and lanes now; none for a broker
    /// alone.
    ///
    /// # Errors
    /// What the command would come to, if that is known already.
    pub fn command(&self, state: &State, heard: Option<Heard<'_>>) -> Result<Command, Outcome> {
        match self {
            Self::TopicCreate { name, settings } => state.topic_create(name, *settings),
            Self::TopicDelete { name } => match state.topic(name) {
                Some(_) => Ok(Command::TopicDelete { name: name.clone() }),
                None => Err(Outcome::UnknownTopic),
            },
            Self::TopicAlter { name, changes } => state.topic_alter(name, *changes),
            Self::BrokerRegister { record } => state.broker_register(record),
            Self::Operate { operation, check_only } => {
                match operation::command(operation, state, heard) {
                    Err(obstacle) => Err(Outcome::Obstructed(obstacle)),
                    Ok(_) if *check_only => Err(Outcome::Possible),
                    Ok(command) => Ok(command),
                }
            }
        }
    }
}

impl AskedChange {
    pub fn encode(&self) -> Vec<u8> {
        let start = |tag| {
            let mut writer = Writer::new(FORMAT, tag);
            writer.u64(self.token);
            writer
        };
        match &self.change {
            Change::TopicCreate { name, settings } => {
                let mut writer = start(1);
                writer.text(name);
                writer.u32(settings.partitions);
                writer.optional(settings.retention_ms);
                writer.optional(settings.retention_bytes);
                writer.finish()
            }
            Change::TopicDelete { name } => {
                let mut writer = start(2);
                writer.text(name);
                writer.finish()
            }
            Change::TopicAlter { name, changes } => {
                let mut writer = start(3);
                writer.text(name);
                write_changes(&mut writer, changes);
                writer.finish()
            }
            Change::BrokerRegister { record } => {
                let mut writer = start(4);
                record.write(&mut writer);
                writer.finish()
            }
            Change::Operate { operation, check_only } => {
                let start = |tag| {
                    let mut writer = start(tag);
                    writer.u8(u8::from(*check_only));
                    writer
                };
                if let Operation::Replace { lane, replicas } = operation {
                    let mut writer = start(8);
                    writer.u32(lane.0);
                    writer.u32(replicas.len() as u32);
                    replicas.iter().for_each(|id| writer.u32(id.0));
                    return writer.finish();
                }
                let (mut writer, broker) = match operation {
                    Operation::Transfer { lane, to } => {
                        let mut writer = start(5);
                        writer.u32(lane.0);
                        (writer, to)
                    }
                    Operation::Drain { broker } => (start(6), broker),
                    Operation::Undrain { broker } => (start(7), broker),
                    Operation::Remove { broker } => (start(9), broker),
                    Operation::AddLanes { broker, up_to } => {
                        let mut writer = start(10);
                        writer.u32(up_to.0);
                        (writer, broker)
                    }
                    Operation::Replace { .. } => unreachable!("written above"),
                };
                writer.u32(broker.0);
                writer.finish()
            }
        }
    }

    /// # Errors
    /// If `encode` did not write this.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
        let fields = &mut reader;
        let token = fields.u64()?;
        let change = match tag {
            1 => {
                let name = read_name(fields)?;
                let settings = TopicSettings {
                    partitions: fields.u32()?,
                    retention_ms: fields.optional()?,
                    retention_bytes: fields.optional()?,
                };
                Change::TopicCreate { name, settings }
            }
            2 => Change::TopicDelete { name: read_name(fields)? },
            3 => {
                let name = read_name(fields)?;
                Change::TopicAlter { name, changes: read_changes(fields)? }
            }
            4 => Change::BrokerRegister { record: BrokerRecord::read(fields)? },
            5..=10 => {
                let check_only = read_flag(fields)?;
                let operation = match tag {
                    5 => Operation::Transfer {
                        lane: LaneId(fields.u32()?),
                        to: BrokerId(fields.u32()?),
                    },
                    6 => Operation::Drain { broker: BrokerId(fields.u32()?) },
                    7 => Operation::Undrain { broker: BrokerId(fields.u32()?) },
                    9 => Operation::Remove { broker: BrokerId(fields.u32()?) },
                    10 => {
                        let up_to = LaneId(fields.u32()?);
                        Operation::AddLanes { broker: BrokerId(fields.u32()?), up_to }
                    }
                    _ => Operation::Replace {
                        lane: LaneId(fields.u32()?),
                        replicas: fields.list(|fields| fields.u32().map(BrokerId))?,
                    },
                };
                Change::Operate { operation, check_only }
            }
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok(Self { token, change })
    }
}

/// No topic has another one, so nobody needs to be asked about it.
fn read_name(reader: &mut Reader<'_>) -> Result<Box<str>, BadBytes> {
    let name = reader.text()?;
    if is_valid_name(name) { Ok(name.into()) } else { Err(BadBytes) }
}

impl ChangeReply {
    pub fn encode(&self) -> Vec<u8> {
        match self.result {
            ChangeResult::Decided { outcome, version } => {
                let mut writer = Writer::new(FORMAT, 16);
                writer.u64(self.token);
                writer.u64(version);
                let (number, topic) = match outcome {
                    Outcome::Done(topic) => (0, topic.0),
                    Outcome::Noted => (1, 0),
                    Outcome::TopicExists => (2, 0),
                    Outcome::UnknownTopic => (3, 0),
                    Outcome::Invalid => (4, 0),
                    Outcome::FewerPartitions => (5, 0),
                    Outcome::LimitReached => (6, 0),
                    Outcome::Possible => (7, 0),
                    Outcome::Obstructed(_) => (8, 0),
                };
                writer.u8(number);
                writer.u32(topic);
                if let Outcome::Obstructed(obstacle) = outcome {
                    let (number, lane, broker, entries) = obstacle.to_wire();
                    writer.u8(number);
                    writer.u32(lane);
                    writer.u32(broker);
                    writer.u64(entries);
                }
                writer.finish()
            }
            ChangeResult::Refused { code, retry_after_ms } => {
                let mut writer = Writer::new(FORMAT, 17);
                writer.u64(self.token);
                writer.u16(code.to_wire());
                writer.u32(retry_after_ms);
                writer.finish()
            }
        }
    }

    /// # Errors
    /// If `encode` did not write this.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
        let token = reader.u64()?;
        let result = match tag {
            16 => {
                let version = reader.u64()?;
                let outcome = match (reader.u8()?, reader.u32()?) {
                    (0, topic) => Outcome::Done(TopicId(topic)),
                    (1, 0) => Outcome::Noted,
                    (2, 0) => Outcome::TopicExists,
                    (3, 0) => Outcome::UnknownTopic,
                    (4, 0) => Outcome::Invalid,
                    (5, 0) => Outcome::FewerPartitions,
                    (6, 0) => Outcome::LimitReached,
                    (7, 0) => Outcome::Possible,
                    (8, 0) => {
                        let number = reader.u8()?;
                        let (lane, broker) = (reader.u32()?, reader.u32()?);
                        let obstacle = Obstacle::from_wire(number, lane, broker, reader.u64()?);
                        Outcome::Obstructed(obstacle.map_err(|_| BadBytes)?)
                    }
                    _ => return Err(BadBytes),
                };
                ChangeResult::Decided { outcome, version }
            }
            17 => {
                let code = ErrorCode::from_wire(reader.u16()?).ok_or(BadBytes)?;
                ChangeResult::Refused { code, retry_after_ms: reader.u32()? }
            }
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok(Self { token, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_protocol::ids::{BrokerId, Incarnation};

    fn asked() -> Vec<AskedChange> {
        let settings =
            TopicSettings { partitions: 3, retention_ms: Some(5), retention_bytes: None };
        let changes =
            TopicChanges { partitions: None, retention_ms: Some(0), retention_bytes: Some(9) };
        let record = BrokerRecord {
            id: BrokerId(4),
            incarnation: Incarnation(11),
            life: 12,
            address: ([10, 0, 0, 1], 7421).into(),
            rack: "r1".into(),
            shards: 2,
            directories: 3,
        };
        let operate = |operation| Change::Operate { operation, check_only: true };
        let changes = vec![
            Change::TopicCreate { name: "orders".into(), settings },
            Change::TopicDelete { name: "orders".into() },
            Change::TopicAlter { name: "orders".into(), changes },
            Change::BrokerRegister { record },
            operate(Operation::Transfer { lane: LaneId(3), to: BrokerId(2) }),
            operate(Operation::Drain { broker: BrokerId(2) }),
            operate(Operation::Undrain { broker: BrokerId(2) }),
            operate(Operation::Replace {
                lane: LaneId(3),
                replicas: vec![BrokerId(2), BrokerId(4)],
            }),
            operate(Operation::Remove { broker: BrokerId(2) }),
            operate(Operation::AddLanes { broker: BrokerId(2), up_to: LaneId(3) }),
        ];
        (7..).zip(changes).map(|(token, change)| AskedChange { token, change }).collect()
    }

    fn replies() -> Vec<ChangeReply> {
        let decided = |outcome| ChangeResult::Decided { outcome, version: 1 << 40 };
        let (lane, broker) = (LaneId(3), BrokerId(2));
        let results = [
            decided(Outcome::Done(TopicId(6))),
            decided(Outcome::Noted),
            decided(Outcome::TopicExists),
            decided(Outcome::UnknownTopic),
            decided(Outcome::Invalid),
            decided(Outcome::FewerPartitions),
            decided(Outcome::LimitReached),
            decided(Outcome::Possible),
            decided(Outcome::Obstructed(Obstacle::Behind { lane, broker, entries: 1 << 40 })),
            decided(Outcome::Obstructed(Obstacle::HasReplicas { lane, broker })),
            ChangeResult::Refused { code: ErrorCode::NotLeader, retry_after_ms: 50 },
        ];
        results.into_iter().map(|result| ChangeReply { token: 3, result }).collect()
    }

    fn refuses_what_is_spoilt<T: PartialEq + std::fmt::Debug>(
        bytes: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, BadBytes>,
    ) {
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), Err(BadBytes), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(BadBytes), "cut at {len}");
        }
    }

    #[test]
    fn what_is_asked_and_answered_survives_its_bytes_and_no_flipped_bit_does() {
        for asked in asked() {
            let bytes = asked.encode();
            assert_eq!(AskedChange::decode(&bytes), Ok(asked));
            assert_eq!(ChangeReply::decode(&bytes), Err(BadBytes));
            refuses_what_is_spoilt(&bytes, AskedChange::decode);
        }
        for reply in replies() {
            let bytes = reply.encode();
            assert_eq!(ChangeReply::decode(&bytes), Ok(reply));
            assert_eq!(AskedChange::decode(&bytes), Err(BadBytes));
            refuses_what_is_spoilt(&bytes, ChangeReply::decode);
        }
    }

    #[test]
    fn a_name_that_no_topic_has_is_not_asked_about() {
        let change = Change::TopicDelete { name: "a b".into() };
        let bytes = AskedChange { token: 1, change }.encode();
        assert_eq!(AskedChange::decode(&bytes), Err(BadBytes));
    }
}
