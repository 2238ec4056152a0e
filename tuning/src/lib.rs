//! What the Corelog broker needs of a host, and whether this one has it.
//!
//! Enter at [`inspect`]: it looks, changes nothing that it does not remove again, and returns facts
//! and findings. The broker calls it at start and refuses on the first finding that is a refusal;
//! `corelog-tune inspect` prints it.

mod facts;
mod json;
mod table;

use std::path::PathBuf;

pub use facts::{DirectoryFacts, HostFacts, allowed_cores, free_bytes};

/// Locked memory without which the runtime cannot make its rings.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// What the broker is going to ask of the host.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Data directories. They must exist.
    pub directories: Vec<PathBuf>,
    /// How many shards; 0 for one per core.
    pub shards: usize,
    /// Cores to pin them to; empty for those that the process may use.
    pub cores: Vec<usize>,
    /// Registered I/O memory of one shard.
    pub io_bytes: u64,
    /// Room that each data directory must have.
    pub free_bytes_min: u64,
}

/// What a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    IoUring,
    Memlock,
    DirectIo,
    FreeSpace,
    Cores,
    Directory,
}

/// Something that the host lacks: a sentence with the fix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub topic: Topic,
    /// The broker cannot run so. Otherwise it runs, but not at its best.
    pub refusal: bool,
    pub sentence: String,
}

/// The facts, and what follows from them.
#[derive(Clone, Debug)]
pub struct Report {
    pub host: HostFacts,
    pub directories: Vec<DirectoryFacts>,
    pub findings: Vec<Finding>,
}

impl Report {
    /// The first reason for which the broker cannot run here.
    pub fn refusal(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.refusal)
    }

    /// For people.
    pub fn to_table(&self) -> String {
        table::render(self)
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        json::render(self)
    }
}

/// Looks at the host. Tries direct I/O in each directory with a file that it removes again.
pub fn inspect(wanted: &Wanted) -> Report {
    let host = HostFacts::gather();
    let directories: Vec<_> =
        wanted.directories.iter().map(|path| DirectoryFacts::gather(path)).collect();
    let mut findings = Vec::new();
    let mut find = |topic, refusal, sentence| {
        findings.push(Finding { topic, refusal, sentence });
    };

    if let Some(error) = &host.io_uring_error {
        find(
            Topic::IoUring,
            true,
            format!(
                "io_uring is disabled or missing ({error}): run kernel 5.8 or later with `sysctl \
                 kernel.io_uring_disabled=0`, and allow the io_uring calls in the container's \
                 seccomp profile."
            ),
        );
    }
    if host.memlock_bytes < MEMLOCK_BYTES_MIN {
        find(
            Topic::Memlock,
            true,
            format!(
                "Only {} KiB of memory may be locked and the runtime needs at least {} KiB: set \
                 `ulimit -l unlimited`, or `LimitMEMLOCK=infinity` in the service file.",
                host.memlock_bytes >> 10,
                MEMLOCK_BYTES_MIN >> 10
            ),
        );
    }

    let cores = if wanted.cores.is_empty() { &host.cores } else { &wanted.cores };
    let shards = if wanted.shards == 0 { cores.len().max(1) } else { wanted.shards };
    if let Some(core) = wanted.cores.iter().find(|core| !host.cores.contains(core)) {
        find(
            Topic::Cores,
            true,
            format!(
                "Core {core} of `cores` is not among the cores that this process may use ({}): \
                 choose from those, or widen its affinity.",
                facts::core_list(&host.cores)
            ),
        );
    } else if shards > cores.len() {
        find(
            Topic::Cores,
            true,
            format!(
                "{shards} shards need {shards} cores and this process may use {}: set `shards` to \
                 at most {}.",
                cores.len(),
                cores.len()
            ),
        );
    }

    // Three rings of an executor register its I/O memory each.
    let registered = wanted.io_bytes.saturating_mul(3).saturating_mul(shards as u64);
    if (MEMLOCK_BYTES_MIN..registered).contains(&host.memlock_bytes) && !host.may_lock_any {
        find(
            Topic::Memlock,
            false,
            format!(
                "{} MiB of memory may be locked and registering the I/O memory of all shards takes \
                 {} MiB: without it each I/O maps its pages anew; set `LimitMEMLOCK=infinity`.",
                host.memlock_bytes >> 20,
                registered >> 20
            ),
        );
    }

    for directory in &directories {
        let path = directory.path.display();
        if let Some(error) = &directory.error {
            find(
                Topic::Directory,
                true,
                format!(
                    "Cannot use directory {path} ({error}): check the path, its owner and its \
                     permissions."
                ),
            );
            continue;
        }
        if let Some(error) = &directory.direct_io_error {
            find(
                Topic::DirectIo,
                true,
                format!(
                    "Directory {path} is on {}, which has no direct I/O ({error}): put the data on \
                     ext4 or XFS.",
                    directory.file_system
                ),
            );
        }
        if directory.free_bytes < wanted.free_bytes_min {
            find(
                Topic::FreeSpace,
                true,
                format!(
                    "Directory {path} has {} MiB free and `free_bytes_min` asks for {} MiB: free \
                     space there, or lower the setting.",
                    directory.free_bytes >> 20,
                    wanted.free_bytes_min >> 20
                ),
            );
        }
        if directory.logical_block_bytes > 4096 {
            find(
                Topic::DirectIo,
                true,
                format!(
                    "Directory {path} is on a device with {}-byte logical blocks and commits are \
                     aligned to 4096: use a device with blocks of at most 4096 bytes.",
                    directory.logical_block_bytes
                ),
            );
        }
    }
    Report { host, directories, findings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_shards_than_cores_are_refused_with_the_number_that_fits() {
        let wanted = Wanted { shards: 5000, ..Wanted::default() };
        let report = inspect(&wanted);
        let finding = report
            .findings
            .iter()
            .find(|finding| finding.topic == Topic::Cores)
            .expect("no host has 5000 cores");
        assert!(finding.refusal);
        assert!(finding.sentence.starts_with("5000 shards need 5000 cores"), "{finding:?}");
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        let wanted = Wanted { cores: vec![100_000], ..Wanted::default() };
        let report = inspect(&wanted);
        assert!(report.findings.iter().any(|finding| finding.topic == Topic::Cores));
    }

    #[test]
    fn a_missing_directory_is_a_finding_and_not_a_panic() {
        let wanted =
            Wanted { directories: vec!["/nonexistent/corelog".into()], ..Wanted::default() };
        let report = inspect(&wanted);
        assert!(report.findings.iter().any(|finding| finding.topic == Topic::Directory));
    }

    #[test]
    fn memory_is_no_disk() {
        let shm = std::path::Path::new("/dev/shm");
        if !shm.is_dir() || DirectoryFacts::gather(shm).file_system != "tmpfs" {
            println!("skipped: /dev/shm is no tmpfs here");
            return;
        }
        let wanted = Wanted { directories: vec![shm.into()], ..Wanted::default() };
        let report = inspect(&wanted);
        assert!(report.findings.iter().any(|finding| finding.topic == Topic::DirectIo));
    }

    #[test]
    fn the_json_is_escaped_and_balanced() {
        let wanted = Wanted { directories: vec!["/no\"such\\dir".into()], ..Wanted::default() };
        let json = inspect(&wanted).to_json();
        assert!(json.contains(r#""path":"/no\"such\\dir""#), "{json}");
        assert_eq!(json.matches('{').count(), json.matches('}').count());
    }
}
