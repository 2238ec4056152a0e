//! System calls of one thread, counted from outside by what the machine has: `perf stat` on the
//! kernel's tracepoints (which hardly slows the thread), else `strace -c` (which does).

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What was counted, and how.
pub struct Counted {
    pub tool: &'static str,
    pub by_name: BTreeMap<String, u64>,
}

impl Counted {
    pub fn total(&self) -> u64 {
        self.by_name.values().sum()
    }
}

/// Watches a thread for about this long.
pub fn of_thread(thread: u32, time: Duration) -> io::Result<Counted> {
    match perf(thread, time) {
        Ok(counted) if counted.total() > 0 => Ok(counted),
        _ => strace(thread, time),
    }
}

fn perf(thread: u32, time: Duration) -> io::Result<Counted> {
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "syscalls:sys_enter_*", "-t", &thread.to_string()])
        .args(["--", "sleep", &format!("{:.2}", time.as_secs_f64())])
        .stdin(Stdio::null())
        .output()?;
    Ok(Counted { tool: "perf stat", by_name: parse_perf(&String::from_utf8_lossy(&output.stderr)) })
}

// 530,,syscalls:sys_enter_getppid,1001577185,100.00,,
fn parse_perf(text: &str) -> BTreeMap<String, u64> {
    let parse = |line: &str| {
        let mut fields = line.split(',');
        let count = fields.next()?.trim().parse().ok()?;
        let name = fields.nth(1)?.strip_prefix("syscalls:sys_enter_")?;
        Some((name.to_owned(), count))
    };
    text.lines().filter_map(parse).filter(|(_, count)| *count > 0).collect()
}

fn strace(thread: u32, time: Duration) -> io::Result<Counted> {
    let output = Command::new("timeout")
        .args(["-s", "INT", &format!("{:.2}", time.as_secs_f64())])
        .args(["strace", "-c", "-p", &thread.to_string()])
        .stdin(Stdio::null())
        .output()?;
    let by_name = parse_strace(&String::from_utf8_lossy(&output.stderr));
    if by_name.is_empty() {
        return Err(io::Error::other("neither perf nor strace could count system calls here"));
    }
    Ok(Counted { tool: "strace -c", by_name })
}

// % time     seconds  usecs/call     calls    errors syscall
//  92.27    0.031249          40       774         3 clock_nanosleep
fn parse_strace(text: &str) -> BTreeMap<String, u64> {
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = *words.last()?;
        let first: f64 = words.first()?.parse().ok()?;
        if name == "total" || !(0.0..=100.0).contains(&first) {
            return None;
        }
        Some((name.to_owned(), words.get(3)?.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tools_are_understood() {
        let perf = "# started\n\n530,,syscalls:sys_enter_getppid,100,100.00,,\n\
                    0,,syscalls:sys_enter_read,100,100.00,,\n\
                    12,,syscalls:sys_enter_io_uring_enter,100,100.00,,\n";
        let expected = [("getppid".to_owned(), 530), ("io_uring_enter".to_owned(), 12)];
        assert_eq!(parse_perf(perf), expected.into());
        let strace = "strace: Process 1 attached\n\
                      % time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n \
                      92.27    0.031249          40       774         3 io_uring_enter\n  \
                      7.73    0.002617           3       530           getppid\n\
                      100.00    0.033866          21      1304         3 total\n";
        let expected = [("getppid".to_owned(), 530), ("io_uring_enter".to_owned(), 774)];
        assert_eq!(parse_strace(strace), expected.into());
    }
}
