//! The broker beside the floor: the same load, in turns, on the same disk. What counts is the
//! ratio, taken from the medians of the rounds.
//!
//! What is written in commits above 16 KiB is compared twice. A lane whose retention drops as much as comes in goes round in
//! its own segments and overwrites, as the floor does. A lane that only grows gets its space from the
//! file system; so does the floor then, and how far the two floors differ is the file system's price.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use corelog_protocol::Durability;
use corelog_protocol::ids::{PartitionId, ShardId};

use crate::conditions::{self, Device, Watch};
use crate::floor::{self, Mode, Options};
use crate::latency::{median, show};
use crate::load::admin::Admin;
use crate::load::{self, Outcome, Shape, Span, Spread, Target};
use crate::place;
use crate::report::{Json, Table, thousands};

/// Settings of `corelog-bench speed`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub rounds: usize,
    /// Length of each measurement.
    pub seconds: f64,
    /// Lanes of the one shard. The floor has one log.
    pub lanes: u32,
    pub partitions: u32,
    /// Lines of the table, counted from 1; all if empty.
    pub only: Vec<usize>,
    pub as_json: bool,
}

/// What is compared, and what the ratio to the floor should be.
struct Comparison {
    shape: Shape,
    mode: Mode,
    level: Durability,
    lane: LaneLife,
    bar: Bar,
}

/// Where a lane's segments come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LaneLife {
    /// All is kept: new segments, zero-filled ahead where that pays.
    Growing,
    /// Retention drops as much as comes in: segments are used again.
    Recycling,
}

impl LaneLife {
    fn name(self) -> &'static str {
        match self {
            Self::Growing => "growing",
            Self::Recycling => "recycling",
        }
    }
}

/// What the recycling broker keeps, of all partitions together that the load writes to.
const KEPT_BYTES: u64 = 64 << 20;

impl Comparison {
    /// Commits of more than 16 KiB go into reserved space when the lane grows: no zeros are written
    /// first. Only one message at a time makes smaller ones.
    fn grows_unfilled(&self) -> bool {
        self.lane == LaneLife::Growing && self.shape != Shape::ONE_AT_A_TIME
    }
}

#[derive(Clone, Copy)]
enum Bar {
    /// The broker's p50 is at most so many times the floor's.
    LatencyAtMost(f64),
    /// The broker's rate is at least so many times the floor's.
    RateAtLeast(f64),
}

fn comparisons() -> [Comparison; 6] {
    let durable = |shape, lane, bar| Comparison {
        shape,
        mode: Mode::Durable,
        level: Durability::LeaderDurable,
        lane,
        bar,
    };
    [
        durable(Shape::ONE_AT_A_TIME, LaneLife::Growing, Bar::LatencyAtMost(1.4)),
        durable(Shape::SINGLES, LaneLife::Recycling, Bar::RateAtLeast(0.67)),
        durable(Shape::SINGLES, LaneLife::Growing, Bar::RateAtLeast(0.67)),
        Comparison {
            shape: Shape::SINGLES,
            mode: Mode::Memory,
            level: Durability::LeaderMemory,
            lane: LaneLife::Growing,
            bar: Bar::RateAtLeast(0.5),
        },
        durable(Shape::BATCHES, LaneLife::Recycling, Bar::RateAtLeast(0.75)),
        durable(Shape::BATCHES, LaneLife::Growing, Bar::RateAtLeast(0.75)),
    ]
}

/// One measurement of the broker, and what the disk had to take for it.
struct Shot {
    outcome: Outcome,
    data: u64,
    padding: u64,
    fill: u64,
    other: u64,
    device: u64,
    /// Rolls in which the next segment was not ready.
    waited: u64,
    steal: f64,
}

#[derive(Default)]
struct Row {
    floor: Vec<Outcome>,
    floor_steal: Vec<f64>,
    broker: Vec<Shot>,
}

/// An embedded broker of one shard on the broker's core, with a topic for the load.
pub struct Subject {
    pub broker: Broker,
    partitions: Vec<PartitionId>,
    shard: ShardId,
}

impl Subject {
    /// `kept_bytes`: what the topic keeps of each partition; `None` keeps all.
    pub fn start(
        folder: &Path,
        lanes: u32,
        partitions: u32,
        kept_bytes: Option<u64>,
        core: usize,
    ) -> io::Result<Self> {
        let mut config = Config::embedded(folder.to_owned());
        config.shards = 1;
        config.cores = vec![core];
        config.log.lanes_per_shard = lanes;
        let broker = Broker::start(config).map_err(|error| io::Error::other(error.to_string()))?;
        let mut admin = Admin::connect(broker.address(), ShardId::ANY)?;
        let places = admin.create_topic("speed", partitions, kept_bytes)?;
        let shard = places.first().map_or(ShardId::ANY, |place| place.shard);
        let partitions = places.iter().map(|place| place.partition).collect();
        Ok(Self { broker, partitions, shard })
    }

