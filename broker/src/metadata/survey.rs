//! What only the leader of the metadata knows, and tells whoever asks: which brokers it hears, how far the replicas
//! of each lane are by word of its leader, and what it costs that. True of a moment; nothing is decided by it.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 1 | tag u8 | 0 u16 | token u64 | fields
//! tag 1 the question
//! tag 2 the answer of an older broker, without loads
//! tag 3 the answer: count u32, count x broker u32 | count u32, count x progress | count u32, count x load
//! progress: lane u32, epoch u64, end u64, count u32, count x (broker u32, durable u64, does it keep up u8)
//! load: lane u32, epoch u64; of a second: bytes taken u64, records taken u64, bytes served u64, requests u64
//! ```

use corelog_protocol::ids::{BrokerId, LaneId};

use super::codec::{BadBytes, Reader, Writer};
use crate::replica::{LaneLoad, LaneProgress, Rates};

const FORMAT: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// The brokers that are heard.
    pub alive: Vec<BrokerId>,
    /// Of lanes whose leader was heard of lately, in the order of their numbers.
    pub lanes: Vec<LaneProgress>,
    /// Of those of them of which it is known, in the same order.
    pub loads: Vec<LaneLoad>,
}

impl Survey {
    pub fn lane(&self, id: LaneId) -> Option<&LaneProgress> {
        let at = self.lanes.binary_search_by_key(&id, |progress| progress.lane).ok()?;
        self.lanes.get(at)
    }

    /// What a lane costs its leader.
    pub fn rates(&self, id: LaneId) -> Option<Rates> {
        let at = self.loads.binary_search_by_key(&id, |load| load.lane).ok()?;
        self.loads.get(at).map(|load| load.rates)
    }

    pub fn encode(&self, token: u64) -> Vec<u8> {
        let mut writer = Writer::new(FORMAT, 3);
        writer.u64(token);
        writer.u32(self.alive.len() as u32);
        self.alive.iter().for_each(|id| writer.u32(id.0));
        writer.u32(self.lanes.len() as u32);
        self.lanes.iter().for_each(|lane| lane.write(&mut writer));
        writer.u32(self.loads.len() as u32);
        self.loads.iter().for_each(|load| load.write(&mut writer));
        writer.finish()
    }

    /// The token, and what was told.
    ///
    /// # Errors
    /// If `encode` did not write this.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Self), BadBytes> {
        let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
        if tag != 2 && tag != 3 {
            return Err(BadBytes);
        }
        let token = reader.u64()?;
        let alive = reader.list(|reader| reader.u32().map(BrokerId))?;
        let lanes = reader.list(LaneProgress::read)?;
        let loads = if tag == 3 { reader.list(LaneLoad::read)? } else { Vec::new() };
        reader.finish()?;
        let survey = Self { alive, lanes, loads };
        let are_sorted = survey.lanes.is_sorted_by(|one, next| one.lane < next.lane)
            && survey.loads.is_sorted_by(|one, next| one.lane < next.lane);
        if are_sorted { Ok((token, survey)) } else { Err(BadBytes) }
    }
}

pub fn encode_question(token: u64) -> Vec<u8> {
    let mut writer = Writer::new(FORMAT, 1);
    writer.u64(token);
    writer.finish()
}

/// The token of a question.
///
/// # Errors
/// If [`encode_question`] did not write this.
pub fn decode_question(bytes: &[u8]) -> Result<u64, BadBytes> {
    let (tag, mut reader) = Reader::new(bytes, FORMAT)?;
    let token = reader.u64()?;
    reader.finish()?;
    if tag == 1 { Ok(token) } else { Err(BadBytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::FollowerProgress;
    use corelog_protocol::ids::{Epoch, Lsn};

    #[test]
    fn a_survey_and_its_question_survive_their_bytes_and_no_flipped_bit_does() {
        let follower = |broker, durable| FollowerProgress {
            broker: BrokerId(broker),
            durable: Lsn(durable),
            is_caught_up: broker == 2,
        };
        let lane = |id| LaneProgress {
            lane: LaneId(id),
            epoch: Epoch(3),
            end: Lsn(90),
            followers: vec![follower(2, 90), follower(3, 40)],
        };
        let rates = Rates { bytes_in: 5, records_in: 6, bytes_out: 1 << 40, requests: 7 };
        let load = |id| LaneLoad { lane: LaneId(id), epoch: Epoch(3), rates };
        let mut survey = Survey {
            alive: vec![BrokerId(1), BrokerId(3)],
            lanes: vec![lane(1), lane(4)],
            loads: vec![load(4), load(5)],
        };
        let bytes = survey.encode(7);
        assert_eq!(Survey::decode(&bytes), Ok((7, survey.clone())));
        assert_eq!(decode_question(&encode_question(9)), Ok(9));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Survey::decode(&flipped), Err(BadBytes), "bit {bit}");
            assert_eq!(decode_question(&flipped), Err(BadBytes), "bit {bit}");
        }
        assert_eq!((survey.lane(LaneId(4)), survey.lane(LaneId(2))), (Some(&lane(4)), None));
        assert_eq!((survey.rates(LaneId(4)), survey.rates(LaneId(1))), (Some(rates), None));
        survey.lanes.reverse();
        assert_eq!(Survey::decode(&survey.encode(7)), Err(BadBytes));
        survey.lanes.reverse();
        survey.loads.reverse();
        assert_eq!(Survey::decode(&survey.encode(7)), Err(BadBytes));
    }

    #[test]
    fn the_answer_of_a_broker_that_knows_no_loads_is_understood() {
        let mut writer = Writer::new(FORMAT, 2);
        writer.u64(7);
        writer.u32(1);
        writer.u32(3);
        writer.u32(0);
        let survey = Survey { alive: vec![BrokerId(3)], ..Survey::default() };
        assert_eq!(Survey::decode(&writer.finish()), Ok((7, survey)));
    }
}
