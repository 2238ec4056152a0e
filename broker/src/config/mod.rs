//! The settings of a broker: one TOML file, or this struct filled in by a program that embeds one.
//! Parses and checks; reads no file and asks no host. Every key is explained in `corelogd.toml`.
//! Environment variables may go over the file: see `environment.rs`.
//!
//! An unknown key is an error that names the nearest known one: a typing error in a retention
//! setting must not be found out a week later.

mod cluster;
pub mod environment;
mod suggest;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use cluster::{ClusterSettings, NamedBroker};

use crate::limits::{
    CONNECTIONS_DEFAULT, CONNECTIONS_PER_ADDRESS_DEFAULT, FRAME_BYTES_DEFAULT, FRAME_BYTES_HARD,
    LANES_PER_SHARD_DEFAULT, LANES_PER_SHARD_MAX, PORT_DEFAULT, SCRUB_BYTES_DEFAULT,
    SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SHARD_MEMORY_BYTES_DEFAULT,
    SHARD_MEMORY_BYTES_MIN, SHARDS_MAX,
};

/// The commented file with every key at its default, shipped beside the broker.
pub const DOCUMENTED: &str = include_str!("../../corelogd.toml");

/// What a broker needs to know before it starts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect. Port 0 asks the kernel for a free one.
    pub listen: SocketAddr,
    /// Data directories, one per disk. The first also holds the metadata.
    pub data: Vec<PathBuf>,
    /// How many shards, each on a core of its own. 0: one per core of `cores`, or of the process.
    pub shards: usize,
    /// Cores to pin the shards to, in order. Empty: the cores that the process may run on.
    pub cores: Vec<usize>,
    /// Refuse to start when a data directory's file system has less room than this.
    pub free_bytes_min: u64,
    pub cluster: ClusterSettings,
    pub log: LogSettings,
    pub memory: MemorySettings,
    pub network: NetworkSettings,
    pub runtime: RuntimeSettings,
}

/// How lanes lie on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Size of a full-grown segment file.
    pub segment_bytes: u64,
    /// How fast each shard reads its older segments and compares them with their checksums; 0: never.
    pub scrub_bytes_per_second: u64,
    /// Lanes led per shard, decided at the first start of a data directory.
    pub lanes_per_shard: u32,
}

/// What may be held in memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemorySettings {
    /// Payload budget of one shard: receive, commit, read and send buffers together.
    pub shard_bytes: u64,
    /// Registered I/O memory of one shard, out of which the first buffers are taken.
    pub io_bytes: u64,
}

/// Bounds on connections.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSettings {
    /// Largest frame: control table and payload together.
    pub frame_bytes_max: u64,
    /// Connections of one shard.
    pub connections_max: u32,
    /// Connections of one address to one shard.
    pub connections_per_address_max: u32,
    /// Connections of one address to one shard that have not yet sent their preamble.
    pub preambles_per_address_max: u32,
    /// Time for the first 16 bytes of a connection.
    pub preamble_ms_max: u64,
}

/// How the executors run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeSettings {
    /// Spin this long before sleeping. Never with durable writes: flushes run on the same core.
    pub spin_us: u64,
    /// A shard that gives no sign of life for this long is stuck, and the process aborts.
    pub watchdog_ms: u64,
    /// How long a graceful stop may take before the process gives up waiting.
    pub stop_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT)),
            data: vec![PathBuf::from("data")],
            shards: 0,
            cores: Vec::new(),
            free_bytes_min: 1 << 30,
            cluster: ClusterSettings::default(),
            log: LogSettings::default(),
            memory: MemorySettings::default(),
            network: NetworkSettings::default(),
            runtime: RuntimeSettings::default(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT as u64,
            scrub_bytes_per_second: SCRUB_BYTES_DEFAULT,
            lanes_per_shard: u32::from(LANES_PER_SHARD_DEFAULT),
        }
    }
}

impl Default for MemorySettings {
    fn default() -> Self {
        // 10 MiB of registered memory: ten commits of the largest size, gathered or in flight.
        Self { shard_bytes: SHARD_MEMORY_BYTES_DEFAULT as u64, io_bytes: 10 << 20 }
    }
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_DEFAULT as u64,
            connections_max: CONNECTIONS_DEFAULT,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_DEFAULT,
            preambles_per_address_max: 256,
            preamble_ms_max: 5_000,
        }
    }
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self { spin_us: 0, watchdog_ms: 10_000, stop_ms_max: 30_000 }
    }
}

