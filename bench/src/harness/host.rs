//! What is to be known of a machine before a figure from it means anything. No names of hosts, no paths.

use std::fs;
use std::path::Path;

use corelog_tuning::DirectoryFacts;
use serde::{Deserialize, Serialize};

use crate::os;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    pub memory_gib: f64,
    /// Of the first core; `none` if the kernel does not choose frequencies.
    pub governor: String,
    /// Of each weakness of the processor that the kernel knows, what is done about it.
    pub mitigations: Vec<String>,
    pub hypervisor: bool,
    pub file_system: String,
    pub disk: String,
    pub disk_blocks: String,
    pub flags: String,
    pub commit: String,
}

impl Host {
    /// `folder`: where the data goes.
    pub fn look(folder: &Path) -> Self {
        let info = read("/proc/cpuinfo");
        let line = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name))?;
            line.split_once(": ").map(|(_, value)| value.trim().to_owned())
        };
        let memory = read("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
        let directory = DirectoryFacts::gather(folder);
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            processor: line("model name").unwrap_or_else(|| "unknown".into()),
            cores: os::processors(),
            memory_gib: (kib.unwrap_or(0.0) / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            governor: if governor.is_empty() { "none".into() } else { governor },
            mitigations: mitigations(),
            hypervisor: line("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            file_system: directory.file_system,
            disk: disk(folder),
            disk_blocks: format!(
                "{} B logical, {} B physical",
                directory.logical_block_bytes, directory.physical_block_bytes
            ),
            flags: flags(),
            commit: env!("CORELOG_COMMIT").into(),
        }
    }

    /// In one line.
    pub fn describe(&self) -> String {
        format!(
            "{} x {}, {:.0} GiB, Linux {}, {} on {}",
            self.cores, self.processor, self.memory_gib, self.kernel, self.file_system, self.disk
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn mitigations() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return Vec::new();
    };
    let mut list: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let name = entry.file_name().into_string().ok()?;
            (!text.starts_with("Not affected")).then(|| format!("{name}: {}", text.trim()))
        })
        .collect();
    list.sort();
    list
}

/// Model, scheduler and write cache of the device below.
fn disk(folder: &Path) -> String {
    let Ok((major, minor)) = os::device_of(folder) else { return "unknown".into() };
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition has its queue at the disk above it.
    let queue = [format!("{device}/queue"), format!("{device}/../queue")];
    let Some(queue) = queue.iter().find(|path| Path::new(path).is_dir()) else {
        return "a device without a queue".into();
    };
    let fact = |name: &str| read(&format!("{queue}/{name}"));
    let kind = if fact("rotational") == "1" { "rotating" } else { "solid state" };
    let driver = fs::read_link(format!("{device}/device/driver"));
    let driver = driver.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    format!(
        "{} ({kind}, {}, FUA {})",
        driver.unwrap_or_else(|| "disk".into()),
        fact("write_cache"),
        fact("fua")
    )
}

fn flags() -> String {
    let kind = if cfg!(debug_assertions) { "debug assertions on" } else { "release" };
    format!("{kind}, {}", std::env::consts::ARCH)
}
