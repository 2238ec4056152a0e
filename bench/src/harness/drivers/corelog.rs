//! Corelog, through its own client.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use corelog::{
    CallbackProducer, Client, Consumer, ConsumerConfig, Offset, Position, Record as Sending,
    TopicSettings,
};
use corelog_protocol::ids::ShardId;

use super::{
    About, Driver, Failure, Message, Outbox, Placed, Producer, Reader, Record, Settled, ShardWork,
    TopicPlan,
};
use crate::harness::scenario::{Level, Messages};
use crate::load::admin::Admin;
use crate::verify::content::Identity;

pub struct Corelog {
    addresses: Vec<SocketAddr>,
    messages: Messages,
    brokers: usize,
    /// Asks about topics and counters.
    client: Client,
    topics: OnceLock<Arc<Topics>>,
}

struct Topics {
    names: Vec<String>,
    partitions: u32,
    /// Of each topic's partitions when it was made.
    shards: Vec<Vec<u16>>,
}

/// A tag holds the stream in its upper bits and the message's number in the others.
const NUMBER_BITS: u32 = 40;

/// In the numbering of cores over all brokers.
const SHARDS_PER_BROKER: u16 = 256;

impl Corelog {
    pub fn connect(addresses: &[SocketAddr], messages: &Messages) -> io::Result<Self> {
        let client = builder(addresses).connect()?;
        Ok(Self {
            addresses: addresses.to_vec(),
            messages: messages.clone(),
            brokers: addresses.len(),
            client,
            topics: OnceLock::new(),
        })
    }

    fn topics(&self) -> io::Result<&Arc<Topics>> {
        self.topics.get().ok_or_else(|| io::Error::other("the topics are not made yet"))
    }
}

fn builder(addresses: &[SocketAddr]) -> corelog::Builder {
    let mut builder = Client::builder().name("corelog-bench");
    for address in addresses {
        builder = builder.address(address);
    }
    builder
}

impl Driver for Corelog {
    fn about(&self) -> About {
        let place = match self.brokers {
            1 => "the broker".to_owned(),
            count => format!("a majority of {count} brokers"),
        };
        let ack = match self.messages.level {
            Level::LeaderMemory => {
                "in the memory of the broker that leads; nothing is flushed".to_owned()
            }
            Level::LeaderDurable => {
                "written and flushed (fdatasync) on the broker that leads".to_owned()
            }
            Level::QuorumMemory => format!("in the memory of {place}; nothing is flushed"),
            Level::QuorumDurable => format!("written and flushed (fdatasync) on {place}"),
        };
        let level = self.messages.level.to_durability();
        About {
            name: "corelog".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ack: format!("{level}: {ack}"),
        }
    }

    fn make_topics(&self, plan: &TopicPlan) -> io::Result<()> {
        let settings = TopicSettings {
            partitions: plan.partitions,
            replicas: 0,
            retention_ms: None,
            retention_bytes: plan.retention_bytes,
        };
        let names: Vec<String> = (0..plan.count).map(|topic| plan.name(topic)).collect();
        let mut shards = Vec::new();
        for name in &names {
            let topic = self.client.admin().create_topic_with(name, settings);
            let topic = topic.map_err(io::Error::other)?;
            let core = |place: &corelog::PartitionPlace| {
                let broker = (place.broker.0 as u16).saturating_sub(1);
                broker * SHARDS_PER_BROKER + place.shard.0
            };
            shards.push(topic.places.iter().map(core).collect());
        }
        let topics = Topics { names, partitions: plan.partitions, shards };
        self.topics.set(Arc::new(topics)).map_err(|_| io::Error::other("topics are made once"))
    }

