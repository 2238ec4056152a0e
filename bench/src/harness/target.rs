//! Whom to measure, from the command line: brokers that are started for it, or some that are there.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::TempDir;

use super::brokers::{Brokers, Source};
use super::drivers::{self, About, Driver};
use super::run::{self, Measured, Watcher};
use super::scenario::Scenario;
use crate::place;

#[derive(Args, Clone, Debug, Default)]
pub struct Target {
    /// A folder on the disk to use (default: under target/)
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Brokers that run already: their addresses. Otherwise they are started, as the scenario says
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub broker: Vec<String>,
    /// Start this corelogd instead of the broker that is linked into the bench
    #[arg(long, value_name = "PATH", conflicts_with = "broker")]
    pub binary: Option<PathBuf>,
    /// How to speak to it
    #[arg(long, value_enum, default_value_t)]
    pub driver: Kind,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Corelog,
    /// NATS JetStream
    Nats,
    /// Redis Streams
    Redis,
}

impl Kind {
    /// As a result has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Corelog => "corelog",
            Self::Nats => "nats jetstream",
            Self::Redis => "redis streams",
        }
    }

    /// Refuses what this build leaves out.
    fn check(self) -> io::Result<()> {
        match self {
            Self::Nats if !cfg!(feature = "nats") => Err(Self::is_missing("nats")),
            Self::Redis if !cfg!(feature = "redis") => Err(Self::is_missing("redis")),
            _ => Ok(()),
        }
    }

    fn is_missing(feature: &str) -> io::Error {
        io::Error::other(format!(
            "--driver {feature}: this bench was built without it; build it with --features {feature}"
        ))
    }
}

impl Target {
    /// Whether a scenario can be run as it is.
    pub fn check(&self, scenario: &Scenario) -> io::Result<()> {
        if !self.broker.is_empty() && !scenario.faults.is_empty() {
            return Err(io::Error::other(
                "`faults` need brokers that this command starts: those of --broker cannot be stopped",
            ));
        }
        Ok(())
    }

    fn source(&self) -> Source {
        self.binary.clone().map_or(Source::OWN, Source::Binary)
    }
}

/// Brokers that run, for one measurement after another, each with topics of its own.
pub struct Session {
    kind: Kind,
    brokers: Brokers,
    count: u64,
    seed: u64,
    // Last: the brokers end before their folder goes.
    folder: TempDir,
}

impl Session {
    pub fn start(target: &Target, scenario: &Scenario) -> io::Result<Self> {
        Self::start_from(target, &target.source(), scenario)
    }

    /// `source`: instead of the target's.
    pub fn start_from(target: &Target, source: &Source, scenario: &Scenario) -> io::Result<Self> {
        target.driver.check()?;
        let folder = place::temporary_folder(target.dir.as_deref())?;
        if target.driver != Kind::Corelog && target.broker.is_empty() {
            return Err(io::Error::other(
                "--driver needs a broker that runs already: --broker HOST:PORT",
            ));
        }
        let brokers = match target.broker.is_empty() {
            true => Brokers::start(source, &scenario.broker, folder.path())?,
            false => Brokers::there(resolve(&target.broker)?),
        };
        // Other runs may have left their topics at a broker that was there already.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = now.map_or(1, |time| time.as_nanos() as u64) & 0xffff_ffff_ffff;
        Ok(Self { kind: target.driver, brokers, count: 0, seed, folder })
    }

    pub fn measure(&mut self, scenario: &Scenario, watcher: &dyn Watcher) -> io::Result<Measured> {
        self.count += 1;
        let driver = self.driver(scenario)?;
        run::measure(scenario, &*driver, &mut self.brokers, self.seed + self.count, watcher)
    }

    pub fn about(&self, scenario: &Scenario) -> io::Result<About> {
        Ok(self.driver(scenario)?.about())
    }

    pub fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn driver(&self, scenario: &Scenario) -> io::Result<Box<dyn Driver>> {
        #[cfg(any(feature = "nats", feature = "redis"))]
        let first = || {
            let first = self.brokers.addresses().first().copied();
            first.ok_or_else(|| io::Error::other("--broker names nobody"))
        };
        Ok(match self.kind {
            #[cfg(feature = "nats")]
            Kind::Nats => Box::new(drivers::nats::Nats::connect(first()?)?),
            #[cfg(not(feature = "nats"))]
            Kind::Nats => return Err(Kind::is_missing("nats")),
            #[cfg(feature = "redis")]
            Kind::Redis => Box::new(drivers::redis::Redis::connect(first()?)?),
            #[cfg(not(feature = "redis"))]
            Kind::Redis => return Err(Kind::is_missing("redis")),
            Kind::Corelog => Box::new(drivers::corelog::Corelog::connect(
                self.brokers.addresses(),
                &scenario.messages,
            )?),
        })
    }
}

fn resolve(names: &[String]) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for name in names {
        let found = name
            .to_socket_addrs()
            .map_err(|error| io::Error::other(format!("--broker {name}: {error}")))?;
        addresses.extend(found.take(1));
    }
    Ok(addresses)
}
