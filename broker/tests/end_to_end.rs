//! A broker and its client in one process, over real sockets and real files.
#![cfg(feature = "driver")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use corelog::{Client, Durability, Error, ErrorCode, Header, Offset, Position, Record};
use corelog_broker::config::Config;
use corelog_broker::driver::Broker;

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory on a real file system, or `None` with a line that says why the test is skipped.
fn real_directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
    if let Some(reason) = facts.direct_io_error {
        println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
        return None;
    }
    Some(directory)
}

fn start(directory: &Path, shards: usize) -> Broker {
    let mut config = Config::embedded(directory);
    config.shards = shards;
    config.free_bytes_min = 0;
    config.memory.io_bytes = 1 << 20;
    config.log.segment_bytes = 4 << 20;
    Broker::start(config).expect("it starts")
}

fn client(broker: &Broker) -> Client {
    Client::builder().address(broker.address()).connect().expect("a client")
}

fn cores() -> usize {
    corelog_tuning::allowed_cores().len().min(2)
}

/// Reads these many records of a topic from the beginning, and gives the values by partition.
fn read_all(client: &Client, topic: &str, partitions: u32, count: usize) -> Vec<Vec<String>> {
    let mut consumer = client.consumer();
    for partition in 0..partitions {
        consumer.assign(topic, partition, Position::Beginning);
    }
    let mut read = vec![Vec::new(); partitions as usize];
    let mut total = 0;
    while total < count {
        let batch = consumer.poll(PATIENCE).expect("sound data").expect("there is more");
        let values = &mut read[batch.partition as usize];
        for record in batch.records() {
            assert_eq!(record.offset, Offset(values.len() as u64));
            let value = record.value.expect("a value").to_vec();
            values.push(String::from_utf8(value).expect("text"));
            total += 1;
        }
    }
    assert_eq!(total, count);
    read
}

#[test]
fn what_is_sent_at_each_level_is_acknowledged_at_it_and_read_back_in_order() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), cores());
    let client = client(&broker);
    let topic = client.admin().create_topic("orders", 4).expect("created");
    assert_eq!(topic.places.len(), 4);
    let producer = client.producer();
    let levels = [
        Durability::None,
        Durability::LeaderMemory,
        Durability::LeaderDurable,
        Durability::QuorumMemory,
        Durability::QuorumDurable,
    ];
    let mut sent: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (round, level) in (0..200).flat_map(|round| levels.map(|level| (round, level))) {
        let partition = round % 4;
        let value = format!("{level} {round}");
        let record = Record::to("orders").partition(partition).value(&value).level(level).stages();
        let delivery = producer.send(&record).expect("accepted");
        let values = sent.entry(partition).or_default();
        if round % 10 == 0 {
            let report = delivery.wait().expect("delivered");
            assert!(!level.is_durable() || report.level.is_durable());
            assert!(!level.is_quorum() || report.level.is_quorum());
            if level != Durability::None {
                assert_eq!(report.offset, Some(Offset(values.len() as u64)));
                assert!(report.append_time_ms > 0);
                let stages = report.stages.expect("asked for");
                assert!(!level.is_durable() || stages.flush_ns > 0, "{stages:?}");
            }
        }
        values.push(value);
    }
    producer.flush();
    let read = read_all(&client, "orders", 4, 1000);
    for (partition, values) in sent {
        assert_eq!(read[partition as usize], values);
    }
    let counters = broker.counters();
    assert_eq!(counters.total("requests_forwarded"), 0, "every request found its shard");
    assert_eq!(client.counters().protocol_errors, 0);
    drop(client);
    broker.stop();
}

#[test]
fn a_client_that_insists_on_one_shard_is_served_by_forwarding() {
    let Some(directory) = real_directory() else { return };
    if cores() < 2 {
        println!("skipped: two shards need two cores");
        return;
    }
    let broker = start(directory.path(), 2);
    for shard in 0..2 {
        let name = format!("topic-{shard}");
        let insisting = Client::builder().address(broker.address()).insist_on_shard(shard);
        let client = insisting.connect().expect("a client");
        client.admin().create_topic(&name, 8).expect("created");
        let producer = client.producer();
        for number in 0..400u32 {
            let value = format!("v{number}");
            let record = Record::to(&name).partition(number % 8).value(&value);
            let delivery = producer.send(&record).expect("accepted");
            if number >= 392 {
                let report = delivery.wait().expect("delivered");
                assert_eq!(report.offset, Some(Offset(u64::from(number / 8))));
            }
        }
        producer.flush();
        let read = read_all(&client, &name, 8, 400);
        assert!(read.iter().all(|values| values.len() == 50));
    }
    assert!(broker.counters().total("requests_forwarded") > 0);
    broker.stop();
}