    pub fn target(&self, level: Durability) -> Target {
        Target {
            address: self.broker.address(),
            shard: self.shard,
            partitions: self.partitions.clone(),
            spread: Spread::One,
            level,
        }
    }

    /// Waits until the broker prepares no more space: that work belongs to what was before, and
    /// would disturb what comes.
    pub fn settle(&self) {
        let limit = Instant::now() + Duration::from_secs(10);
        let mut before = None;
        while Instant::now() < limit {
            let now = self.broker.counters().total("bytes_fill");
            if before == Some(now) {
                return;
            }
            before = Some(now);
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// Writes until segments are used again.
    fn warm_up(&self, options: &Options) -> io::Result<()> {
        let target = self.target(Durability::LeaderDurable);
        let span = Span { warm_up: Duration::ZERO, measured: Duration::from_secs(1) };
        for _ in 0..60 {
            if self.broker.counters().total("segments_recycled") >= 3 {
                return Ok(());
            }
            load::run_beside(&Shape::BATCHES, &target, span, options.cores.load)?;
        }
        Err(io::Error::other("no segment was used again within a minute of load"))
    }

    fn measure(
        &self,
        comparison: &Comparison,
        span: Span,
        options: &Options,
        folder: &Path,
    ) -> io::Result<Shot> {
        let before = self.broker.counters();
        let device = Device::of(folder).unwrap_or_default();
        let watch = Watch::start();
        let target = self.target(comparison.level);
        let outcome = load::run_beside(&comparison.shape, &target, span, options.cores.load)?;
        let steal = watch.stop().steal_percent;
        let after = self.broker.counters();
        let device = Device::of(folder).unwrap_or_default().since(device);
        let grown = |name| after.total(name).saturating_sub(before.total(name));
        Ok(Shot {
            outcome,
            data: grown("bytes_data"),
            padding: grown("bytes_padding"),
            fill: grown("bytes_fill"),
            other: grown("bytes_header") + grown("bytes_footer"),
            device: device.written_bytes,
            waited: grown("rolls_waited"),
            steal,
        })
    }
}

/// Runs all rounds and prints the ratios. True if every bar is reached.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    let options = Options::seconds(settings.seconds);
    let all = Watch::start();
    floor::disk::prepare(folder.path(), options.file_bytes)?;
    let is_wanted = |number| settings.only.is_empty() || settings.only.contains(&number);
    let comparisons: Vec<Comparison> = (1..)
        .zip(comparisons())
        .filter(|(number, _)| is_wanted(*number))
        .map(|(_, comparison)| comparison)
        .collect();
    let mut rows: Vec<Row> = comparisons.iter().map(|_| Row::default()).collect();
    let subjects = start_subjects(&comparisons, folder.path(), settings, &options)?;
    for round in 1..=settings.rounds {
        for ((comparison, subject), row) in comparisons.iter().zip(&subjects).zip(&mut rows) {
            subject.settle();
            let watch = Watch::start();
            let options = match comparison.grows_unfilled() {
                true => options.reserved(),
                false => options.clone(),
            };
            let floor =
                floor::run_loop(folder.path(), comparison.mode, &comparison.shape, &options)?;
            row.floor_steal.push(watch.stop().steal_percent);
            row.floor.push(floor);
            let shot = subject.measure(comparison, options.span, &options, folder.path())?;
            row.broker.push(shot);
        }
        if !settings.as_json {
            eprintln!("round {round} of {} is done", settings.rounds);
        }
    }
    let conditions = all.stop();
    for subject in subjects {
        subject.broker.stop();
    }
    let lines: Vec<Line> =
        comparisons.iter().zip(&rows).map(|(c, row)| Line::new(c, row)).collect();
    if settings.as_json {
        let lines = lines.iter().map(Line::json).collect();
        let json = Json::Object(vec![
            ("machine", conditions::machine().into()),
            ("steal_percent", conditions.steal_percent.into()),
            ("rounds", (settings.rounds as u64).into()),
            ("comparisons", Json::List(lines)),
        ]);
        println!("{}", json.show());
    } else {
        println!("{}", conditions::machine());
        println!(
            "medians of {} rounds of {} s; one shard, {} lane(s), {} partitions; {conditions}\n",
            settings.rounds, settings.seconds, settings.lanes, settings.partitions
        );
        print!("{}", table(&lines).show());
        println!();
        print!("{}", device_table(&comparisons, &rows).show());
    }
    Ok(lines.iter().all(|line| line.reached))
}

/// A broker for each comparison, so that none finds what another left behind. All but one idle.
fn start_subjects(
    comparisons: &[Comparison],
    folder: &Path,
    settings: &Settings,
    options: &Options,
) -> io::Result<Vec<Subject>> {
    let start = |(number, comparison): (usize, &Comparison)| {
        let folder = folder.join(format!("broker-{number}"));
        let (lanes, partitions) = (settings.lanes, settings.partitions);
        let written = partitions.min(comparison.shape.connections as u32).max(1);
        let is_recycling = comparison.lane == LaneLife::Recycling;
        let kept_bytes = is_recycling.then_some(KEPT_BYTES / u64::from(written));
        let subject = Subject::start(&folder, lanes, partitions, kept_bytes, options.cores.broker)?;
        if comparison.lane == LaneLife::Recycling {
            subject.warm_up(options)?;
        }
        Ok(subject)
    };
    comparisons.iter().enumerate().map(start).collect()
}

struct Line {
    shape: &'static str,
    lane: &'static str,
    level: Durability,
    what: &'static str,
    floor: f64,
    broker: f64,
    ratio: f64,
    /// Smallest and largest ratio of a round.
    range: (f64, f64),
    bar: String,
    reached: bool,
    steal: (f64, f64),
}

impl Line {
    fn new(comparison: &Comparison, row: &Row) -> Self {
        let figure = |outcome: &Outcome| match comparison.bar {
            Bar::LatencyAtMost(_) => outcome.latencies.summary().p50 as f64,
            Bar::RateAtLeast(_) => outcome.records_per_second(),
        };
        let floors: Vec<f64> = row.floor.iter().map(figure).collect();
        let brokers: Vec<f64> = row.broker.iter().map(|shot| figure(&shot.outcome)).collect();
        let ratios: Vec<f64> =
            floors.iter().zip(&brokers).map(|(floor, broker)| broker / floor).collect();
        let floor = median(floors);
        let broker = median(brokers);
        let ratio = broker / floor;
        let (what, bar, reached) = match comparison.bar {
            Bar::LatencyAtMost(most) => ("p50", format!("<= {most}"), ratio <= most),
            Bar::RateAtLeast(least) => ("records/s", format!(">= {least}"), ratio >= least),
        };
        let steal = (
            median(row.floor_steal.clone()),
            median(row.broker.iter().map(|shot| shot.steal).collect()),
        );
        Self {
            shape: comparison.shape.name,
            lane: comparison.lane.name(),
            level: comparison.level,
            what,
            floor,
            broker,
            ratio,
            range: (
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ),
            bar,
            reached,
            steal,
        }
    }

