//! Real brokers, each a process with a data directory of its own.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use corelog_broker::config::Config;

use super::network::Network;
use crate::os;

pub struct Cluster {
    // In this order: processes end before their network goes.
    nodes: Vec<Node>,
    pub network: Network,
    binary: PathBuf,
    folder: PathBuf,
    /// That a broker has had: no number comes back.
    numbers: u32,
}

/// A place in the network, and the broker that is there.
struct Node {
    config: Config,
    /// It belongs to the cluster. If not, another broker may take its place.
    is_member: bool,
    child: Option<Child>,
    /// Of its next process: a variable of the environment and its value.
    variable: Option<(&'static str, String)>,
}

/// How long a broker may take to stop in good order.
const STOP_MAX: Duration = Duration::from_secs(40);

impl Cluster {
    /// Prepares brokers 1, 2, 3, …, with so many shards each, and starts none. Places of the network beyond them are for
    /// brokers that join.
    pub fn new(
        binary: &Path,
        folder: &Path,
        network: Network,
        brokers: usize,
        shards: usize,
        seed: u64,
    ) -> io::Result<Self> {
        if !binary.is_file() {
            return Err(io::Error::other(format!(
                "there is no broker at {}: build it (cargo build --release -p corelog-broker), or name it with \
                 --broker",
                binary.display()
            )));
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let named = |at: usize| format!("{}@{}", at + 1, network.address(at));
        let named: Vec<String> = (0..brokers).map(named).collect();
        let node = |at: usize| {
            let mut config = Config::embedded(folder.join((at + 1).to_string()).join("data"));
            config.listen = network.address(at);
            config.shards = shards;
            // Without it every broker would take the same cores.
            config.cores = (0..shards).map(|shard| (at * shards + shard) % cpus).collect();
            config.cores.sort_unstable();
            config.cores.dedup();
            if config.cores.len() < shards {
                config.cores.clear();
            }
            config.free_bytes_min = 0;
            config.memory.io_bytes = 1 << 20;
            config.log.segment_bytes = 4 << 20;
            config.cluster.id = format!("{:032x}", u128::from(seed) | 1 << 100);
            config.cluster.broker = at as u32 + 1;
            config.cluster.brokers.clone_from(&named);
            Node { config, is_member: at < brokers, child: None, variable: None }
        };
        let nodes = (0..network.places()).map(node).collect();
        let (binary, folder) = (binary.to_owned(), folder.to_owned());
        Ok(Self { nodes, network, binary, folder, numbers: brokers as u32 })
    }

    /// The places of the brokers that belong to the cluster.
    pub fn members(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_member).collect()
    }

    /// Of all places, also of those that are empty.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.nodes.len()).map(|at| self.network.address(at)).collect()
    }

    /// Of the broker at this place.
    pub fn number(&self, at: usize) -> u32 {
        self.nodes[at].config.cluster.broker
    }

    /// Where a broker has its files.
    pub fn folder(&self, at: usize) -> PathBuf {
        self.folder.join(self.number(at).to_string())
    }

    /// Starts a new broker at an empty place, with a new number: it joins. Gives the place.
    pub fn add(&mut self) -> io::Result<usize> {
        let at = self.nodes.iter().position(|node| !node.is_member);
        let at = at.ok_or_else(|| io::Error::other("there is no place for another broker"))?;
        self.numbers += 1;
        let number = self.numbers;
        let mut named: Vec<String> = self.members().into_iter().map(|it| self.named(it)).collect();
        let data = self.folder.join(number.to_string()).join("data");
        let node = &mut self.nodes[at];
        node.config.cluster.broker = number;
        node.config.cluster.join = true;
        node.config.data = vec![data];
        node.is_member = true;
        named.push(self.named(at));
        self.nodes[at].config.cluster.brokers = named;
        self.start(at)?;
        Ok(at)
    }

    /// Stops a broker that the cluster has removed, and gives its place away. Its files stay where they are.
    pub fn retire(&mut self, at: usize) -> io::Result<()> {
        self.stop(at)?;
        self.nodes[at].is_member = false;
        Ok(())
    }

