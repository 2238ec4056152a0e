//! The controls that are not hot: flatbuffers tables, behind plain structs.
//!
//! Every message has `encode(correlation, &mut Vec<u8>)`, which adds a whole frame (for a
//! [`FetchReply`] all but its payload), and `decode(control)`, which takes the control part of a
//! frame of its kind. A shard keeps an [`Encoder`] to encode without allocating.
//!
//! Decoding costs at most a small multiple of the control's length: the verifier's depth, tables
//! and apparent size are bounded, then lengths of strings and vectors are, then enums are checked.
//! The control may lie at any address: the verifier looks at places in the buffer only, and all
//! reads are unaligned.

mod brokers;
mod cluster;
mod data;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod topics;

use std::fmt;

use flatbuffers::{FlatBufferBuilder, Follow, Verifiable, VerifierOptions};

pub use brokers::{
    BROKERS_MAX, BrokerPlace, Brokers, RACK_BYTES_MAX, REPLICA_PLACES_MAX, ReplicaPlace,
};
pub use cluster::{
    BrokerStatus, ClusterStatus, ClusterStatusReply, LANE_REPLICAS_MAX, LANES_MAX, LaneLoad,
    LaneStatus, Obstacle, Operate, OperateReply, Operation, ReplicaStatus,
};
pub use data::{
    FETCH_PARTITIONS_MAX, Fetch, FetchPartition, FetchReply, FetchedPartition, Offsets,
    OffsetsAnswer, OffsetsQuery, OffsetsReply,
};
pub use session::{
    CREDENTIALS_BYTES_MAX, ErrorReply, Hello, HelloReply, PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
};
pub use status::{COUNTERS_MAX, SHARDS_MAX, ShardCounters, Status, StatusReply};
pub use topics::{
    PARTITIONS_PER_TOPIC_MAX, PartitionPlace, TOPIC_LIST_MAX, TOPIC_NAME_BYTES_MAX, TopicAlter,
    TopicAlterReply, TopicChanges, TopicCreate, TopicCreateReply, TopicDelete, TopicDeleteReply,
    TopicDescribe, TopicDescribeReply, TopicInfo, TopicList, TopicListReply, TopicNameError,
    TopicSettings, TopicSummary, check_topic_name,
};

use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::layout::pad8;
use crate::malformed::MalformedError;

/// Any string of a message, in bytes. Topic names have a bound of their own.
pub const STRING_BYTES_MAX: usize = 1024;

/// Nesting of tables: the deepest message has 3.
const DEPTH_MAX: usize = 8;

/// Tables in a message that holds no list of tables.
const TABLES_MAX: usize = 64;

pub(crate) mod sealed {
    use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

    /// How a message becomes a table.
    pub trait Table {
        fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset>;
    }
}

/// A message with a table as control.
pub trait Message: sealed::Table {
    /// The kind of its frames.
    const KIND: FrameKind;

    /// Bytes of payload that follow the control part.
    fn payload_bytes(&self) -> usize {
        0
    }
}

/// Encodes messages in buffers that it uses again.
#[derive(Default)]
pub struct Encoder {
    builder: FlatBufferBuilder<'static>,
    frame: Vec<u8>,
}

impl Encoder {
    /// With empty buffers, which grow to the largest message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The frame of `message`; if it has a payload, all of the frame but that.
    pub fn encode<M: Message>(&mut self, message: &M, correlation: u64) -> &[u8] {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        self.append(message, correlation, &mut frame);
        self.frame = frame;
        &self.frame
    }

    /// Adds the frame of `message` to `out`; if it has a payload, all of the frame but that.
    pub fn append<M: Message>(&mut self, message: &M, correlation: u64, out: &mut Vec<u8>) {
        self.builder.reset();
        let root = message.build(&mut self.builder);
        self.builder.finish_minimal(root);
        let control = self.builder.finished_data();
        let header = FrameHeader::new(M::KIND, correlation, control, message.payload_bytes());
        out.reserve(FRAME_HEADER_BYTES + pad8(control.len()));
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(control);
        out.resize(out.len() + pad8(control.len()) - control.len(), 0);
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("frame_bytes_max", &self.frame.capacity()).finish()
    }
}

/// Gives a message its public face.
macro_rules! message {
    ($name:ident) => {
        impl $crate::message::Message for $name {
            const KIND: $crate::frame::FrameKind = $crate::frame::FrameKind::$name;
        }
        message!(@face $name);
    };
    ($name:ident as $kind:ident) => {
        impl $crate::message::Message for $name {
            const KIND: $crate::frame::FrameKind = $crate::frame::FrameKind::$kind;
        }
        message!(@face $name);
    };
    (@face $name:ident) => {
        impl $name {
            /// Adds the frame to `out`; if there is a payload, all of the frame but that.
            /// [`Encoder`](crate::message::Encoder) does the same without allocating.
            pub fn encode(&self, correlation: u64, out: &mut Vec<u8>) {
                $crate::message::Encoder::new().append(self, correlation, out);
            }
        }
    };
}
pub(crate) use message;

/// The only door for tables: everything that is read here has been verified within tight bounds,
/// by a verifier of its own.
fn read_root<'a, T>(control: &'a [u8], tables_max: usize) -> Result<T::Inner, MalformedError>
where
    T: 'a + Follow<'a> + Verifiable,
{
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: tables_max,
        // Tables may share their vtable and are charged for it each: twice the length is enough
        // for all honest messages. What is below 256 bytes costs nothing anyway.
        max_apparent_size: 2 * control.len() + 256,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, control)
        .map_err(|_| MalformedError::new("not a table of this kind"))
}

/// A string within its bound; absent means empty.
fn text(value: Option<&str>, reason: &'static str) -> Result<String, MalformedError> {
    let value = value.unwrap_or_default();
    check(value.len() <= STRING_BYTES_MAX, reason)?;
    Ok(value.to_owned())
}

fn check(holds: bool, reason: &'static str) -> Result<(), MalformedError> {
    if holds { Ok(()) } else { Err(MalformedError::new(reason)) }
}

/// The longest start of `text` that has at most `bytes_max` bytes.
fn shorten(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
