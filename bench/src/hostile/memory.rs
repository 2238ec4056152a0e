//! What the broker holds while strangers are at it: by its own count, and by the kernel's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use corelog_protocol::ids::ShardId;

use crate::load::admin::Admin;
use crate::os;

const EVERY: Duration = Duration::from_millis(100);

/// What was seen from the start to the stop, bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct MemorySeen {
    /// What the shards count against their budget.
    pub used_max: u64,
    pub budget: u64,
    /// Of this whole process, which holds the healthy client and the strangers too.
    pub resident_first: u64,
    pub resident_max: u64,
}

/// A thread that looks again and again.
pub struct MemoryWatch {
    thread: JoinHandle<io::Result<MemorySeen>>,
    is_over: Arc<AtomicBool>,
}

impl MemoryWatch {
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let mut admin = Admin::connect(address, ShardId::ANY)?;
        let budget = admin.counter("memory_budget_bytes")?;
        let first = resident_bytes();
        let mut seen = MemorySeen { budget, resident_first: first, ..MemorySeen::default() };
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                // An answer each time: the broker has not come to a stop.
                seen.used_max = seen.used_max.max(admin.counter("memory_used_bytes")?);
                seen.resident_max = seen.resident_max.max(resident_bytes());
                std::thread::sleep(EVERY);
            }
            Ok(seen)
        });
        Ok(Self { thread, is_over })
    }

    pub fn stop(self) -> io::Result<MemorySeen> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))
    }
}

/// The memory of this process that is in RAM.
pub fn resident_bytes() -> u64 {
    os::resident_bytes("self")
}
