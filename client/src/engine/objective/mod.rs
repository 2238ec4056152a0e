//! Objective-driven batching: the user says how late the 99th of 100 records may be, and linger and
//! batch size follow from what is measured. Pure: fed with times, asks no clock.
//!
//! What is measured is the time from `produce` to delivery, by the oldest record of each batch, so
//! that the figure errs on the slow side. After each *interval* (20 times the goal, 20 ms to 1 s; up to
//! ten times that while fewer than 10 batches have come and nothing is late) the 99th percentile by
//! records is held against the goal. A record that is still on its way and older than the goal counts
//! as well: silence is late.
//!
//! | the interval's p99 | what follows |
//! | --- | --- |
//! | up to 3/4 of the goal | there is slack: linger grows by 1/32 of the goal, to 1/2 of it at most, since fuller batches cost the broker less. If more than a quarter of the batches left full, their size grows by 1/16 of the configured one, to that at most. But if linger is at 1/8 of the goal and batches still hold fewer than 5 records for 4 batches, it is halved: nobody comes whom it could wait for |
//! | up to 9/10 | nothing |
//! | up to the goal | linger shrinks by 1/32 of the goal |
//! | above, most batches full and most of the goal spent between send and answer | batches take too long: their size is halved, to 4 KiB at least |
//! | above, otherwise | linger is halved; below 1/64 of the goal it is 0. If that made it worse by more than 5 %, or it is 0 already, it is doubled instead, from 1/32 of the goal to 1/2 of it: batches were too many for the broker. And so on, back and forth |
//!
//! Eight intervals in a row above the goal: **infeasible at this load**. That is told, the best setting
//! of the eight is kept for the next eight, then the search begins anew, and so on. Three intervals in
//! a row within the goal: feasible again, which is told too.

mod latencies;
#[cfg(test)]
mod tests;

use super::time::{MILLIS, Monotonic};
use latencies::Latencies;
use std::time::Duration;

/// An interval that has seen fewer batches and in which nothing is late goes on, for so many times its
/// usual length.
const BATCHES_MIN: u64 = 10;
const LENGTH_MAX: u64 = 10;

/// Intervals above the goal, in a row, until it is called infeasible; and how long the best setting
/// is kept then.
const MISSES_MAX: u32 = 8;

/// Intervals within the goal, in a row, until it is called feasible again.
const HITS_MIN: u32 = 3;

const BATCH_BYTES_MIN: usize = 4 << 10;

/// How a producer stands to its goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectiveState {
    /// Nothing was judged yet.
    Measuring,
    /// The last interval was within the goal.
    Met,
    /// The last interval was above it, and other settings are being tried.
    Missed,
    /// No setting that was tried meets the goal: the load or the broker's latency is too high.
    Infeasible,
}

/// What is known of a goal, and what follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectiveReport {
    pub state: ObjectiveState,
    pub goal: Duration,
    /// Of the last interval, from send to delivery, 6 % too high at most.
    pub p99: Duration,
    /// Records delivered in a second of the last interval.
    pub records_per_second: u64,
    /// How long a batch waits for company now.
    pub linger: Duration,
    /// When a batch counts as full now.
    pub batch_bytes: usize,
}

/// A batch that reached its level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub records: u64,
    /// Of its oldest record, from `produce` to here, ns.
    pub age: u64,
    /// From its last send to here, ns.
    pub service: u64,
    /// It left because nothing more fitted.
    pub is_full: bool,
}

/// Two knobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Setting {
    linger: u64,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Objective {
    goal: u64,
    bytes_max: usize,
    setting: Setting,
    state: ObjectiveState,
    is_growing: bool,
    /// Intervals in a row within and above the goal.
    hits: u32,
    misses: u32,
    /// The best of this row of misses, and for how many intervals more it is kept.
    best: Option<(u64, Setting)>,
    kept_for: u32,
    /// Of the interval before, if it was a miss.
    last_miss: Option<u64>,
    last_p99: u64,
    last_rate: u64,
    /// The interval under way. None: nothing is.
    began: Option<Monotonic>,
    /// It lasts for these many times the usual.
    length: u64,
    ages: Latencies,
    services: Latencies,
    batches: u64,
    full: u64,
}

impl Objective {
    /// # Panics
    /// If the goal is 0.
    pub(super) fn new(goal: u64, bytes_max: usize) -> Self {
        assert!(goal > 0, "a goal of no time at all");
        Self {
            goal,
            bytes_max,
            setting: Setting { linger: 0, bytes: bytes_max },
            state: ObjectiveState::Measuring,
            is_growing: false,
            hits: 0,
            misses: 0,
            best: None,
            kept_for: 0,
            last_miss: None,
            last_p99: 0,
            last_rate: 0,
            began: None,
            length: 1,
            ages: Latencies::default(),
            services: Latencies::default(),
            batches: 0,
            full: 0,
        }
    }

    pub(super) fn linger(&self) -> u64 {
        self.setting.linger
    }

    pub(super) fn batch_bytes(&self) -> usize {
        self.setting.bytes
    }

