//! The only clock of the broker.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Monotonic, Nanos, Now, Wall};

/// The wall clock is asked at most this often; its users count in milliseconds.
const WALL_AGE_MAX: Nanos = Nanos::from_millis(1);

/// All shards of a process count from the same instant.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// One shard's clock.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    wall: Wall,
    wall_read_at: Monotonic,
}

impl Clock {
    pub fn new() -> Self {
        let start = start();
        Self { start, wall: read_wall(), wall_read_at: since(start) }
    }

    pub fn now(&mut self) -> Now {
        let monotonic = since(self.start);
        if monotonic - self.wall_read_at >= WALL_AGE_MAX {
            self.wall = read_wall();
            self.wall_read_at = monotonic;
        }
        Now { monotonic, wall: self.wall }
    }

    /// How long until then; zero if it has passed.
    pub fn until(&self, then: Monotonic) -> Duration {
        Duration::from_nanos((then - since(self.start)).0)
    }
}

fn since(start: Instant) -> Monotonic {
    // One second ahead, so that no time is 0.
    Monotonic(start.elapsed().as_nanos() as u64 + 1_000_000_000)
}

fn read_wall() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(since_epoch.as_millis() as i64)
}