    fn named(&self, at: usize) -> String {
        format!("{}@{}", self.number(at), self.network.address(at))
    }

    /// Starts a broker that does not run, by its place from 0. To be called from one thread that lives as long as
    /// the run: the brokers end with it, however it ends.
    pub fn start(&mut self, at: usize) -> io::Result<()> {
        let folder = self.folder(at);
        fs::create_dir_all(&folder)?;
        let node = &mut self.nodes[at];
        assert!(node.child.is_none(), "the broker runs already");
        let file = folder.join("corelogd.toml");
        fs::write(&file, toml::to_string(&node.config).map_err(io::Error::other)?)?;
        let log = File::options().append(true).create(true).open(folder.join("corelogd.log"))?;
        let mut command = self.network.command(at, &self.binary);
        command.arg("--config").arg(&file).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        command.envs(node.variable.clone());
        os::end_with_parent(&mut command);
        node.child = Some(command.process_group(0).spawn()?);
        Ok(())
    }

    /// What the next process of this broker finds in its environment, besides ours.
    pub fn set_variable(&mut self, at: usize, variable: Option<(&'static str, String)>) {
        self.nodes[at].variable = variable;
    }

    /// The process of a broker that runs.
    pub fn process(&self, at: usize) -> Option<u32> {
        self.nodes[at].child.as_ref().map(Child::id)
    }

    pub fn config(&self, at: usize) -> &Config {
        &self.nodes[at].config
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self, at: usize) -> io::Result<()> {
        if let Some(mut child) = self.nodes[at].child.take() {
            child.kill()?;
            let status = child.wait()?;
            if status.signal() != Some(libc::SIGKILL) {
                return Err(self.ended(at, status));
            }
        }
        Ok(())
    }

    /// Freezes a broker, or lets it go on.
    pub fn pause(&self, at: usize, is_paused: bool) -> io::Result<()> {
        let signal = if is_paused { libc::SIGSTOP } else { libc::SIGCONT };
        self.nodes[at].child.as_ref().map_or(Ok(()), |child| os::signal(child, signal))
    }

    /// # Errors
    /// If a broker ended that nobody killed.
    pub fn check(&mut self) -> io::Result<()> {
        for at in 0..self.nodes.len() {
            let status = self.nodes[at].child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = status {
                self.nodes[at].child = None;
                return Err(self.ended(at, status));
            }
        }
        Ok(())
    }

    /// Asks a broker to stop, and waits until it has.
    ///
    /// # Errors
    /// If it did not do so in good order.
    pub fn stop(&mut self, at: usize) -> io::Result<()> {
        self.ask_to_stop(at)?;
        self.wait_for_stop(at)
    }

    /// Asks all to stop, and waits for them. Gives the brokers that did not do so in good order, and how.
    pub fn stop_all(&mut self) -> io::Result<Vec<String>> {
        (0..self.nodes.len()).try_for_each(|at| self.ask_to_stop(at))?;
        let stopped = (0..self.nodes.len()).map(|at| self.wait_for_stop(at));
        Ok(stopped.filter_map(Result::err).map(|error| error.to_string()).collect())
    }

    fn ask_to_stop(&self, at: usize) -> io::Result<()> {
        self.nodes[at].child.as_ref().map_or(Ok(()), |child| os::signal(child, libc::SIGTERM))
    }

    fn wait_for_stop(&mut self, at: usize) -> io::Result<()> {
        let limit = Instant::now() + STOP_MAX;
        let Some(mut child) = self.nodes[at].child.take() else { return Ok(()) };
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > limit {
                child.kill()?;
                break child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if status.success() { Ok(()) } else { Err(self.ended(at, status)) }
    }

    fn ended(&self, at: usize, status: ExitStatus) -> io::Error {
        let text = fs::read_to_string(self.folder(at).join("corelogd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n");
        io::Error::other(format!(
            "broker {} ended by itself ({status}); its last words:\n{last}",
            self.number(at)
        ))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
