//! A running broker, as the thread sees it that started it.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corelog_protocol::ids::{BrokerId, ClusterId, ShardId};
use glommio::channels::shared_channel;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use crate::config::Config;
use crate::driver::accept::Door;
use crate::driver::core::Mail;
use crate::driver::counters::{Counters, ShardCounters};
use crate::driver::executor::{self, CHANNEL_SLOTS, Command, Commands, News, Setup};
use crate::driver::identity::{self, Identity};
use crate::driver::machine::Machine;
use crate::driver::names::{self, NameWatch};
use crate::driver::open_files;
use crate::driver::start::{self, Prepared};
use crate::driver::start_error::StartError;
use crate::driver::watchdog::Watchdog;
use crate::metadata::balance::BalanceConfig;
use crate::random::Random;
use crate::shard::{Shard, ShardConfig};
use crate::time::Nanos;

/// Threads of a shard's blocking pool: one for what is slow, one for what follows it.
const BLOCKING_THREADS: usize = 2;

/// How long the caller of `counters` waits for a shard.
const COUNTERS_TIME_MAX: Duration = Duration::from_secs(5);

/// A broker in this process: one pinned executor thread per shard. Dropping it aborts it.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    identity: Identity,
    shards: Vec<ShardThread>,
    news: Mutex<Receiver<(usize, News)>>,
    stop_time_max: Duration,
    watchdog: Option<Watchdog>,
    names: Option<NameWatch>,
    /// The locks on the data directories, held until the last shard has ended.
    locks: Vec<File>,
}

#[derive(Debug)]
struct ShardThread {
    orders: Orders,
    thread: Option<JoinHandle<()>>,
}

/// The way to a shard's executor, from any thread.
#[derive(Clone, Debug)]
struct Orders {
    commands: Commands,
    bell: Arc<UnixStream>,
}

impl Orders {
    fn give(&self, command: Command) {
        self.commands.push(command);
        // A shard that has ended hears nothing.
        _ = (&*self.bell).write_all(&[1]);
    }
}

/// Says that a shard's thread has ended, however it does.
struct LastWord {
    shard: usize,
    news: mpsc::Sender<(usize, News)>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        _ = self.news.send((self.shard, News::Ended));
    }
}

