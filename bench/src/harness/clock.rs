//! Time of a run, in nanoseconds from its start.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Zero is so far ahead.
    pub fn starting_in(ahead: Duration) -> Self {
        Self { start: Instant::now() + ahead }
    }

    /// 0 before the start.
    pub fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    pub fn at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.start).as_nanos() as u64
    }

    pub fn until(&self, time: u64) -> Duration {
        let then = self.start + Duration::from_nanos(time);
        then.saturating_duration_since(Instant::now())
    }

    pub fn sleep_until(&self, time: u64) {
        let wait = self.until(time);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}
