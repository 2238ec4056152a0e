//! How the harness speaks to a broker. Another kind of broker is one file here: a [`Driver`] that makes topics, gives
//! producers and readers, and says in words what its acknowledgment means.
//!
//! A driver decides nothing about time: the harness tells it what to send when that is due, and stamps nothing itself
//! either. The driver stamps an answer when it has it ([`Outbox::settle`]).

pub mod corelog;
#[cfg(feature = "nats")]
pub mod nats;
pub mod null;
#[cfg(feature = "redis")]
pub mod redis;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use corelog_protocol::produce::StageTimes;

use super::clock::Clock;
use super::mailbox::Mailbox;
use crate::verify::content::Identity;

/// A kind of broker, connected.
pub trait Driver: Send + Sync {
    fn about(&self) -> About;

    /// Called once, before anything else.
    fn make_topics(&self, topics: &TopicPlan) -> io::Result<()>;

    /// A client of its own. What becomes of its messages goes to `outbox`.
    fn producer(&self, outbox: Arc<Outbox>) -> io::Result<Box<dyn Producer>>;

    /// Reads everything from the first message on.
    fn reader(&self) -> io::Result<Box<dyn Reader>>;

    /// What the broker's cores have done so far; none if it does not tell.
    fn shards(&self) -> io::Result<Vec<ShardWork>> {
        Ok(Vec::new())
    }

    /// For people, of a number in [`Placed`].
    fn core_name(&self, core: u32) -> String {
        format!("core {core}")
    }
}

/// What goes into the report.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct About {
    pub name: String,
    pub version: String,
    /// The durability of an acknowledgment, in words.
    pub ack: String,
}

/// Topics `0..count`, made anew.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// In front of the number.
    pub prefix: String,
    pub count: u32,
    pub partitions: u32,
    /// Of each partition.
    pub retention_bytes: Option<u64>,
}

impl TopicPlan {
    pub fn name(&self, topic: u32) -> String {
        format!("{}-{topic}", self.prefix)
    }
}

/// What is to be sent.
pub struct Message<'a> {
    pub identity: Identity,
    pub topic: u32,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
}

pub trait Producer: Send {
    /// Hands a message over. May block while the client has no room.
    fn send(&mut self, message: &Message<'_>) -> Result<(), Failure>;

    /// The sender has nothing to do for so long: lets out what is held back, and waits, until something comes or the
    /// time is over.
    fn wait(&mut self, time: Duration) -> io::Result<()> {
        if !time.is_zero() {
            std::thread::sleep(time);
        }
        Ok(())
    }

    /// True if answers come in [`Producer::wait`] only, and not from a thread of the client's own.
    fn must_be_waited_for(&self) -> bool {
        false
    }
}

pub trait Reader: Send {
    /// Gives what came, waiting for it at most so long.
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Record<'_>)) -> io::Result<()>;
}

/// What a reader got.
pub struct Record<'a> {
    pub topic: u32,
    pub partition: u32,
    /// Dense within a partition.
    pub offset: u64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Work of one core since the broker's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardWork {
    pub name: String,
    pub records: u64,
    pub bytes: u64,
    pub commits: u64,
}

#[derive(Clone, Debug)]
pub struct Failure {
    /// It certainly is not there.
    pub definite: bool,
    pub text: Box<str>,
}

/// Where acknowledged messages lie.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    pub partition: u32,
    /// Of the first; `None` if the broker does not tell.
    pub offset: Option<u64>,
    /// Which core acknowledged them: the one that led their partition then. See [`Driver::core_name`].
    pub core: u32,
    pub stages: Option<StageTimes>,
}

/// The fate of messages of one producer with numbers in a row.
#[derive(Clone, Debug)]
pub struct Settled {
    pub first: Identity,
    pub count: u32,
    /// When the client had the answer.
    pub at: u64,
    pub result: Result<Placed, Failure>,
}

/// Takes the fates of the messages of one client.
pub struct Outbox {
    pub clock: Clock,
    settled: Arc<Mailbox<Settled>>,
    /// Messages so far.
    count: AtomicU64,
    is_awaited: AtomicBool,
    sender: OnceLock<Thread>,
}

impl Outbox {
    pub fn new(clock: Clock, settled: Arc<Mailbox<Settled>>) -> Self {
        Self {
            clock,
            settled,
            count: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
            sender: OnceLock::new(),
        }
    }

    pub fn settle(&self, settled: Settled) {
        let count = u64::from(settled.count);
        self.settled.push(settled);
        self.count.fetch_add(count, Ordering::SeqCst);
        if self.is_awaited.swap(false, Ordering::SeqCst)
            && let Some(sender) = self.sender.get()
        {
            sender.unpark();
        }
    }

    pub fn settled(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until more than `known` messages are settled, or the time is over. For one thread only.
    pub fn await_more(&self, known: u64, time: Duration) {
        self.sender.get_or_init(std::thread::current);
        self.is_awaited.store(true, Ordering::SeqCst);
        if self.settled() == known {
            std::thread::park_timeout(time);
        }
        self.is_awaited.store(false, Ordering::SeqCst);
    }
}

/// Where a message goes at a broker that has no partitions of its own: by its key, or else by its producer, so that
/// order is kept where it is promised.
#[cfg(any(feature = "nats", feature = "redis"))]
fn partition_of(message: &Message<'_>, partitions: u32) -> u32 {
    match message.key {
        Some(key) => corelog_protocol::checksum::crc32c(key) % partitions,
        None => message.identity.producer % partitions,
    }
}
