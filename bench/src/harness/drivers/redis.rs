//! Redis Streams, through the crate `redis`. A partition is a stream. A client's commands go out in pipelines: what
//! has gathered while the last one was answered.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::streams::StreamReadReply;
use redis::{Client, Connection, RedisResult, Value};

use super::{
    About, Driver, Failure, Message, Outbox, Placed, Producer, Reader, Record, Settled, TopicPlan,
    partition_of,
};
use crate::verify::content::Identity;

/// Commands of one pipeline at most.
const PIPELINE_MAX: usize = 512;
const READ_MAX: usize = 1_000;

pub struct Redis {
    client: Client,
    version: String,
    ack: String,
    topics: OnceLock<TopicPlan>,
}

impl Redis {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let client = Client::open(format!("redis://{address}")).map_err(io::Error::other)?;
        let mut connection = client.get_connection().map_err(io::Error::other)?;
        let info: String =
            redis::cmd("INFO").arg("server").query(&mut connection).map_err(io::Error::other)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        let version = version.unwrap_or("unknown").trim().to_owned();
        let ack = durability(&mut connection).map_err(io::Error::other)?;
        Ok(Self { client, version, ack, topics: OnceLock::new() })
    }

    fn plan(&self) -> io::Result<TopicPlan> {
        self.topics.get().cloned().ok_or_else(|| io::Error::other("the topics are not made yet"))
    }
}

/// As the server says that it is set.
fn durability(connection: &mut Connection) -> RedisResult<String> {
    let mut setting = |name: &str| -> RedisResult<String> {
        let pair: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query(connection)?;
        Ok(pair.into_iter().nth(1).unwrap_or_default())
    };
    Ok(match (setting("appendonly")?.as_str(), setting("appendfsync")?.as_str()) {
        ("yes", "always") => "appended to the file and flushed (fsync) before the reply (appendfsync always)".into(),
        ("yes", "everysec") => {
            "in the page cache; flushed once a second (appendfsync everysec), so a power cut loses a second".into()
        }
        ("yes", other) => format!("in the page cache; flushed when the kernel likes (appendfsync {other})"),
        _ => "in the memory of the server; nothing is written (appendonly no)".into(),
    })
}

fn stream(plan: &TopicPlan, topic: u32, partition: u32) -> String {
    format!("{}-{partition}", plan.name(topic))
}

impl Driver for Redis {
    fn about(&self) -> About {
        About { name: "redis streams".into(), version: self.version.clone(), ack: self.ack.clone() }
    }

    fn make_topics(&self, plan: &TopicPlan) -> io::Result<()> {
        if plan.retention_bytes.is_some() {
            return Err(io::Error::other(
                "`topics.retention_mib`: Redis trims streams by entries, not by bytes",
            ));
        }
        self.topics.set(plan.clone()).map_err(|_| io::Error::other("topics are made once"))
    }

    fn producer(&self, outbox: Arc<Outbox>) -> io::Result<Box<dyn Producer>> {
        let connection = self.client.get_connection().map_err(io::Error::other)?;
        let (sender, orders) = channel();
        let sending = Arc::clone(&outbox);
        std::thread::spawn(move || pipelines(connection, &orders, &sending));
        Ok(Box::new(Line { plan: self.plan()?, orders: sender }))
    }

    fn reader(&self) -> io::Result<Box<dyn Reader>> {
        let plan = self.plan()?;
        let mut places = Vec::new();
        for topic in 0..plan.count {
            places.extend((0..plan.partitions).map(|partition| (topic, partition)));
        }
        let keys =
            places.iter().map(|(topic, partition)| stream(&plan, *topic, *partition)).collect();
        let connection = self.client.get_connection().map_err(io::Error::other)?;
        let count = places.len();
        Ok(Box::new(Tail {
            connection,
            places,
            keys,
            last: vec!["0".into(); count],
            offsets: vec![0; count],
        }))
    }
}

struct Order {
    identity: Identity,
    partition: u32,
    stream: String,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

struct Line {
    plan: TopicPlan,
    orders: Sender<Order>,
}

impl Producer for Line {
    fn send(&mut self, message: &Message<'_>) -> Result<(), Failure> {
        let partition = partition_of(message, self.plan.partitions);
        let order = Order {
            identity: message.identity,
            partition,
            stream: stream(&self.plan, message.topic, partition),
            key: message.key.map(<[u8]>::to_vec),
            value: message.value.to_vec(),
        };
        let gone = |_| Failure { definite: true, text: "the connection is gone".into() };
        self.orders.send(order).map_err(gone)
    }
}

/// Until the producer is dropped, or the connection breaks: then nobody knows what became of what was under way.
fn pipelines(mut connection: Connection, orders: &Receiver<Order>, outbox: &Outbox) {
    while let Ok(first) = orders.recv() {
        let mut batch = vec![first];
        batch.extend(orders.try_iter().take(PIPELINE_MAX - 1));
        let mut pipe = redis::pipe();
        for order in &batch {
            let add = pipe.cmd("XADD").arg(&order.stream).arg("*").arg("v").arg(&order.value);
            if let Some(key) = &order.key {
                add.arg("k").arg(key);
            }
        }
        let answers: RedisResult<Vec<String>> = pipe.query(&mut connection);
        let at = outbox.clock.now();
        let failed = answers.err().map(|error| error.to_string());
        for order in batch {
            let result = match &failed {
                None => {
                    Ok(Placed { partition: order.partition, offset: None, core: 0, stages: None })
                }
                Some(text) => Err(Failure { definite: false, text: text.as_str().into() }),
            };
            outbox.settle(Settled { first: order.identity, count: 1, at, result });
        }
        if failed.is_some() {
            break;
        }
    }
    // What comes later finds nobody.
    while let Ok(order) = orders.recv() {
        let result = Err(Failure { definite: true, text: "the connection is gone".into() });
        outbox.settle(Settled { first: order.identity, count: 1, at: outbox.clock.now(), result });
    }
}

struct Tail {
    connection: Connection,
    places: Vec<(u32, u32)>,
    keys: Vec<String>,
    /// The last id of each stream.
    last: Vec<String>,
    /// Entries have no dense numbers: they are counted.
    offsets: Vec<u64>,
}

impl Reader for Tail {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Record<'_>)) -> io::Result<()> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(READ_MAX).arg("BLOCK").arg(timeout.as_millis().max(1) as u64);
        read.arg("STREAMS").arg(&self.keys).arg(&self.last);
        let reply: Option<StreamReadReply> =
            read.query(&mut self.connection).map_err(io::Error::other)?;
        for stream in reply.map(|reply| reply.keys).unwrap_or_default() {
            let Some(at) = self.keys.iter().position(|key| *key == stream.key) else { continue };
            let (topic, partition) = self.places[at];
            for entry in &stream.ids {
                let field = |name: &str| match entry.map.get(name) {
                    Some(Value::BulkString(bytes)) => Some(&bytes[..]),
                    _ => None,
                };
                let (key, value) = (field("k"), field("v"));
                take(Record { topic, partition, offset: self.offsets[at], key, value });
                self.offsets[at] += 1;
            }
            if let Some(entry) = stream.ids.last() {
                self.last[at].clone_from(&entry.id);
            }
        }
        Ok(())
    }
}
