//! How safe a batch must be before it is acknowledged. Chosen per request, told in the ack.

use std::fmt;
use std::str::FromStr;

/// A level of durability. There is no order between [`Durability::LeaderDurable`] and
/// [`Durability::QuorumMemory`], so there is none on the type: ask
/// [`is_durable`](Self::is_durable) and [`is_quorum`](Self::is_quorum).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Durability {
    /// Nothing is acknowledged. A refusal is still answered.
    None = 0,
    /// In the leader's memory.
    LeaderMemory = 1,
    /// On the leader's disk: covered by a completed flush.
    LeaderDurable = 2,
    /// In the memory of a quorum.
    QuorumMemory = 3,
    /// On the disks of a quorum.
    #[default]
    QuorumDurable = 4,
}

impl Durability {
    /// All levels, by their number.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::LeaderMemory,
        Self::LeaderDurable,
        Self::QuorumMemory,
        Self::QuorumDurable,
    ];

    /// The level with this number, if there is one.
    #[inline]
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::LeaderMemory),
            2 => Some(Self::LeaderDurable),
            3 => Some(Self::QuorumMemory),
            4 => Some(Self::QuorumDurable),
            _ => None,
        }
    }

    /// Its number on the wire.
    #[inline]
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// Whether success is answered at all.
    pub const fn is_acknowledged(self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether the ack waits for a flush.
    pub const fn is_durable(self) -> bool {
        matches!(self, Self::LeaderDurable | Self::QuorumDurable)
    }

    /// Whether the ack waits for a quorum.
    pub const fn is_quorum(self) -> bool {
        matches!(self, Self::QuorumMemory | Self::QuorumDurable)
    }

    /// Its name in configuration and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LeaderMemory => "leader_memory",
            Self::LeaderDurable => "leader_durable",
            Self::QuorumMemory => "quorum_memory",
            Self::QuorumDurable => "quorum_durable",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownDurability;

impl fmt::Display for UnknownDurability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a durability level: expected none, leader_memory, leader_durable, quorum_memory or quorum_durable")
    }
}

impl std::error::Error for UnknownDurability {}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(name: &str) -> Result<Self, UnknownDurability> {
        Self::ALL.into_iter().find(|level| level.name() == name).ok_or(UnknownDurability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_go_there_and_back() {
        for (number, level) in (0u8..).zip(Durability::ALL) {
            assert_eq!(level.to_wire(), number);
            assert_eq!(Durability::from_wire(number), Some(level));
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert_eq!(Durability::from_wire(5), None);
        assert_eq!("leader".parse::<Durability>(), Err(UnknownDurability));
        assert_eq!(Durability::default(), Durability::QuorumDurable);
    }
}
