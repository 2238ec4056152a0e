//! What is done to a broker: a TOML file. Every key is explained in `bench/README.md`; an unknown one is an error.

mod read;
pub mod shipped;

use corelog_protocol::Durability;
use serde::{Deserialize, Serialize};

use super::schedule::Plan;
use crate::verify::content::HEAD_BYTES;
pub use read::read;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For people, in one line.
    pub title: String,
    /// What it is there for.
    #[serde(default)]
    pub about: String,
    /// For so long messages are sent.
    pub seconds: f64,
    /// Sent and verified in the beginning, but in no figure.
    #[serde(default)]
    pub warm_up_seconds: f64,
    pub schedule: Plan,
    #[serde(default)]
    pub messages: Messages,
    #[serde(default)]
    pub topics: Topics,
    #[serde(default)]
    pub readers: Readers,
    #[serde(default)]
    pub broker: Brokers,
    #[serde(default)]
    pub faults: Vec<Fault>,
    #[serde(default)]
    pub bounds: Bounds,
    /// Of a replayed trace, in ns.
    #[serde(skip)]
    pub trace: Vec<u64>,
}

/// What is sent, by whom, and how safe it must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Messages {
    /// Of a message's value.
    pub bytes: usize,
    /// How many different keys each producer uses; 0: messages have none.
    pub keys: u64,
    /// What an acknowledgment must mean.
    pub level: Level,
    /// They send in turn, each in its own order.
    pub producers: u32,
    /// Clients that the producers share, each with its own connections and thread; 0: one for each, at most 4.
    pub connections: u32,
    /// How long the client may wait for company for a message.
    pub linger_us: u64,
    /// So long before a message is due the sender stops sleeping and spins.
    pub spin_us: u64,
}

/// The durability of an acknowledgment, by its name in the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    LeaderMemory,
    LeaderDurable,
    QuorumMemory,
    QuorumDurable,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    pub count: u32,
    /// Of each topic.
    pub partitions: u32,
    /// What retention leaves of each partition; 0: all.
    pub retention_mib: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Readers {
    /// Further readers that read everything from the beginning, beside the one that reads along.
    pub catch_up: u32,
    /// When they begin.
    pub catch_up_at_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Brokers {
    /// 1, or a cluster on this machine.
    pub count: usize,
    /// Of each broker; 0: half of the cores, so that the load has the others.
    pub shards: usize,
    /// As in `corelogd.toml`.
    pub settings: toml::Table,
}

/// Something that is done to a broker while the load goes on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub what: FaultKind,
    pub at_seconds: f64,
    /// Until it goes on, or is started again.
    pub for_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// SIGSTOP of all brokers, then SIGCONT.
    Freeze,
    /// SIGKILL of the broker that leads the first partition, then a start.
    Kill,
}

/// A run outside of these was disturbed, and says so in its first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Time that the hypervisor gave to others.
    pub steal_percent: f64,
    /// Of all processors' time, what other programs used. Not known of brokers that were there already.
    pub others_percent: f64,
    /// 99 of 100 times a thread that sleeps beside the load wakes up at most so late.
    pub jitter_us: u64,
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            bytes: 100,
            keys: 0,
            level: Level::QuorumDurable,
            producers: 1,
            connections: 0,
            linger_us: 0,
            spin_us: 0,
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self { count: 1, partitions: 1, retention_mib: 0 }
    }
}

impl Default for Readers {
    fn default() -> Self {
        Self { catch_up: 0, catch_up_at_seconds: 0.0 }
    }
}

