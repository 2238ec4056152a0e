//! The floor: the least that such a broker could cost on this machine, measured through the same
//! runtime, with the same pinning and the same state of the file. Every figure of the broker is a
//! ratio to it, taken in the same run.
//!
//! [`echo`] is a round trip and nothing else; [`disk`] is the device and nothing else; [`server`]
//! is a bare loop on one core: receive, check, copy once, commit in groups, acknowledge. It knows
//! no topics, offsets, limits, retention or recovery: what those cost is what the ratio shows.

mod commit;
pub mod disk;
pub mod echo;
pub mod server;

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::conditions::{self, Conditions, Watch};
use crate::latency::{Latencies, show};
use crate::load::{self, Outcome, Shape, Span};
use crate::place;
use crate::report::{Json, Table, thousands};
pub use commit::Mode;

/// Where the parts run: the broker's core and the load's.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub broker: usize,
    pub load: usize,
}

impl Cores {
    /// Broker on core 0, load on core 1; both on core 0 if there is only one.
    pub fn choose() -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        Self { broker: 0, load: usize::from(count > 1) }
    }
}

/// A zero-filled file as large as a segment that is full-grown.
pub const FILE_BYTES: u64 = 256 << 20;

/// More than the loop writes.
const RESERVED_BYTES_PER_SECOND: f64 = 3e9;

/// What the file system has to do for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Overwrite blocks that were written before: zeros, or a segment that expired.
    Written,
    /// Give out space that is only reserved: each write converts an extent, and the flush after it
    /// writes the file system's journal.
    Reserved,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Length of each measurement.
    pub span: Span,
    pub space: Space,
    /// Where it ends, the loop begins again at its start.
    pub file_bytes: u64,
    pub cores: Cores,
}

impl Options {
    pub fn seconds(seconds: f64) -> Self {
        let measured = Duration::from_secs_f64(seconds);
        let warm_up = (measured / 4).min(Duration::from_millis(500));
        let span = Span { warm_up, measured };
        Self { span, space: Space::Written, file_bytes: FILE_BYTES, cores: Cores::choose() }
    }

    /// The same in space that is only reserved: so much of it that no block is written twice.
    pub fn reserved(&self) -> Self {
        let seconds = (self.span.warm_up + self.span.measured).as_secs_f64();
        let file_bytes = ((seconds * RESERVED_BYTES_PER_SECOND) as u64).next_multiple_of(1 << 20);
        Self { space: Space::Reserved, file_bytes, ..self.clone() }
    }
}

/// One run of the bare loop.
pub fn run_loop(
    folder: &Path,
    mode: Mode,
    shape: &Shape,
    options: &Options,
) -> io::Result<Outcome> {
    let server = server::start(folder, mode, shape.connections, options)?;
    let target = server.target();
    let outcome = load::run_beside(shape, &target, options.span, options.cores.load)?;
    server.join()?;
    Ok(outcome)
}

/// `corelog-bench floor`: everything once, as a table or as JSON.
pub fn report(folder: Option<&Path>, seconds: f64, as_json: bool) -> io::Result<()> {
    let folder = place::temporary_folder(folder)?;
    let options = Options::seconds(seconds);
    let all = Watch::start();
    if !as_json {
        println!("{}", conditions::machine());
        println!(
            "data in {}, {} MiB zero-filled",
            folder.path().display(),
            options.file_bytes >> 20
        );
    }
    let (echo, conditions) = watched(|| echo::run(&options))?;
    let mut parts = vec![line("echo of 100 B", "", echo_outcome(&echo, &options), conditions)];
    let (device, conditions) = watched(|| disk::run(folder.path(), &options))?;
    parts.push(line("4 KiB write + fdatasync", "", commit_outcome(&device, &options), conditions));
    for shape in Shape::ALL {
        for mode in [Mode::Memory, Mode::Unflushed, Mode::Durable] {
            let (outcome, conditions) =
                watched(|| run_loop(folder.path(), mode, &shape, &options))?;
            parts.push(line(shape.name, mode.name(), outcome, conditions));
        }
    }
    if as_json {
        println!("{}", to_json(&parts, &device, all.stop()).show());
    } else {
        print!("\n{}", to_table(&parts).show());
        println!("\nsequential writes at depth {}:", disk::DEPTH);
        for (bytes, rate) in &device.bandwidth {
            println!("  {:>5} KiB  {:>6.0} MB/s", bytes >> 10, rate / 1e6);
        }
        println!("whole run: {}", all.stop());
    }
    Ok(())
}

