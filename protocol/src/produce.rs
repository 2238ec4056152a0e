//! The controls of the hot path: fixed structs, read in a few nanoseconds.
//!
//! They are the flatbuffers structs of `schema/produce.fbs`, which have no vtable and need no
//! verifier: a fixed size, fields at fixed places. A test holds this code against the generated
//! one. The payload of a Produce is exactly one [batch](crate::batch); a ProduceAck has none.

use crate::durability::Durability;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::ids::{Epoch, Offset, PartitionId};
use crate::layout::{i64_at, put, u16_at, u32_at, u64_at};
use crate::malformed::MalformedError;

/// "Please append this batch."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Produce {
    /// Where to.
    pub partition: PartitionId,
    /// How long the broker may take, ms from receipt. 0: no limit.
    pub timeout_ms: u32,
    /// How safe the batch must be before it is acknowledged.
    pub durability: Durability,
    /// Whether the ack shall carry stage times.
    pub want_stages: bool,
    /// The batch was sent before, and nobody has said what became of it.
    pub sent_before: bool,
    /// It was sent before under this stamp, and has another one now. Only with `sent_before`.
    pub former: Option<FormerStamp>,
}

/// The epoch and the sequence under which a batch may stand in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormerStamp {
    /// The producer's.
    pub epoch: u16,
    /// Of the first record.
    pub sequence: u32,
}

/// Bit 0 of the flags of a Produce.
const WANT_STAGES: u8 = 1;
/// Bit 1.
const SENT_BEFORE: u8 = 2;
/// Bit 2.
const HAS_FORMER: u8 = 4;

impl Produce {
    /// Bytes of the control part. A multiple of 8: there is no padding.
    pub const CONTROL_BYTES: usize = 16;

    /// Bytes of header and control part: the batch follows.
    pub const HEAD_BYTES: usize = FRAME_HEADER_BYTES + Self::CONTROL_BYTES;

    /// The control part.
    #[inline]
    pub fn encode(&self) -> [u8; Self::CONTROL_BYTES] {
        let mut bytes = [0; Self::CONTROL_BYTES];
        put(&mut bytes, 0, self.partition.0.to_le_bytes());
        put(&mut bytes, 4, self.timeout_ms.to_le_bytes());
        bytes[8] = self.durability.to_wire();
        bytes[9] = if self.want_stages { WANT_STAGES } else { 0 }
            | if self.sent_before { SENT_BEFORE } else { 0 };
        if let Some(former) = self.former {
            bytes[9] |= HAS_FORMER;
            put(&mut bytes, 10, former.epoch.to_le_bytes());
            put(&mut bytes, 12, former.sequence.to_le_bytes());
        }
        bytes
    }

    /// Header and control part of a frame whose payload, the batch, has `batch_len` bytes.
    #[inline]
    pub fn encode_head(&self, correlation: u64, batch_len: usize) -> [u8; Self::HEAD_BYTES] {
        let control = self.encode();
        let header = FrameHeader::new(FrameKind::Produce, correlation, &control, batch_len);
        let mut head = [0; Self::HEAD_BYTES];
        put(&mut head, 0, header.encode());
        put(&mut head, FRAME_HEADER_BYTES, control);
        head
    }

    /// Reads a control part.
    #[inline]
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let bytes: &[u8; Self::CONTROL_BYTES] =
            control.try_into().map_err(|_| MalformedError::new("produce: length of control"))?;
        let Some(durability) = Durability::from_wire(bytes[8]) else {
            return Err(MalformedError::new("produce: durability"));
        };
        let (sent_before, has_former) = (bytes[9] & SENT_BEFORE != 0, bytes[9] & HAS_FORMER != 0);
        if bytes[9] & !(WANT_STAGES | SENT_BEFORE | HAS_FORMER) != 0 || has_former && !sent_before {
            return Err(MalformedError::new("produce: flags"));
        }
        let former = FormerStamp { epoch: u16_at(bytes, 10), sequence: u32_at(bytes, 12) };
        if !has_former && (former.epoch != 0 || former.sequence != 0) {
            return Err(MalformedError::new("produce: a former stamp without its flag"));
        }
        Ok(Self {
            partition: PartitionId(u32_at(bytes, 0)),
            timeout_ms: u32_at(bytes, 4),
            durability,
            want_stages: bytes[9] & WANT_STAGES != 0,
            sent_before,
            former: has_former.then_some(former),
        })
    }
}

