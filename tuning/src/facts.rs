//! What the host says about itself: system calls, `/proc` and `/sys`.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The largest block that direct I/O is tried with.
const BLOCK_BYTES: usize = 4096;

const CAP_IPC_LOCK: u32 = 14;

#[derive(Clone, Debug)]
pub struct HostFacts {
    pub kernel: String,
    /// Why a ring cannot be made.
    pub io_uring_error: Option<String>,
    /// The soft limit. `u64::MAX`: none.
    pub memlock_bytes: u64,
    /// CAP_IPC_LOCK: the limit does not bind.
    pub may_lock_any: bool,
    /// Cores that this process may run on, in order.
    pub cores: Vec<usize>,
    /// The soft limit.
    pub open_files_max: u64,
}

impl HostFacts {
    pub fn gather() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            io_uring_error: io_uring_error(),
            memlock_bytes: limit(libc::RLIMIT_MEMLOCK),
            may_lock_any: has_capability(CAP_IPC_LOCK),
            cores: allowed_cores(),
            open_files_max: limit(libc::RLIMIT_NOFILE),
        }
    }
}

/// One data directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryFacts {
    pub path: PathBuf,
    /// Why it cannot be looked at or written to.
    pub error: Option<String>,
    pub file_system: String,
    pub free_bytes: u64,
    /// Of the device below; 0 if it does not say.
    pub logical_block_bytes: u64,
    pub physical_block_bytes: u64,
    pub direct_io_error: Option<String>,
}

impl DirectoryFacts {
    pub fn gather(path: &Path) -> Self {
        let mut facts = Self { path: path.to_owned(), ..Self::default() };
        let outcome = (|| -> io::Result<()> {
            let metadata = fs::metadata(path)?;
            if !metadata.is_dir() {
                return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
            }
            facts.file_system = file_system(path)?;
            facts.free_bytes = free_bytes(path)?;
            (facts.logical_block_bytes, facts.physical_block_bytes) = block_sizes(metadata.dev());
            // These take the flag and ignore it.
            if matches!(facts.file_system.as_str(), "tmpfs" | "ramfs") {
                facts.direct_io_error = Some("it keeps files in memory".into());
                return Ok(());
            }
            match try_direct_write(path) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    facts.direct_io_error = Some("O_DIRECT is refused".into());
                }
                // A full disk is told as such, by its free bytes.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })();
        facts.error = outcome.err().map(|error| error.to_string());
        facts
    }
}

/// The room that an unprivileged writer has on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = c_path(path)?;
    let mut stat = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a nul-terminated path and room for the answer.
    let result = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid value, and the call has filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The cores that this thread may run on, in order.
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: a set of bits, for which zeros are a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as said; 0 is the calling thread.
    let result =
        unsafe { libc::sched_getaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &mut set) };
    if result != 0 {
        return Vec::new();
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below the size of the set.
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect()
}

/// `0-3,8` for people.
pub fn core_list(cores: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = cores;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(core, expected)| *core == expected).count();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if run > 1 {
            text.push_str(&format!("-{}", first + run - 1));
        }
        rest = &rest[run..];
    }
    text
}

fn io_uring_error() -> Option<String> {
    // The parameters are 120 bytes, and zeros ask for nothing special.
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes of parameters.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) };
    if result < 0 {
        return Some(io::Error::last_os_error().to_string());
    }
    // SAFETY: a descriptor that the kernel has just given to nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(result as i32) });
    None
}

fn limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the answer.
    if unsafe { libc::getrlimit(resource, &mut limit) } == 0 { limit.rlim_cur } else { 0 }
}

fn has_capability(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> capability & 1 == 1)
}

fn file_system(path: &Path) -> io::Result<String> {
    let path = c_path(path)?;
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a nul-terminated path and room for the answer.
    let result = unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid value, and the call has filled it.
    let magic = unsafe { stat.assume_init() }.f_type;
    Ok(match magic {
        libc::TMPFS_MAGIC => "tmpfs".into(),
        0x858458f6 => "ramfs".into(),
        libc::EXT4_SUPER_MAGIC => "ext4".into(),
        libc::XFS_SUPER_MAGIC => "xfs".into(),
        libc::BTRFS_SUPER_MAGIC => "btrfs".into(),
        libc::OVERLAYFS_SUPER_MAGIC => "overlayfs".into(),
        libc::NFS_SUPER_MAGIC => "nfs".into(),
        0x2fc12fc1 => "zfs".into(),
        other => format!("a file system of type {other:#x}"),
    })
}

fn block_sizes(device: u64) -> (u64, u64) {
    let base = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    // A partition has no queue of its own: its device, one level up, has it.
    let read = |name: &str| {
        ["queue", "../queue"]
            .iter()
            .find_map(|folder| fs::read_to_string(format!("{base}/{folder}/{name}")).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    (read("logical_block_size"), read("physical_block_size"))
}

/// Writes one block with O_DIRECT into a file without a name, which vanishes when closed.
fn try_direct_write(folder: &Path) -> io::Result<()> {
    let open = |flags| fs::OpenOptions::new().write(true).custom_flags(flags).open(folder);
    let (file, named) = match open(libc::O_TMPFILE | libc::O_DIRECT) {
        Ok(file) => (file, None),
        // Some file systems have no files without a name.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let path = folder.join(format!(".corelog-probe-{}", std::process::id()));
            let file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .custom_flags(libc::O_DIRECT)
                .open(&path)?;
            (file, Some(path))
        }
        Err(error) => return Err(error),
    };
    // Room to find an aligned block in.
    let buffer = vec![0u8; 2 * BLOCK_BYTES];
    let start = buffer.as_ptr().align_offset(BLOCK_BYTES);
    let block = &buffer[start..start + BLOCK_BYTES];
    // SAFETY: the block lives until the call returns, and its length is given.
    let written = unsafe { libc::pwrite(file.as_raw_fd(), block.as_ptr().cast(), block.len(), 0) };
    let error = io::Error::last_os_error();
    drop(file);
    if let Some(path) = named {
        fs::remove_file(path)?;
    }
    if written == BLOCK_BYTES as isize { Ok(()) } else { Err(error) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_short() {
        assert_eq!(core_list(&[]), "");
        assert_eq!(core_list(&[3]), "3");
        assert_eq!(core_list(&[0, 1, 2, 8, 10, 11]), "0-2,8,10-11");
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!allowed_cores().is_empty());
    }
}
