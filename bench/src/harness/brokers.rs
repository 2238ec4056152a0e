//! The brokers that a run is made against: started for it, each in a process of its own, or there already.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use corelog_broker::config::Config;
use corelog_protocol::ids::ShardId;
use serde::{Deserialize, Serialize};

use super::scenario::Brokers as Wanted;
use crate::kill::{Process, Program, free_ports};
use crate::load::admin::Admin;
use crate::os;

/// Name of the hidden command that runs the broker that is linked into this program.
pub const COMMAND: &str = "broker";

pub struct Brokers {
    processes: Vec<Process>,
    addresses: Vec<SocketAddr>,
    shards: usize,
    pub origin: Origin,
    /// For the report.
    pub description: String,
    /// As the brokers got it, without addresses and folders.
    pub settings: String,
}

/// Where the brokers of a run came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The broker that is linked into this program was started.
    #[default]
    Linked,
    /// Another program was.
    Binary,
    /// They ran already.
    Given,
}

/// Cores for the broker, and the others for the load.
pub struct Cores {
    pub broker: Vec<usize>,
    pub load: Vec<usize>,
}

impl Cores {
    /// A broker alone has half of them, or so many as it is to have shards; brokers of a cluster share all with the load.
    pub fn deal(wanted: &Wanted) -> Self {
        let all = all_cores().to_vec();
        let half = (all.len() / 2).max(1);
        let shards = if wanted.shards == 0 { half } else { wanted.shards.min(all.len()) };
        if wanted.count > 1 || shards >= all.len() {
            return Self { broker: all.clone(), load: all };
        }
        let (broker, load) = all.split_at(shards);
        Self { broker: broker.to_vec(), load: load.to_vec() }
    }
}

/// Those that this process may use, also after the load was confined to some of them.
fn all_cores() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(corelog_tuning::allowed_cores)
}

/// Which program the brokers are.
#[derive(Clone, Debug)]
pub enum Source {
    /// The broker that is linked into this program.
    Own {
        variables: Vec<(String, String)>,
    },
    Binary(PathBuf),
}

impl Source {
    pub const OWN: Self = Self::Own { variables: Vec::new() };

    fn program(&self) -> io::Result<Program> {
        match self {
            Self::Own { variables } => Ok(Program {
                binary: std::env::current_exe()?,
                arguments: vec![COMMAND.into()],
                variables: variables.clone(),
            }),
            Self::Binary(path) if path.is_file() => Ok(Program::new(path)),
            Self::Binary(path) => {
                Err(io::Error::other(format!("there is no broker at {}", path.display())))
            }
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Self::Own { .. } => Origin::Linked,
            Self::Binary(_) => Origin::Binary,
        }
    }

    /// Without paths: a report is to be published.
    fn describe(&self) -> io::Result<String> {
        Ok(match self {
            Self::Own { .. } => "the broker that is linked into the bench".into(),
            Self::Binary(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                format!(
                    "{name}, checksum {:08x}",
                    corelog_protocol::checksum::crc32c(&fs::read(path)?)
                )
            }
        })
    }
}

impl Brokers {
    /// Starts them with their data in `folder`.
    pub fn start(source: &Source, wanted: &Wanted, folder: &Path) -> io::Result<Self> {
        let cores = Cores::deal(wanted);
        let shards = match wanted.shards {
            0 if wanted.count > 1 => 1,
            0 => cores.broker.len(),
            shards => shards,
        };
        let base = config(wanted)?;
        let ports = free_ports(wanted.count)?;
        let named = |at: usize| format!("{}@127.0.0.1:{}", at + 1, ports[at]);
        let mut processes = Vec::new();
        for (at, &port) in ports.iter().enumerate() {
            let folder = folder.join(format!("broker-{}", at + 1));
            fs::create_dir_all(&folder)?;
            let mut process = Process::of(source.program()?, &folder, port)?;
            let own = process.config.clone();
            process.config = Config { listen: own.listen, data: own.data, ..base.clone() };
            process.config.cores = cores.broker.clone();
            let turn = at * shards % cores.broker.len();
            process.config.cores.rotate_left(turn);
            if wanted.count > 1 {
                process.config.cluster.id =
                    format!("{:032x}", 1_u128 << 100 | u128::from(std::process::id()));
                process.config.cluster.broker = at as u32 + 1;
                process.config.cluster.brokers = (0..wanted.count).map(named).collect();
            }
            processes.push(process);
        }
        let addresses = processes.iter().map(Process::address).collect();
        let settings = toml::to_string(&base).map_err(io::Error::other)?;
        let description = format!("{} ({shards} shards each)", source.describe()?);
        let description = match wanted.count {
            1 => description.replace("each", "in all"),
            count => format!("{count} x {description}"),
        };
        let origin = source.origin();
        let mut brokers = Self { processes, addresses, shards, origin, description, settings };
        (0..wanted.count).try_for_each(|at| brokers.start_one(at))?;
        os::pin_to_any(&cores.load)?;
        Ok(brokers)
    }

    /// They run already, somewhere.
    pub fn there(addresses: Vec<SocketAddr>) -> Self {
        Self {
            description: format!("{} address(es) that were given", addresses.len()),
            processes: Vec::new(),
            addresses,
            shards: 0,
            origin: Origin::Given,
            settings: String::new(),
        }
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn are_ours(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Starts one that does not run.
    pub fn start_one(&mut self, at: usize) -> io::Result<()> {
        // A process inherits the cores of the thread that starts it.
        let own = corelog_tuning::allowed_cores();
        os::pin_to_any(all_cores())?;
        let started = self.processes[at].start(self.shards);
        os::pin_to_any(&own)?;
        started.map(drop)
    }

    pub fn kill(&mut self, at: usize) -> io::Result<()> {
        self.processes[at].kill()
    }

    pub fn freeze(&self, is_frozen: bool) -> io::Result<()> {
        self.processes.iter().try_for_each(|process| process.freeze(is_frozen))
    }

    /// Which of them leads the first partition of a topic.
    pub fn leader(&self, topic: &str) -> io::Result<usize> {
        let mut last = io::Error::other("no broker is there");
        for &address in &self.addresses {
            match Admin::connect(address, ShardId::ANY)
                .and_then(|mut admin| admin.describe_topic(topic))
            {
                Ok(info) => {
                    let broker = info.places.first().map_or(0, |place| place.broker.0 as usize);
                    return Ok(broker
                        .saturating_sub(1)
                        .min(self.processes.len().saturating_sub(1)));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What their processes have used of the processors so far, seconds; `None` if they are not ours.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let ids = self.processes.iter().filter_map(Process::id);
        self.are_ours().then(|| ids.map(os::cpu_seconds_of).sum())
    }
}

/// The defaults, with what the scenario sets.
fn config(wanted: &Wanted) -> io::Result<Config> {
    let failed = |error: String| io::Error::other(format!("`broker.settings`: {error}"));
    let text = toml::to_string(&wanted.settings).map_err(|error| failed(error.to_string()))?;
    let mut config = Config::parse(&text).map_err(|error| failed(error.to_string()))?;
    if !wanted.settings.contains_key("free_bytes_min") {
        config.free_bytes_min = 0;
    }
    Ok(config)
}
