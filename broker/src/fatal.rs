//! The ends that a broker process can come to, each with an exit code of its own, so that a
//! supervisor and an operator can tell them apart without reading a log.

/// Why the process cannot go on, or could not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FatalReason {
    /// A setting is unknown or wrong.
    Config,
    /// io_uring is disabled or missing.
    IoUring,
    /// Too little memory may be locked.
    Memlock,
    /// A data directory's file system has no direct I/O.
    DirectIo,
    /// The port is taken, or may not be used.
    Listen,
    /// Another process uses a data directory.
    DirectoryInUse,
    /// A data directory belongs to another cluster, or to another set of directories.
    ForeignDirectory,
    /// A data directory was written by a version with another format.
    OtherFormat,
    /// A data directory's identity cannot be read.
    IdentityDamaged,
    /// A data directory has too little room.
    DiskFull,
    /// There are fewer cores than shards.
    Cores,
    /// A data directory cannot be made, read or written.
    Directory,
    /// The runtime could not start its executors.
    Runtime,
    /// Recovery or a graceful stop did not finish in time.
    TimedOut,
}

impl FatalReason {
    /// The exit code. 1 and 2 are left to panics and the command line; 64 and up is the range that
    /// `sysexits.h` made customary.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Config => 64,
            Self::IoUring => 65,
            Self::Memlock => 66,
            Self::DirectIo => 67,
            Self::Listen => 68,
            Self::DirectoryInUse => 69,
            Self::ForeignDirectory => 70,
            Self::OtherFormat => 71,
            Self::IdentityDamaged => 72,
            Self::DiskFull => 73,
            Self::Cores => 74,
            Self::Directory => 75,
            Self::Runtime => 76,
            Self::TimedOut => 77,
        }
    }
}
