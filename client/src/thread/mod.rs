//! The client for blocking code, for callbacks, and for any async runtime: an engine, its sockets,
//! and one IO thread.

mod admin;
mod consumer;
mod core;
mod delivery;
mod io;
mod producer;
mod signal;
mod socket;
mod stream;
mod telling;

pub use admin::{Admin, PlanProgress};
pub use consumer::{ConsumeError, Consumer, Records};
pub use delivery::{Delivery, Report};
pub use producer::{CallbackProducer, Producer};
pub use stream::Batches;

use crate::engine::{Config, ConsumerConfig, Counters, Engine, ObjectiveReport};
use crate::{Compression, Durability, Partitioner};
use core::Shared;
use corelog_protocol::ids::ShardId;
use delivery::Listener;
use std::io::{Error as IoError, ErrorKind};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A connection to a cluster. Cheap to clone; the last clone, producer, consumer or admin that
/// goes stops the IO thread and fails what is on its way.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    delivery_max: Duration,
}

/// Settings of a [`Client`]. All have defaults but the address.
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
    address: Result<(), String>,
    spin: Duration,
    listener: Option<Listener>,
}

impl Client {
    /// Begins with the defaults.
    #[must_use]
    pub fn builder() -> Builder {
        let config = Config::new(Vec::new());
        let address = Err(String::from("no address given"));
        Builder { config, address, spin: Duration::ZERO, listener: None }
    }

    /// Sends records. All producers of a client share its batches, windows and budget.
    #[must_use]
    pub fn producer(&self) -> Producer {
        Producer::new(Arc::clone(&self.inner))
    }

    /// Reads partitions, with the default settings.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        self.consumer_with(ConsumerConfig::default())
    }

    /// Reads partitions.
    #[must_use]
    pub fn consumer_with(&self, config: ConsumerConfig) -> Consumer {
        Consumer::new(Arc::clone(&self.inner), config)
    }

    /// Makes and asks about topics.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.inner))
    }

    /// How sends stand to the [objective](Builder::objective). None: there is none.
    #[must_use]
    pub fn objective(&self) -> Option<ObjectiveReport> {
        self.inner.shared.lock().engine.objective()
    }

    /// What was counted since the client was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.inner.shared.lock().engine.counters()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.lock().is_stopping = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the client's IO thread panicked");
        }
    }
}

impl Builder {
    /// Where a broker listens: `"host:port"`. May be called again for more brokers of the cluster.
    #[must_use]
    pub fn address(mut self, address: impl ToSocketAddrs) -> Self {
        match address.to_socket_addrs() {
            Ok(addresses) => {
                self.config.addresses.extend(addresses);
                self.address = Ok(());
            }
            Err(error) => self.address = Err(error.to_string()),
        }
        self
    }

    /// Told to the broker, for its logs and limits.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.config.client_name = name.to_owned();
        self
    }

    /// How safe records must be that do not say it themselves. Default `quorum_durable`.
    #[must_use]
    pub fn durability(mut self, level: Durability) -> Self {
        self.config.producer.durability = level;
        self
    }

    /// How long a batch may wait for company. Default 0: it leaves at once if the window has room.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.producer.linger_nanos = linger.as_nanos() as u64;
        self
    }

    /// Instead of a linger: the 99th of 100 records is to be delivered within this time. Linger and
    /// batch size follow from what is measured; [`Client::objective`] tells how it stands, and
    /// [`on_objective`](Self::on_objective) when it cannot be met.
    ///
    /// # Panics
    /// [`connect`](Self::connect) does, if it is zero.
    #[must_use]
    pub fn objective(mut self, p99: Duration) -> Self {
        self.config.producer.objective_nanos = Some(p99.as_nanos() as u64);
        self
    }

    /// Called on the client's IO thread when the objective becomes infeasible at the present load, and
    /// when it is met again. It must be quick.
    #[must_use]
    pub fn on_objective(
        mut self,
        callback: impl Fn(&ObjectiveReport) + Send + Sync + 'static,
    ) -> Self {
        self.listener = Some(Listener(Arc::new(callback)));
        self
    }

    /// How batches are compressed. Default none. Consumers unpack whatever they meet.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.producer.compression = compression;
        self
    }

    /// From `send` to delivery or failure. Default 30 s.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.producer.delivery_nanos_max = timeout.as_nanos() as u64;
        self
    }

    /// Where records without key and partition go. Default sticky.
    #[must_use]
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.config.producer.partitioner = partitioner;
        self
    }

    /// The rack, or zone, that the client is in. Its consumers read from replicas there, which spares traffic between
    /// racks: see [`ConsumerConfig::rack`], which goes before. Default none.
    #[must_use]
    pub fn rack(mut self, rack: &str) -> Self {
        self.config.rack = Some(rack.to_owned());
        self
    }

    /// All bytes sent and not yet delivered. Default 64 MiB.
    #[must_use]
    pub fn memory_max(mut self, bytes: usize) -> Self {
        self.config.producer.memory_bytes_max = bytes;
        self
    }

    /// How long the IO thread looks for work before it sleeps. Default 0. Costs a core while there
    /// is traffic, and takes the wake-up out of the latency.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// For tests: every connection asks for this shard, and everything goes through it.
    #[must_use]
    pub fn insist_on_shard(mut self, shard: u16) -> Self {
        self.config.insist_on_shard = Some(ShardId(shard));
        self
    }

    /// Whether the broker recognises batches that are sent again after a lost answer. Default true.
    #[must_use]
    pub fn idempotent(mut self, is_idempotent: bool) -> Self {
        self.config.producer.is_idempotent = is_idempotent;
        self
    }

    /// All other settings.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the IO thread. Connections are opened when they are needed, so this does not wait for
    /// a broker.
    ///
    /// # Errors
    /// If no address was given or found, or the operating system refuses a thread or descriptors.
    pub fn connect(self) -> Result<Client, IoError> {
        let Self { config, address, spin, listener } = self;
        address.map_err(|error| IoError::new(ErrorKind::InvalidInput, error))?;
        if config.addresses.is_empty() {
            return Err(IoError::new(ErrorKind::NotFound, "the address names no host"));
        }
        let delivery_max = Duration::from_nanos(config.producer.delivery_nanos_max);
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), io::WAKER)?;
        let engine = Engine::new(config, crate::seed::fresh());
        let shared = Arc::new(Shared::new(engine, poll.registry().try_clone()?, waker));
        shared.lock().listener = listener;
        let thread = io::IoThread { shared: Arc::clone(&shared), poll, spin };
        let thread =
            std::thread::Builder::new().name("corelog-io".into()).spawn(move || thread.run())?;
        Ok(Client { inner: Arc::new(Inner { shared, thread: Some(thread), delivery_max }) })
    }
}
