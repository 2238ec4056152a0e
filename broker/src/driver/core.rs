//! One shard's executor state: the state machine, its memory, its connections, its orders. Events
//! go in at [`Core::deliver`]; the effects of each step are carried out before it returns, and what
//! completes at once (a send that the kernel took whole) is delivered in the same call.
//!
//! Everything sits in one `RefCell` that is borrowed inside polls only, never across an await.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::net::TcpStream;
use socket2::SockRef;

use crate::disk::{DiskDone, DiskOrder, FileId, OpId};
use crate::driver::clock::Clock;
use crate::driver::conn::{Closing, Connection, Connections, Reading};
use crate::driver::dial::Dial;
use crate::driver::disk::{Disks, OpenFile};
use crate::driver::log_limit::LogLimit;
use crate::driver::machine::Machine;
use crate::driver::memory::DmaMemory;
use crate::driver::serve::{Burst, linger};
use crate::limits::RECEIVE_BYTES;
use crate::memory::{Memory, Piece, Slot};
use crate::shard::effect::{Effect, Effects};
use crate::shard::event::{Conn, DialId, Event, Peer};
use crate::shard::message::ShardMessage;
use crate::time::Monotonic;

/// Connections that linger at once: they count in no other limit.
const LINGERING_MAX: usize = 256;

/// What crosses from one shard's executor to another's.
#[derive(Debug)]
pub enum Mail {
    /// A client that asked for the other shard.
    Socket {
        descriptor: OwnedFd,
        peer: SocketAddr,
    },
    Message(Box<ShardMessage>),
}

/// What waits for the one task that sends to another shard.
#[derive(Debug, Default)]
pub struct Outbox {
    pub mail: VecDeque<Mail>,
    pub waker: Option<Waker>,
}

/// Connections to other brokers that the shard wants.
#[derive(Debug, Default)]
pub struct Dials {
    pub queue: VecDeque<Dial>,
    pub under_way: usize,
    pub waker: Option<Waker>,
}

impl Dials {
    /// One is done: the next may begin.
    pub fn is_over(&mut self) {
        self.under_way -= 1;
        wake(&mut self.waker);
    }
}

/// What the driver itself counts.
#[derive(Debug, Default, Clone)]
pub struct DriverCounters {
    pub receives: u64,
    pub send_calls: u64,
    pub sends_blocked: u64,
    pub disk_writes: u64,
    pub disk_flushes: u64,
    pub disk_reads: u64,
    pub disk_zeroes: u64,
    pub disk_others: u64,
    pub sockets_handed_over: u64,
    pub preambles_refused: u64,
}

impl DriverCounters {
    pub fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
        visit("driver_receives", self.receives);
        visit("driver_send_calls", self.send_calls);
        visit("driver_sends_blocked", self.sends_blocked);
        visit("driver_disk_writes", self.disk_writes);
        visit("driver_disk_flushes", self.disk_flushes);
        visit("driver_disk_reads", self.disk_reads);
        visit("driver_disk_zeroes", self.disk_zeroes);
        visit("driver_disk_others", self.disk_others);
        visit("driver_sockets_handed_over", self.sockets_handed_over);
        visit("driver_preambles_refused", self.preambles_refused);
    }
}

/// Where a shard is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    Recovering,
    Ready,
    Stopped,
    /// Aborted: no event is delivered any more.
    Dead,
}

pub struct Core {
    inner: RefCell<Inner>,
}

