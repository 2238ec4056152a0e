//! What runs on one shard's executor, from its first event to its last: the tasks around the
//! [`Core`], and the loop that takes orders from the thread that started the broker.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::Poll;
use std::time::Duration;

use futures_io::AsyncRead;
use glommio::channels::shared_channel::{SharedReceiver, SharedSender};
use glommio::net::UnixStream;
use glommio::timer::{Timer, sleep};

use crate::driver::accept::{self, Door};
use crate::driver::core::{Core, Life, Mail, breathe, keep_waker};
use crate::driver::counters::ShardCounters;
use crate::driver::dial::dial_loop;
use crate::driver::disk::{self, Disks};
use crate::driver::machine::Machine;
use crate::shard::event::Event;
use corelog_protocol::ids::{BrokerId, ShardId};

/// Slots of a channel between two shards. glommio's channels get slow below 1,024.
pub const CHANNEL_SLOTS: usize = 1024;

/// How often a shard shows that it lives.
pub const BEAT: Duration = Duration::from_millis(500);

/// Turns in a row after which completions are let in.
const TURNS_IN_A_ROW: u32 = 4;

/// What the starting thread orders.
#[derive(Debug)]
pub enum Command {
    /// All shards have recovered: accept connections.
    Serve(std::net::TcpListener),
    /// Stop in good order.
    Stop,
    /// All shards have stopped, or are not waited for any longer.
    Exit,
    Counters(mpsc::Sender<ShardCounters>),
    /// Names of the configuration lead elsewhere now.
    Located(Vec<(BrokerId, SocketAddr)>),
}

/// What a shard reports.
#[derive(Debug)]
pub enum News {
    Ready,
    Stopped,
    /// A data directory could not be shown to the executor.
    Failed(String),
    /// The executor has ended; nothing of it is in flight.
    Ended,
}

/// Commands on their way, and a socket whose bytes wake the executor.
#[derive(Debug, Clone, Default)]
pub struct Commands(Arc<Mutex<VecDeque<Command>>>);

impl Commands {
    pub fn push(&self, command: Command) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
    }

    fn pop(&self) -> Option<Command> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Everything that one executor is given.
pub struct Setup {
    pub shard: usize,
    pub shards: usize,
    pub machine: Box<dyn FnOnce() -> Box<dyn Machine> + Send>,
    pub directories: Vec<PathBuf>,
    pub door: Door,
    /// To and from each other shard; `None` at the own place.
    pub senders: Vec<Option<SharedSender<Mail>>>,
    pub receivers: Vec<Option<SharedReceiver<Mail>>>,
    pub commands: Commands,
    pub bell: std::os::unix::net::UnixStream,
    pub beat: Arc<AtomicU64>,
    pub news: mpsc::Sender<(usize, News)>,
}

/// Runs one shard until it is told to exit.
pub async fn run(setup: Setup) {
    let Setup { shard, shards, machine, directories, door, senders, receivers, .. } = setup;
    for directory in &directories {
        if let Err(error) = disk::probe(directory).await {
            let text = format!("cannot read {} directly: {error}", directory.display());
            _ = setup.news.send((shard, News::Failed(text)));
            return;
        }
    }
    let core = Core::new(machine(), Disks::new(directories), shards);
    disk::spawn_workers(&core);
    glommio::spawn_local(turn_loop(Rc::clone(&core))).detach();
    glommio::spawn_local(timer_loop(Rc::clone(&core))).detach();
    glommio::spawn_local(dial_loop(Rc::clone(&core))).detach();
    #[cfg(feature = "delays")]
    glommio::spawn_local(super::delays::send_loop(Rc::clone(&core))).detach();
    glommio::spawn_local(beat_loop(setup.beat)).detach();
    glommio::spawn_local(life_loop(Rc::clone(&core), shard, setup.news)).detach();
    for (to, sender) in senders.into_iter().enumerate() {
        if let Some(sender) = sender {
            glommio::spawn_local(send_loop(Rc::clone(&core), to, sender)).detach();
        }
    }
    for (from, receiver) in receivers.into_iter().enumerate() {
        if let Some(receiver) = receiver {
            glommio::spawn_local(receive_loop(Rc::clone(&core), from, receiver)).detach();
        }
    }
    core.deliver(Event::Start);

    // SAFETY: a socket that was just given up by its owner.
    let mut bell = unsafe { UnixStream::from_raw_fd(setup.bell.into_raw_fd()) };
    let mut open = true;
    while open {
        open = rung(&mut bell).await;
        while let Some(command) = setup.commands.pop() {
            match command {
                Command::Serve(listener) => {
                    let task = accept::accept_loop(Rc::clone(&core), listener, door);
                    glommio::spawn_local(task).detach();
                }
                // Its door stays open: others come with what it waits for before it lets go of its lanes.
                Command::Stop => core.deliver(Event::Stop),
                Command::Exit => open = false,
                Command::Located(brokers) => core.deliver(Event::Located { brokers }),
                // Who asked may have gone.
                Command::Counters(reply) => _ = reply.send(counters(&core, shard)),
            }
        }
    }
    end(&core).await;
}

