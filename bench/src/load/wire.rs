//! The frames that the load sends and understands, and the few that the floor's bare server needs.

use corelog_protocol::batch::{BatchBuilder, NewRecord};
use corelog_protocol::checksum::crc32c;
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind};
use corelog_protocol::ids::{ClusterId, Epoch, Incarnation, Offset, PartitionId, ShardId};
use corelog_protocol::message::{ErrorReply, Hello, HelloReply};
pub use corelog_protocol::preamble::PREAMBLE_BYTES;
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::{Produce, ProduceAck};
use corelog_protocol::{Durability, ErrorCode};

/// Enough for every frame of every shape.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;

/// What the broker answered.
#[derive(Debug)]
pub enum Reply {
    Ack {
        correlation: u64,
        level: Durability,
    },
    Refused {
        correlation: u64,
        code: ErrorCode,
        /// With the code, for people.
        text: String,
    },
    Other(FrameKind),
}

/// A whole frame, checked as far as the floor checks it: both checksums of its head.
pub struct Frame<'a> {
    pub kind: FrameKind,
    pub correlation: u64,
    pub control: &'a [u8],
    pub payload: &'a [u8],
    /// Of all of it.
    pub bytes: usize,
}

/// The first bytes of a connection: preamble and hello.
pub fn opening(shard: ShardId) -> Vec<u8> {
    let mut bytes = Preamble { shard }.encode().to_vec();
    Hello::new("corelog-bench").encode(0, &mut bytes);
    bytes
}

/// One batch of so many records of so many bytes each.
pub fn batch(records: usize, record_bytes: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..record_bytes).map(|index| (index * 31) as u8).collect();
    let mut builder = BatchBuilder::new(FRAME_BYTES_MAX as usize, records as u32);
    for _ in 0..records {
        let record = NewRecord { value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("no shape is larger than a frame");
    }
    builder.finish().to_vec()
}

/// A produce frame. Its correlation is set by [`set_correlation`].
pub fn produce(partition: PartitionId, durability: Durability, batch: &[u8]) -> Vec<u8> {
    let control = Produce {
        partition,
        timeout_ms: 0,
        durability,
        want_stages: false,
        sent_before: false,
        former: None,
    };
    [&control.encode_head(0, batch.len())[..], batch].concat()
}

/// Writes the correlation into a frame's header, and its checksum anew.
pub fn set_correlation(frame: &mut [u8], correlation: u64) {
    let (header, _) = frame.split_at_mut(FRAME_HEADER_BYTES);
    header[16..24].copy_from_slice(&correlation.to_le_bytes());
    let crc = crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
}

/// The frame at the start of `bytes`, or `None` if it has not arrived whole.
#[inline]
pub fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let header = match FrameHeader::decode(bytes, FRAME_BYTES_MAX) {
        Err(FrameError::Incomplete { .. }) => return Ok(None),
        header => header?,
    };
    if bytes.len() < header.frame_bytes() {
        return Ok(None);
    }
    Ok(Some(Frame {
        kind: header.kind,
        correlation: header.correlation,
        control: header.control(bytes)?,
        payload: header.payload(bytes)?,
        bytes: header.frame_bytes(),
    }))
}

/// The reply at the start of `bytes` and its length, or `None` if it has not arrived whole.
pub fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(frame) = frame(bytes).map_err(|error| error.to_string())? else { return Ok(None) };
    let reply = match frame.kind {
        FrameKind::ProduceAck => {
            let ack = ProduceAck::decode(frame.control).map_err(|error| error.to_string())?;
            Reply::Ack { correlation: frame.correlation, level: ack.level }
        }
        FrameKind::Error => {
            let code = ErrorReply::decode(frame.control).map_err(|error| error.to_string())?.code;
            let text = error_text(frame.control);
            Reply::Refused { correlation: frame.correlation, code, text }
        }
        kind => Reply::Other(kind),
    };
    Ok(Some((reply, frame.bytes)))
}

/// An error of the broker, for people.
pub fn error_text(control: &[u8]) -> String {
    match ErrorReply::decode(control) {
        Ok(error) => format!("the broker answered {:?}: {}", error.code, error.message),
        Err(error) => error.to_string(),
    }
}

/// The floor's answer to a hello.
pub fn hello_reply(out: &mut Vec<u8>) {
    let reply = HelloReply {
        version: 1,
        cluster: ClusterId(1),
        incarnation: Incarnation(1),
        shard: ShardId(0),
        shards: 1,
        frame_bytes_max: FRAME_BYTES_MAX,
        software: "floor".to_owned(),
    };
    reply.encode(0, out);
}

/// The floor's ack: of the broker's size, with the broker's checksums.
#[inline]
pub fn ack(out: &mut Vec<u8>, correlation: u64, level: Durability, offset: u64) {
    let ack = ProduceAck {
        base_offset: Offset(offset),
        epoch: Epoch(1),
        append_time: 0,
        partition: PartitionId(1),
        record_count: 1,
        level,
        stages: None,
    };
    out.extend_from_slice(&ack.encode_frame(correlation));
}

/// Whether the batch's checksum fits its bytes.
#[inline]
pub fn batch_is_intact(payload: &[u8]) -> bool {
    payload
        .split_first_chunk::<4>()
        .is_some_and(|(crc, rest)| u32::from_le_bytes(*crc) == crc32c(rest))
}

#[cfg(test)]
mod tests {
    use corelog_protocol::batch::BatchView;

    use super::*;

    #[test]
    fn the_frames_sent_are_those_of_the_protocol() {
        let batch = batch(64, 1024);
        let view = BatchView::parse(&batch).unwrap();
        assert_eq!(view.records().count(), 64);
        let mut sent = produce(PartitionId(7), Durability::LeaderDurable, &batch);
        set_correlation(&mut sent, 99);
        let frame = frame(&sent).unwrap().unwrap();
        assert_eq!((frame.kind, frame.correlation), (FrameKind::Produce, 99));
        assert_eq!(Produce::decode(frame.control).unwrap().partition, PartitionId(7));
        assert!(batch_is_intact(frame.payload));
        assert_eq!(frame.bytes, sent.len());
    }

    #[test]
    fn a_frame_that_has_not_arrived_whole_is_no_error_and_a_flipped_bit_is() {
        let mut bytes = Vec::new();
        ack(&mut bytes, 5, Durability::LeaderDurable, 8);
        assert!(matches!(reply(&bytes), Ok(Some((Reply::Ack { correlation: 5, .. }, 104)))));
        assert!(reply(&bytes[..103]).unwrap().is_none());
        bytes[40] ^= 1;
        assert!(reply(&bytes).is_err());
    }
}
