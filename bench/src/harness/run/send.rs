//! The thread that sends. In an open loop it looks at the schedule only, never at the answers; in a closed one at the
//! answers only.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{PATIENCE, Sent, Shared};
use crate::harness::drivers::{Message, Producer, Settled};
use crate::harness::schedule::{Plan, Schedule};
use crate::os;
use crate::verify::content::{self, Identity};

/// Messages in a row without a look at the answers of clients that must be asked for them.
const BURST_MAX: u32 = 256;

/// So long after the end what was due may still leave; then the run gives up on it.
const GRACE_MAX: Duration = Duration::from_secs(10);

pub fn send(shared: &Shared<'_>, producers: Vec<Box<dyn Producer>>) -> io::Result<()> {
    os::precise_timers();
    let scenario = shared.scenario;
    let mut sender = Sender::new(shared, producers);
    shared.clock.sleep_until(0);
    match scenario.schedule.schedule(scenario.seconds, shared.seed, &scenario.trace) {
        Some(schedule) => sender.open(schedule)?,
        None => {
            let Plan::Closed { in_flight } = scenario.schedule else {
                return Err(io::Error::other("only a closed loop has no schedule"));
            };
            sender.closed(u64::from(in_flight))?;
        }
    }
    sender.drain()
}

struct Sender<'a> {
    shared: &'a Shared<'a>,
    producers: Vec<Box<dyn Producer>>,
    /// Of clients of one kind: no answer comes while nobody waits.
    must_wait: bool,
    /// The next number of each stream.
    numbers: Vec<u64>,
    /// Messages so far.
    count: u64,
    /// Whose turn is the next one, and the topic that each one's next one goes to.
    turn: usize,
    topics: Vec<u32>,
    value: Vec<u8>,
    /// Messages that the books have not been told of.
    untold: Vec<Sent>,
}

impl<'a> Sender<'a> {
    fn new(shared: &'a Shared<'a>, producers: Vec<Box<dyn Producer>>) -> Self {
        let (count, topics) = (shared.scenario.messages.producers, shared.scenario.topics.count);
        // Each producer goes round all topics, and begins at another one.
        let begin = |producer| u64::from(producer) * u64::from(topics) / u64::from(count);
        Self {
            shared,
            must_wait: producers.iter().all(|producer| producer.must_be_waited_for()),
            producers,
            numbers: vec![0; (count * topics) as usize],
            count: 0,
            turn: 0,
            topics: (0..count).map(|producer| begin(producer) as u32).collect(),
            value: Vec::new(),
            untold: Vec::new(),
        }
    }

    fn open(&mut self, mut schedule: Box<dyn Schedule>) -> io::Result<()> {
        let clock = self.shared.clock;
        let spin = self.shared.scenario.messages.spin_us * 1_000;
        let end = (self.shared.scenario.seconds * 1e9) as u64;
        let grace = GRACE_MAX.as_nanos() as u64;
        let give_up_at = end + grace.min(end);
        let mut next = schedule.next();
        while let Some(first) = next {
            let now = clock.now();
            let mut burst = 0;
            while let Some(due) = next.filter(|due| *due <= now && burst < BURST_MAX) {
                self.send(due);
                next = schedule.next();
                burst += 1;
            }
            if now > give_up_at || self.shared.is_over.load(Ordering::Relaxed) {
                while let Some(due) = next {
                    self.shared.unsent.push((due, now));
                    next = schedule.next();
                }
                break;
            }
            let due = next.unwrap_or(first);
            let until = due.saturating_sub(spin);
            if self.must_wait {
                self.wait(clock.until(until))?;
            } else if burst == 0 && clock.now() < until {
                clock.sleep_until(until);
            }
            while burst == 0 && spin > 0 && clock.now() < due {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn closed(&mut self, in_flight: u64) -> io::Result<()> {
        let clock = self.shared.clock;
        let end = (self.shared.scenario.seconds * 1e9) as u64;
        loop {
            let now = clock.now();
            if now >= end || self.shared.is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let settled = self.shared.outbox.settled();
            let room = in_flight.saturating_sub(self.count - settled);
            for _ in 0..room {
                // Due when there is room for it: a closed loop has no other wish.
                self.send(now);
            }
            let left = clock.until(end);
            if self.must_wait {
                self.wait(left)?;
            } else if self.shared.outbox.settled() == settled {
                self.shared.outbox.await_more(settled, left);
            }
        }
    }

    fn send(&mut self, due: u64) {
        let Shared { scenario, clock, .. } = *self.shared;
        let messages = &scenario.messages;
        let producer = self.turn;
        self.turn = if producer + 1 == self.topics.len() { 0 } else { producer + 1 };
        let next = &mut self.topics[producer];
        let topic = *next;
        *next = if topic + 1 == scenario.topics.count { 0 } else { topic + 1 };
        self.count += 1;
        let stream = producer as u32 * scenario.topics.count + topic;
        let number = self.numbers[stream as usize];
        self.numbers[stream as usize] += 1;
        let identity = Identity { producer: stream, number };
        content::fill(self.shared.seed, identity, messages.bytes, &mut self.value);
        let key = (messages.keys > 0).then(|| content::key(identity, messages.keys));
        let client = match self.producers.len() {
            1 => 0,
            clients => producer % clients,
        };
        // The books know of a message before anybody can answer it.
        self.untold.push(Sent { stream, due, at: clock.now() });
        if !self.must_wait {
            self.tell_sent();
        }
        let message =
            Message { identity, topic, key: key.as_ref().map(|key| &key[..]), value: &self.value };
        if let Err(failure) = self.producers[client].send(&message) {
            self.tell_sent();
            let at = clock.now();
            self.shared.outbox.settle(Settled {
                first: identity,
                count: 1,
                at,
                result: Err(failure),
            });
        }
    }

    fn tell_sent(&mut self) {
        let count = self.untold.len() as u64;
        self.shared.sent.append(&mut self.untold);
        self.shared.messages_sent.fetch_add(count, Ordering::SeqCst);
    }

    fn wait(&mut self, time: Duration) -> io::Result<()> {
        self.tell_sent();
        if let [only] = &mut self.producers[..] {
            return only.wait(time);
        }
        for producer in &mut self.producers {
            producer.wait(Duration::ZERO)?;
        }
        // Several clients that must be asked are asked every now and then.
        std::thread::sleep(time.min(Duration::from_micros(50)));
        Ok(())
    }

    /// Waits until all is answered.
    fn drain(&mut self) -> io::Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let settled = self.shared.outbox.settled();
            if settled >= self.count || Instant::now() > limit {
                return Ok(());
            }
            let patience = Duration::from_millis(20);
            match self.must_wait {
                true => self.wait(patience)?,
                false => self.shared.outbox.await_more(settled, patience),
            }
        }
    }
}
