//! The engine behind a lock, with its sockets. Whoever steps the engine carries out its effects: a
//! sender's thread writes its own batch to the socket, so that a single record needs no hop to the
//! IO thread. Users are told after the lock is released, callbacks by the IO thread only.

use super::delivery::{Listener, Outcome, Token};
use super::signal::Signal;
use super::socket::Socket;
use super::telling::{Tellings, Ticket, Untold};
use crate::Error;
use crate::engine::{
    AdminReply, ConsumerId, Effect, Effects, Engine, Event, FlushId, LinkId, Monotonic, Now,
    RequestId,
};
use mio::net::TcpStream;
use mio::{Interest, Registry, Waker};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    core: Mutex<Core>,
    /// Something left the producer's budget.
    room: Condvar,
    waker: Waker,
    started: Instant,
}

#[derive(Debug)]
pub(super) struct Core {
    pub engine: Engine<Token>,
    pub effects: Effects<Token>,
    sockets: Vec<Socket>,
    registry: Registry,
    /// Events that came of carrying out effects.
    failed: Vec<LinkId>,
    /// To be told once the lock is released.
    outcomes: Vec<Outcome>,
    /// To be told by the IO thread.
    deferred: Vec<Outcome>,
    /// Of what is deferred.
    deferred_ticket: Option<Ticket>,
    pub tellings: Tellings,
    pub flushes: BTreeMap<FlushId, Arc<Signal<()>>>,
    pub requests: BTreeMap<RequestId, Arc<Signal<Result<AdminReply, Error>>>>,
    pub consumers: BTreeMap<ConsumerId, Arc<Signal<()>>>,
    /// When the IO thread will wake by itself. None: never.
    pub sleeps_until: Option<Monotonic>,
    /// The IO thread is asleep, or about to be.
    pub is_asleep: bool,
    pub is_stopping: bool,
    pub io_thread: Option<ThreadId>,
    waits_for_room: usize,
    /// Who wants to hear of the objective.
    pub listener: Option<Listener>,
}

/// The lock, with the time at which it was taken.
pub(super) struct Step<'a> {
    shared: &'a Shared,
    pub core: MutexGuard<'a, Core>,
    pub now: Now,
}

impl Shared {
    pub(super) fn new(engine: Engine<Token>, registry: Registry, waker: Waker) -> Self {
        let core = Core {
            engine,
            effects: Vec::new(),
            sockets: Vec::new(),
            registry,
            failed: Vec::new(),
            outcomes: Vec::new(),
            deferred: Vec::new(),
            deferred_ticket: None,
            tellings: Tellings::default(),
            flushes: BTreeMap::new(),
            requests: BTreeMap::new(),
            consumers: BTreeMap::new(),
            sleeps_until: None,
            is_asleep: false,
            is_stopping: false,
            io_thread: None,
            waits_for_room: 0,
            listener: None,
        };
        Self { core: Mutex::new(core), room: Condvar::new(), waker, started: Instant::now() }
    }

    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.monotonic(), wall_ms: wall.as_millis() as i64 }
    }

    pub(super) fn monotonic(&self) -> Monotonic {
        Monotonic(self.started.elapsed().as_nanos() as u64)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn step(&self) -> Step<'_> {
        // The time is read under the lock: between two steps it never goes back.
        let core = self.lock();
        let now = self.now();
        Step { shared: self, core, now }
    }

    /// What left with these tickets has arrived.
    pub(super) fn told(&self, tickets: impl IntoIterator<Item = Ticket>) {
        let mut core = self.lock();
        tickets.into_iter().for_each(|ticket| core.tellings.end(ticket));
        let flushes = core.tellings.released();
        drop(core);
        flushes.into_iter().for_each(|flush| flush.set(()));
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the client's IO thread cannot be woken");
        }
    }
}

impl<'a> Step<'a> {
    /// Carries out what was ordered, releases the lock, and tells users, but for callbacks: those
    /// are left to the IO thread, so that they come in order, and never from inside another one.
    pub(super) fn finish(mut self) {
        self.carry_out();
        let core = &mut *self.core;
        let mut outcomes = std::mem::take(&mut core.outcomes);
        let mut wake = false;
        if outcomes.iter().any(Outcome::has_callback) {
            core.deferred.append(&mut outcomes);
            core.deferred_ticket.get_or_insert_with(|| core.tellings.begin());
            wake = true;
        }
        let ticket = (!outcomes.is_empty()).then(|| core.tellings.begin());
        let flushes = core.tellings.released();
        if core.is_asleep {
            wake |= match (core.engine.next_wake(), core.sleeps_until) {
                (Some(wanted), Some(planned)) => wanted < planned,
                (Some(_), None) => true,
                (None, _) => false,
            };
            core.is_asleep = !wake;
        }
        let Self { shared, core, .. } = self;
        drop(core);
        if wake {
            shared.wake();
        }
        outcomes.into_iter().for_each(|outcome| drop(outcome.tell()));
        flushes.into_iter().for_each(|flush| flush.set(()));
        if let Some(ticket) = ticket {
            shared.told([ticket]);
        }
    }