struct Line {
    load: &'static str,
    mode: &'static str,
    outcome: Outcome,
    conditions: Conditions,
}

fn line(load: &'static str, mode: &'static str, outcome: Outcome, conditions: Conditions) -> Line {
    Line { load, mode, outcome, conditions }
}

fn watched<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Conditions)> {
    let watch = Watch::start();
    let result = work()?;
    Ok((result, watch.stop()))
}

fn echo_outcome(latencies: &Latencies, options: &Options) -> Outcome {
    one_at_a_time(latencies, 100, options)
}

fn commit_outcome(device: &disk::Device, options: &Options) -> Outcome {
    one_at_a_time(&device.commit, 4096, options)
}

fn one_at_a_time(latencies: &Latencies, bytes: u64, options: &Options) -> Outcome {
    let batches = latencies.summary().count;
    Outcome {
        batches,
        records: batches,
        value_bytes: batches * bytes,
        seconds: options.span.measured.as_secs_f64(),
        latencies: latencies.clone(),
        batches_in_all: batches,
    }
}

fn to_table(lines: &[Line]) -> Table {
    let mut table =
        Table::new(["load", "mode", "records/s", "MB/s", "p50", "p99", "p99.9", "max", "steal"]);
    for Line { load, mode, outcome, conditions } in lines {
        let summary = outcome.latencies.summary();
        table.row([
            load.to_string(),
            mode.to_string(),
            thousands(outcome.records_per_second()),
            format!("{:.1}", outcome.megabytes_per_second()),
            show(summary.p50),
            show(summary.p99),
            show(summary.p999),
            show(summary.max),
            format!("{:.1} %", conditions.steal_percent),
        ]);
    }
    table
}

fn to_json(lines: &[Line], device: &disk::Device, conditions: Conditions) -> Json {
    let rows = lines.iter().map(|Line { load, mode, outcome, conditions }| {
        let summary = outcome.latencies.summary();
        Json::Object(vec![
            ("load", (*load).into()),
            ("mode", (*mode).into()),
            ("records_per_second", outcome.records_per_second().into()),
            ("megabytes_per_second", outcome.megabytes_per_second().into()),
            ("p50_ns", summary.p50.into()),
            ("p99_ns", summary.p99.into()),
            ("p999_ns", summary.p999.into()),
            ("max_ns", summary.max.into()),
            ("count", summary.count.into()),
            ("steal_percent", conditions.steal_percent.into()),
        ])
    });
    let bandwidth = device.bandwidth.iter().map(|(bytes, rate)| {
        Json::Object(vec![
            ("write_bytes", (*bytes as u64).into()),
            ("bytes_per_second", (*rate).into()),
        ])
    });
    Json::Object(vec![
        ("machine", conditions::machine().into()),
        ("steal_percent", conditions.steal_percent.into()),
        ("busy_percent", conditions.busy_percent.into()),
        ("load", conditions.load.into()),
        ("loops", Json::List(rows.collect())),
        ("sequential_writes", Json::List(bandwidth.collect())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_loop_acknowledges_all_that_it_is_sent_in_every_mode_and_shape() {
        let folder = place::temporary_folder(None).unwrap();
        let mut options = Options::seconds(0.1);
        options.file_bytes = 8 << 20;
        for mode in [Mode::Memory, Mode::Unflushed, Mode::Durable] {
            for shape in Shape::ALL {
                // The load checks that acks come in order and none is missing.
                let outcome = run_loop(folder.path(), mode, &shape, &options).unwrap();
                assert!(outcome.batches_in_all > 0, "{mode:?} {shape:?}");
                assert!(outcome.batches <= outcome.batches_in_all);
                assert_eq!(outcome.latencies.summary().count, outcome.batches);
            }
        }
    }

    #[test]
    fn the_device_and_the_echo_answer() {
        let folder = place::temporary_folder(None).unwrap();
        let mut options = Options::seconds(0.1);
        options.file_bytes = 8 << 20;
        let device = disk::run(folder.path(), &options).unwrap();
        assert!(device.commit.summary().count > 0);
        assert!(device.bandwidth.iter().all(|(_, rate)| *rate > 0.0));
        assert!(echo::run(&options).unwrap().summary().count > 0);
    }
}