/// How long a produce spent where, in ns. Each saturates at 4.29 s. Stages that were not passed
/// are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StageTimes {
    /// From the first byte in user space to the last one.
    pub socket_ns: u32,
    /// Waiting for its turn.
    pub queue_ns: u32,
    /// Checked and copied into the commit.
    pub append_ns: u32,
    /// From there to the completion of the write.
    pub write_ns: u32,
    /// From there to the completion of the flush.
    pub flush_ns: u32,
    /// With several replicas: from there until it has left for as many followers as a quorum needs; 0 if it had before.
    pub replicate_ns: u32,
    /// With several replicas: from there to the quorum.
    pub quorum_ns: u32,
    /// From there to the hand-over of the ack to the socket.
    pub reply_ns: u32,
}

impl StageTimes {
    /// The times in the order of the wire.
    pub const fn to_array(self) -> [u32; 8] {
        [
            self.socket_ns,
            self.queue_ns,
            self.append_ns,
            self.write_ns,
            self.flush_ns,
            self.replicate_ns,
            self.quorum_ns,
            self.reply_ns,
        ]
    }

    /// From the times in the order of the wire.
    pub const fn from_array(ns: [u32; 8]) -> Self {
        let [socket_ns, queue_ns, append_ns, write_ns, flush_ns, replicate_ns, quorum_ns, reply_ns] =
            ns;
        Self {
            socket_ns,
            queue_ns,
            append_ns,
            write_ns,
            flush_ns,
            replicate_ns,
            quorum_ns,
            reply_ns,
        }
    }
}

/// "It is appended, and this safe."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProduceAck {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// The epoch in which it was appended.
    pub epoch: Epoch,
    /// When it was appended, ms since 1970.
    pub append_time: i64,
    /// Where it was appended.
    pub partition: PartitionId,
    /// Records in the batch.
    pub record_count: u32,
    /// The level that was reached: at least the one asked for.
    pub level: Durability,
    /// Where the time went, if it was asked for.
    pub stages: Option<StageTimes>,
}

/// Bit 0 of the flags of a ProduceAck.
const HAS_STAGES: u8 = 1;

impl ProduceAck {
    /// Bytes of the control part. A multiple of 8: there is no padding.
    pub const CONTROL_BYTES: usize = 72;

    /// Bytes of the whole frame.
    pub const FRAME_BYTES: usize = FRAME_HEADER_BYTES + Self::CONTROL_BYTES;

    /// The control part.
    #[inline]
    pub fn encode(&self) -> [u8; Self::CONTROL_BYTES] {
        let mut bytes = [0; Self::CONTROL_BYTES];
        put(&mut bytes, 0, self.base_offset.0.to_le_bytes());
        put(&mut bytes, 8, self.epoch.0.to_le_bytes());
        put(&mut bytes, 16, self.append_time.to_le_bytes());
        put(&mut bytes, 24, self.partition.0.to_le_bytes());
        put(&mut bytes, 28, self.record_count.to_le_bytes());
        if let Some(stages) = self.stages {
            for (index, ns) in stages.to_array().into_iter().enumerate() {
                put(&mut bytes, 32 + 4 * index, ns.to_le_bytes());
            }
            bytes[65] = HAS_STAGES;
        }
        bytes[64] = self.level.to_wire();
        bytes
    }

    /// The whole frame.
    #[inline]
    pub fn encode_frame(&self, correlation: u64) -> [u8; Self::FRAME_BYTES] {
        let control = self.encode();
        let header = FrameHeader::new(FrameKind::ProduceAck, correlation, &control, 0);
        let mut frame = [0; Self::FRAME_BYTES];
        put(&mut frame, 0, header.encode());
        put(&mut frame, FRAME_HEADER_BYTES, control);
        frame
    }

