//! An entry of the group's log, and a snapshot that stands for a beginning of it. The same bytes on disk
//! and between brokers.
//!
//! ```text
//! entry:    index u64 | term u64 | kind u8 | body
//!           kind 0: nothing    kind 1: count u32, count x byte    kind 2: count u32, count x (tag u8, replica u64)
//! snapshot: index u64 | term u64 | members | count u32, count x byte
//! members:  4 x (count u32, count x replica u64): voters, learners, outgoing voters, next learners
//!           | auto_leave u8
//! ```

use bytes::Bytes;

use super::members::{Change, MEMBERS_MAX, Members, NUMBER_MAX};
use crate::metadata::codec::{BadBytes, Reader, Writer};

/// What an entry is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A leader's first, by which it commits what came before.
    Nothing,
    /// Never empty.
    Command(Bytes),
    /// The members change. Without any step: a change of several is over.
    Members(Vec<Change>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// From 1, dense.
    pub index: u64,
    /// The leadership in which it was proposed. Never falls from one index to the next.
    pub term: u64,
    pub payload: Payload,
}

/// What everything through an index came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub index: u64,
    pub term: u64,
    pub members: Members,
    /// The replicated state; what is in it is not looked at here.
    pub image: Bytes,
}

/// A position in the log: index or term. 0 stands for "before the first" where that is allowed.
pub(super) fn read_number(reader: &mut Reader<'_>) -> Result<u64, BadBytes> {
    let number = reader.u64()?;
    if number <= NUMBER_MAX { Ok(number) } else { Err(BadBytes) }
}

/// One that cannot be 0.
pub(super) fn read_positive(reader: &mut Reader<'_>) -> Result<u64, BadBytes> {
    read_number(reader).and_then(|number| if number > 0 { Ok(number) } else { Err(BadBytes) })
}

impl LogEntry {
    /// About what it takes in a record or message.
    pub fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Nothing => 17,
            Payload::Command(command) => 21 + command.len(),
            Payload::Members(changes) => 21 + 9 * changes.len(),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u64(self.index);
        writer.u64(self.term);
        match &self.payload {
            Payload::Nothing => writer.u8(0),
            Payload::Command(command) => {
                writer.u8(1);
                writer.bytes(command);
            }
            Payload::Members(changes) => {
                writer.u8(2);
                writer.u32(changes.len() as u32);
                changes.iter().for_each(|change| change.write(writer));
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let index = read_positive(reader)?;
        let term = read_positive(reader)?;
        let payload = match reader.u8()? {
            0 => Payload::Nothing,
            1 => match reader.bytes()? {
                [] => return Err(BadBytes),
                command => Payload::Command(Bytes::copy_from_slice(command)),
            },
            2 => {
                let changes = reader.list(Change::read)?;
                if changes.len() > MEMBERS_MAX {
                    return Err(BadBytes);
                }
                Payload::Members(changes)
            }
            _ => return Err(BadBytes),
        };
        Ok(Self { index, term, payload })
    }
}

impl Snapshot {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u64(self.index);
        writer.u64(self.term);
        self.members.write(writer);
        writer.bytes(&self.image);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let index = read_positive(reader)?;
        let term = read_positive(reader)?;
        let members = Members::read(reader)?;
        let image = Bytes::copy_from_slice(reader.bytes()?);
        Ok(Self { index, term, members, image })
    }
}