pub struct Inner {
    pub machine: Box<dyn Machine>,
    pub memory: DmaMemory,
    pub connections: Connections,
    pub disks: Disks,
    pub outboxes: Vec<Outbox>,
    pub dials: Dials,
    pub counters: DriverCounters,
    /// The shard's listening socket, while it accepts.
    pub listener: Option<std::net::TcpListener>,
    /// Connections that have not yet sent their preamble, by address.
    pub preambles: BTreeMap<IpAddr, u32>,
    /// Of the tasks that wait for a preamble, to end them early.
    pub preamble_wakers: BTreeMap<u64, Waker>,
    pub preamble_log: LogLimit,
    pub life: Life,
    #[cfg(feature = "delays")]
    pub held_sends: super::delays::HeldSends,
    /// Of the task that follows the shard's life.
    pub life_waker: Option<Waker>,
    /// Connections that are over for the shard and whose last words are on their way.
    lingering: usize,
    clock: Clock,
    effects: Effects,
    pub(super) pending: VecDeque<Event>,
    pub(super) receive: Slot,
    turn_asked: bool,
    turn_waker: Option<Waker>,
    wake_at: Option<Monotonic>,
    /// What the timer is set to, if it is.
    armed: Option<Monotonic>,
    timer_waker: Option<Waker>,
}

/// Takes the waker's place, or leaves it if it is the same task's.
pub fn keep_waker(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}

fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

impl Core {
    pub fn new(machine: Box<dyn Machine>, disks: Disks, shards: usize) -> Rc<Self> {
        let mut memory = DmaMemory::new();
        let receive = memory.allocate(RECEIVE_BYTES);
        Rc::new(Self {
            inner: RefCell::new(Inner {
                machine,
                memory,
                connections: Connections::default(),
                disks,
                outboxes: (0..shards).map(|_| Outbox::default()).collect(),
                dials: Dials::default(),
                counters: DriverCounters::default(),
                listener: None,
                preambles: BTreeMap::new(),
                preamble_wakers: BTreeMap::new(),
                preamble_log: LogLimit::default(),
                life: Life::Recovering,
                #[cfg(feature = "delays")]
                held_sends: super::delays::HeldSends::default(),
                life_waker: None,
                lingering: 0,
                clock: Clock::new(),
                effects: Effects::default(),
                pending: VecDeque::new(),
                receive,
                turn_asked: false,
                turn_waker: None,
                wake_at: None,
                armed: None,
                timer_waker: None,
            }),
        })
    }

    /// Looks into the state or changes it. The closure must not await; it cannot.
    pub fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.borrow_mut())
    }

    /// Delivers one event and everything that follows from it at once.
    pub fn deliver(&self, event: Event) {
        self.inner.borrow_mut().deliver(event);
    }

    /// Takes over a socket whose preamble was read, and spawns its task.
    pub fn open(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let conn = self.with(|inner| {
            if inner.life != Life::Ready {
                return None;
            }
            let conn = inner.connections.insert(Connection::new(stream));
            inner.deliver(Event::Opened { conn, peer: peer_of(peer) });
            Some(conn)
        });
        if let Some(conn) = conn {
            self.serve(conn);
        }
    }

    /// Takes over a socket that the shard has dialed and whose preamble was sent, and spawns its task.
    pub fn open_dialed(self: &Rc<Self>, stream: TcpStream, dial: DialId) {
        let conn = self.with(|inner| {
            if inner.life != Life::Ready {
                return None;
            }
            let conn = inner.connections.insert(Connection::new(stream));
            #[cfg(feature = "delays")]
            if let Some(connection) = inner.connections.get(conn) {
                connection.is_dialed = true;
            }
            inner.deliver(Event::Dialed { dial, conn: Some(conn) });
            Some(conn)
        });
        match conn {
            Some(conn) => self.serve(conn),
            None => self.deliver(Event::Dialed { dial, conn: None }),
        }
    }

    fn serve(self: &Rc<Self>, conn: Conn) {
        let core = Rc::clone(self);
        glommio::spawn_local(async move {
            loop {
                match poll_fn(|cx| core.poll_connection(conn, cx)).await {
                    // Completions come in between the bursts of a busy peer.
                    Burst::More => breathe().await,
                    Burst::Over => return,
                    Burst::Linger(stream) => {
                        // Beyond the bound a last reply may be lost, but no descriptor is held for it.
                        if core.with(Inner::begin_to_linger) {
                            linger(stream).await;
                            core.with(|inner| inner.lingering -= 1);
                        }
                        return;
                    }
                }
            }
        })
        .detach();
    }

    fn poll_connection(&self, conn: Conn, cx: &mut Context<'_>) -> Poll<Burst> {
        self.inner.borrow_mut().poll_connection(conn, cx)
    }

    /// Ready when a turn was asked for.
    pub fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let inner = &mut *self.inner.borrow_mut();
        if std::mem::take(&mut inner.turn_asked) {
            return Poll::Ready(());
        }
        keep_waker(&mut inner.turn_waker, cx);
        Poll::Pending
    }

    /// True if the shard asked for another turn while it had one.
    pub fn turn_asked(&self) -> bool {
        self.inner.borrow().turn_asked
    }

    /// Ready with the next deadline to set the timer to: when none is set, or an earlier one is
    /// wanted. A later one leaves the timer as it is: it fires early and is set again.
    pub fn poll_deadline(&self, cx: &Context<'_>) -> Poll<Monotonic> {
        let inner = &mut *self.inner.borrow_mut();
        match inner.wake_at {
            Some(at) if inner.armed.is_none_or(|armed| at < armed) => {
                inner.armed = Some(at);
                Poll::Ready(at)
            }
            _ => {
                keep_waker(&mut inner.timer_waker, cx);
                Poll::Pending
            }
        }
    }

    /// The timer has fired: wakes the shard if its deadline has passed.
    pub fn on_timer(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.armed = None;
        let now = inner.clock.now().monotonic;
        if inner.wake_at.is_some_and(|at| at <= now) {
            inner.wake_at = None;
            inner.deliver(Event::Woken);
        }
    }

    pub fn until(&self, then: Monotonic) -> Duration {
        self.inner.borrow().clock.until(then)
    }
}

