//! Counters of a broker, by name and shard.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::{TABLES_MAX, check, message, read_root, sealed, text};
use crate::generated::status as wire;
use crate::ids::ShardId;
use crate::malformed::MalformedError;

/// Names of counters in one answer.
pub const COUNTERS_MAX: usize = 1024;

/// Shards in one answer.
pub const SHARDS_MAX: usize = 1024;

/// "How is the broker?"
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Only counters whose name starts so. Empty: all.
    pub prefix: String,
}

impl Status {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::Status>(control, TABLES_MAX)?;
        Ok(Self { prefix: text(table.prefix(), "status: length of prefix")? })
    }
}

impl sealed::Table for Status {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::StatusArgs { prefix: Some(builder.create_string(&self.prefix)) };
        wire::Status::create(builder, &args).as_union_value()
    }
}

/// The counters of all shards. Each counts from the start of the broker, unless its name says
/// otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatusReply {
    /// Since the broker started.
    pub uptime_ms: u64,
    /// At most [`COUNTERS_MAX`].
    pub names: Vec<String>,
    /// At most [`SHARDS_MAX`].
    pub shards: Vec<ShardCounters>,
}

/// The counters of one shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardCounters {
    /// The shard.
    pub shard: ShardId,
    /// In the order of the names.
    pub values: Vec<u64>,
}

impl StatusReply {
    /// The sum over all shards of a counter with this name.
    #[must_use]
    pub fn total(&self, name: &str) -> Option<u64> {
        let index = self.names.iter().position(|known| known == name)?;
        let values = self.shards.iter().filter_map(|shard| shard.values.get(index));
        Some(values.fold(0, |sum, value| sum.saturating_add(*value)))
    }

    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::StatusReply>(control, 1 + SHARDS_MAX)?;
        let names = table.names().unwrap_or_default();
        let shards = table.shards().unwrap_or_default();
        check(names.len() <= COUNTERS_MAX, "status reply: too many counters")?;
        check(shards.len() <= SHARDS_MAX, "status reply: too many shards")?;
        let names = names
            .iter()
            .map(|name| text(Some(name), "status reply: length of name"))
            .collect::<Result<Vec<_>, _>>()?;
        let shards = shards
            .iter()
            .map(|shard| {
                let values = shard.values().unwrap_or_default();
                check(values.len() == names.len(), "status reply: number of values")?;
                Ok(ShardCounters { shard: ShardId(shard.shard()), values: values.iter().collect() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { uptime_ms: table.uptime_ms(), names, shards })
    }
}

impl sealed::Table for StatusReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let names: Vec<_> = self.names.iter().map(|name| builder.create_string(name)).collect();
        let shards: Vec<_> = self
            .shards
            .iter()
            .map(|shard| {
                let values = Some(builder.create_vector(&shard.values));
                let args = wire::ShardCountersArgs { shard: shard.shard.0, values };
                wire::ShardCounters::create(builder, &args)
            })
            .collect();
        let args = wire::StatusReplyArgs {
            uptime_ms: self.uptime_ms,
            names: Some(builder.create_vector(&names)),
            shards: Some(builder.create_vector(&shards)),
        };
        wire::StatusReply::create(builder, &args).as_union_value()
    }
}

message!(Status);
message!(StatusReply);
