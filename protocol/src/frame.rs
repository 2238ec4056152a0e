//! The unit of a conversation: a fixed header, a control part, a payload.
//!
//! ```text
//! ┌──────────────┬───────────┬──────────────┬───────────┐
//! │ header, 32 B │  control  │ zeros to 8 B │  payload  │
//! └──────────────┴───────────┴──────────────┴───────────┘
//! ```
//! The header has a checksum of its own, so that a length is believed only when it arrived whole.
//! Its layout is the same in all versions: a frame of an unknown version or kind can be skipped.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use crate::checksum::crc32c;
use crate::error_code::ErrorCode;
use crate::layout::{pad8, put, u16_at, u32_at, u64_at};

/// Length of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;

/// The first four bytes of a frame: `CLF1` when read in order.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"CLF1");

/// The version of frames that this crate writes and reads.
pub const FRAME_VERSION: u8 = 1;

macro_rules! frame_kinds {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, )*) => {
        /// What a frame says. Ranges that are kept free: 4 to 15 session, 22 to 31 data, 42 to 47
        /// topics, 54 to 63 administration, 64 to 95 groups, 96 to 127 queues, 137 to 175
        /// replication and metadata.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum FrameKind {
            $( $(#[$doc])* $name = $number, )*
        }

        impl FrameKind {
            /// All kinds, by number.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The kind with this number, if it is known here.
            pub const fn from_wire(value: u8) -> Option<Self> {
                match value {
                    $( $number => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// Its name, as in the documentation.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }
        }
    };
}

frame_kinds! {
    /// The first frame of a client.
    Hello = 1,
    /// The broker's answer to it.
    HelloReply = 2,
    /// The answer to a request that was not done.
    Error = 3,
    /// One batch for one partition. Fixed control.
    Produce = 16,
    /// What became of it. Fixed control.
    ProduceAck = 17,
    /// Stored batches, please.
    Fetch = 18,
    /// Stored entries, as they lie on the disk.
    FetchReply = 19,
    /// Where does a partition begin and end, and which offset had which time?
    Offsets = 20,
    /// The answer to it.
    OffsetsReply = 21,
    /// Make a topic.
    TopicCreate = 32,
    /// The topic that was made.
    TopicCreateReply = 33,
    /// Which topics are there?
    TopicList = 34,
    /// Their names and sizes.
    TopicListReply = 35,
    /// Where do the partitions of these topics live?
    TopicDescribe = 36,
    /// The places.
    TopicDescribeReply = 37,
    /// Delete a topic and its data.
    TopicDelete = 38,
    /// It is deleted.
    TopicDeleteReply = 39,
    /// Change a topic's settings.
    TopicAlter = 40,
    /// The topic as it is now.
    TopicAlterReply = 41,
    /// How is the broker?
    Status = 48,
    /// Its counters.
    StatusReply = 49,
    /// Which brokers and lanes are there, and how are they?
    ClusterStatus = 50,
    /// They.
    ClusterStatusReply = 51,
    /// A planned change of the cluster.
    Operate = 52,
    /// It has begun, or what is in its way.
    OperateReply = 53,
    /// The first frame of a broker to another. Fixed control.
    PeerHello = 128,
    /// The other's answer to it. Fixed control.
    PeerHelloReply = 129,
    /// A message of the metadata's group.
    PeerMetadata = 130,
    /// A message of a lane's replication.
    PeerLane = 131,
    /// What a replica says of its log to the leader of the metadata.
    PeerFence = 132,
    /// A change of the metadata, to its leader.
    PeerChange = 133,
    /// What became of it.
    PeerChangeReply = 134,
    /// What does the leader of the metadata know of brokers and replicas?
    PeerSurvey = 135,
    /// It.
    PeerSurveyReply = 136,
}

impl FrameKind {
    /// Brokers say it to each other, and to nobody else.
    pub const fn is_of_peers(self) -> bool {
        self.to_wire() >= Self::PeerHello.to_wire()
    }

    /// Its number on the wire.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The fixed part in front of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What the frame says.
    pub kind: FrameKind,
    /// Bytes of the control part, without its padding.
    pub control_len: u32,
    /// Bytes of the payload.
    pub payload_len: u32,
    /// Chosen by the one who asks, echoed by the one who answers.
    pub correlation: u64,
    /// CRC32C of the control part, without its padding.
    pub control_crc: u32,
}

/// A frame that was understood as a frame, but whose version, kind or flags are not known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsupportedFrame {
    /// As it came.
    pub version: u8,
    /// As it came.
    pub kind: u8,
    /// As it came.
    pub flags: u16,
    /// To be echoed.
    pub correlation: u64,
    /// Bytes after the header that belong to the frame: skip them. Within the cap.
    pub skip_bytes: u64,
}

/// Why bytes are no frame of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum FrameError {
    /// Fewer bytes than needed. Read more.
    Incomplete { have: usize, need: u64 },
    /// The header is damaged, or it is no header: the stream has lost its place. Close.
    HeaderCrc,
    /// An intact header of something else. Close.
    Magic,
    /// Answer `Unsupported` and skip.
    Unsupported(UnsupportedFrame),
    /// Control and payload together are above the cap. Answer, then close.
    TooLarge { kind: u8, correlation: u64, bytes: u64, cap: u32 },
    /// The control part is damaged, or its padding is not zero. Close.
    ControlCrc { correlation: u64 },
}

impl FrameHeader {
    /// The header of a frame with this control part.
    ///
    /// # Panics
    /// If `control` or the payload is 4 GiB long or longer: we build no such frames.
    #[inline]
    pub fn new(kind: FrameKind, correlation: u64, control: &[u8], payload_len: usize) -> Self {
        let narrow = |len: usize| u32::try_from(len).expect("frames are far below 4 GiB");
        Self {
            kind,
            control_len: narrow(control.len()),
            payload_len: narrow(payload_len),
            correlation,
            control_crc: crc32c(control),
        }
    }

    /// The bytes to send.
    #[inline]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        put(&mut bytes, 0, FRAME_MAGIC.to_le_bytes());
        bytes[4] = FRAME_VERSION;
        bytes[5] = self.kind.to_wire();
        put(&mut bytes, 8, self.control_len.to_le_bytes());
        put(&mut bytes, 12, self.payload_len.to_le_bytes());
        put(&mut bytes, 16, self.correlation.to_le_bytes());
        put(&mut bytes, 24, self.control_crc.to_le_bytes());
        let crc = crc32c(&bytes[..28]);
        put(&mut bytes, 28, crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the start of `bytes`. Control and payload together may have `cap`
    /// bytes. Checked in this order: length, checksum, magic, cap, version, kind, flags; so that
    /// nothing is believed before it is known to be intact, and what can be skipped is skipped.
    #[inline]
    pub fn decode(bytes: &[u8], cap: u32) -> Result<Self, FrameError> {
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            let need = FRAME_HEADER_BYTES as u64;
            return Err(FrameError::Incomplete { have: bytes.len(), need });
        };
        if u32_at(bytes, 28) != crc32c(&bytes[..28]) {
            return Err(FrameError::HeaderCrc);
        }
        if u32_at(bytes, 0) != FRAME_MAGIC {
            return Err(FrameError::Magic);
        }
        let (version, kind, flags) = (bytes[4], bytes[5], u16_at(bytes, 6));
        let (control_len, payload_len) = (u32_at(bytes, 8), u32_at(bytes, 12));
        let correlation = u64_at(bytes, 16);

        let body_bytes = u64::from(control_len) + u64::from(payload_len);
        if body_bytes > u64::from(cap) {
            return Err(FrameError::TooLarge { kind, correlation, bytes: body_bytes, cap });
        }
        match FrameKind::from_wire(kind) {
            Some(kind) if version == FRAME_VERSION && flags == 0 => Ok(Self {
                kind,
                control_len,
                payload_len,
                correlation,
                control_crc: u32_at(bytes, 24),
            }),
            _ => Err(FrameError::Unsupported(UnsupportedFrame {
                version,
                kind,
                flags,
                correlation,
                skip_bytes: u64::from(control_len).next_multiple_of(8) + u64::from(payload_len),
            })),
        }
    }

    /// Where the control part lies, counted from the start of the frame.
    #[inline]
    pub const fn control_range(&self) -> Range<usize> {
        FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.control_len as usize
    }

    /// Where the payload lies, counted from the start of the frame.
    #[inline]
    pub const fn payload_range(&self) -> Range<usize> {
        let start = FRAME_HEADER_BYTES + pad8(self.control_len as usize);
        start..start + self.payload_len as usize
    }

    /// Bytes of the whole frame.
    #[inline]
    pub const fn frame_bytes(&self) -> usize {
        self.payload_range().end
    }

    /// The control part of a frame that starts at the start of `frame`, checked against its
    /// checksum, and its padding against zero. The payload need not have arrived.
    #[inline]
    pub fn control<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let control = self.control_range();
        let padding = control.end..self.payload_range().start;
        let (Some(control), Some(padding)) = (frame.get(control), frame.get(padding.clone()))
        else {
            let need = padding.end as u64;
            return Err(FrameError::Incomplete { have: frame.len(), need });
        };
        if crc32c(control) != self.control_crc || padding.iter().any(|&byte| byte != 0) {
            return Err(FrameError::ControlCrc { correlation: self.correlation });
        }
        Ok(control)
    }

    /// The payload of a frame that starts at the start of `frame`. Its checksum is its own.
    #[inline]
    pub fn payload<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let range = self.payload_range();
        let need = range.end as u64;
        frame.get(range).ok_or(FrameError::Incomplete { have: frame.len(), need })
    }
}

impl FrameError {
    /// What to answer before closing or skipping. `None`: read more, or close without a word,
    /// since the other side does not speak our language.
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Incomplete { .. } | Self::HeaderCrc | Self::Magic => None,
            Self::Unsupported(_) => Some(ErrorCode::Unsupported),
            Self::TooLarge { .. } => Some(ErrorCode::FrameTooLarge),
            Self::ControlCrc { .. } => Some(ErrorCode::Malformed),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { have, need } => write!(f, "{have} of {need} frame bytes"),
            Self::HeaderCrc => f.write_str("frame header checksum does not match"),
            Self::Magic => f.write_str("not a Corelog frame"),
            Self::Unsupported(frame) => write!(
                f,
                "frame version {}, kind {}, flags {:#x} is not known",
                frame.version, frame.kind, frame.flags
            ),
            Self::TooLarge { kind, bytes, cap, .. } => {
                write!(f, "frame of kind {kind} has {bytes} bytes, above the cap of {cap}")
            }
            Self::ControlCrc { .. } => f.write_str("frame control checksum does not match"),
        }
    }
}

impl Error for FrameError {}
