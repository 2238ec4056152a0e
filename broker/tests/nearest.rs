//! Three brokers in three racks, over real sockets and onto real files: consumers that name a rack read from the broker in
//! it, each record once and in order, while leaders change and brokers come and go.
#![cfg(feature = "driver")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corelog::engine::Counters;
use corelog::{Client, Durability, Operation, Position, Record};
use corelog_broker::config::Config;
use corelog_broker::driver::LocalCluster;

const PARTITIONS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);
const RACKS: [&str; 3] = ["a", "b", "c"];

/// `None`, with a line that says why, where there is no direct I/O.
fn start() -> Option<(LocalCluster, tempfile::TempDir)> {
    let directory = tempfile::tempdir().expect("a directory");
    let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
    if let Some(reason) = facts.direct_io_error {
        println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
        return None;
    }
    let mut settings = Config::embedded(directory.path());
    settings.shards = 1;
    settings.free_bytes_min = 0;
    settings.memory.io_bytes = 1 << 20;
    settings.log.segment_bytes = 4 << 20;
    let in_rack = |at: usize, config: &mut Config| config.cluster.rack = RACKS[at].into();
    let cluster = LocalCluster::start_each(directory.path(), 3, &settings, in_rack);
    Some((cluster.expect("it starts"), directory))
}

fn client(addresses: &[SocketAddr], rack: &str) -> Client {
    let builder = Client::builder().durability(Durability::QuorumDurable).rack(rack);
    let builder = addresses.iter().fold(builder, |builder, address| builder.address(*address));
    builder.connect().expect("a client")
}

/// Tries until it works: right after a start nobody leads yet.
fn eventually<T, E: std::fmt::Debug>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) if Instant::now() > limit => panic!("not in time: {error:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Records, until told to stop. Returns how many, all of them acknowledged.
fn produce(addresses: &[SocketAddr], is_over: &AtomicBool) -> u64 {
    let client = client(addresses, "");
    let producer = client.producer();
    let mut sent = 0u64;
    while !is_over.load(Ordering::Relaxed) {
        let mut send = |_| {
            sent += 1;
            let value = sent.to_string().into_bytes();
            producer.send(&Record::to("t").key(&value).value(&value)).expect("room")
        };
        let handles: Vec<_> = (0..10).map(&mut send).collect();
        for handle in handles {
            handle.wait().expect("acknowledged");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    sent
}

/// Reads everything that there is in the end, in a rack, each record once and in order.
fn consume(addresses: &[SocketAddr], rack: &str, wanted: &AtomicU64) -> (Counters, u64) {
    let client = client(addresses, rack);
    let mut consumer = client.consumer();
    for partition in 0..PARTITIONS {
        consumer.assign("t", partition, Position::Beginning);
    }
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut heard_at = Instant::now();
    while (seen.len() as u64) < wanted.load(Ordering::Relaxed) {
        assert!(
            heard_at.elapsed() < PATIENCE,
            "{rack}: nothing comes after {} records",
            seen.len()
        );
        let polled = consumer.poll(Duration::from_millis(200)).expect("sound data");
        let Some(batch) = polled else { continue };
        heard_at = Instant::now();
        for record in batch.records() {
            let next = next.entry(batch.partition).or_default();
            assert_eq!(record.offset.0, *next, "{rack}: partition {}", batch.partition);
            *next += 1;
            assert!(seen.insert(record.value.expect("a value").to_vec()), "a record comes twice");
        }
    }
    (client.counters(), seen.len() as u64)
}

/// Gives each lane to another of its replicas.
fn move_leaders(client: &Client) {
    for lane in eventually(|| client.admin().cluster()).lanes {
        let others = lane.replicas.iter().map(|replica| replica.broker);
        let to = others.rev().find(|id| lane.leader != Some(*id)).expect("three replicas");
        let operation = Operation::Transfer { lane: lane.lane, to };
        eventually(|| client.admin().carry_out(&operation, PATIENCE, |_, _| {}));
    }
}

/// How often brokers have served what they do not lead.
fn follower_reads(addresses: &[SocketAddr]) -> u64 {
    let of = |address: &SocketAddr| {
        let client = client(&[*address], "");
        let status = eventually(|| client.admin().status("follower_reads"));
        status.shards.iter().flat_map(|shard| shard.values.iter()).sum::<u64>()
    };
    addresses.iter().map(of).sum()
}

#[test]
fn consumers_in_three_racks_read_everything_once_from_brokers_of_their_own_while_leaders_change() {
    let Some((mut cluster, _directory)) = start() else { return };
    let addresses = cluster.addresses();
    let admin = client(&addresses, "");
    let topic = eventually(|| admin.admin().create_topic("t", PARTITIONS));
    let racks: Vec<&str> = topic.brokers.places.iter().map(|place| place.rack.as_str()).collect();
    assert_eq!(racks, RACKS);
    let (is_over, wanted) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        let readers = RACKS.map(|rack| {
            let (addresses, wanted) = (&addresses, &wanted);
            scope.spawn(move || consume(addresses, rack, wanted))
        });
        let producer = scope.spawn(|| produce(&addresses, &is_over));
        std::thread::sleep(Duration::from_secs(3));
        move_leaders(&admin);
        std::thread::sleep(Duration::from_secs(6));
        cluster.kill(1);
        std::thread::sleep(Duration::from_secs(2));
        cluster.restart(1).expect("it starts again");
        std::thread::sleep(Duration::from_secs(7));
        move_leaders(&admin);
        std::thread::sleep(Duration::from_secs(6));
        is_over.store(true, Ordering::Relaxed);
        let sent = producer.join().expect("it ends");
        assert!(sent > 100);
        wanted.store(sent, Ordering::Relaxed);
        for (rack, reader) in RACKS.iter().zip(readers) {
            let (counters, seen) = reader.join().expect("it ends");
            println!("{rack}: {seen} records, {counters:?}");
            assert_eq!(seen, sent);
            assert!(counters.records_of_followers > 0, "{rack}: {counters:?}");
            assert!(counters.fetches_of_followers > 0 && counters.fetches_of_leaders > 0);
        }
    });
    assert!(follower_reads(&addresses) > 0);
    cluster.stop();
}