/// Why a configuration is refused: one sentence, with the fix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// A broker on loopback with one data directory and a port that the kernel chooses: what a
    /// test or a demo wants.
    pub fn embedded(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data: vec![data.into()],
            ..Self::default()
        }
    }

    /// Reads the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::load(text, [])
    }

    /// Reads the text of a configuration file (perhaps an empty one), and settings from environment
    /// variables, which go over it. Variables that are none of ours are passed over.
    pub fn load(
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table: toml::Table = toml::from_str(text)
            .map_err(|error| ConfigError(format!("The file is not valid TOML: {error}")))?;
        let known = known_keys();
        if let Some(unknown) = suggest::unknown_key(&table, &known) {
            return Err(ConfigError(unknown));
        }
        environment::overlay(&mut table, &known, variables)?;
        if matches!(table.get("cluster"), Some(toml::Value::String(_))) {
            return Err(ConfigError(
                "`cluster` is a table now: write `id` in [cluster] for what was `cluster`.".into(),
            ));
        }
        let config: Self =
            toml::Value::Table(table).try_into().map_err(|error: toml::de::Error| {
                ConfigError(format!("A setting has a wrong value: {}", error.message()))
            })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot say: bounds, and how settings relate.
    pub fn check(&self) -> Result<(), ConfigError> {
        fn within(key: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ConfigError(format!("`{key}` is {value}: choose a value from {low} to {high}.")))
        }
        if self.data.is_empty() {
            return Err(ConfigError(
                "`data` is empty: name at least one directory to keep the log in.".into(),
            ));
        }
        for (index, path) in self.data.iter().enumerate() {
            if self.data[..index].contains(path) {
                return Err(ConfigError(format!(
                    "`data` names {} twice: give each disk one directory.",
                    path.display()
                )));
            }
        }
        self.cluster.check()?;
        within("shards", self.shards as u64, 0, SHARDS_MAX as u64)?;
        if !self.cores.is_empty() && self.shards > self.cores.len() {
            return Err(ConfigError(format!(
                "`shards` is {} but `cores` lists only {}: list a core for each shard.",
                self.shards,
                self.cores.len()
            )));
        }
        for (index, core) in self.cores.iter().enumerate() {
            if self.cores[..index].contains(core) {
                return Err(ConfigError(format!(
                    "`cores` lists core {core} twice: give each shard a core of its own."
                )));
            }
        }
        within(
            "log.segment_bytes",
            self.log.segment_bytes,
            SEGMENT_BYTES_MIN as u64,
            SEGMENT_BYTES_MAX as u64,
        )?;
        within("log.scrub_bytes_per_second", self.log.scrub_bytes_per_second, 0, 1 << 30)?;
        within(
            "log.lanes_per_shard",
            u64::from(self.log.lanes_per_shard),
            1,
            u64::from(LANES_PER_SHARD_MAX),
        )?;
        within("memory.io_bytes", self.memory.io_bytes, 64 << 10, 1 << 30)?;
        within(
            "memory.shard_bytes",
            self.memory.shard_bytes,
            SHARD_MEMORY_BYTES_MIN as u64,
            1 << 40,
        )?;
        within(
            "network.frame_bytes_max",
            self.network.frame_bytes_max,
            64 << 10,
            FRAME_BYTES_HARD as u64,
        )?;
        within("network.connections_max", u64::from(self.network.connections_max), 1, 1 << 20)?;
        within(
            "network.connections_per_address_max",
            u64::from(self.network.connections_per_address_max),
            1,
            1 << 20,
        )?;
        within(
            "network.preambles_per_address_max",
            u64::from(self.network.preambles_per_address_max),
            1,
            1 << 20,
        )?;
        within("network.preamble_ms_max", self.network.preamble_ms_max, 10, 60_000)?;
        within("runtime.spin_us", self.runtime.spin_us, 0, 1_000_000)?;
        within("runtime.watchdog_ms", self.runtime.watchdog_ms, 1_000, 3_600_000)?;
        within("runtime.stop_ms_max", self.runtime.stop_ms_max, 100, 3_600_000)?;
        Ok(())
    }
}

/// The default configuration as TOML: its keys are the known ones.
fn known_keys() -> toml::Table {
    toml::Table::try_from(Config::default()).expect("the defaults can be written as TOML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_is_the_defaults() {
        assert_eq!(Config::parse(DOCUMENTED).expect("valid"), Config::default());
    }

    #[test]
    fn every_key_is_documented() {
        fn walk(known: &toml::Table, documented: &toml::Table, path: &str) {
            for (key, value) in known {
                let path = format!("{path}{key}");
                let here = documented.get(key).unwrap_or_else(|| panic!("{path} is undocumented"));
                if let (toml::Value::Table(known), toml::Value::Table(here)) = (value, here) {
                    walk(known, here, &format!("{path}."));
                }
            }
        }
        let documented: toml::Table = toml::from_str(DOCUMENTED).expect("valid");
        walk(&known_keys(), &documented, "");
    }

    #[test]
    fn every_key_has_a_comment_above_it() {
        let lines: Vec<&str> = DOCUMENTED.lines().collect();
        let mut keys = 0;
        for (above, line) in lines.iter().zip(&lines[1..]) {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(above.starts_with("# "), "{line} has no comment");
                keys += 1;
            }
        }
        fn count(table: &toml::Table) -> usize {
            let values = table.values();
            values.map(|value| value.as_table().map_or(1, |inner| inner.len())).sum()
        }
        assert_eq!(keys, count(&known_keys()));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = Config::parse("[log]\nsegment_byte = 1\n").expect_err("unknown key");
        assert_eq!(
            error.0,
            "Unknown setting `log.segment_byte`: did you mean `log.segment_bytes`?"
        );
        let error = Config::parse("lissten = \"127.0.0.1:1\"").expect_err("unknown key");
        assert_eq!(error.0, "Unknown setting `lissten`: did you mean `listen`?");
        let error = Config::parse("segment_bytes = 1").expect_err("in the wrong table");
        assert_eq!(error.0, "Unknown setting `segment_bytes`: did you mean `log.segment_bytes`?");
        let error = Config::parse("zzzzzzzzz = 1").expect_err("nothing near");
        assert_eq!(
            error.0,
            "Unknown setting `zzzzzzzzz`: the known ones are listed in corelogd.toml."
        );
    }

    #[test]
    fn bounds_and_relations_are_checked() {
        for (text, part) in [
            ("data = []", "`data` is empty"),
            ("data = [\"a\", \"a\"]", "twice"),
            ("shards = 3\ncores = [0, 1]", "list a core for each shard"),
            ("cores = [1, 1]", "a core of its own"),
            ("[log]\nsegment_bytes = 1", "`log.segment_bytes` is 1: choose a value from 65536"),
            ("cluster = \"0\"", "write `id` in [cluster]"),
            ("listen = \"nowhere\"", "A setting has a wrong value"),
            ("listen = ", "not valid TOML"),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(error.0.contains(part), "{text}: {error}");
        }
    }
}
