//! A plain thread that expects a sign of life from every shard, and ends the process when one is
//! stuck: a shard that hangs would hold its lanes and say nothing.
//!
//! A gap in its own beat (a paused process, a stolen core) resets all deadlines, so that only a
//! truly stuck shard is found.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(500);

/// A tick this late means that the thread itself was held up.
const TICK_GAP: Duration = Duration::from_secs(2);

/// What the watchdog knows of the shards.
#[derive(Debug)]
struct Watch {
    patience: Duration,
    last_tick: Instant,
    shards: Vec<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    beat: u64,
    at: Instant,
}

impl Watch {
    fn new(shards: usize, patience: Duration, now: Instant) -> Self {
        Self { patience, last_tick: now, shards: vec![Seen { beat: 0, at: now }; shards] }
    }

    /// Looks at the beats; the first shard whose beat has not moved for too long.
    fn tick(&mut self, now: Instant, beats: impl Iterator<Item = u64>) -> Option<usize> {
        let gap = now - self.last_tick > TICK_GAP;
        self.last_tick = now;
        let mut stuck = None;
        for (shard, (seen, beat)) in self.shards.iter_mut().zip(beats).enumerate() {
            if gap || beat != seen.beat {
                *seen = Seen { beat, at: now };
            } else if now - seen.at >= self.patience && stuck.is_none() {
                stuck = Some(shard);
            }
        }
        stuck
    }
}

/// The running thread. Stops when dropped.
#[derive(Debug)]
pub struct Watchdog {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub fn start(beats: Vec<Arc<AtomicU64>>, patience: Duration) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("corelog-watchdog".into())
            .spawn(move || watch(&stopped, &beats, patience))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn watch(stop: &(Mutex<bool>, Condvar), beats: &[Arc<AtomicU64>], patience: Duration) {
    let mut watch = Watch::new(beats.len(), patience, Instant::now());
    let mut stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !*stopped {
        stopped = stop.1.wait_timeout(stopped, TICK).unwrap_or_else(PoisonError::into_inner).0;
        let now = Instant::now();
        let stuck = watch.tick(now, beats.iter().map(|beat| beat.load(Ordering::Relaxed)));
        if let Some(shard) = stuck {
            let seconds = patience.as_secs();
            tracing::error!(shard, seconds, "the shard gives no sign of life: aborting");
            eprintln!("Shard {shard} gave no sign of life for {seconds} s: aborting.");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shard_whose_beat_stands_still_is_stuck() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut watch = Watch::new(2, Duration::from_secs(3), start);
        assert_eq!(watch.tick(at(1_000), [1, 1].into_iter()), None);
        assert_eq!(watch.tick(at(2_000), [2, 1].into_iter()), None);
        assert_eq!(watch.tick(at(3_000), [3, 1].into_iter()), None);
        assert_eq!(watch.tick(at(4_000), [4, 1].into_iter()), Some(1));
    }

    #[test]
    fn a_gap_in_the_own_beat_resets_all_deadlines() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut watch = Watch::new(1, Duration::from_secs(3), start);
        assert_eq!(watch.tick(at(1_000), [1].into_iter()), None);
        // The process was paused for a minute.
        assert_eq!(watch.tick(at(61_000), [1].into_iter()), None);
        assert_eq!(watch.tick(at(63_000), [1].into_iter()), None);
        assert_eq!(watch.tick(at(64_000), [1].into_iter()), Some(0));
    }
}
