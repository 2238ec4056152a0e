//! What is known of one broker.

use std::net::SocketAddr;

use corelog_protocol::ids::{BrokerId, Incarnation};

use super::codec::{BadBytes, Reader, Writer};
use crate::limits::SHARDS_MAX;

/// Brokers of a cluster.
pub const BROKERS_MAX: usize = 64;

/// The name of what fails together with a broker.
pub use corelog_protocol::message::RACK_BYTES_MAX;

/// A broker, as it registered itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerRecord {
    /// Not 0. Never given to another broker again.
    pub id: BrokerId,
    /// Of its disks. It never changes for this id: a wiped disk comes back under a new one.
    pub incarnation: Incarnation,
    /// Random for each start of its process.
    pub life: u64,
    /// Where other brokers and clients connect.
    pub address: SocketAddr,
    /// What fails together, up to `RACK_BYTES_MAX` bytes. Empty: not told.
    pub rack: Box<str>,
    /// 1 to `SHARDS_MAX`, as of this life.
    pub shards: u16,
    /// 1 or more, as first registered: replicas were placed on so many.
    pub directories: u16,
}

impl BrokerRecord {
    /// One of the brokers of a test, in its first life.
    #[cfg(test)]
    pub fn of_a_test(id: BrokerId, shards: u16) -> Self {
        Self {
            id,
            incarnation: Incarnation(1),
            life: 1,
            address: ([127, 0, 0, 1], 7421).into(),
            rack: "".into(),
            shards,
            directories: 1,
        }
    }

    pub fn is_valid(&self) -> bool {
        self.id.0 > 0
            && self.rack.len() <= RACK_BYTES_MAX
            && (1..=SHARDS_MAX).contains(&self.shards)
            && self.directories > 0
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.id.0);
        writer.u64(self.incarnation.0);
        writer.u64(self.life);
        writer.address(self.address);
        writer.text(&self.rack);
        writer.u16(self.shards);
        writer.u16(self.directories);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let record = Self {
            id: BrokerId(reader.u32()?),
            incarnation: Incarnation(reader.u64()?),
            life: reader.u64()?,
            address: reader.address()?,
            rack: reader.text()?.into(),
            shards: reader.u16()?,
            directories: reader.u16()?,
        };
        if record.is_valid() { Ok(record) } else { Err(BadBytes) }
    }
}