impl Inner {
    pub fn deliver(&mut self, event: Event) {
        assert!(self.pending.is_empty(), "a step is entered from the top only");
        let mut next = Some(event);
        while let Some(event) = next {
            if matches!(self.life, Life::Stopped | Life::Dead) {
                self.pending.clear();
                return;
            }
            let now = self.clock.now();
            let mut effects = std::mem::take(&mut self.effects);
            self.machine.step(now, event, &mut self.memory, &mut effects);
            for effect in effects.list.drain(..) {
                self.carry_out(effect, &effects.pieces);
            }
            effects.pieces.clear();
            self.effects = effects;
            next = self.pending.pop_front();
        }
    }

    fn carry_out(&mut self, effect: Effect, pieces: &[Piece]) {
        match effect {
            Effect::Receive { conn, target } => {
                if let Some(connection) = self.connections.get(conn)
                    && connection.closing == Closing::No
                {
                    let paused = connection.reading == Reading::Paused;
                    connection.reading = match target {
                        None => Reading::Shared,
                        Some(piece) => {
                            assert!(piece.len > 0, "nothing can be received into nothing");
                            Reading::Target(piece)
                        }
                    };
                    if paused {
                        connection.wake();
                    }
                }
            }
            Effect::Pause { conn } => {
                if let Some(connection) = self.connections.get(conn) {
                    connection.reading = Reading::Paused;
                }
            }
            Effect::Send { conn, pieces: range } => {
                let pieces = &pieces[range.start as usize..range.end as usize];
                #[cfg(feature = "delays")]
                if self.hold_send(conn, pieces) {
                    return;
                }
                self.send(conn, pieces);
            }
            Effect::Close { conn, after_sends } => {
                if let Some(connection) = self.connections.get(conn) {
                    connection.closing =
                        if after_sends { Closing::AfterSends } else { Closing::Now };
                    connection.reading = Reading::Paused;
                    connection.wake();
                }
            }
            Effect::Dial { dial, address, shard } => {
                self.dials.queue.push_back(Dial { dial, address, shard });
                wake(&mut self.dials.waker);
            }
            Effect::Disk { op, order } => self.disks.push(op, order),
            Effect::Tell { to, message } => {
                self.mail(usize::from(to.0), Mail::Message(message));
            }
            Effect::Turn => {
                if !self.turn_asked {
                    self.turn_asked = true;
                    wake(&mut self.turn_waker);
                }
            }
            Effect::Wake { at } => {
                self.wake_at = Some(at);
                if self.armed.is_none_or(|armed| at < armed) {
                    wake(&mut self.timer_waker);
                }
            }
            Effect::Ready => {
                if self.life == Life::Recovering {
                    self.life = Life::Ready;
                    wake(&mut self.life_waker);
                }
            }
            Effect::Stopped => {
                self.life = Life::Stopped;
                self.close_door();
                wake(&mut self.life_waker);
            }
        }
    }

