//! Where a log ends, and what a replica says of it when it is fenced.

use corelog_protocol::ids::{Epoch, LaneId, Lsn};

use crate::metadata::codec::{BadBytes, Reader, Writer};

const FORMAT: u8 = 1;

/// The end of a log. Logs are compared by the epoch of their last entry first: of two, the greater one has all
/// that was ever committed of the other. The default is the empty log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Position {
    /// Of the last entry; 0 if there is none.
    pub epoch: Epoch,
    /// The LSN after the last entry.
    pub end: Lsn,
}

/// What a replica answers when its lane is fenced, after its promise of `epoch` is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceAnswer {
    pub lane: LaneId,
    /// The epoch that it promised.
    pub epoch: Epoch,
    /// Its log is durable and whole through here.
    pub has: Position,
    /// It has acknowledged nothing above this. The same as `has`, unless something in its log cannot be read;
    /// `end` is then `u64::MAX` if nobody can tell how far that reached.
    pub perhaps: Position,
}

impl Position {
    pub fn write(self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        writer.u64(self.end.0);
    }

    /// # Errors
    /// If the bytes are too short.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(Self { epoch: Epoch(reader.u64()?), end: Lsn(reader.u64()?) })
    }
}

impl FenceAnswer {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(FORMAT, 1);
        writer.u32(self.lane.0);
        writer.u64(self.epoch.0);
        self.has.write(&mut writer);
        self.perhaps.write(&mut writer);
        writer.finish()
    }

    /// # Errors
    /// If `encode` did not write this.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
        if tag != 1 {
            return Err(BadBytes);
        }
        let lane = LaneId(reader.u32()?);
        let epoch = Epoch(reader.u64()?);
        let has = Position::read(&mut reader)?;
        let perhaps = Position::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { lane, epoch, has, perhaps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_counts_before_a_length() {
        let old = Position { epoch: Epoch(1), end: Lsn(9) };
        let new = Position { epoch: Epoch(2), end: Lsn(3) };
        assert!(new > old && old > Position::default());
    }

    #[test]
    fn an_answer_survives_its_bytes_and_no_flipped_bit_does() {
        let has = Position { epoch: Epoch(3), end: Lsn(70) };
        let perhaps = Position { epoch: Epoch(4), end: Lsn(u64::MAX) };
        let answer = FenceAnswer { lane: LaneId(5), epoch: Epoch(6), has, perhaps };
        let bytes = answer.encode();
        assert_eq!(FenceAnswer::decode(&bytes), Ok(answer));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FenceAnswer::decode(&flipped), Err(BadBytes), "bit {bit}");
        }
    }
}
