//! How late a sleeping thread wakes up while a run goes on: what the machine adds to every figure, whoever causes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::latency::{Latencies, Summary};
use crate::os;

const PERIOD: Duration = Duration::from_millis(5);

pub struct Jitter {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Latencies>,
}

impl Jitter {
    /// On the cores of the calling thread.
    pub fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            os::precise_timers();
            let mut latencies = Latencies::default();
            while !told.load(Ordering::Relaxed) {
                let due = Instant::now() + PERIOD;
                std::thread::sleep(PERIOD);
                latencies.record(due.elapsed());
            }
            latencies
        });
        Self { is_over, thread }
    }

    pub fn stop(self) -> Summary {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_or_else(|_| Summary::default(), |latencies| latencies.summary())
    }
}
