//! Corelog, through its own client.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use corelog::{
    BrokerId, CallbackProducer, Client, Consumer, ConsumerConfig, Leader, Offset, Position,
    Record as Sending, TopicSettings,
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
    /// All of the cluster, also those whose addresses were not given.
    brokers: Vec<(BrokerId, SocketAddr)>,
    /// Copies of each partition.
    replicas: usize,
    /// Asks about topics and counters.
    client: Client,
    topics: OnceLock<Arc<Topics>>,
    /// Clients for producers to come, made before the clock runs.
    senders: Mutex<Vec<Client>>,
}

struct Topics {
    names: Vec<String>,
    partitions: u32,
}

/// A tag holds the stream in its upper bits and the message's number in the others.
const NUMBER_BITS: u32 = 40;

/// How long a client may take to find the topics.
const FINDING_TIME_MAX: Duration = Duration::from_secs(60);

/// How long brokers may take to become a cluster.
const PATIENCE: Duration = Duration::from_secs(30);

/// In the numbering of cores over all brokers: as many as there are numbers of shards.
const CORES_PER_BROKER: u32 = 1 << 16;

impl Corelog {
    pub fn connect(addresses: &[SocketAddr], messages: &Messages) -> io::Result<Self> {
        let client = builder(addresses).connect()?;
        let begin = Instant::now();
        let cluster = loop {
            let cluster = client.admin().cluster().map_err(io::Error::other)?;
            let is_whole = addresses.len() < 2
                || (cluster.brokers.len() >= addresses.len() && !cluster.lanes.is_empty());
            if is_whole || begin.elapsed() > PATIENCE {
                break cluster;
            }
            // They have just been started, and are about to find each other.
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut brokers: Vec<_> =
            cluster.brokers.iter().map(|broker| (broker.id, broker.address)).collect();
        if let ([(_, told)], [given]) = (&mut brokers[..], addresses) {
            // One that is alone may not know how it is reached.
            *told = *given;
        }
        let replicas = cluster.lanes.iter().map(|lane| lane.replicas.len()).max().unwrap_or(1);
        Ok(Self {
            addresses: addresses.to_vec(),
            messages: messages.clone(),
            brokers,
            replicas,
            client,
            topics: OnceLock::new(),
            senders: Mutex::default(),
        })
    }

    /// A client for a producer, which has found the topics.
    fn sender(&self, names: &[String]) -> io::Result<Client> {
        let builder = builder(&self.addresses)
            .durability(self.messages.level.to_durability())
            .linger(Duration::from_micros(self.messages.linger_us));
        let client = builder.connect()?;
        let mut finder = client.consumer_with(ConsumerConfig::default());
        for name in names {
            finder.assign(name, 0, Position::Offset(Offset(0)));
            finder.pause(name, 0);
        }
        wait_until_found(&finder, names)?;
        drop(finder);
        Ok(client)
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
        let place = match self.replicas {
            0 | 1 => "the broker".to_owned(),
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
        for name in &names {
            let topic = self.client.admin().create_topic_with(name, settings);
            topic.map_err(io::Error::other)?;
        }
        let senders = (0..self.messages.clients()).map(|_| self.sender(&names));
        let senders = senders.collect::<io::Result<Vec<_>>>()?;
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).extend(senders);
        let topics = Topics { names, partitions: plan.partitions };
        self.topics.set(Arc::new(topics)).map_err(|_| io::Error::other("topics are made once"))
    }

    fn producer(&self, outbox: Arc<Outbox>) -> io::Result<Box<dyn Producer>> {
        let topics = Arc::clone(self.topics()?);
        let prepared = self.senders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let client = prepared.map_or_else(|| self.sender(&topics.names), Ok)?;
        let producer = client.producer().on_delivery(move |tag, result| {
            let at = outbox.clock.now();
            let stream = (tag >> NUMBER_BITS) as u32;
            let first = Identity { producer: stream, number: tag & ((1 << NUMBER_BITS) - 1) };
            let result = result.map_err(failure).map(|report| Placed {
                partition: report.partition,
                offset: report.offset.map(|offset| offset.0),
                core: report.leader.map_or(0, core_of),
                stages: report.stages,
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
        wait_until_found(&consumer, &topics.names)?;
        let numbers = topics.names.iter().cloned().zip(0..).collect();
        Ok(Box::new(Receiver { consumer, numbers, _client: client }))
    }

    fn shards(&self) -> io::Result<Vec<ShardWork>> {
        let mut shards = Vec::new();
        for &(broker, address) in &self.brokers {
            // One that was killed tells nothing.
            let asked =
                Admin::connect(address, ShardId::ANY).and_then(|mut admin| admin.status(""));
            let Ok(status) = asked else { continue };
            for (at, of) in status.shards.iter().enumerate() {
                let value = |name: &str| {
                    let column = status.names.iter().position(|known| known == name);
                    column
                        .and_then(|column| status.shards[at].values.get(column))
                        .copied()
                        .unwrap_or(0)
                };
                shards.push(ShardWork {
                    name: self.core_name(core_of(Leader { broker, shard: of.shard })),
                    records: value("records_in"),
                    bytes: value("batch_bytes_in"),
                    commits: value("log_commits"),
                });
            }
        }
        Ok(shards)
    }

    fn core_name(&self, core: u32) -> String {
        let (broker, shard) = (core / CORES_PER_BROKER + 1, core % CORES_PER_BROKER);
        match self.brokers.len() {
            0 | 1 => format!("shard {shard}"),
            _ => format!("broker {broker} shard {shard}"),
        }
    }
}

/// The number of the core that acknowledged, over all brokers.
fn core_of(leader: Leader) -> u32 {
    let broker = leader.broker.0.saturating_sub(1);
    broker.saturating_mul(CORES_PER_BROKER).saturating_add(u32::from(leader.shard.0))
}

/// Waits until a client knows where these topics are, whose first partitions this consumer of it has. What asks for ten thousand
/// topics one by one while the load goes on is behind from the start, and keeps the broker busy with answers.
fn wait_until_found(consumer: &Consumer, names: &[String]) -> io::Result<()> {
    let begin = Instant::now();
    for name in names {
        while consumer.position(name, 0).is_none() {
            if begin.elapsed() > FINDING_TIME_MAX {
                return Err(io::Error::other(format!("the topic {name} is not found by a client")));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    Ok(())
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
