//! An allocator that counts, thread by thread. Reading the counts of another thread needs no word
//! with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Threads that are counted; later ones share the last slot.
const THREADS_MAX: usize = 64;

/// The system's allocator, with a count per thread.
pub struct Counting;

struct Slot {
    thread: AtomicU32,
    allocations: AtomicU64,
    bytes: AtomicU64,
}

static SLOTS: [Slot; THREADS_MAX] = [const {
    Slot { thread: AtomicU32::new(0), allocations: AtomicU64::new(0), bytes: AtomicU64::new(0) }
}; THREADS_MAX];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a thread has allocated since it started. Growing counts as allocating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    pub count: u64,
    pub bytes: u64,
}

impl Allocations {
    pub fn since(self, start: Self) -> Self {
        Self { count: self.count - start.count, bytes: self.bytes - start.bytes }
    }
}

/// Of the thread with this number (as in `/proc/self/task`).
pub fn of_thread(thread: u32) -> Allocations {
    let slot = SLOTS.iter().find(|slot| slot.thread.load(Ordering::Relaxed) == thread);
    slot.map_or(Allocations::default(), |slot| Allocations {
        count: slot.allocations.load(Ordering::Relaxed),
        bytes: slot.bytes.load(Ordering::Relaxed),
    })
}

/// Of the calling thread.
pub fn of_this_thread() -> Allocations {
    of_thread(this_thread())
}

fn this_thread() -> u32 {
    // SAFETY: takes no memory, and cannot fail.
    (unsafe { libc::gettid() }) as u32
}

fn count(bytes: usize) {
    // While a thread ends its locals are gone: what it frees and allocates then is not counted.
    let _ = OWN.try_with(|own| {
        let index = own.get().unwrap_or_else(|| {
            let index = NEXT.fetch_add(1, Ordering::Relaxed).min(THREADS_MAX - 1);
            SLOTS[index].thread.store(this_thread(), Ordering::Relaxed);
            own.set(Some(index));
            index
        });
        let slot = &SLOTS[index];
        slot.allocations.fetch_add(1, Ordering::Relaxed);
        slot.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    });
}

// SAFETY: every call is handed on to the system's allocator as it is; counting touches only atomics
// and a thread-local cell without destructor, so it never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_counted_on_their_own_thread_only() {
        let before = of_this_thread();
        let other = std::thread::spawn(|| {
            let before = of_this_thread();
            let list: Vec<u64> = Vec::with_capacity(100);
            (of_this_thread().since(before), list.capacity())
        });
        let during = of_this_thread();
        let (counted, _) = other.join().unwrap();
        assert_eq!((counted.count, counted.bytes), (1, 800));
        let quiet = of_this_thread();
        std::hint::black_box(std::array::from_fn::<u64, 8, _>(|index| index as u64));
        assert_eq!(of_this_thread(), quiet);
        assert!(during.count >= before.count);
    }
}