/// Waits until the kernel is done with this shard's memory and files, and lets go of everything.
/// What was queued is dropped; what was begun has no effect any more but on the disk.
async fn end(core: &Rc<Core>) {
    core.with(|inner| inner.die());
    while core.with(|inner| inner.disks.in_flight()) > 0 {
        sleep(Duration::from_micros(200)).await;
    }
    let left = core.with(|inner| inner.let_go());
    drop(left);
    disk::close_all(core).await;
    // The tasks see that the shard is dead, and end.
    for _ in 0..4 {
        breathe().await;
    }
}

async fn rung(bell: &mut UnixStream) -> bool {
    let mut bytes = [0; 64];
    poll_fn(|cx| Pin::new(&mut *bell).poll_read(cx, &mut bytes)).await.is_ok_and(|count| count > 0)
}

fn counters(core: &Core, shard: usize) -> ShardCounters {
    let mut values = Vec::new();
    core.with(|inner| {
        let mut add = |name: &'static str, value| values.push((name.to_owned(), value));
        inner.machine.each_counter(&mut add);
        inner.counters.each(add);
    });
    ShardCounters { shard: shard as u16, values }
}

/// Gives the shard its turns. Woken into the executor's queue behind every task that is ready, so
/// that one turn finds what all of them brought.
async fn turn_loop(core: Rc<Core>) {
    let mut in_a_row = 0;
    loop {
        poll_fn(|cx| core.poll_turn(cx)).await;
        #[cfg(feature = "delays")]
        super::delays::at(super::delays::Stage::Append).await;
        core.deliver(Event::Turn);
        if core.with(|inner| inner.life) == Life::Dead {
            return;
        }
        if !core.turn_asked() {
            in_a_row = 0;
            continue;
        }
        in_a_row += 1;
        if in_a_row % TURNS_IN_A_ROW == 0 {
            breathe().await;
        } else {
            glommio::executor().yield_now().await;
        }
    }
}

/// Wakes the shard at its deadline.
async fn timer_loop(core: Rc<Core>) {
    let mut at = poll_fn(|cx| core.poll_deadline(cx)).await;
    loop {
        let mut timer = Timer::new(core.until(at));
        let earlier = poll_fn(|cx| match core.poll_deadline(cx) {
            Poll::Ready(at) => Poll::Ready(Some(at)),
            Poll::Pending => Pin::new(&mut timer).poll(cx).map(|_| None),
        })
        .await;
        at = match earlier {
            Some(at) => at,
            None => {
                core.on_timer();
                let at = poll_fn(|cx| core.poll_deadline(cx)).await;
                if core.until(at).is_zero() {
                    // A shard that wants to be woken at once, again and again, holds up nobody.
                    breathe().await;
                }
                at
            }
        };
    }
}

async fn beat_loop(beat: Arc<AtomicU64>) {
    loop {
        beat.fetch_add(1, Ordering::Relaxed);
        sleep(BEAT).await;
    }
}

/// Reports each change of the shard's life once.
async fn life_loop(core: Rc<Core>, shard: usize, news: mpsc::Sender<(usize, News)>) {
    let mut known = Life::Recovering;
    loop {
        known = poll_fn(|cx| {
            core.with(|inner| {
                if inner.life != known {
                    return Poll::Ready(inner.life);
                }
                keep_waker(&mut inner.life_waker, cx);
                Poll::Pending
            })
        })
        .await;
        // Nobody listens any more once the broker is dropped.
        match known {
            Life::Ready => _ = news.send((shard, News::Ready)),
            Life::Stopped => _ = news.send((shard, News::Stopped)),
            Life::Recovering | Life::Dead => return,
        }
    }
}

/// Carries this shard's mail to another. The only task that sends on the channel.
async fn send_loop(core: Rc<Core>, to: usize, sender: SharedSender<Mail>) {
    let sender = sender.connect().await;
    loop {
        let mail = poll_fn(|cx| {
            core.with(|inner| {
                if inner.life == Life::Dead {
                    return Poll::Ready(None);
                }
                let outbox = &mut inner.outboxes[to];
                match outbox.mail.pop_front() {
                    Some(mail) => Poll::Ready(Some(mail)),
                    None => {
                        keep_waker(&mut outbox.waker, cx);
                        Poll::Pending
                    }
                }
            })
        })
        .await;
        let Some(mail) = mail else { return };
        // The other side ends only when the whole broker does.
        if sender.send(mail).await.is_err() {
            return;
        }
    }
}

/// Takes another shard's mail. Never waits for anything but mail.
async fn receive_loop(core: Rc<Core>, from: usize, receiver: SharedReceiver<Mail>) {
    let receiver = receiver.connect().await;
    while let Some(mail) = receiver.recv().await {
        match mail {
            Mail::Socket { descriptor, peer } => accept::adopt(&core, descriptor, peer),
            Mail::Message(message) => {
                core.deliver(Event::Told { from: ShardId(from as u16), message });
            }
        }
    }
}
