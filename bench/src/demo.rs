//! The demo: a broker with a shard per core, on a real disk, under open-loop load at every
//! durability level; stopped hard in the middle and started again; every byte, order and offset
//! checked. Ends with a plain sentence, or with what went wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use corelog_protocol::Durability;
use indicatif::{ProgressBar, ProgressStyle};

use crate::conditions::{self, Conditions, Watch};
use crate::floor::{self, Mode, Options};
use crate::latency::show;
use crate::load::{Outcome, Pace, Shape, Span};
use crate::place;
use crate::report::{Table, thousands};
use crate::traffic::link::Link;
use crate::traffic::{self, Tally, Topic, Traffic};
use crate::verify::Verdict;

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
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the parts take.
#[derive(Clone, Copy)]
struct Schedule {
    floor: Duration,
    /// Before the hard stop, and again after it.
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
    [("telemetry", 4), ("sessions", 4), ("orders", 4), ("prices", 4), ("payments", 4)];

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
    restart: Duration,
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
    let result = play(folder.path(), schedule, &bar);
    bar.finish_and_clear();
    let story = result?;
    tell(&story);
    Ok(conclude(&story))
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

    let mut config = Config::embedded(folder.join("data"));
    let broker = start(&config)?;
    config.listen = broker.address();
    let shards = broker.shards();
    let topics = TOPICS.map(|(name, partitions)| Topic { name, partitions }).to_vec();
    let seed = std::process::id().into();
    let traffic = Arc::new(Traffic::new(seed, topics, &plan(), VALUE_BYTES));
    let link = Link::connect(config.listen, None, &traffic)?;
    for topic in &traffic.topics {
        link.create_topic(topic.name, topic.partitions)?;
    }
    let act = Act { traffic: &traffic, link: &link, schedule, bar };
    let (broker, restart) = act.play(broker, &config)?;

    bar.set_message("reading everything once more");
    traffic.with_ledger(|ledger| ledger.read_again());
    let mut reader = link.reader(&traffic.topics, |_, _| 0)?;
    traffic::read_to_end(&traffic, &link, &mut reader, PATIENCE)?;
    let forwarded = broker.counters().total("requests_forwarded");
    drop(reader);
    drop(link);
    broker.stop();
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
        restart,
        forwarded,
        first_failure,
        shards,
        conditions: watch.stop(),
    })
}

fn start(config: &Config) -> io::Result<Broker> {
    Broker::start(config.clone()).map_err(|error| io::Error::other(error.to_string()))
}

/// The part with load.
struct Act<'a> {
    traffic: &'a Arc<Traffic>,
    link: &'a Link,
    schedule: Schedule,
    bar: &'a ProgressBar,
}

