//! What the replicas of a lane say to each other, as the control part of a `PeerLane` frame. The entries of an
//! [`LaneMessage::Append`] are the frame's payload.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 1 | tag u8 | 0 u16 | lane u32 | epoch u64 | fields
//! tag 1 Lead:   end u64, count u32, count x (epoch u64, first LSN u64)
//! tag 2 Follow: next u64, durable u64
//! tag 3 Append: first u64, committed u64, wants_received u8
//! tag 4 Ack:    received u64, durable u64
//! tag 5 Beat:   nothing; of no lane
//! tag 6 Anew:   first u64, end u64
//! ```

use corelog_protocol::ids::{Epoch, LaneId, Lsn};

use crate::metadata::codec::{BadBytes, Reader, Writer};

const FORMAT: u8 = 1;

/// What is said in an epoch of a lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneMessage {
    /// "I lead this epoch, these are the epochs of my log, and nobody has got anything of it from `end` on." Asks for
    /// `Follow`.
    Lead { history: Vec<(Epoch, Lsn)>, end: Lsn },
    /// "What I have equals your log; send from `next` on." Everything below `durable` is durable and readable here.
    Follow { next: Lsn, durable: Lsn },
    /// Entries from LSN `first` on, perhaps none. Everything below `committed` is committed.
    Append { first: Lsn, committed: Lsn, wants_received: bool },
    /// Everything below `durable` is durable, readable and equal to the leader's; below `received`, in memory.
    Ack { received: Lsn, durable: Lsn },
    /// "My log begins at `first`, above your end." The checkpoint that it begins with is the frame's payload: an entry, as
    /// stored. `end` as in `Lead`.
    Anew { first: Lsn, end: Lsn },
    /// "I am here": for all lanes that two shards share.
    Beat,
}

impl LaneMessage {
    pub fn encode(&self, lane: LaneId, epoch: Epoch) -> Vec<u8> {
        let tag = match self {
            Self::Lead { .. } => 1,
            Self::Follow { .. } => 2,
            Self::Append { .. } => 3,
            Self::Ack { .. } => 4,
            Self::Beat => 5,
            Self::Anew { .. } => 6,
        };
        let mut writer = Writer::new(FORMAT, tag);
        writer.u32(lane.0);
        writer.u64(epoch.0);
        match self {
            Self::Lead { history, end } => {
                writer.u64(end.0);
                writer.u32(u32::try_from(history.len()).expect("far fewer epochs"));
                for (epoch, first) in history {
                    writer.u64(epoch.0);
                    writer.u64(first.0);
                }
            }
            Self::Follow { next, durable } => {
                writer.u64(next.0);
                writer.u64(durable.0);
            }
            Self::Append { first, committed, wants_received } => {
                writer.u64(first.0);
                writer.u64(committed.0);
                writer.u8(u8::from(*wants_received));
            }
            Self::Ack { received, durable } => {
                writer.u64(received.0);
                writer.u64(durable.0);
            }
            Self::Anew { first, end } => {
                writer.u64(first.0);
                writer.u64(end.0);
            }
            Self::Beat => {}
        }
        writer.finish()
    }

    /// # Errors
    /// If `encode` did not write this, or a history is not ascending.
    pub fn decode(bytes: &[u8]) -> Result<(LaneId, Epoch, Self), BadBytes> {
        let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
        let lane = LaneId(reader.u32()?);
        let epoch = Epoch(reader.u64()?);
        let message = match tag {
            1 => {
                let end = Lsn(reader.u64()?);
                let step = |reader: &mut Reader<'_>| Ok((Epoch(reader.u64()?), Lsn(reader.u64()?)));
                let history = reader.list(step)?;
                let rises = |pair: &[(Epoch, Lsn)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
                if !history.windows(2).all(rises) {
                    return Err(BadBytes);
                }
                Self::Lead { history, end }
            }
            2 => Self::Follow { next: Lsn(reader.u64()?), durable: Lsn(reader.u64()?) },
            3 => Self::Append {
                first: Lsn(reader.u64()?),
                committed: Lsn(reader.u64()?),
                wants_received: match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(BadBytes),
                },
            },
            4 => Self::Ack { received: Lsn(reader.u64()?), durable: Lsn(reader.u64()?) },
            5 => Self::Beat,
            6 => Self::Anew { first: Lsn(reader.u64()?), end: Lsn(reader.u64()?) },
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok((lane, epoch, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_bytes_and_no_flipped_bit_does() {
        let history = vec![(Epoch(1), Lsn(0)), (Epoch(4), Lsn(70))];
        let messages = [
            LaneMessage::Lead { history, end: Lsn(99) },
            LaneMessage::Follow { next: Lsn(9), durable: Lsn(8) },
            LaneMessage::Append { first: Lsn(5), committed: Lsn(4), wants_received: true },
            LaneMessage::Ack { received: Lsn(7), durable: Lsn(6) },
            LaneMessage::Beat,
            LaneMessage::Anew { first: Lsn(7), end: Lsn(90) },
        ];
        for message in messages {
            let bytes = message.encode(LaneId(3), Epoch(9));
            assert_eq!(LaneMessage::decode(&bytes), Ok((LaneId(3), Epoch(9), message)));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(LaneMessage::decode(&flipped), Err(BadBytes), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_history_that_does_not_rise_is_refused() {
        for history in [[(2, 0), (1, 5)], [(1, 5), (2, 5)], [(1, 5), (1, 6)]] {
            let history = history.map(|(epoch, first)| (Epoch(epoch), Lsn(first))).to_vec();
            let bytes = LaneMessage::Lead { history, end: Lsn(9) }.encode(LaneId(3), Epoch(9));
            assert_eq!(LaneMessage::decode(&bytes), Err(BadBytes));
        }
    }
}
