//! Faults on a cluster of real processes under load, one after another: first what an operator does on purpose, then
//! `kill -9`, frozen processes, cut networks. Then the history says whether the cluster kept its word.
//!
//! [`cluster`] has the processes, [`network`] what lies between them, [`load`] the clients, [`disk`] a second
//! reader of what the brokers wrote.

pub mod cluster;
mod disk;
mod fault;
mod load;
pub mod network;
mod outage;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corelog::{Client, TopicInfo, TopicSettings};
use corelog_broker::random::Random;
use corelog_protocol::Durability;
use corelog_protocol::ids::PartitionId;

use crate::history::{History, Partition, Reader, Verdict};
use crate::place;
use crate::report::{Table, thousands};
use cluster::Cluster;
use fault::{Fault, Kind, inflict, sleep_between};
use load::{Along, Consumed, Run, TOPICS};
use network::Network;

/// Settings of `corelog-bench cluster-faults`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub binary: PathBuf,
    pub kills: u32,
    pub pauses: u32,
    pub partitions: u32,
    /// Planned operations, before all faults.
    pub operations: u32,
    pub seed: u64,
    /// Records per second, over all producers.
    pub per_second: f64,
    /// Shards of each broker.
    pub shards: usize,
    /// The data and the logs stay there also when all is well.
    pub keep: bool,
}

const BROKERS: usize = 3;
/// And one that takes the place of another.
const PLACES: usize = BROKERS + 1;
const CLIENTS: usize = 2;
/// From the start of all brokers, or the end of a fault, until every partition serves.
const SERVICE_MAX: Duration = Duration::from_secs(30);
/// In which what was acknowledged at any level is on every disk.
const SPREAD: Duration = Duration::from_secs(2);
const LAST_READING_MAX: Duration = Duration::from_secs(120);

/// Runs it. True if the history is as it must be.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let mut folder = place::temporary_folder(settings.folder.as_deref())?;
    println!("seed {}, broker {}", settings.seed, settings.binary.display());
    println!("data and logs in {}", folder.path().display());
    let outcome = run_in(settings, folder.path());
    if settings.keep || !matches!(outcome, Ok(true)) {
        folder.disable_cleanup(true);
        println!("Data and logs are kept in {}.", folder.path().display());
    }
    outcome
}

fn run_in(settings: &Settings, folder: &std::path::Path) -> io::Result<bool> {
    let network = match settings.partitions {
        0 => Network::loopback(PLACES)?,
        _ => Network::namespaces(PLACES)?,
    };
    let (binary, shards) = (&settings.binary, settings.shards);
    let mut cluster = Cluster::new(binary, folder, network, BROKERS, shards, settings.seed)?;
    for at in cluster.members() {
        cluster.start(at)?;
    }
    let addresses = cluster.addresses();
    let operator = load::connect(&addresses, "operator")?;
    let begin = Instant::now();
    create_topics(&operator)?;
    println!("three brokers serve after {} ms", begin.elapsed().as_millis());

    let run = Arc::new(Run::new(settings.seed));
    let (story, faults, consumed) = under_load(settings, &run, &mut cluster, &operator)?;
    if let Err(error) = &story {
        println!("{error}");
    }
    let reader = load::connect(&addresses, "last-reader")?;
    println!("reading everything through the leaders");
    let along = Along::new(&reader, Reader::Last);
    let last = along.read_to_end(&run, &reader, LAST_READING_MAX);
    let known = known_partitions(&operator)?;
    drop((operator, reader));
    // Followers get what they still lack.
    std::thread::sleep(Duration::from_secs(1));
    let mut complaints = cluster.stop_all()?;
    complaints.extend(story.err().map(|error| error.to_string()));
    println!("reading the disks of the stopped brokers");
    let mut history = run.history();
    let mut verdict_of_disks = Vec::new();
    let mut disks = Vec::new();
    for at in cluster.members() {
        let (number, data) = (cluster.number(at), cluster.folder(at).join("data"));
        match disk::read(number, &data, &history, &known) {
            Ok(disk) => disks.push(disk),
            Err(error) => verdict_of_disks.push(format!("disk of broker {number}: {error}")),
        }
    }
    history.add_disks(&disks);
    for consumed in [consumed, last] {
        for (error, count) in consumed.errors {
            println!("{} was told {count} times: {error}", consumed.reading.reader);
        }
        history.add_reading(consumed.reading);
    }
    for (error, count) in run.failures() {
        println!("producers were told {count} times: {error}");
    }
    let mut verdict = history.check(&load::partitions());
    verdict.unknown.extend(verdict_of_disks);
    show_outages(&history, &faults);
    drop(cluster);
    Ok(conclude(&verdict, &faults, &complaints))
}

type UnderLoad = (io::Result<()>, Vec<Fault>, Consumed);

