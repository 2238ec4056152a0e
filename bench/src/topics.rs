//! What topics cost: brokers with 1, 100, 1,000 and 10,000 of them, side by side in one session, each under
//! the same load, which writes to all of its topics in turn. A log per partition would have as many files to flush as
//! there are topics; a lane has one.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corelog_protocol::Durability;
use corelog_protocol::ids::{PartitionId, ShardId};

use crate::conditions::{self, Watch};
use crate::floor::{Cores, Options};
use crate::kill::Process;
use crate::latency::{median, show};
use crate::load::admin::Admin;
use crate::load::{self, Outcome, Pace, Shape, Spread, Target};
use crate::place;
use crate::report::{Table, thousands};

/// Settings of `corelog-bench topics`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub binary: PathBuf,
    /// How many topics each broker has. The first is what the others are compared with.
    pub counts: Vec<u32>,
    pub rounds: usize,
    /// Length of each measurement.
    pub seconds: f64,
}

/// Closed loop, for the rate: as many requests in flight as a broker with few clients sees.
const RATE: Shape = Shape::SINGLES;
/// Open loop, for the latency: far below what the rate shows.
const LATENCY: Shape = Shape {
    name: "open loop, 20,000/s over 16 connections, 100 B",
    connections: 16,
    pace: Pace::PerSecond(20_000.0),
    records_per_batch: 1,
    record_bytes: 100,
};

const RATE_RATIO_MIN: f64 = 0.8;
const P99_RATIO_MAX: f64 = 1.5;
const BYTES_PER_PARTITION_MAX: f64 = 2048.0;
const CREATION_MAX: Duration = Duration::from_secs(10);
const BOOT_MAX: Duration = Duration::from_secs(3);

/// A broker with its topics, and what was measured of it.
struct Subject {
    count: u32,
    process: Process,
    shard: ShardId,
    partitions: Vec<PartitionId>,
    creation: Duration,
    /// What each topic added to the process before anything was written to it, bytes.
    bytes_each: f64,
    rates: Vec<f64>,
    p50s: Vec<u64>,
    p99s: Vec<u64>,
    boot: Duration,
}

impl Subject {
    fn start(settings: &Settings, count: u32, folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mut process = Process::new(&settings.binary, &folder)?;
        // One topic is in one lane: more lanes would divide the others' commits, and only theirs.
        process.config.log.lanes_per_shard = 1;
        process.start(1)?;
        let mut admin = Admin::connect(process.address(), ShardId::ANY)?;
        let before = process.resident_bytes();
        let begin = Instant::now();
        let mut partitions = Vec::with_capacity(count as usize);
        let mut shard = ShardId::ANY;
        for number in 0..count {
            let places = admin.create_topic(&format!("events-{number:05}"), 1, None)?;
            for place in places {
                partitions.push(place.partition);
                shard = place.shard;
            }
        }
        let creation = begin.elapsed();
        let grown = process.resident_bytes().saturating_sub(before);
        let bytes_each = grown as f64 / f64::from(count);
        let (rates, p50s, p99s) = (Vec::new(), Vec::new(), Vec::new());
        let boot = Duration::ZERO;
        Ok(Self {
            count,
            process,
            shard,
            partitions,
            creation,
            bytes_each,
            rates,
            p50s,
            p99s,
            boot,
        })
    }

    fn target(&self, partitions: &[PartitionId]) -> Target {
        Target {
            address: self.process.address(),
            shard: self.shard,
            partitions: partitions.to_vec(),
            spread: Spread::All,
            level: Durability::LeaderDurable,
        }
    }

    fn load(&self, shape: &Shape, options: &Options) -> io::Result<Outcome> {
        let target = self.target(&self.partitions);
        load::run_beside(shape, &target, options.span, options.cores.load)
    }

    fn measure(&mut self, options: &Options) -> io::Result<()> {
        let rate = self.load(&RATE, options)?;
        self.rates.push(rate.records_per_second());
        let latency = self.load(&LATENCY, options)?.latencies.summary();
        self.p50s.push(latency.p50);
        self.p99s.push(latency.p99);
        Ok(())
    }

