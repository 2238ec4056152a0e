//! Three brokers in one process, over real sockets and onto real files: what one acknowledges outlives it.
#![cfg(feature = "driver")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use corelog::{Client, Durability, Position, Record};
use corelog_broker::config::Config;
use corelog_broker::driver::LocalCluster;

const PARTITIONS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

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
    let cluster = LocalCluster::start(directory.path(), 3, &settings).expect("it starts");
    Some((cluster, directory))
}

fn client(cluster: &LocalCluster) -> Client {
    let mut builder = Client::builder();
    for address in cluster.addresses() {
        builder = builder.address(address);
    }
    let builder = builder.durability(Durability::QuorumDurable);
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

#[test]
fn three_brokers_serve_and_survive_the_loss_of_any_one() {
    if std::env::var_os("CORELOG_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    }
    let Some((mut cluster, _directory)) = start() else { return };
    let client = client(&cluster);
    eventually(|| client.admin().create_topic("t", PARTITIONS));
    let mut sent = 0;
    for killed in 0..3 {
        produce(&client, &mut sent, 300);
        cluster.kill(killed);
        produce(&client, &mut sent, 300);
        cluster.restart(killed).expect("it starts again");
        produce(&client, &mut sent, 300);
    }
    assert_eq!(consume(&client, sent), sent);
    cluster.stop();
}

fn produce(client: &Client, sent: &mut u64, count: u64) {
    let started = Instant::now();
    let producer = client.producer();
    let handles: Vec<_> = (0..count)
        .map(|_| {
            *sent += 1;
            let value = format!("record {sent}").into_bytes();
            let record = Record::to("t").key(&value).value(&value);
            producer.send(&record).expect("room")
        })
        .collect();
    for handle in handles {
        handle.wait().expect("acknowledged");
    }
    println!("{count} records in {:?}", started.elapsed());
}

fn consume(client: &Client, wanted: u64) -> u64 {
    let mut consumer = client.consumer();
    for partition in 0..PARTITIONS {
        consumer.assign("t", partition, Position::Beginning);
    }
    let mut seen = BTreeSet::new();
    let limit = Instant::now() + PATIENCE;
    while (seen.len() as u64) < wanted && Instant::now() < limit {
        let Some(batch) = consumer.poll(Duration::from_millis(200)).expect("sound data") else {
            continue;
        };
        for record in batch.records() {
            let value = record.value.expect("a value").to_vec();
            assert!(seen.insert(value), "a record comes twice");
        }
    }
    seen.len() as u64
}
