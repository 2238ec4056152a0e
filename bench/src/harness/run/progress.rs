//! What a run looks like while it goes on.

use std::time::{Duration, Instant};

use crate::harness::books::Books;
use crate::harness::drivers::{Driver, ShardWork};
use crate::harness::scenario::Scenario;

/// Shows a run to somebody.
pub trait Watcher: Sync {
    fn show(&self, now: &Progress);

    /// Asks for the work of the broker's cores too: costs a request each time.
    fn wants_shards(&self) -> bool {
        false
    }
}

/// Nobody looks.
pub struct Nobody;

impl Watcher for Nobody {
    fn show(&self, _now: &Progress) {}
}

/// The last moment of a run.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub at_seconds: f64,
    pub of_seconds: f64,
    /// Of the last interval that is over.
    pub per_second: f64,
    /// `None` in a closed loop.
    pub response: Option<[u64; 3]>,
    pub failed: u64,
    pub anomalies: u64,
    /// Records per second of each core.
    pub shards: Vec<(String, f64)>,
}

const EVERY: Duration = Duration::from_millis(500);

pub struct Meter<'a> {
    watcher: &'a dyn Watcher,
    is_open: bool,
    seconds: f64,
    last: Instant,
    before: Vec<ShardWork>,
}

impl<'a> Meter<'a> {
    pub fn new(scenario: &Scenario, watcher: &'a dyn Watcher) -> Self {
        Self {
            watcher,
            is_open: scenario.schedule.is_open(),
            seconds: scenario.seconds,
            last: Instant::now(),
            before: Vec::new(),
        }
    }

    pub fn tell(&mut self, now: u64, books: &Books, driver: &dyn Driver) {
        let elapsed = self.last.elapsed();
        if elapsed < EVERY {
            return;
        }
        self.last = Instant::now();
        let length = books.series.length();
        let over = (now / length) as usize;
        // The last one that is over and of which something is known: answers may be late.
        let known = books.series.intervals().take(over).filter(|it| !it.service.is_empty());
        let Some(interval) = known.last() else { return };
        let response = [0.5, 0.99, 0.999].map(|at| interval.response.value_at_quantile(at));
        let shards = match self.watcher.wants_shards() {
            true => driver.shards().unwrap_or_default(),
            false => Vec::new(),
        };
        let rate = |work: &ShardWork| {
            let earlier = self.before.iter().find(|before| before.name == work.name)?;
            let records = work.records.saturating_sub(earlier.records);
            Some((work.name.clone(), records as f64 / elapsed.as_secs_f64()))
        };
        self.watcher.show(&Progress {
            at_seconds: now as f64 / 1e9,
            of_seconds: self.seconds,
            per_second: interval.acknowledged as f64 / (length as f64 / 1e9),
            response: self.is_open.then_some(response),
            failed: books.totals.failed,
            anomalies: books.anomalies_found(),
            shards: shards.iter().filter_map(rate).collect(),
        });
        self.before = shards;
    }
}
