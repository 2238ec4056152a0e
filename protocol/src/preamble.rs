//! The first 16 bytes of a connection, in plain text: which core shall serve it.
//!
//! The accepting shard reads exactly these bytes and hands the socket to the wanted shard, before
//! any stream or TLS wraps it.

use std::error::Error;
use std::fmt;

use crate::checksum::crc32c;
use crate::ids::ShardId;
use crate::layout::{put, u16_at, u32_at};

/// Length of a preamble.
pub const PREAMBLE_BYTES: usize = 16;

/// The first four bytes.
pub const PREAMBLE_MAGIC: [u8; 4] = *b"CRLG";

/// The version of the preamble that this crate writes and reads.
pub const PREAMBLE_VERSION: u16 = 1;

/// First byte of a TLS handshake record: a client behind a proxy that knows no preamble.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// The wish of a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preamble {
    /// The wanted shard. [`ShardId::ANY`], or a number that is out of date, means "any".
    pub shard: ShardId,
}

/// Why 16 bytes are no preamble. The connection is closed without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum PreambleError {
    /// Fewer bytes than a preamble has.
    Incomplete { have: usize },
    /// A TLS hello without a preamble. Means "any" where TLS is served.
    Tls,
    /// Another protocol.
    Magic,
    /// Damaged.
    Crc,
    /// Of a version that is not known here.
    Version { version: u16 },
    /// A reserved field is not zero.
    Reserved,
}

impl Preamble {
    /// The bytes to send first.
    pub fn encode(self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        put(&mut bytes, 0, PREAMBLE_MAGIC);
        put(&mut bytes, 4, PREAMBLE_VERSION.to_le_bytes());
        put(&mut bytes, 6, self.shard.0.to_le_bytes());
        let crc = crc32c(&bytes[..12]);
        put(&mut bytes, 12, crc.to_le_bytes());
        bytes
    }

    /// Reads the first 16 of `bytes`. A bare TLS hello is told from its first byte alone.
    pub fn decode(bytes: &[u8]) -> Result<Self, PreambleError> {
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            return Err(PreambleError::Tls);
        }
        let Some(bytes) = bytes.first_chunk::<PREAMBLE_BYTES>() else {
            return Err(PreambleError::Incomplete { have: bytes.len() });
        };
        if bytes[..4] != PREAMBLE_MAGIC {
            return Err(PreambleError::Magic);
        }
        if u32_at(bytes, 12) != crc32c(&bytes[..12]) {
            return Err(PreambleError::Crc);
        }
        let version = u16_at(bytes, 4);
        if version != PREAMBLE_VERSION {
            return Err(PreambleError::Version { version });
        }
        if u32_at(bytes, 8) != 0 {
            return Err(PreambleError::Reserved);
        }
        Ok(Self { shard: ShardId(u16_at(bytes, 6)) })
    }
}

impl fmt::Display for PreambleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { have } => write!(f, "{have} of {PREAMBLE_BYTES} preamble bytes"),
            Self::Tls => f.write_str("a TLS hello without a preamble"),
            Self::Magic => f.write_str("not a Corelog preamble"),
            Self::Crc => f.write_str("preamble checksum does not match"),
            Self::Version { version } => write!(f, "preamble version {version} is not known"),
            Self::Reserved => f.write_str("a reserved preamble field is not zero"),
        }
    }
}

impl Error for PreambleError {}