impl Broker {
    /// Starts a broker and returns when all its shards have recovered and accept connections.
    ///
    /// # Errors
    /// When the host, the configuration or a data directory does not allow it. Nothing is left
    /// running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, |shard| {
            let random = Random::new(random_u128() as u64);
            Box::new(move || Box::new(Shard::new(shard, random)) as Box<dyn Machine>)
        })
    }

    /// Starts a broker whose shards are made by `machine`.
    pub(crate) fn start_with(
        config: Config,
        machine: impl Fn(ShardConfig) -> Box<dyn FnOnce() -> Box<dyn Machine> + Send>,
    ) -> Result<Self, StartError> {
        let Prepared { cores, directories, locks, listeners, address } = start::prepare(&config)?;
        let cluster = config.cluster.cluster_id()?.map(ClusterId);
        let places = names::resolve(&config.cluster, address)?;
        let identity = identity::establish(&directories, cluster, random_u128)?;
        let shards = cores.len();
        let open_files_max = open_files::raise_limit();
        let wanted = config.network.connections_max;
        let connections_max = open_files::connections_max(wanted, open_files_max, shards);
        if connections_max < wanted {
            tracing::warn!(
                connections_max,
                wanted,
                open_files_max,
                "fewer connections per shard than configured: the limit of open files is too low"
            );
        }
        let life = random_u128() as u64;
        let shard_config = |shard: usize| ShardConfig {
            directories: directories.len() as u16,
            lanes_per_shard: config.log.lanes_per_shard as u16,
            segment_bytes: config.log.segment_bytes,
            scrub_bytes_per_second: config.log.scrub_bytes_per_second,
            memory_bytes: usize::try_from(config.memory.shard_bytes).unwrap_or(usize::MAX),
            frame_bytes_max: config.network.frame_bytes_max as usize,
            connections_max,
            connections_per_address_max: config.network.connections_per_address_max,
            broker: BrokerId(config.cluster.broker.max(1)),
            life,
            cluster_brokers: places.brokers.clone(),
            join: config.cluster.join,
            advertise: places.advertise,
            rack: config.cluster.rack.as_str().into(),
            replicas_default: config.cluster.replicas as u8,
            detect: Nanos::from_millis(config.cluster.detect_ms),
            balance: config.cluster.balance_leaders.then(BalanceConfig::default),
            #[cfg(feature = "delays")]
            delays: crate::driver::delays::of_shard(),
            ..ShardConfig::new(
                ShardId(shard as u16),
                shards as u16,
                identity.cluster,
                identity.incarnation,
            )
        };
        for shard in 0..shards {
            shard_config(shard)
                .check()
                .map_err(|sentence| StartError::Config(crate::config::ConfigError(sentence)))?;
        }

        let (news_sender, news) = mpsc::channel();
        let beats: Vec<_> = (0..shards).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let mut channels = Channels::new(shards);
        let mut broker = Self {
            address,
            identity,
            shards: Vec::new(),
            news: Mutex::new(news),
            stop_time_max: Duration::from_millis(config.runtime.stop_ms_max),
            watchdog: None,
            names: None,
            locks,
        };
        for (shard, core) in cores.iter().enumerate() {
            let (bell, their_bell) = UnixStream::pair().map_err(runtime)?;
            their_bell.set_nonblocking(true).map_err(runtime)?;
            let commands = Commands::default();
            let (senders, receivers) = channels.take(shard);
            let setup = Setup {
                shard,
                shards,
                machine: machine(shard_config(shard)),
                directories: directories.clone(),
                door: Door {
                    shard,
                    shards,
                    preambles_per_address_max: config.network.preambles_per_address_max,
                    preamble_time_max: Duration::from_millis(config.network.preamble_ms_max),
                },
                senders,
                receivers,
                commands: commands.clone(),
                bell: their_bell,
                beat: Arc::clone(&beats[shard]),
                news: news_sender.clone(),
            };
            let made = spawn(setup, *core, &config, &news_sender)?;
            let orders = Orders { commands, bell: Arc::new(bell) };
            broker.shards.push(ShardThread { orders, thread: Some(made) });
        }
        drop(news_sender);
        let patience = Duration::from_millis(config.runtime.watchdog_ms);
        broker.watchdog = Some(Watchdog::start(beats, patience).map_err(runtime)?);
        broker.wait_until_ready()?;
        for (shard, listener) in broker.shards.iter().zip(listeners) {
            shard.orders.give(Command::Serve(listen(listener, address)?));
        }
        let everybody: Vec<Orders> = broker.shards.iter().map(|it| it.orders.clone()).collect();
        let tell = move |brokers: Vec<_>| {
            everybody.iter().for_each(|it| it.give(Command::Located(brokers.clone())));
        };
        let names = NameWatch::start(&config.cluster, &places, address, tell);
        broker.names = names.map_err(runtime)?;
        tracing::info!(%address, shards, cluster = %format_args!("{:032x}", identity.cluster.0),
            "the broker is ready");
        Ok(broker)
    }

    /// Where clients connect: the configured address, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many shards run.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The cluster that the data belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    /// Stops in good order: refuses new work, makes durable what is acknowledged, closes. After
    /// `runtime.stop_ms_max` it aborts what has not stopped, and says so.
    pub fn stop(mut self) {
        for shard in &self.shards {
            shard.orders.give(Command::Stop);
        }
        let deadline = Instant::now() + self.stop_time_max;
        let mut running: Vec<usize> = (0..self.shards.len()).collect();
        while !running.is_empty() {
            match self.next_news(deadline) {
                Ok((shard, News::Stopped | News::Ended)) => running.retain(|other| *other != shard),
                Ok(_) => {}
                Err(_) => {
                    tracing::error!(?running, "not all shards have stopped in time: aborting them");
                    break;
                }
            }
        }
        self.end();
    }

    /// Stops at once, as a crash would: nothing is flushed, nothing more is acknowledged, queued
    /// work is dropped. Returns when the kernel holds no write of this broker any more, so that
    /// another one can open the same directories.
    pub fn abort(mut self) {
        self.end();
    }

    /// What the shards have counted so far. May be called from any thread.
    pub fn counters(&self) -> Counters {
        let (sender, receiver) = mpsc::channel::<ShardCounters>();
        for shard in &self.shards {
            shard.orders.give(Command::Counters(sender.clone()));
        }
        drop(sender);
        let deadline = Instant::now() + COUNTERS_TIME_MAX;
        let mut shards = Vec::new();
        while shards.len() < self.shards.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok(counters) => shards.push(counters),
                Err(_) => break,
            }
        }
        shards.sort_by_key(|counters| counters.shard);
        Counters { shards }
    }

    fn next_news(&self, deadline: Instant) -> Result<(usize, News), RecvTimeoutError> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.news.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(left)
    }

    fn wait_until_ready(&self) -> Result<(), StartError> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ready = 0;
        while ready < self.shards.len() {
            let sentence = match news.recv() {
                Ok((_, News::Ready)) => {
                    ready += 1;
                    continue;
                }
                Ok((shard, News::Failed(text))) => format!("Shard {shard} {text}: check the disk."),
                Ok((shard, _)) => {
                    format!("Shard {shard} stopped while starting: its reason is in the log above.")
                }
                Err(_) => "All shards stopped while starting: their reasons are in the log above."
                    .to_owned(),
            };
            return Err(StartError::Runtime { sentence });
        }
        Ok(())
    }

    /// Ends all executors, and gives the directories free when they have ended.
    fn end(&mut self) {
        for shard in &self.shards {
            shard.orders.give(Command::Exit);
        }
        let deadline = Instant::now() + self.stop_time_max;
        let mut hung = false;
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let Some(thread) = shard.thread.take() else { continue };
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                tracing::error!(shard = index, "the executor does not end: its thread is left");
                hung = true;
            } else if thread.join().is_err() {
                tracing::error!(shard = index, "the executor has panicked");
            }
        }
        if hung {
            // Somebody may still write: keep the directories locked for the rest of the process.
            std::mem::forget(std::mem::take(&mut self.locks));
        }
        self.locks.clear();
        self.watchdog = None;
        self.names = None;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

