//! The load: bundled clients that produce at every level, and a consumer that reads along. All that they do and learn
//! goes into the history.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use corelog::{CallbackProducer, Client, Consumer, Error, Offset, Position, Record};
use corelog_protocol::Durability;

use crate::history::{History, Partition, Reader, Reading, Reply, SeenBatch};
use crate::verify::content::{self, Identity};

/// Names and partitions.
pub const TOPICS: [(&str, u32); 3] = [("ledger", 4), ("journal", 4), ("notes", 4)];
const VALUE_BYTES: usize = 120;
const POLL: Duration = Duration::from_millis(50);

/// On each topic, for each client: keys or none, and the level.
const PLAN: [(Option<u64>, Durability); 7] = [
    (None, Durability::QuorumDurable),
    (None, Durability::QuorumMemory),
    (Some(50), Durability::QuorumDurable),
    (None, Durability::LeaderDurable),
    (None, Durability::QuorumDurable),
    (Some(50), Durability::LeaderMemory),
    (None, Durability::None),
];

/// Every partition of the run.
pub fn partitions() -> Vec<Partition> {
    let of_topic = |(topic, (_, count)): (u32, (&str, u32))| (0..count).map(move |at| (topic, at));
    (0..).zip(TOPICS).flat_map(of_topic).collect()
}

/// Shared by everybody who acts in the run.
pub struct Run {
    begin: Instant,
    history: Mutex<History>,
    stopped: AtomicBool,
    /// Acknowledged at the highest level so far.
    acknowledged: AtomicU64,
    /// Errors that producers were told, by their text.
    failures: Mutex<BTreeMap<String, u64>>,
}

/// A producer of the plan.
#[derive(Clone, Copy)]
pub struct Producer {
    id: u32,
    topic: u32,
    keys: Option<u64>,
    level: Durability,
}

impl Run {
    pub fn new(seed: u64) -> Self {
        Self {
            begin: Instant::now(),
            history: Mutex::new(History::new(seed)),
            stopped: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            failures: Mutex::default(),
        }
    }

    /// Time since the beginning, ns.
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The producers of one client.
    pub fn producers(&self) -> Vec<Producer> {
        let mut history = self.history();
        let mut producers = Vec::new();
        for (keys, level) in PLAN {
            for topic in 0..TOPICS.len() as u32 {
                let id = history.add_producer(topic, keys, level);
                producers.push(Producer { id, topic, keys, level });
            }
        }
        producers
    }

    fn on_failure(&self, identity: Identity, error: &Error) {
        let reply = if error.is_definite() { Reply::Refused } else { Reply::Unknown };
        self.history().on_reply(identity, self.now(), reply);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(error.to_string()).or_default() += 1;
    }
}

pub fn connect(addresses: &[SocketAddr], name: &str) -> io::Result<Client> {
    let builder = addresses.iter().fold(Client::builder(), |builder, at| builder.address(at));
    builder.name(name).delivery_timeout(Duration::from_secs(20)).connect()
}

/// A tag holds the producer in its upper bits and the record's number in the others.
const NUMBER_BITS: u32 = 48;