    /// Killed and started again: until a batch to the last of its topics is durable.
    fn boot(&mut self) -> io::Result<()> {
        self.process.kill()?;
        let begin = Instant::now();
        self.process.start(1)?;
        let target = self.target(&self.partitions[self.partitions.len() - 1..]);
        let span = load::Span { warm_up: Duration::ZERO, measured: Duration::from_millis(1) };
        load::run_beside(&Shape::ONE_AT_A_TIME, &target, span, Cores::choose().load)?;
        self.boot = begin.elapsed();
        Ok(())
    }
}

/// Runs all, and prints the table. True if every bar is reached.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    let options = Options::seconds(settings.seconds);
    let watch = Watch::start();
    let mut subjects = Vec::new();
    for &count in &settings.counts {
        let subject =
            Subject::start(settings, count, folder.path().join(format!("topics-{count}")))?;
        eprintln!("{} topics made in {:.2} s", count, subject.creation.as_secs_f64());
        subjects.push(subject);
    }
    for round in 1..=settings.rounds {
        for subject in &mut subjects {
            subject.measure(&options)?;
        }
        eprintln!("round {round} of {} is done", settings.rounds);
    }
    for subject in &mut subjects {
        subject.boot()?;
    }
    println!("{}", conditions::machine());
    println!(
        "medians of {} rounds of {} s; one shard, one lane, one partition per topic, leader_durable, one record per \
         batch; {}\nrate: {}; latency: {}\n",
        settings.rounds,
        settings.seconds,
        watch.stop(),
        RATE.name,
        LATENCY.name
    );
    let rate_of = |subject: &Subject| median(subject.rates.clone());
    let p99_of = |subject: &Subject| median(subject.p99s.iter().map(|&p99| p99 as f64).collect());
    let Some(first) = subjects.first() else { return Ok(true) };
    let (rate_first, p99_first) = (rate_of(first), p99_of(first));
    let mut table = Table::new([
        "topics",
        "records/s",
        "ratio",
        "p50",
        "p99",
        "ratio",
        "memory per topic",
        "all made in",
        "boot",
        "bars reached",
    ]);
    let mut all_reached = true;
    for subject in &subjects {
        let (rate, p99) = (rate_of(subject), p99_of(subject));
        let p50 = median(subject.p50s.iter().map(|&p50| p50 as f64).collect());
        let (rate_ratio, p99_ratio) = (rate / rate_first, p99 / p99_first);
        // One topic's share of a page says nothing.
        let is_measurable = subject.count >= 100;
        let reached = rate_ratio >= RATE_RATIO_MIN
            && p99_ratio <= P99_RATIO_MAX
            && (!is_measurable || subject.bytes_each <= BYTES_PER_PARTITION_MAX)
            && subject.creation < CREATION_MAX
            && subject.boot < BOOT_MAX;
        all_reached &= reached;
        table.row([
            thousands(f64::from(subject.count)),
            thousands(rate),
            format!("{rate_ratio:.2}"),
            show(p50 as u64),
            show(p99 as u64),
            format!("{p99_ratio:.2}"),
            if is_measurable { format!("{} B", thousands(subject.bytes_each)) } else { "-".into() },
            format!("{:.2} s", subject.creation.as_secs_f64()),
            format!("{:.2} s", subject.boot.as_secs_f64()),
            if reached { "yes" } else { "NO" }.into(),
        ]);
    }
    print!("{}", table.show());
    println!(
        "\nbars: rate at least {RATE_RATIO_MIN} and p99 at most {P99_RATIO_MAX} of the first line's; at most \
         {BYTES_PER_PARTITION_MAX} B per idle topic; made in {} s, booted in {} s",
        CREATION_MAX.as_secs(),
        BOOT_MAX.as_secs()
    );
    Ok(all_reached)
}
