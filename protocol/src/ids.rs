//! The identifiers that travel and are stored. Each is a type of its own, so that an offset
//! cannot be mistaken for an LSN.

use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! position {
    ($name:ident) => {
        impl $name {
            /// The position right after this one.
            ///
            /// # Panics
            /// At `u64::MAX`, which no log reaches: a million entries a second for 584,000 years.
            #[must_use]
            pub const fn next(self) -> Self {
                self.advance(1)
            }

            /// The position `count` places after this one.
            #[must_use]
            pub const fn advance(self, count: u64) -> Self {
                match self.0.checked_add(count) {
                    Some(value) => Self(value),
                    None => panic!("position overflow"),
                }
            }
        }
    };
}

identifier! {
    /// A record's position in its partition: dense from 0.
    Offset(u64)
}
identifier! {
    /// An entry's position in its lane: dense from 0.
    Lsn(u64)
}
identifier! {
    /// A leadership period of a lane. Only grows. 0 means "none yet".
    Epoch(u64)
}
identifier! {
    /// A partition of a topic, unique in the cluster for ever: never given out a second time.
    PartitionId(u32)
}
identifier! {
    /// A topic, unique in the cluster for ever: a deleted topic's id is not given out again.
    TopicId(u32)
}
identifier! {
    /// A replicated, segmented log. Lane 0 holds the metadata.
    LaneId(u32)
}
identifier! {
    /// A CPU core's share of one broker. `ShardId::ANY` in a preamble means "whichever accepts".
    ShardId(u16)
}
identifier! {
    /// A cluster, chosen at random when its first broker starts.
    ClusterId(u128)
}
identifier! {
    /// A broker of a cluster, chosen by whoever sets it up. 0 means "none".
    BrokerId(u32)
}
identifier! {
    /// One life of a broker's data directory. Changes when the directory is wiped or restored.
    Incarnation(u64)
}
identifier! {
    /// A producer's identity for deduplication. 0 means "none".
    ProducerId(u64)
}

position!(Offset);
position!(Lsn);
position!(Epoch);

impl ShardId {
    /// In a preamble: serve this connection on whichever shard accepted it.
    pub const ANY: Self = Self(u16::MAX);
}

impl LaneId {
    /// The lane that holds the cluster's metadata. Always on shard 0.
    pub const METADATA: Self = Self(0);

    /// Which shard of a broker with `shards` of them has its copy of this lane, if it has one. Brokers and
    /// clients compute it alike, and anew when a broker has started with another number of shards: the metadata is on
    /// shard 0, the other lanes are dealt in turn.
    ///
    /// # Panics
    /// Without shards.
    #[must_use]
    pub const fn shard(self, shards: u16) -> ShardId {
        assert!(shards > 0, "a broker has shards");
        match self.0.checked_sub(1) {
            None => ShardId(0),
            Some(turn) => ShardId((turn % shards as u32) as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_print_their_kind_in_debug_and_their_number_in_display() {
        assert_eq!(format!("{:?}", Offset(7)), "Offset(7)");
        assert_eq!(format!("{}", Lsn(9)), "9");
        assert_eq!(Offset(7).next(), Offset(8));
        assert_eq!(Lsn(7).advance(3), Lsn(10));
    }

    #[test]
    fn lanes_are_dealt_to_shards_in_turn_and_the_metadata_stays_on_the_first() {
        let dealt = |shards| (0..6).map(|lane| LaneId(lane).shard(shards).0).collect::<Vec<_>>();
        assert_eq!(dealt(2), [0, 0, 1, 0, 1, 0]);
        assert_eq!(dealt(1), [0; 6]);
        assert_eq!(LaneId(u32::MAX).shard(u16::MAX), ShardId(65_534));
    }
}
