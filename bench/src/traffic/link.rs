//! The client crate, as the traffic uses it. The only file that names it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use corelog::{
    CallbackProducer, Client, Consumer, Error, FetchedBatch, Offset, PartitionPlace, Position,
    Record, Report,
};
use corelog_protocol::Durability;

use super::{Failure, Placed, Topic, Traffic};
use crate::verify::Partition;
use crate::verify::content::Identity;

/// A client whose deliveries go into the traffic's books.
pub struct Link {
    client: Client,
    producer: CallbackProducer,
    traffic: Arc<Traffic>,
}

/// A consumer of all partitions of the traffic's topics.
pub struct Reader {
    consumer: Consumer,
    topics: BTreeMap<String, u32>,
}

/// A tag holds the producer in its upper bits and the record's number in the others.
const NUMBER_BITS: u32 = 48;

impl Link {
    /// `insist`: send everything through this shard, whoever owns the partition.
    pub fn connect(
        addresses: &[SocketAddr],
        insist: Option<u16>,
        traffic: &Arc<Traffic>,
    ) -> io::Result<Self> {
        let mut builder = Client::builder().name("corelog-bench");
        for address in addresses {
            builder = builder.address(address);
        }
        if let Some(shard) = insist {
            builder = builder.insist_on_shard(shard);
        }
        let client = builder.connect()?;
        let books = Arc::clone(traffic);
        let producer = client.producer().on_delivery(move |tag, result| {
            let number = tag & ((1 << NUMBER_BITS) - 1);
            let identity = Identity { producer: (tag >> NUMBER_BITS) as u32, number };
            books.on_settled(identity, result.map(placed).map_err(failure));
        });
        Ok(Self { client, producer, traffic: Arc::clone(traffic) })
    }

    pub fn create_topic(&self, name: &str, partitions: u32) -> io::Result<()> {
        self.client.admin().create_topic(name, partitions).map(drop).map_err(io::Error::other)
    }

    /// Sends a record; the books learn what becomes of it.
    pub fn send(
        &self,
        identity: Identity,
        topic: &str,
        key: Option<&[u8]>,
        value: &[u8],
        level: Durability,
    ) {
        let record = Record { key, ..Record::to(topic).value(value).level(level) };
        let tag = u64::from(identity.producer) << NUMBER_BITS | identity.number;
        if let Err(error) = self.producer.send(&record, tag) {
            self.traffic.on_settled(identity, Err(failure(&error)));
        }
    }

    /// Reads every partition, from the offset that `from` names for (topic, partition).
    pub fn reader(&self, topics: &[Topic], from: impl Fn(u32, u32) -> u64) -> io::Result<Reader> {
        let mut consumer = self.client.consumer();
        for (index, topic) in (0..).zip(topics) {
            for partition in 0..topic.partitions {
                let position = Position::Offset(Offset(from(index, partition)));
                consumer.assign(topic.name, partition, position);
            }
        }
        let topics = (0..).zip(topics).map(|(index, topic)| (topic.name.to_owned(), index));
        Ok(Reader { consumer, topics: topics.collect() })
    }

    /// Where the topic's partitions live now, in the order of their numbers.
    pub fn places(&self, topic: &str) -> io::Result<Vec<PartitionPlace>> {
        let topic = self.client.admin().describe_topic(topic).map_err(io::Error::other)?;
        Ok(topic.places)
    }

    /// How far consumers of the partition may read.
    pub fn committed_end(&self, topic: &str, partition: u32) -> io::Result<u64> {
        let offsets = self.client.admin().offsets(topic, partition, Position::End);
        offsets.map(|offsets| offsets.committed_end.0).map_err(io::Error::other)
    }

    /// Gives up on what is under way: the books learn that its outcome is unknown.
    pub fn close(self) {}
}

/// Records of one partition that came together.
pub struct Batch {
    topic: u32,
    fetched: FetchedBatch,
}

impl Reader {
    /// Waits for records at most this long.
    pub fn poll(&mut self, timeout: Duration) -> io::Result<Option<Batch>> {
        let Some(fetched) = self.consumer.poll(timeout).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let topic = self.topics.get(&*fetched.topic).copied();
        let topic = topic.ok_or_else(|| io::Error::other("a batch of a topic not asked for"))?;
        Ok(Some(Batch { topic, fetched }))
    }
}

impl Batch {
    /// Partition, offset, key and value of each record.
    pub fn each(&self, mut see: impl FnMut(Partition, u64, Option<&[u8]>, Option<&[u8]>)) {
        let partition = (self.topic, self.fetched.partition);
        for record in self.fetched.records() {
            see(partition, record.offset.0, record.key, record.value);
        }
    }
}

fn placed(report: &Report) -> Placed {
    Placed {
        partition: report.partition,
        offset: report.offset.map(|offset| offset.0),
        level: report.level,
    }
}

fn failure(error: &Error) -> Failure {
    Failure { definite: error.is_definite(), text: error.to_string() }
}