    fn begin_to_linger(&mut self) -> bool {
        let has_room = self.lingering < LINGERING_MAX;
        self.lingering += usize::from(has_room);
        has_room
    }

    /// No event is delivered after this, and no order begun.
    pub fn die(&mut self) {
        self.life = Life::Dead;
        self.disks.forget_queue();
        self.close_door();
        wake(&mut self.life_waker);
        for waker in std::mem::take(&mut self.preamble_wakers).into_values() {
            waker.wake();
        }
        for outbox in &mut self.outboxes {
            wake(&mut outbox.waker);
        }
        self.dials.queue.clear();
        wake(&mut self.dials.waker);
        #[cfg(feature = "delays")]
        wake(&mut self.held_sends.waker);
    }

    /// Accepts no more. Closing would not do: the ring still waits for connections on the socket.
    pub fn close_door(&mut self) {
        if let Some(listener) = self.listener.take()
            && let Err(error) = SockRef::from(&listener).shutdown(Shutdown::Both)
        {
            tracing::warn!(%error, "the listening socket cannot be shut down");
        }
    }

    /// Gives up everything that tasks wait for or that holds a descriptor, at the end of an
    /// executor. What comes back is dropped outside of the borrow.
    pub fn let_go(&mut self) -> impl Sized + use<> {
        let connections: Vec<Connection> = self.connections.drain().collect();
        let outboxes: Vec<Outbox> = self.outboxes.iter_mut().map(std::mem::take).collect();
        let wakers = [
            self.life_waker.take(),
            self.turn_waker.take(),
            self.timer_waker.take(),
            self.dials.waker.take(),
        ];
        (connections, outboxes, wakers)
    }

    /// Puts mail into another shard's box. Nothing is ever dropped while both live.
    pub fn mail(&mut self, to: usize, mail: Mail) {
        let outbox = &mut self.outboxes[to];
        outbox.mail.push_back(mail);
        wake(&mut outbox.waker);
    }

    /// The next order for a worker.
    pub fn poll_order(&mut self, cx: &Context<'_>) -> Poll<Option<(OpId, DiskOrder)>> {
        if self.life == Life::Dead {
            return Poll::Ready(None);
        }
        let order = self.disks.poll_order(cx);
        if let Poll::Ready(Some((_, order))) = &order {
            *match order {
                DiskOrder::Write { .. } => &mut self.counters.disk_writes,
                DiskOrder::Flush { .. } => &mut self.counters.disk_flushes,
                DiskOrder::Read { .. } => &mut self.counters.disk_reads,
                DiskOrder::Zero { .. } => &mut self.counters.disk_zeroes,
                _ => &mut self.counters.disk_others,
            } += 1;
        }
        order
    }

    /// An order is complete.
    pub fn on_order_done(&mut self, op: OpId, done: DiskDone) {
        self.disks.finished();
        self.deliver(Event::Disk { op, done });
    }

    pub fn file(&self, file: FileId) -> Option<Rc<OpenFile>> {
        self.disks.file(file)
    }
}

fn peer_of(address: SocketAddr) -> Peer {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    Peer { address: octets, port: address.port() }
}

/// Lets the executor reap completions and run its other tasks. Waking oneself would not: the
/// executor asks its rings only when no task is ready, or after 100 ms. A timer fires only there.
pub async fn breathe() {
    glommio::timer::sleep(Duration::from_micros(2)).await;
}
