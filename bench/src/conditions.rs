//! What else the machine was doing while something was measured. A figure without these is worth
//! little: with 10 % of stolen time every system shows tails of tens of milliseconds.

use std::fmt;
use std::fs;

/// Counters of the processors, taken at the start of a measurement.
pub struct Watch {
    start: Ticks,
}

#[derive(Clone, Copy, Default)]
struct Ticks {
    total: u64,
    idle: u64,
    stolen: u64,
}

/// The machine during a measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// Time that the hypervisor gave to others, in percent of all processors' time.
    pub steal_percent: f64,
    /// Time in which the processors did something, ours and others'.
    pub busy_percent: f64,
    /// The load average over the last minute.
    pub load: f64,
}

impl Watch {
    pub fn start() -> Self {
        Self { start: read_ticks() }
    }

    pub fn stop(&self) -> Conditions {
        let end = read_ticks();
        let total = (end.total - self.start.total).max(1) as f64;
        let stolen = (end.stolen - self.start.stolen) as f64;
        let idle = (end.idle - self.start.idle) as f64;
        Conditions {
            steal_percent: stolen * 100.0 / total,
            busy_percent: (total - idle - stolen) * 100.0 / total,
            load: load_average(),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "steal {:.1} %, processors busy {:.0} %, load {:.2}",
            self.steal_percent, self.busy_percent, self.load
        )
    }
}

fn read_ticks() -> Ticks {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = text.lines().next() else { return Ticks::default() };
    // user nice system idle iowait irq softirq steal (guest times are part of user and nice)
    let numbers: Vec<u64> =
        line.split_whitespace().skip(1).take(8).map(|word| word.parse().unwrap_or(0)).collect();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    Ticks { total: numbers.iter().sum(), idle: at(3) + at(4), stolen: at(7) }
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The machine in one line: processors, memory, kernel.
pub fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{processors} x {model}, Linux {}", kernel.trim())
}

/// Bytes written and flushes done by the whole device (partition) that a path lies on, as its
/// kernel driver counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device {
    pub written_bytes: u64,
    pub writes: u64,
    pub flushes: u64,
}

impl Device {
    pub fn of(path: &std::path::Path) -> Option<Self> {
        let (major, minor) = crate::os::device_of(path).ok()?;
        let text = fs::read_to_string("/proc/diskstats").ok()?;
        text.lines().find_map(|line| parse_disk(line, major, minor))
    }

    pub fn since(self, start: Self) -> Self {
        Self {
            written_bytes: self.written_bytes.saturating_sub(start.written_bytes),
            writes: self.writes.saturating_sub(start.writes),
            flushes: self.flushes.saturating_sub(start.flushes),
        }
    }
}

// major minor name reads merged sectors ms WRITES merged SECTORS ms inflight ms ms
// discards merged sectors ms FLUSHES ms
fn parse_disk(line: &str, major: u32, minor: u32) -> Option<Device> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
    if number(0)? != u64::from(major) || number(1)? != u64::from(minor) {
        return None;
    }
    Some(Device {
        writes: number(7)?,
        written_bytes: number(9)? * 512,
        flushes: number(18).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_diskstats_gives_bytes_and_flushes() {
        let line = " 254       0 vda 10 1 80 5 200 3 4096 9 0 10 11 1 2 3 4 77 8";
        let device = parse_disk(line, 254, 0).unwrap();
        assert_eq!((device.writes, device.written_bytes, device.flushes), (200, 4096 * 512, 77));
        assert!(parse_disk(line, 254, 1).is_none());
    }
}
