//! How brokers of a cluster greet each other: fixed structs, so that whoever it is can be told from a few bytes.
//!
//! The one that dials says [`PeerHello`] as its first frame, and the other answers [`PeerHelloReply`]. Then frames of
//! peers travel in the direction of the dial only: each broker dials the other.

use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::ids::{BrokerId, ClusterId, Incarnation, ShardId};
use crate::layout::{put, u16_at, u32_at, u64_at};
use crate::malformed::MalformedError;

/// The newest version of what brokers say to each other that this crate knows. All since 1 are spoken.
pub const PEER_VERSION: u16 = 1;

/// Who a broker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// Brokers of other clusters are strangers.
    pub cluster: ClusterId,
    /// Its number in the cluster, never 0.
    pub broker: BrokerId,
    /// Of its data directories.
    pub incarnation: Incarnation,
    /// Drawn at random when its process started.
    pub life: u64,
    /// The shard that speaks.
    pub shard: ShardId,
    /// How many shards it runs, 1 or more.
    pub shards: u16,
}

/// "I am a broker of your cluster."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerHello {
    /// The newest version that it speaks, 1 or more.
    pub version: u16,
    /// Who dials.
    pub from: PeerIdentity,
}

/// "So am I."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerHelloReply {
    /// The version in force: the newest that both speak.
    pub version: u16,
    /// Who was dialed.
    pub from: PeerIdentity,
}

/// Bytes of the control part of both. A multiple of 8: there is no padding.
pub const PEER_HELLO_BYTES: usize = 48;

/// Bytes of a whole frame of both.
pub const PEER_HELLO_FRAME_BYTES: usize = FRAME_HEADER_BYTES + PEER_HELLO_BYTES;

fn encode(version: u16, from: &PeerIdentity) -> [u8; PEER_HELLO_BYTES] {
    let mut bytes = [0; PEER_HELLO_BYTES];
    put(&mut bytes, 0, version.to_le_bytes());
    put(&mut bytes, 2, from.shard.0.to_le_bytes());
    put(&mut bytes, 4, from.shards.to_le_bytes());
    put(&mut bytes, 8, from.broker.0.to_le_bytes());
    put(&mut bytes, 16, from.cluster.0.to_le_bytes());
    put(&mut bytes, 32, from.incarnation.0.to_le_bytes());
    put(&mut bytes, 40, from.life.to_le_bytes());
    bytes
}

fn decode(control: &[u8]) -> Result<(u16, PeerIdentity), MalformedError> {
    let bytes: &[u8; PEER_HELLO_BYTES] =
        control.try_into().map_err(|_| MalformedError::new("peer hello: length of control"))?;
    if u16_at(bytes, 6) != 0 || u32_at(bytes, 12) != 0 {
        return Err(MalformedError::new("peer hello: reserved field not zero"));
    }
    let version = u16_at(bytes, 0);
    if version == 0 {
        return Err(MalformedError::new("peer hello: version 0"));
    }
    let from = PeerIdentity {
        cluster: ClusterId(u128::from(u64_at(bytes, 16)) | u128::from(u64_at(bytes, 24)) << 64),
        broker: BrokerId(u32_at(bytes, 8)),
        incarnation: Incarnation(u64_at(bytes, 32)),
        life: u64_at(bytes, 40),
        shard: ShardId(u16_at(bytes, 2)),
        shards: u16_at(bytes, 4),
    };
    if from.broker == BrokerId(0) {
        return Err(MalformedError::new("peer hello: broker 0"));
    }
    if from.shard.0 >= from.shards {
        return Err(MalformedError::new("peer hello: no such shard"));
    }
    Ok((version, from))
}

fn frame(kind: FrameKind, control: &[u8; PEER_HELLO_BYTES]) -> [u8; PEER_HELLO_FRAME_BYTES] {
    let mut frame = [0; PEER_HELLO_FRAME_BYTES];
    put(&mut frame, 0, FrameHeader::new(kind, 0, control, 0).encode());
    put(&mut frame, FRAME_HEADER_BYTES, *control);
    frame
}

impl PeerHello {
    /// The control part.
    pub fn encode(&self) -> [u8; PEER_HELLO_BYTES] {
        encode(self.version, &self.from)
    }

    /// The whole frame.
    pub fn encode_frame(&self) -> [u8; PEER_HELLO_FRAME_BYTES] {
        frame(FrameKind::PeerHello, &self.encode())
    }

    /// Reads a control part.
    ///
    /// # Errors
    /// If it has another length, a version or broker of 0, or a shard that its broker does not have.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        decode(control).map(|(version, from)| Self { version, from })
    }
}

impl PeerHelloReply {
    /// The control part.
    pub fn encode(&self) -> [u8; PEER_HELLO_BYTES] {
        encode(self.version, &self.from)
    }

    /// The whole frame.
    pub fn encode_frame(&self) -> [u8; PEER_HELLO_FRAME_BYTES] {
        frame(FrameKind::PeerHelloReply, &self.encode())
    }

    /// Reads a control part.
    ///
    /// # Errors
    /// As [`PeerHello::decode`].
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        decode(control).map(|(version, from)| Self { version, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> PeerHello {
        let from = PeerIdentity {
            cluster: ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            broker: BrokerId(3),
            incarnation: Incarnation(0x2122_2324_2526_2728),
            life: 0x3132_3334_3536_3738,
            shard: ShardId(1),
            shards: 2,
        };
        PeerHello { version: PEER_VERSION, from }
    }

    #[test]
    fn what_is_said_is_heard() {
        let hello = hello();
        assert_eq!(PeerHello::decode(&hello.encode()), Ok(hello));
        let frame = hello.encode_frame();
        let header = FrameHeader::decode(&frame, 4096).unwrap();
        assert_eq!((header.kind, header.frame_bytes()), (FrameKind::PeerHello, frame.len()));
        assert_eq!(header.control(&frame), Ok(&hello.encode()[..]));
        let reply = PeerHelloReply { version: 1, from: hello.from };
        assert_eq!(PeerHelloReply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = hello().encode();
        for len in 0..good.len() {
            assert!(PeerHello::decode(&good[..len]).is_err());
        }
        assert!(PeerHello::decode(&[&good[..], &[0]].concat()).is_err());
        for (at, value, what) in [
            (0, 0, "version 0"),
            (2, 2, "a shard beyond its last"),
            (4, 0, "no shards"),
            (6, 1, "reserved"),
            (8, 0, "broker 0"),
            (12, 1, "reserved"),
            (15, 1, "reserved"),
        ] {
            let mut bad = good;
            bad[at] = value;
            assert!(PeerHello::decode(&bad).is_err(), "{what}");
        }
    }
}