/// All faults, while clients produce and consume.
fn under_load(
    settings: &Settings,
    run: &Arc<Run>,
    cluster: &mut Cluster,
    operator: &Client,
) -> io::Result<UnderLoad> {
    let addresses = cluster.addresses();
    let connect = |name| load::connect(&addresses, name);
    let clients = (0..CLIENTS).map(|_| connect("producer")).collect::<io::Result<Vec<_>>>()?;
    let consumer = connect("consumer")?;
    std::thread::scope(|scope| {
        let mut producing = Vec::new();
        for client in &clients {
            let producers = run.producers();
            let rate = settings.per_second / CLIENTS as f64;
            producing.push(scope.spawn(move || load::produce(run, client, &producers, rate)));
        }
        let along = Along::new(&consumer, Reader::Consumer(1));
        let reading = scope.spawn(|| along.read(run));
        let mut faults = Vec::new();
        let mut story = inflict_all(settings, run, cluster, operator, &mut faults);
        run.stop();
        for thread in producing {
            let ended = thread.join();
            story =
                story.and(ended.unwrap_or_else(|_| Err(io::Error::other("a producer panicked"))));
        }
        let consumed = reading.join().map_err(|_| io::Error::other("the consumer panicked"))?;
        Ok((story, faults, consumed))
    })
}

fn inflict_all(
    settings: &Settings,
    run: &Run,
    cluster: &mut Cluster,
    operator: &Client,
    faults: &mut Vec<Fault>,
) -> io::Result<()> {
    let mut random = Random::new(settings.seed);
    let mut plan = Vec::new();
    plan.extend((0..settings.kills).map(|_| Kind::Kill));
    plan.extend((0..settings.pauses).map(|_| Kind::Pause));
    // Half of them in one direction only.
    plan.extend((0..settings.partitions).map(|at| match at % 4 {
        0 | 2 => Kind::Cut,
        1 => Kind::Mute,
        _ => Kind::Deaf,
    }));
    shuffle(&mut plan, &mut random);
    // Nothing but these happens until then, so whatever goes wrong is their fault.
    let operations = Kind::PLANNED.into_iter().cycle().take(settings.operations as usize);
    plan.splice(0..0, operations);
    wait_for_service(run, cluster, run.now())?;
    let total = plan.len();
    let begin = run.now();
    for (number, kind) in (1..).zip(plan) {
        if !kind.is_planned() && faults.last().is_some_and(|last| last.kind.is_planned()) {
            end_operations(run, faults, begin);
        }
        sleep_between(&mut random, 200, 1200);
        let members = cluster.members();
        let mut at = random.below(members.len() as u64) as usize;
        let mut led = led_by(operator, cluster.number(members[at]))?;
        // Three of four faults hit somebody who leads.
        while led.is_empty() && random.below(4) > 0 {
            at = (at + 1) % members.len();
            led = led_by(operator, cluster.number(members[at]))?;
        }
        let broker = members[at];
        let from = run.now();
        if let Some(last) = faults.last_mut() {
            last.until = from;
        }
        println!(
            "{number:>4} of {total}: {kind} broker {}, which leads {} partitions",
            cluster.number(broker),
            led.len()
        );
        faults.push(Fault { kind, led, from, until: u64::MAX });
        inflict(kind, broker, cluster, operator, &mut random)?;
        let healed = run.now();
        let back = wait_for_service(run, cluster, healed)?;
        println!(
            "              over after {} ms; all serve {} ms later; {} acknowledged so far",
            (healed - from) / 1_000_000,
            back.as_millis(),
            thousands(run.acknowledged() as f64)
        );
    }
    sleep_between(&mut random, 1000, 1500);
    if let Some(last) = faults.last_mut() {
        last.until = run.now();
    }
    if faults.last().is_some_and(|last| last.kind.is_planned()) {
        end_operations(run, faults, begin);
    }
    cluster.check()
}

/// What was sent so far has met planned operations alone, and is on all disks before the first fault.
fn end_operations(run: &Run, faults: &mut [Fault], begin: u64) {
    let end = run.now();
    if let Some(last) = faults.last_mut() {
        last.until = last.until.min(end);
    }
    run.history().expect_calm(begin..end);
    std::thread::sleep(SPREAD);
}

fn shuffle(plan: &mut [Kind], random: &mut Random) {
    for at in (1..plan.len()).rev() {
        plan.swap(at, random.below(at as u64 + 1) as usize);
    }
}