impl Act<'_> {
    /// Load, hard stop, restart, load; then everything that was committed has been read.
    fn play(&self, broker: Broker, config: &Config) -> io::Result<(Broker, Duration)> {
        let done = AtomicBool::new(false);
        let mut reader = self.link.reader(&self.traffic.topics, |_, _| 0)?;
        std::thread::scope(|scope| {
            let producing = scope.spawn(|| traffic::produce(self.traffic, self.link, PER_SECOND));
            let reading = scope.spawn(|| {
                traffic::read_along(self.traffic, &mut reader, &done)?;
                traffic::read_to_end(self.traffic, self.link, &mut reader, PATIENCE)
            });
            let result = self.direct(broker, config);
            self.traffic.stop();
            let produced = join(producing);
            let settled = self.settle();
            done.store(true, Ordering::SeqCst);
            let read = join(reading);
            let result = result?;
            produced.and(settled).and(read)?;
            Ok(result)
        })
    }

    fn direct(&self, broker: Broker, config: &Config) -> io::Result<(Broker, Duration)> {
        self.watch("under load");
        self.bar.set_message("hard stop");
        self.traffic.set_outage(true);
        broker.abort();
        self.traffic.pause(true);
        self.bar.set_message("starting again");
        let begin = Instant::now();
        let broker = start(config)?;
        let restart = begin.elapsed();
        self.settle()?;
        self.traffic.set_outage(false);
        self.traffic.pause(false);
        self.watch("under load again");
        Ok((broker, restart))
    }

    fn watch(&self, text: &str) {
        let start = Instant::now();
        let before = self.bar.position();
        while start.elapsed() < self.schedule.load {
            std::thread::sleep(Duration::from_millis(100));
            self.bar.set_position(before + start.elapsed().as_millis() as u64);
            let seen = self.traffic.with_ledger(|ledger| ledger.seen());
            self.bar.set_message(format!("{text}: {} records checked", thousands(seen as f64)));
        }
    }

    /// Waits until the fate of all that was sent is known.
    fn settle(&self) -> io::Result<()> {
        let limit = Instant::now() + PATIENCE * 2;
        while self.traffic.unsettled() > 0 {
            if Instant::now() > limit {
                let open = self.traffic.unsettled();
                return Err(io::Error::other(format!("{open} sends never got an answer")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the demo panicked")))
}

fn tell(story: &Story) {
    let mut table = Table::new(["level", "messages", "MB/s", "p50", "p99", "p99.9", "max"]);
    for level in Durability::ALL {
        let mut sum = Tally::default();
        for (_, tally) in story.tallies.iter().filter(|(of, _)| *of == level) {
            sum.add(tally);
        }
        if level.is_acknowledged() {
            let rate = sum.value_bytes as f64 / story.load.as_secs_f64() / 1e6;
            table.row(row(level.name(), sum.acknowledged, rate, &sum.latencies));
        } else {
            let nothing = || "-".to_string();
            let sent = thousands(sum.sent() as f64);
            let rate = (sum.sent() * VALUE_BYTES as u64) as f64 / story.load.as_secs_f64() / 1e6;
            let rate = format!("{rate:.2}");
            let name = level.name().to_string();
            table.row([name, sent, rate, nothing(), nothing(), nothing(), nothing()]);
        }
    }
    for (name, floor) in
        [("floor, in memory", &story.in_memory), ("floor, durable", &story.durable)]
    {
        table.row(row(name, floor.batches, floor.megabytes_per_second(), &floor.latencies));
    }
    println!("\n{}", table.show());
    println!(
        "Latency is from the intended send time to the ack, open loop, {}/s of {VALUE_BYTES} B over \
         all levels; the load, the consumer and the {} shard(s) share the same processors. The \
         floor is a bare loop at the same rate, its load on a core of its own. {}.",
        thousands(PER_SECOND),
        story.shards,
        story.conditions
    );
}

fn row(name: &str, messages: u64, rate: f64, latencies: &crate::latency::Latencies) -> [String; 7] {
    let summary = latencies.summary();
    [
        name.to_string(),
        thousands(messages as f64),
        format!("{rate:.2}"),
        show(summary.p50),
        show(summary.p99),
        show(summary.p999),
        show(summary.max),
    ]
}

fn conclude(story: &Story) -> bool {
    let verdict = &story.verdict;
    let count = |count: u64| thousands(count as f64);
    println!(
        "\nSent {}: {} acknowledged durable, {} acknowledged in memory, {} refused, {} without an \
         answer (level none, or under way at the hard stop; {} of them arrived). Restarted in {} ms.",
        count(verdict.sent),
        count(verdict.acknowledged_durable),
        count(verdict.acknowledged_memory),
        count(verdict.refused),
        count(verdict.open),
        count(verdict.open_seen),
        story.restart.as_millis(),
    );
    if let Some(failure) = &story.first_failure {
        println!("The first send that failed: {failure}.");
    }
    if !verdict.is_clean() {
        println!("\nFAILED: {} anomalies. The first:", count(verdict.anomalies_found));
        for anomaly in &verdict.anomalies {
            println!("  {anomaly}");
        }
        return false;
    }
    if verdict.acknowledged_durable == 0 || verdict.seen == 0 {
        println!("\nFAILED: nothing went through, so nothing was proved.");
        return false;
    }
    if story.forwarded != 0 {
        println!("\nFAILED: {} requests reached the wrong core.", count(story.forwarded));
        return false;
    }
    println!(
        "\nProved: all {} records acknowledged as durable were read back, twice, byte for byte, each \
         once, in order and at its offset, across a hard stop of the broker; {} that were \
         acknowledged only in memory were lost with it, as their level allows. No request reached \
         the wrong core.",
        count(verdict.acknowledged_durable),
        match verdict.memory_lost {
            0 => "none of those".to_string(),
            lost => count(lost),
        }
    );
    true
}