    fn figure(&self, figure: f64) -> String {
        if self.what == "p50" { show(figure as u64) } else { thousands(figure) }
    }

    fn json(&self) -> Json {
        Json::Object(vec![
            ("load", self.shape.into()),
            ("lane", self.lane.into()),
            ("level", self.level.name().into()),
            ("figure", self.what.into()),
            ("floor", self.floor.into()),
            ("broker", self.broker.into()),
            ("ratio", self.ratio.into()),
            ("ratio_min", self.range.0.into()),
            ("ratio_max", self.range.1.into()),
            ("bar", self.bar.clone().into()),
            ("reached", if self.reached { "yes" } else { "no" }.into()),
        ])
    }
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new([
        "load", "lane", "level", "figure", "floor", "broker", "ratio", "rounds", "bar", "reached",
        "steal",
    ]);
    for line in lines {
        table.row([
            line.shape.to_string(),
            line.lane.to_string(),
            line.level.to_string(),
            line.what.to_string(),
            line.figure(line.floor),
            line.figure(line.broker),
            format!("{:.2}", line.ratio),
            format!("{:.2} to {:.2}", line.range.0, line.range.1),
            line.bar.clone(),
            if line.reached { "yes" } else { "NO" }.to_string(),
            format!("{:.0} / {:.0} %", line.steal.0, line.steal.1),
        ]);
    }
    table
}

/// What the broker wrote in all rounds of a comparison, by cause, and what the device counted.
fn device_table(comparisons: &[Comparison], rows: &[Row]) -> Table {
    let mut table = Table::new([
        "written by the broker, all rounds",
        "lane",
        "level",
        "data",
        "padding",
        "zero-filling",
        "headers",
        "device saw",
        "zero-filling's share",
        "rolls that waited",
    ]);
    for (comparison, row) in comparisons.iter().zip(rows) {
        let sum = |part: fn(&Shot) -> u64| row.broker.iter().map(part).sum::<u64>();
        let (data, padding, fill) = (sum(|s| s.data), sum(|s| s.padding), sum(|s| s.fill));
        let other = sum(|s| s.other);
        let written = (data + padding + fill + other).max(1);
        let megabytes = |bytes: u64| format!("{} MB", thousands(bytes as f64 / 1e6));
        table.row([
            comparison.shape.name.to_string(),
            comparison.lane.name().to_string(),
            comparison.level.to_string(),
            megabytes(data),
            megabytes(padding),
            megabytes(fill),
            megabytes(other),
            megabytes(sum(|s| s.device)),
            format!("{:.1} %", fill as f64 * 100.0 / written as f64),
            sum(|s| s.waited).to_string(),
        ]);
    }
    table
}
