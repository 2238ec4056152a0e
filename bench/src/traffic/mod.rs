//! Records through the real client: producers that send at their intended times, a consumer that
//! checks all that comes back, and a ledger between them.
//!
//! [`Traffic`] is what the threads share. [`link`] is the only file that names the client crate.

pub mod link;
mod pauses;
mod produce;
mod read;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use corelog_protocol::Durability;

use crate::latency::Latencies;
use crate::verify::content::Identity;
use crate::verify::{Ledger, Level, Partition};
use pauses::Pauses;
pub use produce::produce;
pub use read::{read_along, read_to_end};

/// A topic of a run.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: &'static str,
    pub partitions: u32,
}

/// A producer of a run.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Its number in the ledger.
    pub id: u32,
    pub topic: u32,
    pub keys: Option<u64>,
    pub durability: Durability,
}

/// What a producer or a callback has to say. They post it and go on: a lock that they shared with
/// the consumer would put its waiting time into the latencies.
enum Note {
    Sent { producer: u32, due: Instant },
    Settled { identity: Identity, at: Instant, result: Result<Placed, Failure> },
}

/// What became of the records of one producer.
#[derive(Clone, Default)]
pub struct Tally {
    /// When each was due, by its number.
    due: Vec<Instant>,
    pub acknowledged: u64,
    pub value_bytes: u64,
    /// From the intended send time, of records that no outage touched.
    pub latencies: Latencies,
}

impl Tally {
    pub fn sent(&self) -> u64 {
        self.due.len() as u64
    }

    pub fn add(&mut self, other: &Self) {
        self.due.extend_from_slice(&other.due);
        self.acknowledged += other.acknowledged;
        self.value_bytes += other.value_bytes;
        self.latencies.add(&other.latencies);
    }
}

/// Shared by the producers, the client's callbacks and the consumer.
pub struct Traffic {
    pub topics: Vec<Topic>,
    pub producers: Vec<Producer>,
    pub value_bytes: usize,
    books: Mutex<Books>,
    post: Sender<Note>,
    /// Records sent so far, by producer.
    sent: Vec<AtomicU64>,
    /// Sends whose outcome is not yet known.
    unsettled: AtomicU64,
    /// No broker runs: producers wait.
    paused: AtomicBool,
    stopped: AtomicBool,
}

/// The ledger and the tallies, up to date as far as the post has been read.
struct Books {
    ledger: Ledger,
    /// Of each producer.
    topics: Vec<u32>,
    tallies: Vec<Tally>,
    post: Receiver<Note>,
    first_failure: Option<String>,
    /// Whether a hard stop of one broker may not take what was acknowledged at this level.
    is_kept: fn(Durability) -> bool,
    pauses: Pauses,
    /// A broker was stopped, and its partitions were served again: what was under way then waited for that, which is
    /// told apart.
    outages: Vec<(Instant, Option<Instant>)>,
}

/// Where an acknowledged record lies.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    pub partition: u32,
    /// None at level `none`.
    pub offset: Option<u64>,
    pub level: Durability,
}

/// Why a record has not been acknowledged.
#[derive(Clone, Debug)]
pub struct Failure {
    pub definite: bool,
    pub text: String,
}

impl Traffic {
    /// `plan`: for each producer its topic, its number of keys or none, and its level.
    pub fn new(
        seed: u64,
        topics: Vec<Topic>,
        plan: &[(u32, Option<u64>, Durability)],
        value_bytes: usize,
    ) -> Self {
        let mut ledger = Ledger::new(seed);
        let producers: Vec<Producer> = plan
            .iter()
            .map(|&(topic, keys, durability)| {
                let id = ledger.add_producer(topic, keys);
                Producer { id, topic, keys, durability }
            })
            .collect();
        let (sender, receiver) = channel();
        let tallies = producers.iter().map(|_| Tally::default()).collect();
        let books = Books {
            ledger,
            topics: producers.iter().map(|producer| producer.topic).collect(),
            tallies,
            post: receiver,
            first_failure: None,
            is_kept: Durability::is_durable,
            pauses: Pauses::default(),
            outages: Vec::new(),
        };
        Self {
            topics,
            sent: producers.iter().map(|_| AtomicU64::new(0)).collect(),
            producers,
            value_bytes,
            books: Mutex::new(books),
            post: sender,
            unsettled: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Which levels outlive a hard stop of one broker. Unless told otherwise, the durable ones: all are, of a broker
    /// that is alone.
    #[must_use]
    pub fn keeping(self, is_kept: fn(Durability) -> bool) -> Self {
        self.books().is_kept = is_kept;
        self
    }

    /// The ledger, up to date with what was posted so far.
    pub fn with_ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.books().ledger)
    }

