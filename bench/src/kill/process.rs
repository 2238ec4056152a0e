//! The real broker, as a process of its own.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use corelog_broker::config::Config;
use corelog_protocol::ids::ShardId;

use crate::load::admin::Admin;
use crate::os;

const PATIENCE: Duration = Duration::from_secs(60);

/// `corelogd` next to this binary.
pub fn default_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("corelogd")
}

pub struct Process {
    program: Program,
    folder: PathBuf,
    /// What each start is given.
    pub config: Config,
    child: Option<Child>,
}

/// What is started, in front of `--config FILE`.
#[derive(Clone, Debug)]
pub struct Program {
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    /// Environment variables.
    pub variables: Vec<(String, String)>,
}

impl Program {
    pub fn new(binary: &Path) -> Self {
        Self { binary: binary.to_owned(), arguments: Vec::new(), variables: Vec::new() }
    }
}

impl Process {
    pub fn new(binary: &Path, folder: &Path) -> io::Result<Self> {
        if !binary.is_file() {
            return Err(io::Error::other(format!(
                "there is no broker at {}: build it (cargo build --release -p corelog-broker), or \
                 name it with --broker",
                binary.display()
            )));
        }
        Self::of(Program::new(binary), folder, free_ports(1)?[0])
    }

    /// A broker with its files in `folder`, which exists, that will listen at this port of the loopback.
    pub fn of(program: Program, folder: &Path, port: u16) -> io::Result<Self> {
        let mut config = Config::embedded(folder.join("data"));
        config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { program, folder: folder.to_owned(), config, child: None })
    }

    pub fn address(&self) -> SocketAddr {
        self.config.listen
    }

    /// Starts the broker with so many shards, and waits until it answers a hello. Gives the time
    /// from the start of the process.
    pub fn start(&mut self, shards: usize) -> io::Result<Duration> {
        assert!(self.child.is_none(), "the broker runs already");
        self.config.shards = shards;
        let file = self.folder.join("corelogd.toml");
        fs::write(&file, settings(&self.config)?)?;
        let log = self.folder.join("corelogd.log");
        let output = File::options().append(true).create(true).open(&log)?;
        let begin = Instant::now();
        let mut command = Command::new(&self.program.binary);
        command.args(&self.program.arguments).arg("--config").arg(&file);
        command.envs(self.program.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        self.child = Some(command.spawn()?);
        loop {
            if Admin::connect(self.address(), ShardId::ANY).is_ok() {
                return Ok(begin.elapsed());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begin.elapsed() > PATIENCE {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(10).collect();
                let last: Vec<&str> = lines.into_iter().rev().collect();
                let what = ended.map_or("does not answer".into(), |status| status.to_string());
                return Err(io::Error::other(format!(
                    "the broker did not start ({what}); its last words:\n{}",
                    last.join("\n")
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The memory of the process that is in RAM, bytes; 0 while it does not run.
    pub fn resident_bytes(&self) -> u64 {
        self.child.as_ref().map_or(0, |child| os::resident_bytes(&child.id().to_string()))
    }

    /// Its number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Freezes the process, or lets it go on.
    pub fn freeze(&self, is_frozen: bool) -> io::Result<()> {
        let signal = if is_frozen { libc::SIGSTOP } else { libc::SIGCONT };
        self.child.as_ref().map_or(Ok(()), |child| os::signal(child, signal))
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            let status = child.wait()?;
            if status.code().is_some() {
                let text = format!("the broker ended by itself before it was killed: {status}");
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }
}

/// What is not as by default: so another build, which knows other settings, takes the file as well.
fn settings(config: &Config) -> io::Result<String> {
    let table = |config: &Config| toml::Table::try_from(config).map_err(io::Error::other);
    let mut given = table(config)?;
    leave_out(&mut given, &table(&Config::default())?);
    toml::to_string(&given).map_err(io::Error::other)
}

fn leave_out(given: &mut toml::Table, defaults: &toml::Table) {
    given.retain(|key, value| match (value, defaults.get(key)) {
        (toml::Value::Table(inner), Some(toml::Value::Table(default))) => {
            leave_out(inner, default);
            !inner.is_empty()
        }
        (value, default) => default != Some(value),
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Ports at which each life of a broker listens. Below those that the kernel gives to outgoing
/// connections, so that none takes one between two lives.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let ports: Vec<u16> = (first..32_768).filter(is_free).take(count).collect();
    if ports.len() < count {
        return Err(io::Error::other("every port from 20000 to 32767 is taken"));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_what_is_not_as_by_default_and_is_read_as_it_was_meant() {
        let mut config = Config::embedded("somewhere");
        config.log.segment_bytes /= 2;
        config.free_bytes_min = 0;
        let text = settings(&config).unwrap();
        assert_eq!(Config::parse(&text).unwrap(), config);
        assert!(text.contains("segment_bytes") && !text.contains("lanes_per_shard"), "{text}");
        assert!(!text.contains("network"), "{text}");
    }
}
