//! Long runs on several threads: each job runs on one, and whichever is free takes the next. A panic in a job is a
//! finding of that job, told with its text.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Runs the jobs `0..count`, begun in this order, until one breaks: then those under way end, and no other
/// begins.
pub fn share_out(threads: usize, count: u64, job: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            if job(number).is_break() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        (0..threads.max(1)).for_each(|_| _ = scope.spawn(work));
    });
}

/// Adds up what the jobs `0..count` count. `told` hears of each: its number, its count, and the sum so far.
///
/// # Errors
/// What the first job said that failed; no other is begun after it.
pub fn add_up<C: Default + Send>(
    threads: usize,
    count: u64,
    job: impl Fn(u64) -> Result<C, String> + Sync,
    add: impl Fn(&mut C, &C) + Sync,
    told: impl Fn(u64, &C, &C) + Sync,
) -> Result<C, String> {
    let sum = Mutex::new((C::default(), None));
    share_out(threads, count, |number| {
        let counted = job(number);
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        match counted {
            Ok(counted) => {
                add(&mut sum.0, &counted);
                told(number, &counted, &sum.0);
                ControlFlow::Continue(())
            }
            Err(error) => {
                sum.1.get_or_insert(error);
                ControlFlow::Break(())
            }
        }
    });
    let (sum, error) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(sum), Err)
}

/// What `work` returns, or the text of its panic.
///
/// # Errors
/// It panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_and_none_after_the_first_that_fails() {
        let told = AtomicU64::new(0);
        let add = |sum: &mut u64, count: &u64| *sum += count;
        let sum = add_up(3, 100, Ok, add, |number, count, _| {
            assert_eq!(number, *count);
            told.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!((sum, told.into_inner()), (Ok(4950), 100));

        let job = |number| if number < 10 { Ok(number) } else { Err(format!("job {number}")) };
        let told = AtomicU64::new(0);
        let failed = add_up(1, u64::MAX, job, add, |_, _, sum| told.store(*sum, Ordering::Relaxed));
        assert_eq!((failed, told.into_inner()), (Err("job 10".to_owned()), 45));
    }

    #[test]
    fn a_panic_is_told_with_its_text() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| panic!("nothing {}", "holds")), Err::<(), _>("nothing holds".into()));
        assert_eq!(caught(|| panic!("plain")), Err::<(), _>("plain".into()));
    }
}
