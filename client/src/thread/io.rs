//! The IO thread: waits for sockets and timers, reads, steps the engine, tells users. It alone
//! calls callbacks, so they come one at a time and in order.

use super::core::Shared;
use super::delivery::{Outcome, Token};
use super::telling::Untold;
use crate::engine::{Event, LinkId};
use mio::{Events, Poll};
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The waker's token; links count from 1.
pub(super) const WAKER: mio::Token = mio::Token(0);

/// One read takes at most this much: a quarter of what a second core's cache holds.
const READ_BYTES: usize = 256 << 10;

pub(super) struct IoThread {
    pub shared: Arc<Shared>,
    pub poll: Poll,
    /// How long to look for work without sleeping.
    pub spin: Duration,
}

/// However the thread ends, nobody waits for it for ever.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut step = self.0.step();
        let now = step.now;
        step.core.is_stopping = true;
        let core = &mut *step.core;
        core.engine.close(now, &mut core.effects);
        for signal in core.consumers.values() {
            signal.set(());
        }
        let mut untold = Untold::default();
        step.finish_on_io_thread(&mut untold);
        untold.outcomes.into_iter().for_each(|outcome| drop(outcome.tell()));
        let mut core = self.0.lock();
        untold.flushes.append(&mut core.tellings.give_up());
        untold.flushes.extend(std::mem::take(&mut core.flushes).into_values());
        drop(core);
        untold.flushes.into_iter().for_each(|flush| flush.set(()));
    }
}

impl IoThread {
    pub(super) fn run(mut self) {
        let ending = Ending(Arc::clone(&self.shared));
        self.shared.lock().io_thread = Some(std::thread::current().id());
        let mut events = Events::with_capacity(64);
        let mut buffer = vec![0; READ_BYTES];
        let mut used: Vec<Vec<Token>> = Vec::new();
        let mut untold = Untold::default();
        let mut busy_until = Instant::now();
        while let Some(timeout) = self.prepare(&mut used, &mut untold, busy_until) {
            self.tell(&mut untold, &mut used);
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "poll failed: the client stops");
                break;
            }
            self.shared.lock().is_asleep = false;
            if !self.spin.is_zero() && !events.is_empty() {
                busy_until = Instant::now() + self.spin;
            }
            for event in &events {
                if event.token() == WAKER {
                    continue;
                }
                let link = LinkId(event.token().0 as u64);
                if event.is_writable() || event.is_error() {
                    let mut step = self.shared.step();
                    let now = step.now;
                    step.core.on_writable(now, link);
                    step.finish_on_io_thread(&mut untold);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(link, &mut buffer, &mut untold);
                }
                self.tell(&mut untold, &mut used);
            }
        }
        // What the last step gave before it saw the end.
        self.tell(&mut untold, &mut used);
        drop(ending);
    }

    /// Before the sleep: timers, and how long to sleep. None: stop.
    fn prepare(
        &self,
        used: &mut Vec<Vec<Token>>,
        untold: &mut Untold,
        busy_until: Instant,
    ) -> Option<Option<Duration>> {
        let mut step = self.shared.step();
        let now = step.now;
        let core = &mut *step.core;
        if core.is_stopping {
            return None;
        }
        used.drain(..).for_each(|tokens| core.engine.recycle(tokens));
        if core.engine.next_wake().is_some_and(|wake| wake <= now.monotonic) {
            core.engine.on_event(now, Event::Timer, &mut core.effects);
        }
        step.finish_on_io_thread(untold);
        let mut core = self.shared.lock();
        if core.is_stopping {
            return None;
        }
        let wake = core.engine.next_wake();
        let spinning = !self.spin.is_zero() && Instant::now() < busy_until;
        if spinning || !untold.is_empty() {
            return Some(Some(Duration::ZERO));
        }
        core.sleeps_until = wake;
        core.is_asleep = true;
        let now = self.shared.monotonic();
        Some(wake.map(|wake| Duration::from_nanos(wake.since(now))))
    }

    /// Reads until nothing is left: readiness is told once.
    fn read(&self, link: LinkId, buffer: &mut [u8], untold: &mut Untold) {
        let Some(stream) = self.shared.lock().stream(link) else { return };
        loop {
            let read = (&*stream).read(buffer);
            let mut step = self.shared.step();
            let now = step.now;
            let core = &mut *step.core;
            let more = match read {
                Ok(0) => {
                    core.on_ended(link);
                    false
                }
                Ok(bytes) => {
                    let whole = bytes == buffer.len();
                    let bytes = buffer.get(..bytes).unwrap_or_default();
                    let event = Event::Received { link, bytes };
                    core.engine.on_event(now, event, &mut core.effects);
                    // A read that came up short has emptied the socket; what comes later is told.
                    whole
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) if error.kind() == ErrorKind::Interrupted => true,
                Err(error) => {
                    tracing::debug!(%error, "read failed");
                    core.on_ended(link);
                    false
                }
            };
            step.finish_on_io_thread(untold);
            if !more {
                return;
            }
        }
    }

    fn tell(&self, untold: &mut Untold, used: &mut Vec<Vec<Token>>) {
        used.extend(untold.outcomes.drain(..).map(Outcome::tell));
        untold.flushes.drain(..).for_each(|flush| flush.set(()));
        if !untold.tickets.is_empty() {
            self.shared.told(untold.tickets.drain(..));
        }
    }
}
