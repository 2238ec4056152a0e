//! What must hold before the first executor runs: the host can carry the broker, the directories
//! are ours alone, the port is free.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use corelog_tuning::{Topic, Wanted};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;
use crate::driver::start_error::StartError;
use crate::fatal::FatalReason;

/// How long a taken port is tried again.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// What a start needs, secured.
#[derive(Debug)]
pub struct Prepared {
    /// One per shard.
    pub cores: Vec<usize>,
    /// Absolute.
    pub directories: Vec<PathBuf>,
    pub locks: Vec<File>,
    /// One per shard, bound and not yet listening.
    pub listeners: Vec<Socket>,
    pub address: SocketAddr,
}

pub fn prepare(config: &Config) -> Result<Prepared, StartError> {
    config.check()?;
    let directories = config.data.iter().map(make_directory).collect::<Result<Vec<_>, _>>()?;
    let report = corelog_tuning::inspect(&Wanted {
        directories: directories.clone(),
        shards: config.shards,
        cores: config.cores.clone(),
        io_bytes: config.memory.io_bytes,
        free_bytes_min: config.free_bytes_min,
    });
    if let Some(finding) = report.refusal() {
        return Err(StartError::Host {
            reason: reason_of(finding.topic),
            sentence: finding.sentence.clone(),
        });
    }
    for finding in &report.findings {
        tracing::warn!("{}", finding.sentence);
    }
    let mut cores = if config.cores.is_empty() { report.host.cores } else { config.cores.clone() };
    if config.shards > 0 {
        cores.truncate(config.shards);
    }
    let locks = directories.iter().map(lock).collect::<Result<Vec<_>, _>>()?;
    let (listeners, address) = bind_patiently(config.listen, cores.len())
        .map_err(|error| StartError::Listen { address: config.listen, error })?;
    Ok(Prepared { cores, directories, locks, listeners, address })
}

fn reason_of(topic: Topic) -> FatalReason {
    match topic {
        Topic::IoUring => FatalReason::IoUring,
        Topic::Memlock => FatalReason::Memlock,
        Topic::DirectIo => FatalReason::DirectIo,
        Topic::FreeSpace => FatalReason::DiskFull,
        Topic::Cores => FatalReason::Cores,
        Topic::Directory => FatalReason::Directory,
    }
}

/// Makes a data directory if need be; its absolute path.
fn make_directory(path: &PathBuf) -> Result<PathBuf, StartError> {
    fs::create_dir_all(path).and_then(|()| path.canonicalize()).map_err(|error| {
        StartError::Directory { path: path.clone(), action: "make data directory", error }
    })
}

/// Locks a data directory for this broker, until the file is dropped. The lock ends with the
/// process, also when it is killed.
fn lock(path: &PathBuf) -> Result<File, StartError> {
    let fail =
        |error| StartError::Directory { path: path.clone(), action: "lock data directory", error };
    let directory = File::open(path).map_err(fail)?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(StartError::DirectoryInUse { path: path.clone() }),
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// Binds, and tries again for a while if the port is taken: the kernel takes down the rings of a
/// broker that was killed after its process is gone, and they hold its listening sockets.
fn bind_patiently(address: SocketAddr, shards: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let limit = Instant::now() + PORT_PATIENCE;
    loop {
        match bind(address, shards) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < limit => {
                thread::sleep(Duration::from_millis(20));
            }
            bound => return bound,
        }
    }
}

/// Binds the port once per shard.
fn bind(address: SocketAddr, shards: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    if address.port() != 0 {
        // Sockets that share a port would share it with another broker too, without a word: so
        // try first without sharing.
        drop(bind_one(address, false)?);
    }
    let first = bind_one(address, true)?;
    let bound = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no internet address"))?;
    let mut sockets = vec![first];
    while sockets.len() < shards {
        sockets.push(bind_one(bound, true)?);
    }
    Ok((sockets, bound))
}

fn bind_one(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former life that linger do not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
