//! Strangers beside a healthy client of one broker: a million malformed frames, then ten thousand
//! connections that say nothing and a thousand that say a byte a second. The broker must not notice much, and the client
//! hardly anything.
//!
//! [`frames`] makes what is sent, [`strangers`] send it, [`crowd`] holds connections in another process,
//! to which [`visit`] speaks, [`memory`] watches.

mod crowd;
mod frames;
mod memory;
mod strangers;
pub mod visit;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use corelog_protocol::Durability;
use corelog_protocol::ids::{PartitionId, ShardId};

use crate::conditions::{self, Watch};
use crate::floor::Options;
use crate::latency::{Latencies, Summary, show};
use crate::load::admin::Admin;
use crate::load::{self, Outcome, Pace, Shape, Span, Spread, Target};
use crate::report::{Table, thousands};
use crate::{os, place};
use memory::MemoryWatch;
use visit::Visit;

/// Settings of `corelog-bench hostile`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    /// Malformed frames to send.
    pub frames: u64,
    /// At most so many of them per second.
    pub frames_per_second: f64,
    /// Draws the frames.
    pub seed: u64,
    /// Connections that say hello and nothing more.
    pub idle: usize,
    /// Connections that send a byte a second.
    pub slow: usize,
    /// Length of each measurement of the healthy client.
    pub seconds: f64,
}

/// The healthy client's p99 beside malformed frames, against that without.
const P99_RATIO_MAX: f64 = 2.0;
/// Its throughput beside the crowd, against that without.
const THROUGHPUT_RATIO_MIN: f64 = 0.8;
/// What one idle or slow connection may cost the broker.
const CONNECTION_BYTES_MAX: f64 = 65_536.0;
/// A frame below the least rate has 30 s, counted in ticks of a second.
const SLOW_SECONDS_MAX: u64 = 40;

/// A steady client: 2,000 durable batches a second, at their intended times.
const STEADY: Shape = Shape {
    name: "open loop, 2,000/s over 4 connections, 100 B",
    connections: 4,
    pace: Pace::PerSecond(2_000.0),
    records_per_batch: 1,
    record_bytes: 100,
};

/// The broker and what its healthy client needs.
struct Scene {
    broker: Broker,
    admin: Admin,
    partitions: Vec<PartitionId>,
    options: Options,
    bars: Vec<Bar>,
}

/// A figure and what it must be.
struct Bar {
    what: &'static str,
    figure: String,
    bar: String,
    is_reached: bool,
}

/// Runs both parts. True if every bar is reached.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    println!("{}", conditions::machine());
    println!("seed {}, data in {}", settings.seed, folder.path().display());
    let connections = settings.idle + settings.slow;
    // The other ends of the connections are in another process.
    os::demand_open_files(connections as u64 + 5_000)?;
    let watch = Watch::start();
    let options = Options::seconds(settings.seconds);
    let mut config = Config::embedded(folder.path().join("broker"));
    config.shards = 1;
    config.cores = vec![options.cores.broker];
    config.network.connections_max = config.network.connections_max.max(connections as u32 + 1_000);
    let broker = Broker::start(config).map_err(|error| io::Error::other(error.to_string()))?;
    let mut admin = Admin::connect(broker.address(), ShardId::ANY)?;
    let places = admin.create_topic("healthy", 16, None)?;
    let partitions = places.iter().map(|place| place.partition).collect();
    let mut scene = Scene { broker, admin, partitions, options, bars: Vec::new() };
    scene.malformed(settings)?;
    scene.crowd(settings)?;
    println!("\n{}\n", watch.stop());
    let mut table = Table::new(["what", "figure", "bar", "reached"]);
    for bar in &scene.bars {
        let reached = if bar.is_reached { "yes" } else { "NO" };
        table.row([bar.what.into(), bar.figure.clone(), bar.bar.clone(), reached.into()]);
    }
    print!("{}", table.show());
    scene.broker.stop();
    Ok(scene.bars.iter().all(|bar| bar.is_reached))
}

impl Scene {
    fn target(&self) -> Target {
        Target {
            address: self.broker.address(),
            shard: ShardId(0),
            partitions: self.partitions.clone(),
            spread: Spread::One,
            level: Durability::QuorumDurable,
        }
    }

    fn load(&self, shape: &Shape, span: Span) -> io::Result<Outcome> {
        load::run_beside(shape, &self.target(), span, self.options.cores.load)
    }

    fn judge(&mut self, what: &'static str, figure: String, bar: String, is_reached: bool) {
        self.bars.push(Bar { what, figure, bar, is_reached });
    }

