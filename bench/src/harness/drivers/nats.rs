//! NATS JetStream, through the crate `async-nats`. A partition is a stream with one subject, whose sequence is dense and so
//! an offset. The client is async: a runtime of one thread drives it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, HeaderMap};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio_stream_next::next;

use super::{
    About, Driver, Failure, Message, Outbox, Placed, Producer, Reader, Record, Settled, TopicPlan,
    partition_of,
};
use crate::verify::content::Identity;

const KEY: &str = "key";

/// Messages that the reader's tasks hold ready.
const READY_MAX: usize = 10_000;

pub struct Nats {
    runtime: Arc<Runtime>,
    client: Client,
    address: SocketAddr,
    topics: OnceLock<TopicPlan>,
}

mod tokio_stream_next {
    //! The next item of a stream, without a crate for it.

    use std::future::poll_fn;
    use std::pin::Pin;

    use futures_core::Stream;

    pub async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
        poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
    }
}

impl Nats {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client =
            runtime.block_on(async_nats::connect(address.to_string())).map_err(io::Error::other)?;
        Ok(Self { runtime: Arc::new(runtime), client, address, topics: OnceLock::new() })
    }

    fn plan(&self) -> io::Result<TopicPlan> {
        self.topics.get().cloned().ok_or_else(|| io::Error::other("the topics are not made yet"))
    }

    /// A connection of its own.
    fn context(&self) -> io::Result<Context> {
        let client = self.runtime.block_on(async_nats::connect(self.address.to_string()));
        let _within = self.runtime.enter();
        Ok(jetstream::new(client.map_err(io::Error::other)?))
    }
}

fn subject(plan: &TopicPlan, topic: u32, partition: u32) -> String {
    format!("{}-{partition}", plan.name(topic))
}

impl Driver for Nats {
    fn about(&self) -> About {
        About {
            name: "nats jetstream".into(),
            version: self.client.server_info().version,
            ack: "in the page cache of one server (file store); flushed every two minutes unless the server's \
                  `jetstream.sync_interval` says otherwise, which a client cannot ask"
                .into(),
        }
    }

    fn make_topics(&self, plan: &TopicPlan) -> io::Result<()> {
        let _within = self.runtime.enter();
        let context = jetstream::new(self.client.clone());
        for topic in 0..plan.count {
            for partition in 0..plan.partitions {
                let name = subject(plan, topic, partition);
                let config = stream::Config {
                    name: name.clone(),
                    subjects: vec![name],
                    max_bytes: plan.retention_bytes.map_or(-1, |bytes| bytes as i64),
                    storage: stream::StorageType::File,
                    ..stream::Config::default()
                };
                self.runtime.block_on(context.create_stream(config)).map_err(io::Error::other)?;
            }
        }
        self.topics.set(plan.clone()).map_err(|_| io::Error::other("topics are made once"))
    }

    fn producer(&self, outbox: Arc<Outbox>) -> io::Result<Box<dyn Producer>> {
        let context = self.context()?;
        let (orders, received) = unbounded_channel();
        self.runtime.spawn(publish(context, received, outbox));
        Ok(Box::new(Line { plan: self.plan()?, orders, _runtime: Arc::clone(&self.runtime) }))
    }

    fn reader(&self) -> io::Result<Box<dyn Reader>> {
        let plan = self.plan()?;
        let context = self.context()?;
        let (sender, ready) = channel(READY_MAX);
        for topic in 0..plan.count {
            for partition in 0..plan.partitions {
                let name = subject(&plan, topic, partition);
                let made = async {
                    let stream = context.get_stream(name).await.map_err(io::Error::other)?;
                    let config = pull::OrderedConfig::default();
                    let consumer =
                        stream.create_consumer(config).await.map_err(io::Error::other)?;
                    consumer.messages().await.map_err(io::Error::other)
                };
                let mut messages = self.runtime.block_on(made)?;
                let sender = sender.clone();
                self.runtime.spawn(async move {
                    while let Some(Ok(message)) = next(&mut messages).await {
                        let Ok(sequence) = message.info().map(|info| info.stream_sequence) else {
                            return;
                        };
                        let key = message.headers.as_ref().and_then(|headers| headers.get(KEY));
                        let key = key.map(|key| unhex(key.as_str()));
                        let value = message.payload.to_vec();
                        let got = Got { topic, partition, offset: sequence - 1, key, value };
                        if sender.send(got).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
        Ok(Box::new(Tail { runtime: Arc::clone(&self.runtime), ready }))
    }
}

struct Order {
    identity: Identity,
    partition: u32,
    subject: String,
    key: Option<String>,
    value: Vec<u8>,
}

struct Line {
    plan: TopicPlan,
    orders: UnboundedSender<Order>,
    _runtime: Arc<Runtime>,
}

impl Producer for Line {
    fn send(&mut self, message: &Message<'_>) -> Result<(), Failure> {
        let partition = partition_of(message, self.plan.partitions);
        let order = Order {
            identity: message.identity,
            partition,
            subject: subject(&self.plan, message.topic, partition),
            key: message.key.map(hex),
            value: message.value.to_vec(),
        };
        let gone = |_| Failure { definite: true, text: "the connection is gone".into() };
        self.orders.send(order).map_err(gone)
    }
}

async fn publish(context: Context, mut orders: UnboundedReceiver<Order>, outbox: Arc<Outbox>) {
    while let Some(order) = orders.recv().await {
        let sent = match order.key {
            None => context.publish(order.subject, order.value.into()).await,
            Some(key) => {
                let mut headers = HeaderMap::new();
                headers.insert(KEY, key);
                context.publish_with_headers(order.subject, headers, order.value.into()).await
            }
        };
        let (outbox, first, partition) = (Arc::clone(&outbox), order.identity, order.partition);
        tokio::spawn(async move {
            let acknowledged = match sent {
                Ok(ack) => ack.await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let at = outbox.clock.now();
            let result = match acknowledged {
                Ok(ack) => {
                    let offset = Some(ack.sequence.saturating_sub(1));
                    Ok(Placed { partition, offset, core: 0, stages: None })
                }
                Err(text) => Err(Failure { definite: false, text: text.into() }),
            };
            outbox.settle(Settled { first, count: 1, at, result });
        });
    }
}

struct Got {
    topic: u32,
    partition: u32,
    offset: u64,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

struct Tail {
    runtime: Arc<Runtime>,
    ready: Receiver<Got>,
}

impl Reader for Tail {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Record<'_>)) -> io::Result<()> {
        let ready = &mut self.ready;
        let first =
            self.runtime.block_on(async { tokio::time::timeout(timeout, ready.recv()).await });
        let mut next = match first {
            Ok(None) => return Err(io::Error::other("all readers of streams have ended")),
            Ok(got) => got,
            Err(_) => None,
        };
        while let Some(got) = next {
            let Got { topic, partition, offset, key, value } = &got;
            let (topic, partition, offset) = (*topic, *partition, *offset);
            take(Record { topic, partition, offset, key: key.as_deref(), value: Some(value) });
            next = self.ready.try_recv().ok();
        }
        Ok(())
    }
}

/// Headers are text.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).filter_map(digit).collect()
}
