//! Malformed frames, drawn from a seed. After some of them a broker must close the connection, since the
//! stream has lost its place; the others are answered with an error, and the next frame is looked at.

use corelog_broker::random::Random;
use corelog_protocol::Durability;
use corelog_protocol::checksum::crc32c;
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::{Encoder, Fetch, FetchPartition, TopicDescribe};

use crate::load::wire;

/// What is wrong with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    HeaderBit,
    Length,
    Garbage,
    ControlBit,
    Half,
    Control,
    Kind,
    BatchBit,
    Batch,
    Answer,
    Nowhere,
}

impl Wrong {
    pub const ALL: [Self; 11] = [
        Self::HeaderBit,
        Self::Length,
        Self::Garbage,
        Self::ControlBit,
        Self::Half,
        Self::Control,
        Self::Kind,
        Self::BatchBit,
        Self::Batch,
        Self::Answer,
        Self::Nowhere,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::HeaderBit => "a valid frame with a flipped bit in its header",
            Self::Length => "a length above the cap, up to 4 GiB",
            Self::Garbage => "random bytes, HTTP, TLS",
            Self::ControlBit => "a valid frame with a flipped bit in its control part",
            Self::Half => "half a frame, and the connection ends",
            Self::Control => "a control part of random bytes under right checksums",
            Self::Kind => "a kind, version or flag that does not exist",
            Self::BatchBit => "a batch with a flipped bit",
            Self::Batch => "a batch that contradicts itself under a right checksum",
            Self::Answer => "an answer instead of a request",
            Self::Nowhere => "a well-formed request for what does not exist",
        }
    }

    /// Nothing behind such a frame is looked at.
    pub fn ends_the_stream(self) -> bool {
        (self as u8) <= Self::Half as u8
    }

    /// Counts against the connection: it is closed at the tenth.
    pub fn is_counted(self) -> bool {
        matches!(self, Self::Control | Self::Answer)
    }
}

/// Makes frames.
pub struct Maker {
    random: Random,
    batch: Vec<u8>,
}

