//! What three copies cost: one broker and a local cluster of three side by side in this process, under the same load in
//! turns, on the same disk and the same cores. So the cluster does three times the work on what one broker has to
//! itself: the ratios say what replication costs a machine, not how fast three machines are.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corelog_broker::config::Config;
use corelog_broker::driver::{Broker, LocalCluster};
use corelog_protocol::Durability;
use corelog_protocol::ids::ShardId;

use crate::conditions::{self, Watch};
use crate::floor::Options;
use crate::latency::{median, show};
use crate::load::admin::Admin;
use crate::load::{self, Pace, Shape, Spread, Target};
use crate::os::cpu_time;
use crate::place;
use crate::report::{Table, thousands};

/// Settings of `corelog-bench replicated`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub rounds: usize,
    /// Length of each measurement.
    pub seconds: f64,
}

/// How long a cluster may take until its lanes are led.
const PATIENCE: Duration = Duration::from_secs(20);

const SHAPES: [Shape; 4] = [
    Shape::ONE_AT_A_TIME,
    Shape {
        name: "open loop, 2,000/s over 4 connections, 100 B",
        connections: 4,
        pace: Pace::PerSecond(2_000.0),
        records_per_batch: 1,
        record_bytes: 100,
    },
    Shape::SINGLES,
    Shape::BATCHES,
];

/// The figures of one side, round by round.
#[derive(Default)]
struct Figures {
    p50s: Vec<f64>,
    p99s: Vec<f64>,
    rates: Vec<f64>,
    cpu_micros: Vec<f64>,
    disk_bytes: Vec<f64>,
}

/// Runs both, and prints the table.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    println!("One broker and three, on {}", conditions::machine());
    println!("data in {}", folder.path().display());
    let watch = Watch::start();
    let options = Options::seconds(settings.seconds);
    let mut config = Config::embedded(folder.path());
    config.shards = 1;
    config.free_bytes_min = 0;
    config.log.lanes_per_shard = 1;
    config.memory.io_bytes = 4 << 20;

    let mut alone = config.clone();
    alone.data = vec![folder.path().join("alone")];
    let alone = Broker::start(alone).map_err(io::Error::other)?;
    let cluster = LocalCluster::start(&folder.path().join("three"), 3, &config);
    let cluster = cluster.map_err(io::Error::other)?;
    let one = target(&[alone.address()])?;
    let three = target(&cluster.addresses())?;

    let mut figures: Vec<[Figures; 2]> = SHAPES.iter().map(|_| Default::default()).collect();
    for _ in 0..settings.rounds {
        for (shape, sides) in SHAPES.iter().zip(&mut figures) {
            for (target, side) in [&one, &three].into_iter().zip(sides) {
                let written = || match target.address == one.address {
                    true => device_bytes(std::iter::once(&alone)),
                    false => device_bytes(cluster.brokers().iter().flatten()),
                };
                let (cpu, bytes) = (cpu_time()?, written());
                let outcome = load::run_beside(shape, target, options.span, options.cores.load)?;
                let summary = outcome.latencies.summary();
                let records = outcome.batches_in_all as f64 * shape.records_per_batch as f64;
                side.p50s.push(summary.p50 as f64);
                side.p99s.push(summary.p99 as f64);
                side.rates.push(outcome.records_per_second());
                side.cpu_micros.push((cpu_time()? - cpu).as_secs_f64() * 1e6 / records);
                side.disk_bytes.push((written() - bytes) as f64 / records);
            }
        }
    }
    let mut table = Table::new([
        "load, quorum_durable",
        "",
        "p50",
        "p99",
        "records/s",
        "CPU µs/record",
        "disk B/record",
    ]);
    for (shape, [one, three]) in SHAPES.iter().zip(figures) {
        let name = shape.name.to_owned();
        table.row(line(name, "one broker", &one));
        table.row(line(String::new(), "three", &three));
        let ratio = |pick: fn(&Figures) -> &Vec<f64>| {
            format!("{:.2}", median(pick(&three).clone()) / median(pick(&one).clone()))
        };
        table.row([
            String::new(),
            "ratio".to_owned(),
            ratio(|it| &it.p50s),
            ratio(|it| &it.p99s),
            ratio(|it| &it.rates),
            ratio(|it| &it.cpu_micros),
            ratio(|it| &it.disk_bytes),
        ]);
    }
    println!("{}", table.show());
    println!(
        "Medians of {} rounds of {} s. CPU is that of the process: brokers and load.",
        settings.rounds, settings.seconds
    );
    println!("{}", watch.stop());
    cluster.stop();
    alone.stop();
    Ok(true)
}

fn line(name: String, side: &str, figures: &Figures) -> [String; 7] {
    let nanos = |list: &Vec<f64>| show(median(list.clone()) as u64);
    [
        name,
        side.to_owned(),
        nanos(&figures.p50s),
        nanos(&figures.p99s),
        thousands(median(figures.rates.clone())),
        format!("{:.1}", median(figures.cpu_micros.clone())),
        thousands(median(figures.disk_bytes.clone())),
    ]
}

/// With one partition.
pub const TOPIC: &str = "replicated";

/// The topic, at the broker that leads it.
pub fn target(addresses: &[std::net::SocketAddr]) -> io::Result<Target> {
    let limit = Instant::now() + PATIENCE;
    loop {
        for &address in addresses {
            let mut admin = Admin::connect(address, ShardId::ANY)?;
            // Made at the first that can; the others know it by then.
            _ = admin.create_topic(TOPIC, 1, None);
            let Ok(topic) = admin.describe_topic(TOPIC) else { continue };
            let Some(place) = topic.places.first() else { continue };
            let leader = topic.brokers.get(place.broker).map(|broker| broker.address);
            let leader = if topic.brokers.places.is_empty() { Some(address) } else { leader };
            if let Some(address) = leader {
                return Ok(Target {
                    address,
                    shard: place.shard,
                    partitions: vec![place.partition],
                    spread: Spread::One,
                    level: Durability::QuorumDurable,
                });
            }
        }
        if Instant::now() > limit {
            return Err(io::Error::other("nobody leads the topic"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What brokers have written to their logs.
fn device_bytes<'a>(brokers: impl Iterator<Item = &'a Broker>) -> u64 {
    let names = ["bytes_data", "bytes_padding", "bytes_fill"];
    let mut sum = 0;
    for broker in brokers {
        let counters = broker.counters();
        sum += names.iter().map(|name| counters.total(name)).sum::<u64>();
    }
    sum
}