    pub(super) fn report(&self) -> ObjectiveReport {
        ObjectiveReport {
            state: self.state,
            goal: Duration::from_nanos(self.goal),
            p99: Duration::from_nanos(self.last_p99),
            records_per_second: self.last_rate,
            linger: Duration::from_nanos(self.setting.linger),
            batch_bytes: self.setting.bytes,
        }
    }

    /// A record was accepted: an interval begins, if none is under way.
    pub(super) fn on_accepted(&mut self, now: Monotonic) {
        self.began.get_or_insert(now);
    }

    pub(super) fn on_delivered(&mut self, sample: Sample) {
        self.ages.add(sample.age, sample.records);
        self.services.add(sample.service, sample.records);
        self.batches += 1;
        self.full += u64::from(sample.is_full);
    }

    /// When the interval is to be judged, or found too short.
    pub(super) fn due(&self) -> Option<Monotonic> {
        let interval = self.goal.saturating_mul(20).clamp(20 * MILLIS, 1000 * MILLIS);
        self.began.map(|began| began.after(interval * self.length))
    }

    /// Judges the interval if its time has come. `oldest`: the age of the oldest record under way, ns.
    /// True: to be told, since feasible has become infeasible or the other way round.
    pub(super) fn judge(&mut self, now: Monotonic, oldest: Option<u64>) -> bool {
        let Some(began) = self.began.filter(|_| self.due().is_some_and(|due| due <= now)) else {
            return false;
        };
        let late = oldest.filter(|&age| age > self.goal);
        if self.batches < BATCHES_MIN && late.is_none() && self.length < LENGTH_MAX {
            self.length += 1;
            return false;
        }
        let was_infeasible = self.state == ObjectiveState::Infeasible;
        if let Some(p99) = self.ages.p99().max(late) {
            self.last_p99 = p99;
            let nanos = u128::from(now.since(began).max(1));
            self.last_rate = (u128::from(self.ages.count()) * 1_000_000_000 / nanos) as u64;
            if p99 <= self.goal { self.on_hit(p99) } else { self.on_miss(p99) }
        }
        self.began = oldest.map(|_| now);
        self.ages.clear();
        self.services.clear();
        (self.batches, self.full, self.length) = (0, 0, 1);
        was_infeasible != (self.state == ObjectiveState::Infeasible)
    }

    fn on_hit(&mut self, p99: u64) {
        (self.misses, self.kept_for, self.last_miss, self.best) = (0, 0, None, None);
        self.is_growing = false;
        self.hits += 1;
        if self.state != ObjectiveState::Infeasible || self.hits >= HITS_MIN {
            self.state = ObjectiveState::Met;
        }
        let step = (self.goal / 32).max(1);
        let Setting { linger, bytes } = &mut self.setting;
        if p99 <= self.goal / 4 * 3 {
            let is_alone = self.ages.count() * 4 < self.batches * 5;
            if is_alone && *linger >= self.goal / 8 {
                *linger /= 2;
            } else {
                *linger = (*linger + step).min(self.goal / 2);
            }
            if self.full * 4 > self.batches {
                *bytes = (*bytes + self.bytes_max / 16).min(self.bytes_max);
            }
        } else if p99 > self.goal / 10 * 9 {
            *linger = linger.saturating_sub(step);
        }
    }

    fn on_miss(&mut self, p99: u64) {
        self.hits = 0;
        self.misses += 1;
        if self.state != ObjectiveState::Infeasible {
            self.state = ObjectiveState::Missed;
        }
        if self.kept_for > 0 {
            self.kept_for -= 1;
            if self.kept_for > 0 {
                return;
            }
            // The search begins anew.
            (self.misses, self.best, self.last_miss) = (0, None, None);
        }
        if self.best.is_none_or(|(least, _)| p99 < least) {
            self.best = Some((p99, self.setting));
        }
        if self.misses >= MISSES_MAX {
            self.state = ObjectiveState::Infeasible;
            self.kept_for = MISSES_MAX;
            if let Some((_, best)) = self.best {
                self.setting = best;
            }
            return;
        }
        let is_slow = self.services.p99().is_some_and(|service| service > self.goal / 2);
        if self.full * 2 > self.batches && is_slow && self.setting.bytes > BATCH_BYTES_MIN {
            self.setting.bytes = (self.setting.bytes / 2).max(BATCH_BYTES_MIN);
            // What becomes of that is no news about linger.
            self.last_miss = None;
            return;
        }
        if self.last_miss.is_some_and(|last| p99 > last + last / 20) {
            self.is_growing = !self.is_growing;
        }
        self.last_miss = Some(p99);
        self.turn_linger();
    }

    /// Halves or doubles linger, and turns round at either end.
    fn turn_linger(&mut self) {
        let (least, most) = (self.goal / 32, self.goal / 2);
        let linger = &mut self.setting.linger;
        match (self.is_growing, *linger) {
            (false, 0) => self.is_growing = true,
            (true, at) if at >= most => self.is_growing = false,
            _ => {}
        }
        *linger = match self.is_growing {
            true => (*linger * 2).clamp(least, most),
            false if *linger / 2 < self.goal / 64 => 0,
            false => *linger / 2,
        };
    }
}