#[test]
fn what_was_acknowledged_durable_survives_an_abrupt_end_and_another_number_of_shards() {
    let Some(directory) = real_directory() else { return };
    let mut broker = start(directory.path(), cores());
    let mut sent = 0u32;
    for life in 0..3 {
        let client = client(&broker);
        if life == 0 {
            client.admin().create_topic("ledger", 2).expect("created");
        }
        let producer = client.producer();
        let mut deliveries = Vec::new();
        for _ in 0..300 {
            let value = format!("v{sent}");
            let record = Record::to("ledger").partition(sent % 2).value(&value);
            deliveries.push(producer.send(&record).expect("accepted"));
            sent += 1;
        }
        for delivery in deliveries {
            delivery.wait().expect("delivered");
        }
        broker.abort();
        broker = start(directory.path(), 1 + life % cores());
        let read = read_all(&self::client(&broker), "ledger", 2, sent as usize);
        for (partition, values) in (0u32..).zip(read) {
            let expected: Vec<_> =
                (0..sent).filter(|n| n % 2 == partition).map(|n| format!("v{n}")).collect();
            assert_eq!(values, expected);
        }
    }
    broker.stop();
}

#[test]
fn a_client_lives_through_a_restart_of_the_broker() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), cores());
    let address = broker.address();
    let client = client(&broker);
    client.admin().create_topic("t", 2).expect("created");
    let producer = client.producer();
    producer.send(&Record::to("t").partition(0).value("a")).expect("accepted").wait().expect("ok");
    broker.stop();
    let pending = producer.send(&Record::to("t").partition(0).value("b")).expect("accepted");
    let mut config = Config::embedded(directory.path());
    config.listen = address;
    config.shards = 1;
    config.free_bytes_min = 0;
    let broker = Broker::start(config).expect("it starts again");
    let report = match pending.wait() {
        // Written to the dying connection before its end was seen. The old broker had stopped, so
        // here, unlike in life, it is known that nothing was stored.
        Err(Error::ConnectionLost) => {
            let again = producer.send(&Record::to("t").partition(0).value("b")).expect("accepted");
            again.wait().expect("delivered after the restart")
        }
        outcome => outcome.expect("delivered after the restart"),
    };
    assert_eq!(report.offset, Some(Offset(1)));
    assert_eq!(read_all(&client, "t", 1, 2), [["a", "b"]]);
    broker.stop();
}

#[test]
fn topics_are_made_listed_described_and_deleted() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), cores());
    let client = client(&broker);
    let admin = client.admin();
    admin.create_topic("b", 3).expect("created");
    admin.create_topic("a", 1).expect("created");
    let again = admin.create_topic("a", 1).expect_err("it exists");
    assert!(
        matches!(&again, Error::Refused(refusal) if refusal.code == ErrorCode::TopicExists),
        "{again}"
    );
    let names: Vec<_> = admin.list_topics().expect("listed").into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(admin.describe_topic("b").expect("described").places.len(), 3);
    let headers = [Header { name: "trace", value: Some(b"7") }, Header { name: "", value: None }];
    let record = Record::to("a").key("k").value("v").headers(&headers).timestamp_ms(1234);
    client.producer().send(&record).expect("accepted").wait().expect("delivered");
    let mut consumer = client.consumer();
    consumer.assign("a", 0, Position::Time(1));
    let batch = consumer.poll(PATIENCE).expect("sound").expect("a batch");
    let read = batch.records().next().expect("a record");
    assert_eq!((read.key, read.value), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(read.timestamp_ms, 1234);
    assert_eq!(read.headers.collect::<Vec<_>>(), headers);
    let offsets = admin.offsets("a", 0, Position::End).expect("answered");
    assert_eq!((offsets.log_start, offsets.found), (Offset(0), Offset(1)));
    let status = admin.status("").expect("answered");
    assert_eq!(status.shards.len(), cores());

    consumer.assign("a", 0, Position::Offset(Offset(99)));
    let beyond = consumer.poll(PATIENCE).expect_err("beyond the end").error;
    assert!(matches!(beyond, Error::OffsetOutOfRange { .. }), "{beyond}");
    admin.delete_topic("a").expect("deleted");
    let gone = admin.describe_topic("a").expect_err("gone");
    assert_eq!(gone, Error::UnknownTopic("a".into()));
    let error = client.producer().send(&Record::to("never").value("v")).expect("accepted").wait();
    assert_eq!(error, Err(Error::UnknownTopic("never".into())));
    broker.stop();
}

#[test]
fn a_waiting_consumer_gets_a_record_when_it_is_committed() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), cores());
    let client = client(&broker);
    client.admin().create_topic("t", 1).expect("created");
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::End);
    assert!(consumer.poll(Duration::from_millis(50)).expect("sound").is_none());
    let producer = client.producer();
    for number in 0..50u64 {
        producer.send_and_forget(&Record::to("t").value("v")).expect("accepted");
        let batch = consumer.poll(PATIENCE).expect("sound").expect("a batch");
        assert_eq!(batch.first_offset, Offset(number));
    }
    broker.stop();
}