/// The channels between each two shards, given out row by row.
struct Channels {
    senders: Vec<Vec<Option<shared_channel::SharedSender<Mail>>>>,
    receivers: Vec<Vec<Option<shared_channel::SharedReceiver<Mail>>>>,
}

type Row = (
    Vec<Option<shared_channel::SharedSender<Mail>>>,
    Vec<Option<shared_channel::SharedReceiver<Mail>>>,
);

impl Channels {
    fn new(shards: usize) -> Self {
        let mut senders: Vec<Vec<_>> =
            (0..shards).map(|_| (0..shards).map(|_| None).collect()).collect();
        let mut receivers: Vec<Vec<_>> =
            (0..shards).map(|_| (0..shards).map(|_| None).collect()).collect();
        for from in 0..shards {
            for to in (0..shards).filter(|to| *to != from) {
                let (sender, receiver) = shared_channel::new_bounded(CHANNEL_SLOTS);
                senders[from][to] = Some(sender);
                receivers[to][from] = Some(receiver);
            }
        }
        Self { senders, receivers }
    }

    fn take(&mut self, shard: usize) -> Row {
        (std::mem::take(&mut self.senders[shard]), std::mem::take(&mut self.receivers[shard]))
    }
}

/// Starts one executor thread and waits until its rings are made.
fn spawn(
    setup: Setup,
    core: usize,
    config: &Config,
    news: &mpsc::Sender<(usize, News)>,
) -> Result<JoinHandle<()>, StartError> {
    let shard = setup.shard;
    let io_bytes = config.memory.io_bytes as usize;
    let spin = Duration::from_micros(config.runtime.spin_us);
    let last_word = LastWord { shard, news: news.clone() };
    let (made_sender, made) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("corelog-{shard}"))
        .spawn(move || {
            let _last_word = last_word;
            let mut builder = LocalExecutorBuilder::new(Placement::Fixed(core))
                .name("corelog")
                .io_memory(io_bytes)
                .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS));
            if !spin.is_zero() {
                builder = builder.spin_before_park(spin);
            }
            // The blocking pool's threads are made here, and inherit the name of this one.
            name_thread(&format!("pool-{shard}"));
            let made = builder.make();
            name_thread(&format!("corelog-{shard}"));
            match made {
                Ok(executor) => {
                    _ = made_sender.send(Ok(()));
                    executor.run(executor::run(setup));
                }
                Err(error) => _ = made_sender.send(Err(error.to_string())),
            }
        })
        .map_err(runtime)?;
    match made.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(StartError::Runtime {
            sentence: format!(
                "The executor of shard {shard} cannot start ({error}): see `corelog-tune inspect`."
            ),
        }),
        Err(_) => Err(StartError::Runtime {
            sentence: format!("The executor of shard {shard} panicked while starting."),
        }),
    }
}

/// Names the calling thread, as `top` and `perf` show it.
fn name_thread(name: &str) {
    let Ok(name) = CString::new(name) else { return };
    // SAFETY: a nul-terminated string; the kernel copies its first 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

fn listen(socket: socket2::Socket, address: SocketAddr) -> Result<TcpListener, StartError> {
    socket.listen(1024).map_err(|error| StartError::Listen { address, error })?;
    Ok(socket.into())
}

fn runtime(error: std::io::Error) -> StartError {
    StartError::Runtime { sentence: format!("The host refuses a thread or a socket ({error}).") }
}

/// 16 bytes from the operating system.
pub(super) fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.expect("every Linux has /dev/urandom");
    u128::from_le_bytes(bytes)
}
