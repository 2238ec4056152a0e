//! Why a broker refuses to start: one clear sentence each, with the fix.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::fatal::FatalReason;

/// A refusal to start. Nothing listens and no executor runs once it is returned.
#[derive(Debug)]
pub enum StartError {
    Config(ConfigError),
    /// What the host lacks, in the words of `corelog-tune inspect`.
    Host {
        reason: FatalReason,
        sentence: String,
    },
    /// The port is taken, or may not be used.
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    DirectoryInUse {
        path: PathBuf,
    },
    ForeignDirectory {
        path: PathBuf,
        found: String,
        expected: String,
    },
    OtherFormat {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    IdentityDamaged {
        path: PathBuf,
    },
    Directory {
        path: PathBuf,
        action: &'static str,
        error: io::Error,
    },
    Runtime {
        sentence: String,
    },
}

impl StartError {
    pub fn reason(&self) -> FatalReason {
        match self {
            Self::Config(_) => FatalReason::Config,
            Self::Host { reason, .. } => *reason,
            Self::Listen { .. } => FatalReason::Listen,
            Self::DirectoryInUse { .. } => FatalReason::DirectoryInUse,
            Self::ForeignDirectory { .. } => FatalReason::ForeignDirectory,
            Self::OtherFormat { .. } => FatalReason::OtherFormat,
            Self::IdentityDamaged { .. } => FatalReason::IdentityDamaged,
            Self::Directory { .. } => FatalReason::Directory,
            Self::Runtime { .. } => FatalReason::Runtime,
        }
    }

    /// The process's exit code for it.
    pub fn exit_code(&self) -> i32 {
        self.reason().exit_code()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Host { sentence, .. } | Self::Runtime { sentence } => f.write_str(sentence),
            Self::Listen { address, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "Port {} on {} is taken by another process: stop it, or set `listen` to a free port.",
                address.port(),
                address.ip()
            ),
            Self::Listen { address, error } => write!(
                f,
                "Cannot listen on {address} ({error}): set `listen` to an address of this host and \
                 a port that this user may bind."
            ),
            Self::DirectoryInUse { path } => write!(
                f,
                "Data directory {} is in use by another broker process: stop it, or set `data` to \
                 another directory.",
                path.display()
            ),
            Self::ForeignDirectory { path, found, expected } => write!(
                f,
                "Data directory {} belongs to {found}, not to {expected}: set `data` to the \
                 directories of one broker, in their order.",
                path.display()
            ),
            Self::OtherFormat { path, found, known } => write!(
                f,
                "Data directory {} has format {found} and this corelogd knows format {known} \
                 only: start the version that wrote it, or set `data` to an empty directory.",
                path.display()
            ),
            Self::IdentityDamaged { path } => write!(
                f,
                "Both copies of the identity in {}/corelog.meta are damaged: restore that file from \
                 a backup, or set `data` to an empty directory.",
                path.display()
            ),
            Self::Directory { path, action, error } => write!(
                f,
                "Cannot {action} {} ({error}): check the path, its owner and its permissions.",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