impl Maker {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), batch: wire::batch(3, 60) }
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// The next frame; `may_stay`: one that does not end the stream.
    pub fn next(&mut self, may_stay: bool) -> (Wrong, Vec<u8>) {
        let mut pick = |wrong: &[Wrong]| wrong[self.random.below(wrong.len() as u64) as usize];
        let (ending, staying) = Wrong::ALL.split_at(5);
        let wrong = if may_stay { pick(staying) } else { pick(ending) };
        (wrong, self.make(wrong))
    }

    fn make(&mut self, wrong: Wrong) -> Vec<u8> {
        match wrong {
            Wrong::HeaderBit => {
                let mut frame = self.valid();
                self.flip(&mut frame[..FRAME_HEADER_BYTES]);
                frame
            }
            Wrong::Length => {
                let lengths = [(1 << 20) + 1, i32::MAX as u32, u32::MAX];
                let length = lengths[self.below(3) as usize];
                let at = 8 + 4 * self.below(2) as usize;
                forged(self.valid(), |header| {
                    header[at..at + 4].copy_from_slice(&length.to_le_bytes());
                })
            }
            Wrong::Garbage => match self.below(8) {
                0 => b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
                1 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 60]].concat(),
                _ => self.noise(32, 300),
            },
            Wrong::ControlBit => {
                let mut frame = self.valid();
                // Each control part has at least eight bytes.
                self.flip(&mut frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + 8]);
                frame
            }
            Wrong::Half => {
                let mut frame = self.valid();
                let part = 1 + self.below(frame.len() as u64 - 1) as usize;
                frame.truncate(part);
                frame
            }
            Wrong::Control => {
                let kinds = [FrameKind::Fetch, FrameKind::Offsets, FrameKind::TopicCreate];
                let kind = kinds[self.below(3) as usize];
                let mut control = self.noise(8, 200);
                // No table begins so far behind its own end.
                control[..4].fill(0xff);
                framed(kind, &control, &[])
            }
            Wrong::Kind => {
                let (at, value) = [(4, 9), (5, 250), (6, 1)][self.below(3) as usize];
                forged(self.valid(), |header| header[at] = value)
            }
            Wrong::BatchBit => {
                let mut batch = self.batch.clone();
                self.flip(&mut batch[48..]);
                wire::produce(PartitionId(1), Durability::QuorumDurable, &batch)
            }
            Wrong::Batch => {
                let mut batch = self.batch.clone();
                let at = [8, 12, 16, 24, 40][self.below(5) as usize];
                batch[at] ^= 1 + self.below(255) as u8;
                let crc = crc32c(&batch[4..]);
                batch[..4].copy_from_slice(&crc.to_le_bytes());
                wire::produce(PartitionId(1), Durability::QuorumDurable, &batch)
            }
            Wrong::Answer => framed(FrameKind::FetchReply, &self.noise(8, 60), &[]),
            Wrong::Nowhere => self.nowhere(),
        }
    }

    fn nowhere(&mut self) -> Vec<u8> {
        let unknown = PartitionId(1 << 30);
        match self.below(3) {
            0 => wire::produce(unknown, Durability::QuorumDurable, &self.batch),
            1 => {
                let wanted = FetchPartition {
                    partition: unknown,
                    offset: Offset(u64::MAX),
                    bytes_max: u32::MAX,
                };
                let fetch = Fetch {
                    wait_max_ms: u32::MAX,
                    bytes_min: u32::MAX,
                    bytes_max: u32::MAX,
                    partitions: vec![wanted; 1],
                    any_replica: true,
                };
                Encoder::new().encode(&fetch, 3).to_vec()
            }
            _ => Encoder::new().encode(&TopicDescribe { name: "not there".into() }, 4).to_vec(),
        }
    }

    fn valid(&mut self) -> Vec<u8> {
        if self.below(2) == 0 {
            return wire::produce(PartitionId(1 << 30), Durability::QuorumDurable, &self.batch);
        }
        Encoder::new().encode(&TopicDescribe { name: "healthy".into() }, 5).to_vec()
    }

    fn noise(&mut self, least: u64, most: u64) -> Vec<u8> {
        let len = least + self.below(most - least);
        (0..len).map(|_| self.random.next_u64() as u8).collect()
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let bit = self.below(8 * bytes.len() as u64) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

fn framed(kind: FrameKind, control: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = FrameHeader::new(kind, 9, control, payload.len()).encode().to_vec();
    frame.extend_from_slice(control);
    frame.resize(frame.len().next_multiple_of(8), 0);
    frame.extend_from_slice(payload);
    frame
}

/// Makes a header say what it should not, with a right checksum.
fn forged(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut frame);
    let crc = crc32c(&frame[..28]);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use corelog_protocol::batch::BatchView;
    use corelog_protocol::frame::FrameError;

    use super::*;

    #[test]
    fn every_frame_is_wrong_in_the_way_that_it_says() {
        let mut maker = Maker::new(7);
        for round in 0..2_000 {
            let (wrong, frame) = maker.next(round % 2 == 0);
            let header = FrameHeader::decode(&frame, 1 << 20);
            let is_so = match wrong {
                Wrong::HeaderBit => header == Err(FrameError::HeaderCrc),
                Wrong::Garbage => matches!(header, Err(FrameError::HeaderCrc)),
                Wrong::Length => matches!(header, Err(FrameError::TooLarge { .. })),
                Wrong::Kind => matches!(header, Err(FrameError::Unsupported(_))),
                Wrong::Half => header.is_err() || frame.len() < header.unwrap().frame_bytes(),
                Wrong::ControlBit => {
                    matches!(header.unwrap().control(&frame), Err(FrameError::ControlCrc { .. }))
                }
                Wrong::Control => Fetch::decode(header.unwrap().control(&frame).unwrap()).is_err(),
                Wrong::BatchBit | Wrong::Batch => {
                    BatchView::parse(header.unwrap().payload(&frame).unwrap()).is_err()
                }
                Wrong::Answer | Wrong::Nowhere => header.unwrap().frame_bytes() == frame.len(),
            };
            assert!(is_so, "{wrong:?}: {frame:02x?}");
            assert_eq!(wrong.ends_the_stream(), round % 2 == 1);
        }
    }
}
