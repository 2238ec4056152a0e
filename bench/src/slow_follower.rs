//! What a follower that stands still, or whose disk is slow, costs those who produce to its leader. Three broker processes
//! on this machine, one of which leads nothing; the same load at `quorum_durable` in turns with that broker there, absent
//! (killed), paused (SIGSTOP), catching up afterwards, and with each of its writes and flushes delayed.
//!
//! The yardstick is the run in which it is absent: then the leader waits for the one other follower as well, and has
//! nobody to keep anything for. That the slow one is slow is seen in what it lacks at the end.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corelog::{BrokerId, Client, Operation};
use corelog_protocol::ids::LaneId;

use crate::conditions::{self, Watch};
use crate::faults::cluster::Cluster;
use crate::faults::network::Network;
use crate::floor::{self, Options};
use crate::latency::{median, show};
use crate::load::{self, Pace, Shape, Span, Target};
use crate::report::{Table, thousands};
use crate::{os, place, replicated};

/// Settings of `corelog-bench slow-follower`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub binary: PathBuf,
    pub rounds: usize,
    /// Length of each measurement.
    pub seconds: f64,
    /// By how much the slow disk is slower.
    pub times: u32,
}

/// The leader's p99 beside a bad follower may be so many times that without it.
const P99_RATIO_MAX: f64 = 1.2;

/// What a broker's process takes beside its shards' budgets: its program, stacks, and tables.
const PROCESS_BYTES: u64 = 64 << 20;

const PATIENCE: Duration = Duration::from_secs(60);

/// A follower that lacks no more than this has caught up: what comes in within some ten milliseconds.
const BEHIND_MAX: u64 = 200;

/// The broker that is bad: the third.
const BAD: usize = 2;

const SHAPES: [Shape; 2] = [
    Shape {
        name: "2,000/s over 4 connections, 100 B",
        connections: 4,
        pace: Pace::PerSecond(2_000.0),
        records_per_batch: 1,
        record_bytes: 100,
    },
    Shape {
        name: "2,000/s over 4 connections, 16 KiB",
        connections: 4,
        pace: Pace::PerSecond(2_000.0),
        records_per_batch: 1,
        record_bytes: 16 << 10,
    },
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    There,
    Absent,
    Paused,
    CatchingUp,
    Slow,
}

impl Side {
    const ALL: [Self; 5] = [Self::There, Self::Absent, Self::Paused, Self::CatchingUp, Self::Slow];

    fn name(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::Absent => "absent",
            Self::Paused => "paused",
            Self::CatchingUp => "catching up after it",
            Self::Slow => "with a slow disk",
        }
    }

    /// Whether it has to keep to the bounds.
    fn is_judged(self) -> bool {
        matches!(self, Self::Paused | Self::Slow)
    }
}

/// The figures of one side, round by round.
#[derive(Default)]
struct Figures {
    p50s: Vec<f64>,
    p99s: Vec<f64>,
    maxima: Vec<f64>,
    rates: Vec<f64>,
    /// The most memory that the leader's process had.
    resident: u64,
    /// Entries that the bad follower lacked at the end.
    behind: Option<u64>,
}

struct Stage {
    cluster: Cluster,
    operator: Client,
    target: Target,
    lane: LaneId,
    leader: u32,
    delay_us: u64,
}

/// Measures, prints the table, and says whether the bounds are kept.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    println!("A bad follower and its leader, on {}", conditions::machine());
    println!("data in {}", folder.path().display());
    let watch = Watch::start();
    let options = Options::seconds(settings.seconds);
    let device = floor::disk::run(folder.path(), &Options::seconds(1.0))?;
    let commit_us = device.commit.summary().p50 / 1_000;
    let delay_us = commit_us * u64::from(settings.times) / 2;
    println!(
        "one block written and flushed takes {commit_us} µs; the slow disk takes {delay_us} µs more for each write and as \
         much for each flush"
    );
    let network = Network::loopback(3)?;
    let cluster = Cluster::new(&settings.binary, folder.path(), network, 3, 1, 7)?;
    let mut stage = Stage::begin(cluster, delay_us)?;
    let budget = stage.cluster.config(0).memory.shard_bytes + PROCESS_BYTES;

    let mut table = Table::new([
        "load, quorum_durable",
        "the follower is",
        "p50",
        "p99",
        "to absent",
        "max",
        "records/s",
        "leader's memory",
        "it lacks",
    ]);
    let mut is_good = true;
    for shape in &SHAPES {
        let mut sides: Vec<(Side, Figures)> =
            Side::ALL.map(|side| (side, Figures::default())).into();
        for _ in 0..settings.rounds {
            for (side, figures) in &mut sides {
                stage.measure(*side, shape, &options, figures)?;
            }
        }
        let absent = sides.iter().find(|(side, _)| *side == Side::Absent);
        let absent = absent.map_or(f64::NAN, |(_, figures)| median(figures.p99s.clone()));
        for (at, (side, figures)) in sides.iter().enumerate() {
            let ratio = median(figures.p99s.clone()) / absent;
            if side.is_judged() && (ratio > P99_RATIO_MAX || figures.resident > budget) {
                is_good = false;
            }
            let time = |list: &Vec<f64>| show(median(list.clone()) as u64);
            table.row([
                if at == 0 { shape.name.to_owned() } else { String::new() },
                side.name().to_owned(),
                time(&figures.p50s),
                time(&figures.p99s),
                format!("{ratio:.2}"),
                time(&figures.maxima),
                thousands(median(figures.rates.clone())),
                format!("{} MiB", figures.resident >> 20),
                figures.behind.map_or("-".to_owned(), |behind| thousands(behind as f64)),
            ]);
        }
    }
    println!("{}", table.show());
    println!(
        "Medians of {} rounds of {} s; memory and what it lacks: the most of all rounds. Bounds, for paused and slow: p99 at \
         most {P99_RATIO_MAX} of absent, memory at most {} MiB (a shard's budget and {} MiB).",
        settings.rounds,
        settings.seconds,
        budget >> 20,
        PROCESS_BYTES >> 20,
    );
    println!("{}", watch.stop());
    println!("{}", if is_good { "within the bounds" } else { "NOT within the bounds" });
    // It was started just now, and would not hear that it shall stop in good order.
    stage.wait_until_caught_up()?;
    let failed = stage.cluster.stop_all()?;
    failed.iter().for_each(|line| eprintln!("{line}"));
    Ok(is_good && failed.is_empty())
}

