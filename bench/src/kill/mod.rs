//! `kill -9` under load, again and again, on the real broker process and a real disk; then every
//! record that was acknowledged durable must be there, once, in order, byte for byte.
//!
//! What this proves: recovery from any instruction the process was at. What it cannot prove: that
//! a flush happened, since the page cache and the device's cache survive a kill. That is the
//! simulator's part.

pub mod fill;
mod process;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelog_broker::random::Random;
use corelog_protocol::Durability;

use crate::latency::show;
use crate::place;
use crate::report::thousands;
use crate::traffic::link::{Link, Reader};
use crate::traffic::{self, Topic, Traffic};
use crate::verify::Verdict;
pub use process::{Process, Program, default_binary, free_ports};

/// Settings of `corelog-bench kill-cycles`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub binary: PathBuf,
    pub cycles: u32,
    /// Chooses the moments of the kills.
    pub seed: u64,
    pub per_second: f64,
}

const PATIENCE: Duration = Duration::from_secs(20);
const TOPICS: [(&str, u32); 2] = [("ledger", 6), ("journal", 3)];
const VALUE_BYTES: usize = 200;

/// A broker is killed so many milliseconds after the load began.
const KILL_MS: std::ops::Range<u64> = 20..600;

/// A keyed and an unkeyed producer on each topic, at both durable levels.
fn plan() -> Vec<(u32, Option<u64>, Durability)> {
    let levels = [Durability::LeaderDurable, Durability::QuorumDurable];
    let topics = 0..TOPICS.len() as u32;
    topics
        .flat_map(|topic| levels.map(|level| [(topic, Some(50), level), (topic, None, level)]))
        .flatten()
        .collect()
}

/// Runs all cycles. True if nothing was wrong.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    println!("seed {}, broker {}", settings.seed, settings.binary.display());
    println!("data in {}", folder.path().display());
    let topics = TOPICS.map(|(name, partitions)| Topic { name, partitions }).to_vec();
    let traffic = Arc::new(Traffic::new(settings.seed, topics, &plan(), VALUE_BYTES));
    let mut process = Process::new(&settings.binary, folder.path())?;
    let mut random = Random::new(settings.seed);
    let mut starts = Vec::new();
    let mut killed_busy = 0;
    for cycle in 0..settings.cycles {
        let shards = 1 + cycle as usize % 2;
        starts.push(process.start(shards)?);
        let link = Link::connect(&[process.address()], None, &traffic)?;
        if cycle == 0 {
            for topic in &traffic.topics {
                link.create_topic(topic.name, topic.partitions)?;
            }
        }
        let moment = KILL_MS.start + random.below(KILL_MS.end - KILL_MS.start);
        let moment = Duration::from_millis(moment);
        let busy = live(settings, &traffic, link, &mut process, moment)?;
        killed_busy += u32::from(busy > 0);
        let (seen, found) = traffic.with_ledger(|ledger| (ledger.seen(), ledger.anomalies_found()));
        println!(
            "cycle {:>3}: {shards} shard(s), up in {:>3} ms, killed after {:>3} ms with {busy:>4} \
             requests open; {} records read so far, {found} anomalies",
            cycle + 1,
            starts.last().map_or(0, Duration::as_millis),
            moment.as_millis(),
            thousands(seen as f64),
        );
    }
    let verdict = last_reading(traffic, &mut process)?;
    Ok(conclude(settings, &verdict, &starts, killed_busy))
}

/// One life of the broker: load from the first moment, the consumer beside it, then the kill. Gives
/// the number of sends that were open when it came.
fn live(
    settings: &Settings,
    traffic: &Arc<Traffic>,
    link: Link,
    process: &mut Process,
    moment: Duration,
) -> io::Result<u64> {
    let done = AtomicBool::new(false);
    let mut reader = reader_where_it_stood(traffic, &link)?;
    traffic.resume();
    let busy = std::thread::scope(|scope| {
        let producing = scope.spawn(|| traffic::produce(traffic, &link, settings.per_second));
        let reading = scope.spawn(|| traffic::read_along(traffic, &mut reader, &done));
        std::thread::sleep(moment);
        let killed = process.kill();
        let busy = traffic.unsettled();
        traffic.stop();
        done.store(true, Ordering::SeqCst);
        let produced = join(producing);
        join(reading)?;
        produced.and(killed).map(|()| busy)
    })?;
    drop(reader);
    // Nobody will answer any more: what is open becomes a failure whose outcome is unknown.
    link.close();
    let limit = Instant::now() + PATIENCE;
    while traffic.unsettled() > 0 {
        if Instant::now() > limit {
            return Err(io::Error::other("a closed client left sends without a word"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(busy)
}

fn reader_where_it_stood(traffic: &Traffic, link: &Link) -> io::Result<Reader> {
    link.reader(&traffic.topics, |topic, partition| {
        traffic.with_ledger(|ledger| ledger.next_offset((topic, partition)))
    })
}

/// One more start; reads on to the end, then everything again from the beginning.
fn last_reading(traffic: Arc<Traffic>, process: &mut Process) -> io::Result<Verdict> {
    process.start(2)?;
    let link = Link::connect(&[process.address()], None, &traffic)?;
    let mut reader = reader_where_it_stood(&traffic, &link)?;
    traffic::read_to_end(&traffic, &link, &mut reader, PATIENCE)?;
    drop(reader);
    traffic.with_ledger(|ledger| ledger.read_again());
    let mut reader = reader_where_it_stood(&traffic, &link)?;
    traffic::read_to_end(&traffic, &link, &mut reader, PATIENCE * 3)?;
    drop(reader);
    link.close();
    process.kill()?;
    let traffic =
        Arc::into_inner(traffic).ok_or_else(|| io::Error::other("a send is still under way"))?;
    Ok(traffic.into_ledger().finish())
}

fn conclude(settings: &Settings, verdict: &Verdict, starts: &[Duration], busy: u32) -> bool {
    let longest = starts.iter().max().map_or(0, |time| time.as_nanos() as u64);
    println!(
        "\n{} cycles, {busy} of them killed with requests open; {} records sent, {} acknowledged \
         durable, {} refused, {} open of which {} arrived; longest start {}.",
        settings.cycles,
        thousands(verdict.sent as f64),
        thousands(verdict.acknowledged_durable as f64),
        thousands(verdict.refused as f64),
        thousands(verdict.open as f64),
        thousands(verdict.open_seen as f64),
        show(longest),
    );
    if !verdict.is_clean() {
        println!("FAILED: {} anomalies. The first:", verdict.anomalies_found);
        for anomaly in &verdict.anomalies {
            println!("  {anomaly}");
        }
        return false;
    }
    if verdict.acknowledged_durable == 0 || busy == 0 {
        println!("FAILED: nothing was acknowledged, or no kill hit a busy broker: proves nothing.");
        return false;
    }
    println!(
        "Proved: everything acknowledged durable is there, byte for byte, once, in order, at its \
         offset; nothing that a consumer saw has changed or gone."
    );
    true
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the load panicked")))
}