    /// Reads a control part.
    #[inline]
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let bytes: &[u8; Self::CONTROL_BYTES] = control
            .try_into()
            .map_err(|_| MalformedError::new("produce ack: length of control"))?;
        let Some(level) = Durability::from_wire(bytes[64]) else {
            return Err(MalformedError::new("produce ack: level"));
        };
        if bytes[65] & !HAS_STAGES != 0 {
            return Err(MalformedError::new("produce ack: flags"));
        }
        if u16_at(bytes, 66) != 0 || u32_at(bytes, 68) != 0 {
            return Err(MalformedError::new("produce ack: reserved field not zero"));
        }
        let ns: [u32; 8] = std::array::from_fn(|index| u32_at(bytes, 32 + 4 * index));
        let has_stages = bytes[65] & HAS_STAGES != 0;
        if !has_stages && ns != [0; 8] {
            return Err(MalformedError::new("produce ack: stage times without their flag"));
        }
        let base_offset = Offset(u64_at(bytes, 0));
        let record_count = u32_at(bytes, 28);
        if base_offset.0.checked_add(u64::from(record_count)).is_none() {
            return Err(MalformedError::new("produce ack: offset overflow"));
        }
        Ok(Self {
            base_offset,
            epoch: Epoch(u64_at(bytes, 8)),
            append_time: i64_at(bytes, 16),
            partition: PartitionId(u32_at(bytes, 24)),
            record_count,
            level,
            stages: has_stages.then(|| StageTimes::from_array(ns)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::produce as wire;

    #[test]
    fn the_layout_is_that_of_the_schema() {
        assert_eq!(size_of::<wire::Produce>(), Produce::CONTROL_BYTES);
        for flags in [0, 1, 2, 3, 6, 7] {
            let former = FormerStamp { epoch: 0x0a09, sequence: 0x0e0d_0c0b };
            let former = (flags & 4 != 0).then_some(former);
            let ours = Produce {
                partition: PartitionId(0x0403_0201),
                timeout_ms: 0x0807_0605,
                durability: Durability::LeaderDurable,
                want_stages: flags & 1 != 0,
                sent_before: flags & 2 != 0,
                former,
            };
            let (epoch, sequence) = former.map_or((0, 0), |it| (it.epoch, it.sequence));
            let theirs = wire::Produce::new(0x0403_0201, 0x0807_0605, 2, flags, epoch, sequence);
            assert_eq!(ours.encode(), theirs.0);
            assert_eq!(Produce::decode(&theirs.0), Ok(ours));
        }

        assert_eq!(size_of::<wire::ProduceAck>(), ProduceAck::CONTROL_BYTES);
        let ns = [1, 2, 3, 4, 5, 6, 7, u32::MAX];
        let ours = ProduceAck {
            base_offset: Offset(0x0807_0605_0403_0201),
            epoch: Epoch(0x1817_1615_1413_1211),
            append_time: -0x2827_2625_2423_2221,
            partition: PartitionId(0x3433_3231),
            record_count: 0x4443_4241,
            level: Durability::QuorumMemory,
            stages: Some(StageTimes::from_array(ns)),
        };
        let theirs = wire::ProduceAck::new(
            0x0807_0605_0403_0201,
            0x1817_1615_1413_1211,
            -0x2827_2625_2423_2221,
            0x3433_3231,
            0x4443_4241,
            &ns,
            3,
            1,
            0,
            0,
        );
        assert_eq!(ours.encode(), theirs.0);
        assert_eq!(ProduceAck::decode(&theirs.0), Ok(ours));
    }

    #[test]
    fn every_field_out_of_bounds_is_malformed() {
        let sound = Produce {
            partition: PartitionId(7),
            timeout_ms: 0,
            durability: Durability::None,
            want_stages: false,
            sent_before: false,
            former: None,
        }
        .encode();
        for (at, value) in [(8, 5), (8, 255), (9, 4), (9, 0x80), (10, 1), (11, 1), (12, 1), (15, 1)]
        {
            let mut bytes = sound;
            bytes[at] = value;
            assert!(Produce::decode(&bytes).is_err(), "byte {at} = {value}");
        }

        let sound = ProduceAck {
            base_offset: Offset(0),
            epoch: Epoch(1),
            append_time: 0,
            partition: PartitionId(7),
            record_count: 1,
            level: Durability::LeaderMemory,
            stages: None,
        };
        let bytes = sound.encode();
        assert_eq!(ProduceAck::decode(&bytes), Ok(sound));
        // Stage times without their flag, level, flags, reserved.
        for (at, value) in [(32, 1), (63, 1), (64, 5), (65, 2), (66, 1), (67, 1), (68, 1), (71, 1)]
        {
            let mut bytes = bytes;
            bytes[at] = value;
            assert!(ProduceAck::decode(&bytes).is_err(), "byte {at} = {value}");
        }
        let overflow = ProduceAck { base_offset: Offset(u64::MAX), ..sound }.encode();
        assert!(ProduceAck::decode(&overflow).is_err());
    }
}
