//! What became of each message, entered by one thread: times, the verdict, where the broker says that the time went. Pure:
//! it is told everything.
//!
//! Response time counts from when a message was meant to be sent, service time from when it was. They are never in one
//! histogram.

mod series;
mod stages;
mod times;

use std::collections::BTreeMap;

use crate::latency::Latencies;
use crate::verify::content::Identity;
use crate::verify::{Ledger, Level, Spot, Verdict};

use super::drivers::Settled;
pub use series::{Interval, Series};
pub use stages::ShardStages;
use times::Times;

/// A message is about to be handed to the client.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub stream: u32,
    pub due: u64,
    pub at: u64,
}

/// A reader got a record.
#[derive(Clone, Debug)]
pub struct Seen {
    pub spot: Spot,
    pub key: Option<Box<[u8]>>,
    /// `None`: its bytes are nobody's.
    pub identity: Option<Identity>,
    pub at: u64,
}

pub struct Books {
    ledger: Ledger,
    times: Vec<Times>,
    topics: u32,
    bytes: usize,
    /// What was due earlier is in no figure.
    warm_up: u64,
    pub series: Series,
    pub totals: Totals,
    /// By the core that acknowledged.
    pub stages: BTreeMap<u32, ShardStages>,
}

/// Over the whole run, warm-up excepted.
#[derive(Clone, Default)]
pub struct Totals {
    pub due: u64,
    pub acknowledged: u64,
    pub bytes: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Due, and not sent before the run gave up on them.
    pub unsent: u64,
    pub response: Latencies,
    pub service: Latencies,
    /// From when a message was meant to be sent to when a reader had it.
    pub end_to_end: Latencies,
    /// How late the sender was: from when a message was meant to be sent to when it was.
    pub lag: Latencies,
    /// When the first and the last of them were acknowledged.
    pub first_at: u64,
    pub last_at: u64,
}

/// What is to be known of a run before it begins.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub seed: u64,
    pub producers: u32,
    pub topics: u32,
    pub keys: u64,
    pub bytes: usize,
    pub warm_up: u64,
    pub interval: u64,
}

impl Books {
    pub fn new(frame: &Frame) -> Self {
        let mut ledger = Ledger::new(frame.seed).forgetting();
        let streams = frame.producers * frame.topics;
        for stream in 0..streams {
            ledger.add_producer(stream % frame.topics, (frame.keys > 0).then_some(frame.keys));
        }
        Self {
            ledger,
            times: (0..streams).map(|_| Times::default()).collect(),
            topics: frame.topics,
            bytes: frame.bytes,
            warm_up: frame.warm_up,
            series: Series::new(frame.interval),
            totals: Totals::default(),
            stages: BTreeMap::new(),
        }
    }

    pub fn on_sent(&mut self, sent: Sent) {
        self.ledger.send(sent.stream);
        self.times[sent.stream as usize].push(sent.due, sent.at);
        self.series.at(sent.due).due += 1;
        if sent.due >= self.warm_up {
            self.totals.due += 1;
            self.totals.lag.record_nanos(sent.at.saturating_sub(sent.due));
        }
    }

    /// A message that was due and never left; the run ended at `at`. It took at least so long.
    pub fn on_unsent(&mut self, due: u64, at: u64) {
        self.series.at(due).due += 1;
        if due >= self.warm_up {
            self.totals.due += 1;
            self.totals.unsent += 1;
            self.respond(due, at);
        }
    }

    pub fn on_settled(&mut self, settled: &Settled) {
        let stream = settled.first.producer;
        for index in 0..u64::from(settled.count) {
            let identity = Identity { number: settled.first.number + index, ..settled.first };
            let Some((due, sent_at)) = self.times[stream as usize].settle(identity.number) else {
                continue;
            };
            match &settled.result {
                Ok(placed) => {
                    // Nothing may be lost at any level: a scenario that kills a broker has a level that
                    // survives it.
                    match placed.offset {
                        Some(offset) => {
                            let (partition, offset) = (placed.partition, offset + index);
                            self.ledger.on_ack(identity, Level::Durable, partition, offset);
                        }
                        None => self.ledger.on_ack_somewhere(identity, Level::Durable),
                    }
                    self.acknowledged(due, sent_at, settled.at);
                    let service = settled.at.saturating_sub(sent_at);
                    if let Some(stages) = placed.stages.filter(|_| due >= self.warm_up) {
                        self.stages.entry(placed.core).or_default().record(service, &stages);
                    }
                }
                Err(failure) => {
                    self.ledger.on_failure(identity, failure.definite);
                    self.times[stream as usize].give_up(identity.number);
                    self.series.at(due).failed += 1;
                    self.totals.failed += 1;
                    self.totals.first_failure.get_or_insert_with(|| failure.text.to_string());
                    // It was answered, though not with what was wanted: its time counts.
                    if due >= self.warm_up {
                        self.respond(due, settled.at);
                    }
                }
            }
        }
    }

    fn acknowledged(&mut self, due: u64, sent_at: u64, at: u64) {
        self.series.at(at).acknowledged += 1;
        if due < self.warm_up {
            return;
        }
        self.respond(due, at);
        let service = at.saturating_sub(sent_at);
        self.totals.service.record_nanos(service);
        self.series.at(due).service.saturating_record(service);
        self.totals.acknowledged += 1;
        self.totals.bytes += self.bytes as u64;
        if self.totals.first_at == 0 {
            self.totals.first_at = at;
        }
        self.totals.last_at = self.totals.last_at.max(at);
    }

    fn respond(&mut self, due: u64, at: u64) {
        let response = at.saturating_sub(due);
        self.totals.response.record_nanos(response);
        self.series.at(due).response.saturating_record(response);
    }

    pub fn on_seen(&mut self, seen: &Seen) {
        self.ledger.on_identified(seen.spot, seen.key.as_deref(), seen.identity);
        let Some(identity) = seen.identity else { return };
        let stream = identity.producer as usize;
        if identity.producer % self.topics != seen.spot.partition.0 {
            return;
        }
        let due = self.times.get_mut(stream).and_then(|times| times.read(identity.number));
        if let Some(due) = due.filter(|due| *due >= self.warm_up) {
            let time = seen.at.saturating_sub(due);
            self.totals.end_to_end.record_nanos(time);
            self.series.at(due).end_to_end.saturating_record(time);
        }
    }

    /// Acknowledged, and not yet read by the reader that reads along.
    pub fn unread(&self) -> u64 {
        self.ledger.unread()
    }

    pub fn anomalies_found(&self) -> u64 {
        self.ledger.anomalies_found()
    }

    pub fn finish(self) -> (Verdict, Series, Totals, BTreeMap<u32, ShardStages>) {
        (self.ledger.finish(), self.series, self.totals, self.stages)
    }
}

#[cfg(test)]
mod tests;