    fn producer(&self, outbox: Arc<Outbox>) -> io::Result<Box<dyn Producer>> {
        let topics = Arc::clone(self.topics()?);
        let builder = builder(&self.addresses)
            .durability(self.messages.level.to_durability())
            .linger(Duration::from_micros(self.messages.linger_us));
        let client = builder.connect()?;
        let told = Arc::clone(&topics);
        let producer = client.producer().on_delivery(move |tag, result| {
            let at = outbox.clock.now();
            let stream = (tag >> NUMBER_BITS) as u32;
            let first = Identity { producer: stream, number: tag & ((1 << NUMBER_BITS) - 1) };
            let result = result.map_err(failure).map(|report| {
                let topic = stream as usize % told.names.len();
                let partition = report.partition as usize;
                let shard = told.shards.get(topic).and_then(|topic| topic.get(partition)).copied();
                Placed {
                    partition: report.partition,
                    offset: report.offset.map(|offset| offset.0),
                    shard: shard.unwrap_or_default(),
                    stages: report.stages,
                }
            });
            outbox.settle(Settled { first, count: 1, at, result });
        });
        Ok(Box::new(Sender { producer, topics, _client: client }))
    }

    fn reader(&self) -> io::Result<Box<dyn Reader>> {
        let topics = self.topics()?;
        let client = builder(&self.addresses).connect()?;
        let mut consumer = client.consumer_with(ConsumerConfig::default());
        for name in &topics.names {
            for partition in 0..topics.partitions {
                consumer.assign(name, partition, Position::Offset(Offset(0)));
            }
        }
        let numbers = topics.names.iter().cloned().zip(0..).collect();
        Ok(Box::new(Receiver { consumer, numbers, _client: client }))
    }

    fn shards(&self) -> io::Result<Vec<ShardWork>> {
        let mut shards = Vec::new();
        for (broker, &address) in (1..).zip(&self.addresses) {
            // One that was killed tells nothing.
            let Ok(mut admin) = Admin::connect(address, ShardId::ANY) else { continue };
            let status = admin.status("")?;
            for (at, of) in status.shards.iter().enumerate() {
                let value = |name: &str| {
                    let column = status.names.iter().position(|known| known == name);
                    column
                        .and_then(|column| status.shards[at].values.get(column))
                        .copied()
                        .unwrap_or(0)
                };
                let name = match self.brokers {
                    1 => format!("shard {}", of.shard.0),
                    _ => format!("broker {broker} shard {}", of.shard.0),
                };
                shards.push(ShardWork {
                    name,
                    records: value("records_in"),
                    bytes: value("batch_bytes_in"),
                    commits: value("log_commits"),
                });
            }
        }
        Ok(shards)
    }
}

/// For people, of a number in [`Placed`].
pub fn shard_name(shard: u16, brokers: usize) -> String {
    match brokers {
        1 => format!("shard {}", shard % SHARDS_PER_BROKER),
        _ => {
            format!("broker {} shard {}", shard / SHARDS_PER_BROKER + 1, shard % SHARDS_PER_BROKER)
        }
    }
}

fn failure(error: &corelog::Error) -> Failure {
    Failure { definite: error.is_definite(), text: error.to_string().into() }
}

struct Sender {
    producer: CallbackProducer,
    topics: Arc<Topics>,
    /// Lives as long as its producer is used.
    _client: Client,
}

impl Producer for Sender {
    fn send(&mut self, message: &Message<'_>) -> Result<(), Failure> {
        let topic = &self.topics.names[message.topic as usize];
        let record =
            Sending { key: message.key, ..Sending::to(topic).value(message.value).stages() };
        let tag = u64::from(message.identity.producer) << NUMBER_BITS | message.identity.number;
        self.producer.send(&record, tag).map_err(|error| failure(&error))
    }
}

struct Receiver {
    consumer: Consumer,
    numbers: BTreeMap<String, u32>,
    _client: Client,
}

impl Reader for Receiver {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Record<'_>)) -> io::Result<()> {
        let Some(batch) = self.consumer.poll(timeout).map_err(io::Error::other)? else {
            return Ok(());
        };
        let topic = self.numbers.get(&*batch.topic).copied();
        let topic = topic.ok_or_else(|| io::Error::other("a batch of a topic not asked for"))?;
        let partition = batch.partition;
        for record in batch.records() {
            let (key, value) = (record.key, record.value);
            take(Record { topic, partition, offset: record.offset.0, key, value });
        }
        Ok(())
    }
}