    /// Carries out what was ordered, and releases the lock. What is to be told is added.
    pub(super) fn finish_on_io_thread(mut self, untold: &mut Untold) {
        self.carry_out();
        let core = &mut *self.core;
        untold.tickets.extend(core.deferred_ticket.take());
        untold.outcomes.append(&mut core.deferred);
        if !core.outcomes.is_empty() {
            untold.tickets.push(core.tellings.begin());
            untold.outcomes.append(&mut core.outcomes);
        }
        untold.flushes.append(&mut core.tellings.released());
    }

    fn carry_out(&mut self) {
        self.core.carry_out(self.now);
        if !self.core.outcomes.is_empty() && self.core.waits_for_room > 0 {
            self.shared.room.notify_all();
        }
    }

    /// Releases the lock until something leaves the budget, or until then.
    pub(super) fn wait_for_room(mut self, until: Instant) -> Step<'a> {
        self.core.waits_for_room += 1;
        // Not all that leaves is told: what failed at its deadline was told before.
        let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
        let Self { shared, core, .. } = self;
        let waited = shared.room.wait_timeout(core, left);
        let mut core = waited.unwrap_or_else(PoisonError::into_inner).0;
        core.waits_for_room -= 1;
        Step { shared, core, now: shared.now() }
    }
}

impl Core {
    /// Carries out the effects, and those that come of them.
    fn carry_out(&mut self, now: Now) {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.carry_out_one(effect);
            }
            self.effects = effects;
            self.write(now);
            for link in std::mem::take(&mut self.failed) {
                self.sockets.retain(|socket| socket.link != link);
                self.engine.on_event(now, Event::Closed { link }, &mut self.effects);
            }
            if self.effects.is_empty() {
                return;
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect<Token>) {
        match effect {
            Effect::Connect { link, address, .. } => {
                if let Err(error) = self.connect(link, address) {
                    tracing::debug!(%error, %address, "cannot connect");
                    self.failed.push(link);
                }
            }
            Effect::Send { link, bytes } => {
                if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.link == link) {
                    socket.push(bytes);
                }
            }
            Effect::Close { link } => self.sockets.retain(|socket| socket.link != link),
            Effect::Delivered(delivered) => self.outcomes.push(Outcome::Delivered(delivered)),
            Effect::Failed(failed) => self.outcomes.push(Outcome::Failed(failed)),
            Effect::Flushed { flush } => {
                if let Some(signal) = self.flushes.remove(&flush) {
                    self.tellings.on_flushed(signal);
                }
            }
            Effect::Answered { request, answer } => {
                if let Some(signal) = self.requests.remove(&request) {
                    signal.set(answer);
                }
            }
            Effect::Objective(report) => {
                if let Some(listener) = &self.listener {
                    self.outcomes.push(Outcome::Objective(report, listener.clone()));
                }
            }
            Effect::Readable { consumer } => {
                if let Some(signal) = self.consumers.get(&consumer) {
                    signal.set(());
                }
            }
        }
    }

    fn connect(&mut self, link: LinkId, address: SocketAddr) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let token = mio::Token(link.0 as usize);
        self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.sockets.push(Socket::new(link, stream));
        Ok(())
    }

    fn write(&mut self, now: Now) {
        for socket in &mut self.sockets {
            while socket.may_write() {
                let link = socket.link;
                match socket.write() {
                    Ok(0) => {}
                    Ok(bytes) => {
                        let event = Event::Sent { link, bytes: bytes as u64 };
                        self.engine.on_event(now, event, &mut self.effects);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "write failed");
                        self.failed.push(link);
                        break;
                    }
                }
            }
        }
    }

    /// The stream of a link, if it stands.
    pub(super) fn stream(&self, link: LinkId) -> Option<Arc<TcpStream>> {
        let socket = self.sockets.iter().find(|socket| socket.link == link)?;
        Some(Arc::clone(&socket.stream))
    }

    pub(super) fn on_writable(&mut self, now: Now, link: LinkId) {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.link == link) else {
            return;
        };
        socket.unclog();
        if socket.is_connected {
            return;
        }
        match (socket.stream.take_error(), socket.stream.peer_addr()) {
            (Ok(None), Ok(_)) => {
                socket.is_connected = true;
                if let Err(error) = socket.stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
                self.engine.on_event(now, Event::Connected { link }, &mut self.effects);
            }
            // Not yet: it is told again.
            (Ok(None), Err(error)) if error.kind() == std::io::ErrorKind::NotConnected => {}
            _ => self.failed.push(link),
        }
    }

    pub(super) fn on_ended(&mut self, link: LinkId) {
        self.failed.push(link);
    }
}