    fn malformed(&mut self, settings: &Settings) -> io::Result<()> {
        let mut without = self.load(&STEADY, self.options.span)?.latencies;
        let before = self.broker.counters();
        let memory = MemoryWatch::start(self.broker.address())?;
        let (told, beside) = self.healthy_beside(settings)?;
        let memory = memory.stop()?;
        let after = self.broker.counters();
        without.add(&self.load(&STEADY, self.options.span)?.latencies);

        println!(
            "\n{} malformed frames on {} connections in {:.0} s:",
            thousands(told.frames as f64),
            thousands(told.connections as f64),
            told.seconds
        );
        for (kind, count) in told.by_kind() {
            println!("  {:>9}  {kind}", thousands(count as f64));
        }
        println!("the broker counted:");
        let names = [
            "frames_garbled",
            "frames_too_large",
            "frames_unsupported",
            "frames_malformed",
            "batches_invalid",
            "errors_out",
            "connections_timed_out",
        ];
        for name in names {
            let grown = after.total(name).saturating_sub(before.total(name));
            println!("  {:>9}  {name}", thousands(grown as f64));
        }
        let (without, beside) = (without.summary(), beside.summary());
        println!("healthy client ({}):", STEADY.name);
        print!("{}", latencies(&[("without", without), ("beside them", beside)]).show());

        self.judge(
            "frames sent",
            thousands(told.frames as f64),
            thousands(settings.frames as f64),
            told.frames >= settings.frames,
        );
        let open = told.left_open;
        self.judge("connections left open", open.to_string(), "0".into(), open == 0);
        let megabytes = |bytes: u64| format!("{} MB", thousands(bytes as f64 / 1e6));
        self.judge(
            "shard memory, most",
            megabytes(memory.used_max),
            format!("<= {}", megabytes(memory.budget)),
            memory.used_max <= memory.budget,
        );
        let grown = memory.resident_max.saturating_sub(memory.resident_first);
        self.judge(
            "process memory, grown",
            megabytes(grown),
            format!("<= {}", megabytes(memory.budget)),
            grown <= memory.budget,
        );
        let ratio = beside.p99 as f64 / without.p99.max(1) as f64;
        self.judge(
            "healthy p99, ratio",
            format!("{ratio:.2}"),
            format!("<= {P99_RATIO_MAX}"),
            ratio <= P99_RATIO_MAX,
        );
        Ok(())
    }

    /// The steady client for as long as the strangers need.
    fn healthy_beside(&self, settings: &Settings) -> io::Result<(strangers::Tally, Latencies)> {
        let done = AtomicBool::new(false);
        let address = self.broker.address();
        std::thread::scope(|scope| {
            let strangers = scope.spawn(|| {
                let tally = strangers::run(address, settings);
                done.store(true, Ordering::SeqCst);
                tally
            });
            let mut latencies = Latencies::default();
            loop {
                let outcome = self.load(&STEADY, self.options.span)?;
                let is_over = done.load(Ordering::SeqCst);
                // The last one was beside nobody for a part of its time.
                if !is_over || latencies.summary().count == 0 {
                    latencies.add(&outcome.latencies);
                }
                if is_over {
                    break;
                }
            }
            let tally = strangers.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))?;
            Ok((tally, latencies))
        })
    }

    fn crowd(&mut self, settings: &Settings) -> io::Result<()> {
        let first = self.load(&Shape::SINGLES, self.options.span)?;
        let used = |admin: &mut Admin| admin.counter("memory_used_bytes");
        let resident = memory::resident_bytes();
        let pool = used(&mut self.admin)?;
        let mut crowd = Visit::start(self.broker.address())?;
        crowd.add_idle(settings.idle)?;
        let (idle_resident, idle_pool) = (memory::resident_bytes(), used(&mut self.admin)?);
        crowd.add_slow(settings.slow)?;
        let (slow_resident, slow_pool) = (memory::resident_bytes(), used(&mut self.admin)?);
        let each = |after: u64, before: u64, count: usize| {
            after.saturating_sub(before) as f64 / count.max(1) as f64
        };
        let idle = each(idle_resident, resident, settings.idle);
        let slow = each(slow_resident, idle_resident, settings.slow);
        println!(
            "\n{} idle connections: {} B each of the process, {} B of them of the budget; {} that send a byte a \
                  second: {} B, {} B",
            thousands(settings.idle as f64),
            thousands(idle),
            thousands(each(idle_pool, pool, settings.idle)),
            thousands(settings.slow as f64),
            thousands(slow),
            thousands(each(slow_pool, idle_pool, settings.slow))
        );

        let beside = self.load(&Shape::SINGLES, self.options.span)?;
        let idle_lost = crowd.lost_idle()?;
        let slow_left = crowd.wait_for_slow(Duration::from_secs(SLOW_SECONDS_MAX))?;
        crowd.leave()?;
        let last = self.load(&Shape::SINGLES, self.options.span)?;
        let without = (first.records_per_second() + last.records_per_second()) / 2.0;
        println!(
            "healthy client ({}): {}/s and {}/s without, {}/s beside them",
            Shape::SINGLES.name,
            thousands(first.records_per_second()),
            thousands(last.records_per_second()),
            thousands(beside.records_per_second())
        );
        let most = format!("<= {}", thousands(CONNECTION_BYTES_MAX));
        self.judge(
            "bytes per idle connection",
            thousands(idle),
            most.clone(),
            idle <= CONNECTION_BYTES_MAX,
        );
        self.judge(
            "bytes per slow connection",
            thousands(slow),
            most,
            slow <= CONNECTION_BYTES_MAX,
        );
        self.judge("idle connections lost", idle_lost.to_string(), "0".into(), idle_lost == 0);
        self.judge("slow ones left after 40 s", slow_left.to_string(), "0".into(), slow_left == 0);
        let ratio = beside.records_per_second() / without;
        self.judge(
            "healthy throughput, ratio",
            format!("{ratio:.2}"),
            format!(">= {THROUGHPUT_RATIO_MIN}"),
            ratio >= THROUGHPUT_RATIO_MIN,
        );
        Ok(())
    }
}

fn latencies(rows: &[(&str, Summary)]) -> Table {
    let mut table = Table::new(["", "batches", "p50", "p99", "p99.9", "most"]);
    for (name, summary) in rows {
        let Summary { count, p50, p99, p999, max } = *summary;
        let count = thousands(count as f64);
        table.row([name.to_string(), count, show(p50), show(p99), show(p999), show(max)]);
    }
    table
}
