//! The demo: three brokers on a real disk, under open-loop load at every durability level. The leader of the busiest lane
//! is killed, comes back and catches up; another one is killed; then all are, at once, and start again. Every byte, order
//! and offset is checked. Ends with a plain sentence, or with what went wrong.

mod act;
mod limit;
mod tell;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corelog_broker::config::Config;
use corelog_broker::driver::LocalCluster;
use corelog_protocol::Durability;
use indicatif::{ProgressBar, ProgressStyle};

use crate::conditions::{self, Conditions, Watch};
use crate::floor::{self, Mode, Options};
use crate::load::{Outcome, Pace, Shape, Span};
use crate::place;
use crate::traffic::link::Link;
use crate::traffic::{self, Tally, Topic, Traffic};
use crate::verify::Verdict;
use act::{Act, Times};
use limit::TimeLimit;

/// Settings of `corelog-bench demo`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub quick: bool,
}

/// Records per second over all producers, in the demo and in the floor beside it.
const PER_SECOND: f64 = 10_000.0;
const VALUE_BYTES: usize = 100;
const KEYS: u64 = 1000;
const BROKERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);
/// Over the time that the parts take.
const TIME_MAX: Duration = Duration::from_secs(90);

/// How long the parts take.
#[derive(Clone, Copy)]
struct Schedule {
    floor: Duration,
    /// Half of the time under load.
    load: Duration,
}

impl Schedule {
    fn of(quick: bool) -> Self {
        let seconds = |floor, load| Self {
            floor: Duration::from_secs_f64(floor),
            load: Duration::from_secs_f64(load),
        };
        if quick { seconds(1.0, 3.0) } else { seconds(3.0, 12.0) }
    }

    fn in_all(self) -> Duration {
        self.floor * 2 + self.load * 2
    }
}

/// One topic per level, in the order of [`Durability::ALL`], so that no level waits in the window of
/// another: a batch has one level, and records of one partition keep their order.
const TOPICS: [(&str, u32); 5] =
    [("telemetry", 6), ("sessions", 6), ("orders", 6), ("prices", 6), ("payments", 6)];

/// A keyed and an unkeyed producer at each level.
fn plan() -> Vec<(u32, Option<u64>, Durability)> {
    let levels = (0..).zip(Durability::ALL);
    levels.flat_map(|(topic, level)| [(topic, Some(KEYS), level), (topic, None, level)]).collect()
}

/// What the demo measured and found.
struct Story {
    verdict: Verdict,
    tallies: Vec<(Durability, Tally)>,
    load: Duration,
    in_memory: Outcome,
    durable: Outcome,
    times: Times,
    forwarded: u64,
    first_failure: Option<String>,
    shards: usize,
    conditions: Conditions,
}

/// Runs the demo. True if everything was proved.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    let schedule = Schedule::of(settings.quick);
    println!("Corelog demo on {}", conditions::machine());
    println!("data in {}", folder.path().display());
    let bar = progress(schedule);
    let limit = TimeLimit::start(schedule.in_all() + TIME_MAX, folder.path(), &bar);
    let result = play(folder.path(), schedule, &bar);
    limit.end();
    bar.finish_and_clear();
    let story = result?;
    tell::tell(&story);
    Ok(tell::conclude(&story))
}

fn progress(schedule: Schedule) -> ProgressBar {
    let bar = ProgressBar::new(schedule.in_all().as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn play(folder: &Path, schedule: Schedule, bar: &ProgressBar) -> io::Result<Story> {
    let watch = Watch::start();
    let mut options = Options::seconds(schedule.floor.as_secs_f64());
    options.span = Span { warm_up: schedule.floor / 4, measured: schedule.floor * 3 / 4 };
    options.file_bytes = 64 << 20;
    let shape = Shape {
        name: "floor",
        connections: 4,
        pace: Pace::PerSecond(PER_SECOND),
        records_per_batch: 1,
        record_bytes: VALUE_BYTES,
    };
    bar.set_message("the floor, in memory");
    let in_memory = floor::run_loop(folder, Mode::Memory, &shape, &options)?;
    bar.inc(schedule.floor.as_millis() as u64);
    bar.set_message("the floor, durable");
    let durable = floor::run_loop(folder, Mode::Durable, &shape, &options)?;
    bar.inc(schedule.floor.as_millis() as u64);

    let mut config = Config::embedded(folder);
    // They share the processors, the disk and its flushes.
    config.shards = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    config.log.lanes_per_shard = 1;
    let shards = config.shards;
    bar.set_message("starting three brokers");
    let cluster = LocalCluster::start(&folder.join("data"), BROKERS, &config);
    let mut cluster = cluster.map_err(|error| io::Error::other(error.to_string()))?;
    let topics = TOPICS.map(|(name, partitions)| Topic { name, partitions }).to_vec();
    let seed = std::process::id().into();
    let traffic = Traffic::new(seed, topics, &plan(), VALUE_BYTES);
    let traffic = Arc::new(traffic.keeping(|level| level == Durability::QuorumDurable));
    let link = Link::connect(&cluster.addresses(), None, &traffic)?;
    for topic in &traffic.topics {
        link.create_topic(topic.name, topic.partitions)?;
    }
    let act = Act { traffic: &traffic, link: &link, schedule, bar };
    let times = act.play(&mut cluster)?;

    bar.set_message("reading everything once more");
    traffic.with_ledger(|ledger| ledger.read_again());
    let mut reader = link.reader(&traffic.topics, |_, _| 0)?;
    traffic::read_to_end(&traffic, &link, &mut reader, PATIENCE)?;
    let forwarded = times.forwarded + act::forwarded(&cluster);
    drop(reader);
    drop(link);
    cluster.stop();
    let tallies =
        traffic.producers.iter().map(|producer| (producer.durability, traffic.tally(producer.id)));
    let tallies = tallies.collect();
    let first_failure = traffic.first_failure();
    let traffic = Arc::into_inner(traffic)
        .ok_or_else(|| io::Error::other("a delivery is still under way"))?;
    Ok(Story {
        verdict: traffic.into_ledger().finish(),
        tallies,
        load: schedule.load * 2,
        in_memory,
        durable,
        times,
        forwarded,
        first_failure,
        shards,
        conditions: watch.stop(),
    })
}
