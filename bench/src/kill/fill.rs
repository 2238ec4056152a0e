//! How long recovery takes when there is much to recover.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corelog_protocol::Durability;
use corelog_protocol::ids::ShardId;

use super::Process;
use crate::conditions::Watch;
use crate::floor::Cores;
use crate::load::admin::Admin;
use crate::load::{self, Pace, Shape, Span, Spread, Target};
use crate::place;

/// What it may take.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
const PARTITIONS: u32 = 16;

/// Settings of `corelog-bench kill-cycles --fill-gib`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub binary: PathBuf,
    pub gib: f64,
}

/// Fills a broker, kills it under load, and times the next start up to the first durable ack.
/// True if that took less than the bar.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    let mut process = Process::new(&settings.binary, folder.path())?;
    process.start(1)?;
    let mut admin = Admin::connect(process.address(), ShardId::ANY)?;
    let places = admin.create_topic("full", PARTITIONS, None)?;
    let partitions = places.iter().map(|place| place.partition).collect();
    let shard = places.first().map_or(ShardId::ANY, |place| place.shard);
    let mut target = Target {
        address: process.address(),
        shard,
        partitions,
        spread: Spread::One,
        level: Durability::LeaderDurable,
    };
    let wanted = (settings.gib * (1_u64 << 30) as f64) as u64;
    let begin = Instant::now();
    while bytes_in(folder.path())? < wanted {
        let span = Span { warm_up: Duration::ZERO, measured: Duration::from_secs(1) };
        let outcome = load::run_beside(&Shape::BATCHES, &target, span, Cores::choose().load)?;
        if outcome.batches == 0 {
            return Err(io::Error::other("the broker took nothing for a second"));
        }
        eprintln!(
            "{:.1} of {} GiB after {:.0} s, {:.0} MB/s",
            bytes_in(folder.path())? as f64 / (1_u64 << 30) as f64,
            settings.gib,
            begin.elapsed().as_secs_f64(),
            outcome.megabytes_per_second()
        );
    }
    kill_under_load(&mut process, &target)?;

    let held = bytes_in(folder.path())?;
    let watch = Watch::start();
    let begin = Instant::now();
    let up = process.start(1)?;
    let one = Shape { name: "first ack", pace: Pace::InFlight(1), ..Shape::ONE_AT_A_TIME };
    let span = Span { warm_up: Duration::ZERO, measured: Duration::from_millis(1) };
    target.partitions.truncate(1);
    load::run_beside(&one, &target, span, Cores::choose().load)?;
    let first_ack = begin.elapsed();
    let reached = first_ack < RECOVERY_MAX;
    println!(
        "{:.2} GiB of segments: answers a hello after {} ms, first durable ack after {} ms; {}. \
         The bar of {} s is {}.",
        held as f64 / (1_u64 << 30) as f64,
        up.as_millis(),
        first_ack.as_millis(),
        watch.stop(),
        RECOVERY_MAX.as_secs(),
        if reached { "reached" } else { "MISSED" },
    );
    process.kill()?;
    Ok(reached)
}

/// The load is cut by the kill: its error is expected.
fn kill_under_load(process: &mut Process, target: &Target) -> io::Result<()> {
    std::thread::scope(|scope| {
        let span = Span { warm_up: Duration::ZERO, measured: Duration::from_secs(5) };
        let load = scope.spawn(move || load::run(&Shape::BATCHES, target, span, None));
        std::thread::sleep(Duration::from_millis(700));
        process.kill()?;
        match load.join() {
            Ok(Err(_)) => Ok(()),
            _ => Err(io::Error::other("the kill did not hit a broker under load")),
        }
    })
}

/// Bytes of all files in a folder and below.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let facts = match entry.metadata() {
            // A segment may be renamed or dropped while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            facts => facts?,
        };
        bytes += if facts.is_dir() { bytes_in(&entry.path())? } else { facts.len() };
    }
    Ok(bytes)
}
