//! The loop that keeps a shape of load on a target.

use std::io;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::{Outcome, Pace, Shape, Span, Target, wire};
use crate::os::{self, Epoll, Ready};

/// Batches that an open loop leaves unanswered on one connection before it holds the next ones
/// back (their latency goes on counting).
const OPEN_IN_FLIGHT_MAX: usize = 4096;

/// How long the answers to what was sent may take after the end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the load from the calling thread, after pinning it to `cpu`.
pub fn run(shape: &Shape, target: &Target, span: Span, cpu: Option<usize>) -> io::Result<Outcome> {
    if let Some(cpu) = cpu {
        os::pin_to(cpu)?;
    }
    os::precise_timers();
    let batch = wire::batch(shape.records_per_batch, shape.record_bytes);
    let connections = (0..shape.connections)
        .map(|index| {
            Connection::open(target, &target.of_connection(index, shape.connections), &batch)
        })
        .collect::<io::Result<Vec<_>>>()?;
    Generator::new(shape, span, connections)?.run()
}

struct Generator<'a> {
    shape: &'a Shape,
    connections: Vec<Connection>,
    epoll: Epoll,
    /// With one connection and a closed loop there is nothing to choose from: the read just blocks.
    blocking: bool,
    start: Instant,
    measure_from: Instant,
    measure_to: Instant,
    /// Open loop: the next batch's number, which gives its time and its connection.
    next: u64,
    outcome: Outcome,
}

impl<'a> Generator<'a> {
    fn new(shape: &'a Shape, span: Span, connections: Vec<Connection>) -> io::Result<Self> {
        let blocking = connections.len() == 1 && matches!(shape.pace, Pace::InFlight(_));
        let epoll = Epoll::new()?;
        for (token, connection) in connections.iter().enumerate() {
            connection.socket.set_nonblocking(!blocking)?;
            connection.socket.set_read_timeout(blocking.then_some(DRAIN))?;
            epoll.add(&connection.socket, token)?;
        }
        let start = Instant::now();
        let measure_from = start + span.warm_up;
        let measure_to = measure_from + span.measured;
        let outcome = Outcome { seconds: span.measured.as_secs_f64(), ..Outcome::default() };
        Ok(Self {
            shape,
            connections,
            epoll,
            blocking,
            start,
            measure_from,
            measure_to,
            next: 0,
            outcome,
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        let mut ready: Vec<Ready> = Vec::with_capacity(self.connections.len());
        if let Pace::InFlight(depth) = self.shape.pace {
            for token in 0..self.connections.len() {
                for _ in 0..depth {
                    self.connections[token].ask(Instant::now());
                }
                self.connections[token].flush(&self.epoll, token)?;
            }
        }
        loop {
            let now = Instant::now();
            let ended = now >= self.measure_to;
            if ended && self.connections.iter().all(|connection| connection.in_flight() == 0) {
                return Ok(self.outcome);
            }
            if now >= self.measure_to + DRAIN {
                return Err(io::Error::other("answers are missing 10 s after the end of the load"));
            }
            let timeout = match self.shape.pace {
                Pace::PerSecond(rate) if !ended => Some(self.ask_what_is_due(rate)?),
                _ => Some(DRAIN),
            };
            ready.clear();
            if self.blocking {
                ready.push(Ready { token: 0, readable: true, writable: false });
            } else {
                ready.extend(self.epoll.wait(timeout)?);
            }
            for event in &ready {
                if event.readable {
                    self.receive(event.token)?;
                }
                if event.readable || event.writable {
                    self.connections[event.token].flush(&self.epoll, event.token)?;
                }
            }
        }
    }

    /// Reads answers; in a closed loop each makes room for the next request.
    fn receive(&mut self, token: usize) -> io::Result<()> {
        let Self { shape, connections, outcome, measure_from, measure_to, .. } = self;
        let connection = &mut connections[token];
        let mut count = 0;
        let mut now = None;
        connection.receive(|due| {
            // One look at the clock for all answers of one read: they arrived together.
            let now = *now.get_or_insert_with(Instant::now);
            count += 1;
            outcome.batches_in_all += 1;
            if (*measure_from..*measure_to).contains(&now) {
                outcome.batches += 1;
                outcome.records += shape.records_per_batch as u64;
                outcome.value_bytes += (shape.records_per_batch * shape.record_bytes) as u64;
                outcome.latencies.record(now.saturating_duration_since(due));
            }
        })?;
        if let (Pace::InFlight(_), Some(now)) = (shape.pace, now)
            && now < *measure_to
        {
            (0..count).for_each(|_| connection.ask(now));
        }
        Ok(())
    }

    fn ask_what_is_due(&mut self, rate: f64) -> io::Result<Duration> {
        loop {
            let due = self.start + Duration::from_secs_f64(self.next as f64 / rate);
            let now = Instant::now();
            if due > now {
                return Ok(due - now);
            }
            let token = (self.next % self.connections.len() as u64) as usize;
            if self.connections[token].in_flight() >= OPEN_IN_FLIGHT_MAX {
                return Ok(Duration::from_millis(1));
            }
            self.connections[token].ask(due);
            self.connections[token].flush(&self.epoll, token)?;
            self.next += 1;
        }
    }
}