impl Default for Brokers {
    fn default() -> Self {
        Self { count: 1, shards: 0, settings: toml::Table::new() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { steal_percent: 3.0, others_percent: 10.0, jitter_us: 1_000 }
    }
}

impl Level {
    pub fn to_durability(self) -> Durability {
        match self {
            Self::LeaderMemory => Durability::LeaderMemory,
            Self::LeaderDurable => Durability::LeaderDurable,
            Self::QuorumMemory => Durability::QuorumMemory,
            Self::QuorumDurable => Durability::QuorumDurable,
        }
    }
}

impl Messages {
    pub fn clients(&self) -> u32 {
        match self.connections {
            0 => self.producers.min(4),
            wanted => wanted.min(self.producers),
        }
    }
}

impl Scenario {
    /// The same over `scale` times its time: what happens at a moment happens at the moment that corresponds. A fault
    /// lasts as long as it did.
    #[must_use]
    pub fn scaled(mut self, scale: f64) -> Self {
        self.seconds *= scale;
        self.warm_up_seconds *= scale.min(1.0);
        self.schedule = self.schedule.scaled(scale);
        self.readers.catch_up_at_seconds *= scale;
        self.faults.iter_mut().for_each(|fault| fault.at_seconds *= scale);
        self
    }

    /// Of the latencies over time: a second, or longer in a long run.
    pub fn interval_seconds(&self) -> f64 {
        match self.seconds {
            ..20.0 => 0.25,
            ..600.0 => 1.0,
            seconds => (seconds / 300.0).ceil(),
        }
    }

    /// Bounds, and how settings relate. The error names the key.
    pub fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(format!("`{key}` is {value}: choose a value from {low} to {high}"))
        };
        within("seconds", self.seconds, 0.1, 1e6)?;
        within("warm_up_seconds", self.warm_up_seconds, 0.0, self.seconds * 0.9)?;
        self.schedule.check()?;
        within("messages.bytes", self.messages.bytes as f64, HEAD_BYTES as f64, 900_000.0)?;
        within("messages.producers", self.messages.producers.into(), 1.0, 10_000.0)?;
        within("messages.connections", self.messages.connections.into(), 0.0, 1_000.0)?;
        within("messages.keys", self.messages.keys as f64, 0.0, 1e6)?;
        within("topics.count", self.topics.count.into(), 1.0, 100_000.0)?;
        within("topics.partitions", self.topics.partitions.into(), 1.0, 1_000.0)?;
        within("readers.catch_up", self.readers.catch_up.into(), 0.0, 16.0)?;
        within("broker.count", self.broker.count as f64, 1.0, 9.0)?;
        let streams = u64::from(self.messages.producers) * u64::from(self.topics.count);
        within("messages.producers x topics.count", streams as f64, 1.0, f64::from(1 << 24))?;
        for fault in &self.faults {
            within("faults.at_seconds", fault.at_seconds, 0.0, self.seconds)?;
            within("faults.for_seconds", fault.for_seconds, 0.01, self.seconds)?;
        }
        let kills = self.faults.iter().any(|fault| fault.what == FaultKind::Kill);
        let is_kept = matches!(self.messages.level, Level::QuorumDurable)
            || (self.broker.count == 1 && self.messages.level == Level::LeaderDurable);
        if kills && !is_kept {
            return Err("`faults` kill a broker, which `messages.level` need not survive: a run could not tell what \
                 was lost wrongly"
                .into());
        }
        if self.topics.retention_mib > 0 && self.readers.catch_up > 0 {
            return Err(
                "`readers.catch_up` read from the beginning, which `topics.retention_mib` removes"
                    .into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_scenario_has_its_spike_and_its_faults_at_the_same_place() {
        let text = "title = 't'\nseconds = 100\n[schedule]\nkind = 'spike'\nper_second = 10\ntimes = 20\n\
                    at_seconds = 20\nfor_seconds = 60\n[[faults]]\nwhat = 'freeze'\nat_seconds = 50\nfor_seconds = 1\n";
        let scaled = toml::from_str::<Scenario>(text).unwrap().scaled(0.1);
        assert_eq!(scaled.seconds, 10.0);
        let expected =
            Plan::Spike { per_second: 10.0, times: 20.0, at_seconds: 2.0, for_seconds: 6.0 };
        assert_eq!(scaled.schedule, expected);
        assert_eq!((scaled.faults[0].at_seconds, scaled.faults[0].for_seconds), (5.0, 1.0));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let mut scenario = shipped::all().remove(0);
        scenario.messages.bytes = 3;
        let error = scenario.check().unwrap_err();
        assert_eq!(error, "`messages.bytes` is 3: choose a value from 24 to 900000");
    }
}