/// Sends from all producers in turn, so many records per second in all, until the run stops; then gives up on what
/// is under way for longer than the delivery timeout.
pub fn produce(
    run: &Arc<Run>,
    client: &Client,
    producers: &[Producer],
    per_second: f64,
) -> io::Result<()> {
    let seed = run.history().seed();
    let books = Arc::clone(run);
    let sender = client.producer().on_delivery(move |tag, result| {
        let number = tag & ((1 << NUMBER_BITS) - 1);
        let identity = Identity { producer: (tag >> NUMBER_BITS) as u32, number };
        match result {
            Ok(report) => {
                let offset = report.offset.map(|offset| offset.0);
                let reply = Reply::Acknowledged { partition: report.partition, offset };
                books.history().on_reply(identity, books.now(), reply);
                if report.level == Durability::QuorumDurable {
                    books.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            }
            Err(error) => books.on_failure(identity, error),
        }
    });
    let mut value = Vec::new();
    let begin = Instant::now();
    let mut count = 0_u64;
    while !run.is_stopped() {
        let due = begin + Duration::from_secs_f64(count as f64 / per_second);
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let at = count as usize % producers.len();
        let round = count / producers.len() as u64;
        send(run, &sender, &producers[at], round, seed, &mut value);
        count += 1;
    }
    sender.flush();
    Ok(())
}

fn send(
    run: &Run,
    sender: &CallbackProducer,
    producer: &Producer,
    round: u64,
    seed: u64,
    value: &mut Vec<u8>,
) {
    // Before the record can leave, so that nobody sees it before the history knows of it.
    let identity = run.history().on_send(producer.id, run.now());
    content::fill(seed, identity, VALUE_BYTES, value);
    let key = producer.keys.map(|keys| content::key(identity, keys));
    let (topic, count) = TOPICS[producer.topic as usize];
    // Records without a key take turns, so that every partition has some all the time.
    let partition = key.is_none().then_some((round % u64::from(count)) as u32);
    let key = key.as_ref().map(|key| &key[..]);
    let record = Record { key, partition, ..Record::to(topic).value(value).level(producer.level) };
    let tag = u64::from(identity.producer) << NUMBER_BITS | identity.number;
    if let Err(error) = sender.try_send(&record, tag) {
        run.on_failure(identity, &error);
    }
}

/// What a consumer got, and the errors that it was told, by their text.
pub struct Consumed {
    pub reading: Reading,
    pub errors: BTreeMap<String, u64>,
}

/// A consumer of all partitions from their beginnings.
pub struct Along {
    consumer: Consumer,
    consumed: Consumed,
}

impl Along {
    pub fn new(client: &Client, reader: Reader) -> Self {
        let mut consumer = client.consumer();
        for (topic, partitions) in TOPICS {
            for partition in 0..partitions {
                consumer.assign(topic, partition, Position::Beginning);
            }
        }
        let consumed = Consumed { reading: Reading::new(reader), errors: BTreeMap::new() };
        Self { consumer, consumed }
    }

    /// Takes what comes, at most one batch.
    fn poll(&mut self, run: &Run, is_last: bool) {
        match self.consumer.poll(POLL) {
            Ok(None) => {}
            Ok(Some(batch)) => {
                let Some(topic) = number(&batch.topic) else { return };
                let at = if is_last { u64::MAX } else { run.now() };
                let history = run.history();
                let records =
                    batch.records().map(|record| history.recognise(record.key, record.value));
                let seen = SeenBatch { base: batch.first_offset.0, at, records: records.collect() };
                drop(history);
                self.consumed.reading.push((topic, batch.partition), seen);
            }
            Err(error) => {
                *self.consumed.errors.entry(error.error.to_string()).or_default() += 1;
                let Some(topic) = number(&error.topic) else { return };
                let next = self.consumed.reading.next_offset((topic, error.partition));
                std::thread::sleep(POLL);
                self.consumer.seek(&error.topic, error.partition, Position::Offset(Offset(next)));
            }
        }
    }

    /// Reads until the run stops.
    pub fn read(mut self, run: &Run) -> Consumed {
        while !run.is_stopped() {
            self.poll(run, false);
        }
        self.consumed
    }

    /// Reads until it has every partition up to a committed end that has not moved for a while, or until patience
    /// ends: then the reading is incomplete, and says so.
    pub fn read_to_end(mut self, run: &Run, client: &Client, patience: Duration) -> Consumed {
        const QUIET: Duration = Duration::from_secs(1);
        let limit = Instant::now() + patience;
        let mut quiet_since = Instant::now();
        while Instant::now() < limit {
            let ends = committed_ends(client);
            if ends != self.consumed.reading.ends {
                self.consumed.reading.ends = ends;
                quiet_since = Instant::now();
            }
            let is_complete = self.consumed.reading.is_complete(partitions());
            if is_complete && quiet_since.elapsed() >= QUIET {
                break;
            }
            let until = Instant::now() + Duration::from_millis(300);
            while Instant::now() < until {
                self.poll(run, true);
            }
        }
        self.consumed
    }
}

/// As far as leaders answer.
fn committed_ends(client: &Client) -> BTreeMap<Partition, u64> {
    let admin = client.admin().timeout(Duration::from_secs(5));
    let end = |(topic, partition): Partition| {
        let name = TOPICS.get(topic as usize)?.0;
        let offsets = admin.offsets(name, partition, Position::End).ok()?;
        Some(((topic, partition), offsets.committed_end.0))
    };
    partitions().into_iter().filter_map(end).collect()
}

fn number(topic: &str) -> Option<u32> {
    let at = TOPICS.iter().position(|(name, _)| *name == topic)?;
    Some(at as u32)
}