/// Waits until every partition has acknowledged, at the highest level, what came after `since`.
fn wait_for_service(run: &Run, cluster: &mut Cluster, since: u64) -> io::Result<Duration> {
    let begin = Instant::now();
    loop {
        cluster.check()?;
        let silent = {
            let history = run.history();
            let mut silent = load::partitions();
            silent.retain(|at| !history.has_acknowledged(*at, Durability::QuorumDurable, since));
            silent
        };
        if silent.is_empty() {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > SERVICE_MAX {
            return Err(io::Error::other(format!(
                "NO SERVICE within {} s, though all brokers run: (topic, partition) {silent:?}",
                SERVICE_MAX.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn create_topics(operator: &Client) -> io::Result<()> {
    let admin = operator.admin().timeout(Duration::from_secs(5));
    let limit = Instant::now() + SERVICE_MAX;
    for (name, partitions) in TOPICS {
        let settings =
            TopicSettings { partitions, replicas: 0, retention_ms: None, retention_bytes: None };
        loop {
            // An answer that was lost is found out about by asking.
            let made = admin
                .create_topic_with(name, settings)
                .or_else(|error| admin.describe_topic(name).map_err(|_| error));
            match made {
                Ok(_) => break,
                Err(error) if Instant::now() > limit => return Err(io::Error::other(error)),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    Ok(())
}

fn describe(operator: &Client, name: &str) -> io::Result<TopicInfo> {
    let admin = operator.admin().timeout(Duration::from_secs(10));
    admin.describe_topic(name).map_err(io::Error::other)
}

/// The partitions that this broker leads, as others say.
fn led_by(operator: &Client, broker: u32) -> io::Result<Vec<Partition>> {
    let mut led = Vec::new();
    for (topic, (name, _)) in (0..).zip(TOPICS) {
        let places = describe(operator, name)?.places;
        let own = (0..).zip(places).filter(|(_, place)| place.broker.0 == broker);
        led.extend(own.map(|(partition, _)| (topic, partition)));
    }
    Ok(led)
}

fn known_partitions(operator: &Client) -> io::Result<BTreeMap<PartitionId, Partition>> {
    let mut known = BTreeMap::new();
    for (topic, (name, _)) in (0..).zip(TOPICS) {
        let places = describe(operator, name)?.places;
        known.extend((0..).zip(places).map(|(at, place)| (place.partition, (topic, at))));
    }
    Ok(known)
}

/// Of the partitions that the broker led: the longest time between two acknowledgments.
fn show_outages(history: &History, faults: &[Fault]) {
    println!("\nWithout an acknowledgment, partitions that the broker led:");
    for kind in Kind::ALL {
        let of_kind: Vec<&Fault> = faults.iter().filter(|fault| fault.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let mut gaps = Vec::new();
        for partition in load::partitions() {
            let times = history.acknowledged_at(partition, Durability::QuorumDurable);
            let led = of_kind.iter().filter(|fault| fault.led.contains(&partition));
            gaps.extend(
                led.filter_map(|fault| outage::longest_gap(&times, fault.from, fault.until)),
            );
        }
        println!("  {:<32}{}", kind.to_string(), outage::summary(&mut gaps));
    }
}

fn conclude(verdict: &Verdict, faults: &[Fault], complaints: &[String]) -> bool {
    let mut table = Table::new([
        "level",
        "sent",
        "acknowledged",
        "refused",
        "open",
        "of these there",
        "acknowledged, gone",
    ]);
    for level in Durability::ALL {
        let tally = verdict.tally(level);
        let numbers = [
            tally.sent,
            tally.acknowledged,
            tally.refused,
            tally.open,
            tally.open_seen,
            tally.gone,
        ];
        let [a, b, c, d, e, f] = numbers.map(|number| thousands(number as f64));
        table.row([level.name().to_string(), a, b, c, d, e, f]);
    }
    print!("\n{}", table.show());
    println!(
        "\n{} faults; {} records held, {} read along, {} on {} disks, {} not yet on a disk, {} in tails that \
         gave way.",
        faults.len(),
        thousands(verdict.held as f64),
        thousands(verdict.consumed as f64),
        thousands(verdict.on_disks as f64),
        verdict.disks,
        thousands(verdict.behind as f64),
        thousands(verdict.tails as f64),
    );
    for complaint in complaints {
        println!("FAILED: {complaint}");
    }
    if !verdict.found.is_empty() {
        println!("FAILED: {:?}. The first of each:", verdict.found);
    }
    for anomaly in &verdict.anomalies {
        println!("  {anomaly}");
    }
    for reason in &verdict.unknown {
        println!("UNKNOWN, since not everything could be read: {reason}");
    }
    if !verdict.is_clean() || !complaints.is_empty() {
        return false;
    }
    if verdict.tally(Durability::QuorumDurable).acknowledged == 0 || verdict.disks < 3 {
        println!("FAILED: nothing was acknowledged: proves nothing.");
        return false;
    }
    println!(
        "Proved: what a quorum's disks acknowledged is there, once, in order, at its offset, alike on every disk that \
         has it and on two at least; what a consumer saw has not changed; nothing is there that nobody sent."
    );
    true
}