impl Stage {
    /// Starts the brokers; the bad one leads nothing from then on.
    fn begin(mut cluster: Cluster, delay_us: u64) -> io::Result<Self> {
        cluster.members().into_iter().try_for_each(|at| cluster.start(at))?;
        let addresses = cluster.addresses();
        let builder = addresses.iter().fold(Client::builder(), |builder, at| builder.address(at));
        let operator = builder.name("slow-follower").connect().map_err(io::Error::other)?;
        let limit = Instant::now() + PATIENCE;
        let drain = Operation::Drain { broker: BrokerId(BAD as u32 + 1) };
        // Refused while the brokers do not know each other yet.
        loop {
            let admin = operator.admin().timeout(Duration::from_secs(5));
            match admin.carry_out(&drain, PATIENCE, |_, _| {}) {
                Ok(_) => break,
                Err(error) if Instant::now() > limit => return Err(io::Error::other(error)),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        let target = replicated::target(&addresses)?;
        let info = operator.admin().describe_topic(replicated::TOPIC).map_err(io::Error::other)?;
        let place =
            info.places.first().ok_or_else(|| io::Error::other("a topic without partitions"))?;
        let (lane, leader) = (place.lane, place.broker.0);
        Ok(Self { cluster, operator, target, lane, leader, delay_us })
    }

    fn measure(
        &mut self,
        side: Side,
        shape: &Shape,
        options: &Options,
        figures: &mut Figures,
    ) -> io::Result<()> {
        match side {
            Side::There => self.wait_until_caught_up()?,
            Side::Absent => self.cluster.kill(BAD)?,
            Side::Paused => {
                self.cluster.start(BAD)?;
                self.wait_until_caught_up()?;
                self.cluster.pause(BAD, true)?;
            }
            Side::CatchingUp => self.cluster.pause(BAD, false)?,
            Side::Slow => {
                self.wait_until_caught_up()?;
                self.cluster.kill(BAD)?;
                let us = self.delay_us;
                let delays = ("CORELOG_DELAYS", format!("write={us},flush={us}"));
                self.cluster.set_variable(BAD, Some(delays));
                self.cluster.start(BAD)?;
                // It is there, and tries.
                std::thread::sleep(Duration::from_secs(5));
            }
        }
        let mut span = options.span;
        if side == Side::CatchingUp {
            span = Span {
                warm_up: Duration::ZERO,
                measured: span.measured.min(Duration::from_secs(10)),
            };
        }
        let process = self.cluster.process(self.leader as usize - 1).unwrap_or_default();
        let (is_over, resident) = (AtomicBool::new(false), AtomicU64::new(0));
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let bytes = os::resident_bytes(&process.to_string());
                    resident.fetch_max(bytes, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(500));
                }
            });
            let outcome = load::run_beside(shape, &self.target, span, options.cores.load);
            is_over.store(true, Ordering::Relaxed);
            outcome
        })?;
        self.cluster.check()?;
        let summary = outcome.latencies.summary();
        figures.p50s.push(summary.p50 as f64);
        figures.p99s.push(summary.p99 as f64);
        figures.maxima.push(summary.max as f64);
        figures.rates.push(outcome.records_per_second());
        figures.resident = figures.resident.max(resident.into_inner());
        if side != Side::Absent {
            figures.behind = figures.behind.max(self.behind()?);
        }
        if side == Side::Slow {
            self.cluster.set_variable(BAD, None);
            self.cluster.kill(BAD)?;
            self.cluster.start(BAD)?;
        }
        Ok(())
    }

    /// Entries that the bad follower lacks, as far as the leader knows.
    fn behind(&self) -> io::Result<Option<u64>> {
        let admin = self.operator.admin().timeout(Duration::from_secs(5));
        let status = admin.cluster().map_err(io::Error::other)?;
        let lane = status.lane(self.lane).filter(|lane| lane.leader == Some(BrokerId(self.leader)));
        let lane = lane.ok_or_else(|| io::Error::other("the leader has changed"))?;
        let bad = lane.replicas.iter().find(|replica| replica.broker == BrokerId(BAD as u32 + 1));
        Ok(bad.and_then(|bad| bad.behind))
    }

    fn wait_until_caught_up(&self) -> io::Result<()> {
        let limit = Instant::now() + PATIENCE;
        while self.behind()?.is_none_or(|behind| behind > BEHIND_MAX) {
            if Instant::now() > limit {
                return Err(io::Error::other("the follower has not caught up within 60 s"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // What is told of it is up to a second old, and its disk has still to do.
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    }
}
