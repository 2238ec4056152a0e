//! Reading a partition: fetch, and where it begins and ends.

use std::ops::Range;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::{Message, TABLES_MAX, check, message, read_root, sealed};
use crate::error_code::ErrorCode;
use crate::frame::FrameKind;
use crate::generated::data as wire;
use crate::ids::{Offset, PartitionId};
use crate::malformed::MalformedError;

/// Partitions in one request for data or offsets.
pub const FETCH_PARTITIONS_MAX: usize = 1024;

/// "Stored batches, please." The broker clamps all bounds to its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fetch {
    /// How long the broker may wait for `bytes_min`.
    pub wait_max_ms: u32,
    /// Answer as soon as this many bytes are there. 0: answer at once.
    pub bytes_min: u32,
    /// Payload of the answer. One batch is sent even if it is larger, so that a reader gets on.
    pub bytes_max: u32,
    /// 1 to [`FETCH_PARTITIONS_MAX`].
    pub partitions: Vec<FetchPartition>,
    /// A replica that follows may answer as well, with what it knows to be committed. Otherwise, and from a
    /// broker that does not know the flag, whoever does not lead answers
    /// [`NotLeader`](crate::ErrorCode::NotLeader).
    pub any_replica: bool,
}

/// What is wanted of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchPartition {
    /// The partition.
    pub partition: PartitionId,
    /// The first record that is wanted.
    pub offset: Offset,
    /// Of this partition.
    pub bytes_max: u32,
}

impl Fetch {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let mut fetch = Self::default();
        fetch.decode_from(control)?;
        Ok(fetch)
    }

    /// Reads a control part into this value, whose list is used again.
    pub fn decode_from(&mut self, control: &[u8]) -> Result<(), MalformedError> {
        let table = read_root::<wire::Fetch>(control, TABLES_MAX)?;
        let partitions = table.partitions().unwrap_or_default();
        check(!partitions.is_empty(), "fetch: no partitions")?;
        check(partitions.len() <= FETCH_PARTITIONS_MAX, "fetch: too many partitions")?;
        self.wait_max_ms = table.wait_max_ms();
        self.bytes_min = table.bytes_min();
        self.bytes_max = table.bytes_max();
        self.any_replica = table.any_replica();
        self.partitions.clear();
        self.partitions.extend(partitions.iter().map(|wanted| FetchPartition {
            partition: PartitionId(wanted.partition()),
            offset: Offset(wanted.offset()),
            bytes_max: wanted.bytes_max(),
        }));
        Ok(())
    }
}

impl sealed::Table for Fetch {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let partitions = builder.create_vector_from_iter(self.partitions.iter().map(|wanted| {
            wire::FetchPartition::new(wanted.offset.0, wanted.partition.0, wanted.bytes_max)
        }));
        let args = wire::FetchArgs {
            wait_max_ms: self.wait_max_ms,
            bytes_min: self.bytes_min,
            bytes_max: self.bytes_max,
            partitions: Some(partitions),
            any_replica: self.any_replica,
        };
        wire::Fetch::create(builder, &args).as_union_value()
    }
}

/// Stored entries follow as payload, in the order of the list. Walk them with
/// [`Entries`](crate::entry::Entries).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FetchReply {
    /// One for each partition asked, in any order.
    pub partitions: Vec<FetchedPartition>,
}

/// What was read of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Why there is nothing, if there is a reason.
    pub error: Option<ErrorCode>,
    /// The oldest offset that can be read.
    pub log_start: Offset,
    /// One after the newest committed record.
    pub committed_end: Offset,
    /// Bytes of its entries in the payload. The first entry may begin before the asked offset.
    pub bytes: u32,
    /// A damaged range after the entries given, or at the asked offset with
    /// [`ErrorCode::RangeCorrupt`]. Not empty.
    pub corrupt: Option<Range<Offset>>,
}

/// Bit 0 of the flags of a FetchedPartition, and of an OffsetsQuery and an OffsetsAnswer.
const GIVEN: u16 = 1;

impl FetchReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::FetchReply>(control, TABLES_MAX)?;
        let partitions = table.partitions().unwrap_or_default();
        check(partitions.len() <= FETCH_PARTITIONS_MAX, "fetch reply: too many partitions")?;
        let partitions = partitions.iter().map(fetched_from_wire).collect::<Result<_, _>>()?;
        let reply = Self { partitions };
        check(u32::try_from(reply.payload_bytes()).is_ok(), "fetch reply: bytes")?;
        Ok(reply)
    }

    /// The entries of each partition, if the payload has exactly the bytes that were announced.
    pub fn split<'a>(
        &'a self,
        payload: &'a [u8],
    ) -> Result<impl Iterator<Item = (&'a FetchedPartition, &'a [u8])>, MalformedError> {
        check(self.payload_bytes() == payload.len(), "fetch reply: length of payload")?;
        let mut rest = payload;
        Ok(self.partitions.iter().map(move |fetched| {
            // The sum was just checked.
            let (entries, after) = rest.split_at(fetched.bytes as usize);
            rest = after;
            (fetched, entries)
        }))
    }
}