    pub fn into_ledger(self) -> Ledger {
        drop(self.books());
        self.books.into_inner().unwrap_or_else(PoisonError::into_inner).ledger
    }

    pub fn tally(&self, producer: u32) -> Tally {
        self.books().tallies[producer as usize].clone()
    }

    /// The first failure of a send, for people.
    pub fn first_failure(&self) -> Option<String> {
        self.books().first_failure.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(note) = books.post.try_recv() {
            books.enter(note, self.value_bytes as u64);
        }
        books
    }

    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// After a stop: producers may be started anew.
    pub fn resume(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Latencies of what is under way from now until [`end_outage`](Self::end_outage) are not recorded, and the longest
    /// pauses are measured anew.
    pub fn begin_outage(&self) {
        let mut books = self.books();
        books.outages.push((Instant::now(), None));
        books.pauses.measure_anew();
    }

    pub fn end_outage(&self) {
        if let Some((_, end)) = self.books().outages.last_mut() {
            end.get_or_insert_with(Instant::now);
        }
    }

    /// The longest time between two acks of one of these partitions since the last outage began.
    pub fn longest_pause(&self, partitions: &[Partition]) -> Duration {
        self.books().pauses.longest(partitions)
    }

    /// Of these partitions, the first that has not been acknowledged anything since `since`.
    pub fn silent_since(&self, since: Instant, partitions: &[Partition]) -> Option<Partition> {
        self.books().pauses.silent_since(since, partitions)
    }

    /// Acks of a partition so far.
    pub fn acks_of(&self, partition: Partition) -> u64 {
        self.books().pauses.acks_of(partition)
    }

    pub fn unsettled(&self) -> u64 {
        self.unsettled.load(Ordering::SeqCst)
    }

    fn on_sent(&self, producer: u32, due: Instant) -> Identity {
        self.unsettled.fetch_add(1, Ordering::SeqCst);
        // Before the record can leave, so that nobody sees it before the ledger knows of it.
        let _ = self.post.send(Note::Sent { producer, due });
        let number = self.sent[producer as usize].fetch_add(1, Ordering::SeqCst);
        Identity { producer, number }
    }

    /// The client's last word on a record.
    pub fn on_settled(&self, identity: Identity, result: Result<Placed, Failure>) {
        let note = Note::Settled { identity, at: Instant::now(), result };
        let _ = self.post.send(note);
        self.unsettled.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Books {
    fn enter(&mut self, note: Note, value_bytes: u64) {
        match note {
            Note::Sent { producer, due } => {
                self.tallies[producer as usize].due.push(due);
                self.ledger.send(producer);
            }
            Note::Settled { identity, result: Err(failure), .. } => {
                self.ledger.on_failure(identity, failure.definite);
                self.first_failure.get_or_insert(failure.text);
            }
            Note::Settled { identity, at, result: Ok(placed) } => {
                if let Some(offset) = placed.offset {
                    let is_kept = (self.is_kept)(placed.level);
                    let level = if is_kept { Level::Durable } else { Level::Weak };
                    self.ledger.on_ack(identity, level, placed.partition, offset);
                    let topic = self.topics[identity.producer as usize];
                    self.pauses.on_ack((topic, placed.partition), at);
                }
                let tally = &mut self.tallies[identity.producer as usize];
                tally.acknowledged += 1;
                tally.value_bytes += value_bytes;
                let due = tally.due[identity.number as usize];
                let touches = |&(begin, end): &(Instant, Option<Instant>)| {
                    at >= begin && end.is_none_or(|end| due <= end)
                };
                if !self.outages.iter().any(touches) {
                    tally.latencies.record(at.saturating_duration_since(due));
                }
            }
        }
    }
}
