//! What a broker counts, as a plain thread may read it.

/// One shard's counters by name, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    pub shard: u16,
    pub values: Vec<(String, u64)>,
}

/// The counters of all shards that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub shards: Vec<ShardCounters>,
}

impl Counters {
    /// The sum over all shards of the counter of that name; 0 if no shard has it.
    pub fn total(&self, name: &str) -> u64 {
        self.shards.iter().map(|shard| shard.get(name)).sum()
    }
}

impl ShardCounters {
    /// The counter of that name; 0 if there is none.
    pub fn get(&self, name: &str) -> u64 {
        self.values.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }
}