fn fetched_from_wire(fetched: &wire::FetchedPartition) -> Result<FetchedPartition, MalformedError> {
    let (start, end) = (fetched.corrupt_start(), fetched.corrupt_end());
    let corrupt = match fetched.flags() {
        0 => {
            check(start == 0 && end == 0, "fetch reply: corrupt range without its flag")?;
            None
        }
        GIVEN => {
            check(start < end, "fetch reply: corrupt range")?;
            Some(Offset(start)..Offset(end))
        }
        _ => return Err(MalformedError::new("fetch reply: flags")),
    };
    check(fetched.log_start() <= fetched.committed_end(), "fetch reply: bounds")?;
    check(fetched.reserved() == 0, "fetch reply: reserved field not zero")?;
    Ok(FetchedPartition {
        partition: PartitionId(fetched.partition()),
        error: ErrorCode::from_wire(fetched.error()),
        log_start: Offset(fetched.log_start()),
        committed_end: Offset(fetched.committed_end()),
        bytes: fetched.bytes(),
        corrupt,
    })
}

impl sealed::Table for FetchReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let partitions = builder.create_vector_from_iter(self.partitions.iter().map(|fetched| {
            let (flags, start, end) = match &fetched.corrupt {
                Some(range) => (GIVEN, range.start.0, range.end.0),
                None => (0, 0, 0),
            };
            wire::FetchedPartition::new(
                fetched.log_start.0,
                fetched.committed_end.0,
                start,
                end,
                fetched.partition.0,
                fetched.bytes,
                ErrorCode::option_to_wire(fetched.error),
                flags,
                0,
            )
        }));
        let args = wire::FetchReplyArgs { partitions: Some(partitions) };
        wire::FetchReply::create(builder, &args).as_union_value()
    }
}

impl Message for FetchReply {
    const KIND: FrameKind = FrameKind::FetchReply;

    fn payload_bytes(&self) -> usize {
        self.partitions.iter().map(|fetched| fetched.bytes as usize).sum()
    }
}

/// "Where do these partitions begin and end?"
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offsets {
    /// 1 to [`FETCH_PARTITIONS_MAX`].
    pub partitions: Vec<OffsetsQuery>,
}

/// What is wanted of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetsQuery {
    /// The partition.
    pub partition: PartitionId,
    /// Also the first offset whose time is at or after this, ms since 1970.
    pub timestamp: Option<i64>,
}

impl Offsets {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::Offsets>(control, TABLES_MAX)?;
        let partitions = table.partitions().unwrap_or_default();
        check(!partitions.is_empty(), "offsets: no partitions")?;
        check(partitions.len() <= FETCH_PARTITIONS_MAX, "offsets: too many partitions")?;
        let partitions = partitions
            .iter()
            .map(|query| {
                let timestamp = match query.flags() {
                    0 => {
                        check(query.timestamp() == 0, "offsets: timestamp without its flag")?;
                        None
                    }
                    flags if flags == u32::from(GIVEN) => Some(query.timestamp()),
                    _ => return Err(MalformedError::new("offsets: flags")),
                };
                Ok(OffsetsQuery { partition: PartitionId(query.partition()), timestamp })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { partitions })
    }
}

impl sealed::Table for Offsets {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let partitions = builder.create_vector_from_iter(self.partitions.iter().map(|query| {
            let flags = if query.timestamp.is_some() { u32::from(GIVEN) } else { 0 };
            wire::OffsetsQuery::new(query.timestamp.unwrap_or(0), query.partition.0, flags)
        }));
        let args = wire::OffsetsArgs { partitions: Some(partitions) };
        wire::Offsets::create(builder, &args).as_union_value()
    }
}

/// The answer to [`Offsets`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OffsetsReply {
    /// One for each query, in the same order.
    pub partitions: Vec<OffsetsAnswer>,
}

/// Where one partition begins and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetsAnswer {
    /// The partition.
    pub partition: PartitionId,
    /// Why there is no answer, if there is none.
    pub error: Option<ErrorCode>,
    /// The oldest offset that can be read.
    pub log_start: Offset,
    /// One after the newest committed record.
    pub committed_end: Offset,
    /// The first offset at or after the asked time. `None`: not asked, or all are older.
    pub offset_at: Option<Offset>,
}

impl OffsetsReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::OffsetsReply>(control, TABLES_MAX)?;
        let partitions = table.partitions().unwrap_or_default();
        check(partitions.len() <= FETCH_PARTITIONS_MAX, "offsets reply: too many partitions")?;
        let partitions = partitions
            .iter()
            .map(|answer| {
                let offset_at = match answer.flags() {
                    0 => {
                        check(answer.offset_at() == 0, "offsets reply: offset without its flag")?;
                        None
                    }
                    GIVEN => Some(Offset(answer.offset_at())),
                    _ => return Err(MalformedError::new("offsets reply: flags")),
                };
                check(answer.log_start() <= answer.committed_end(), "offsets reply: bounds")?;
                Ok(OffsetsAnswer {
                    partition: PartitionId(answer.partition()),
                    error: ErrorCode::from_wire(answer.error()),
                    log_start: Offset(answer.log_start()),
                    committed_end: Offset(answer.committed_end()),
                    offset_at,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { partitions })
    }
}

impl sealed::Table for OffsetsReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let partitions = builder.create_vector_from_iter(self.partitions.iter().map(|answer| {
            wire::OffsetsAnswer::new(
                answer.log_start.0,
                answer.committed_end.0,
                answer.offset_at.map_or(0, |offset| offset.0),
                answer.partition.0,
                ErrorCode::option_to_wire(answer.error),
                if answer.offset_at.is_some() { GIVEN } else { 0 },
            )
        }));
        let args = wire::OffsetsReplyArgs { partitions: Some(partitions) };
        wire::OffsetsReply::create(builder, &args).as_union_value()
    }
}

message!(Fetch);
message!(@face FetchReply);
message!(Offsets);
message!(OffsetsReply);
