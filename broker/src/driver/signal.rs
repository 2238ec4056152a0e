//! SIGTERM and SIGINT, awaited by a thread instead of interrupting one.

use std::mem::MaybeUninit;

/// The two signals, blocked for this thread and those that it starts.
#[derive(Debug)]
pub struct StopSignal(());

impl StopSignal {
    /// Blocks the signals, so that they stay pending until [`StopSignal::wait`]. Call it before
    /// any thread is started.
    pub fn block() -> Self {
        let set = set();
        // SAFETY: the set is initialised, and no old set is asked for.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        assert_eq!(result, 0, "blocking known signals cannot fail");
        Self(())
    }

    /// Waits until one of them comes; its name.
    pub fn wait(&self) -> &'static str {
        let set = set();
        let mut signal = 0;
        // SAFETY: the set is initialised, and there is room for the answer.
        let result = unsafe { libc::sigwait(&set, &mut signal) };
        assert_eq!(result, 0, "waiting for known signals cannot fail");
        if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" }
    }
}

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `sigemptyset` initialises the set, and the two signals exist.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        set.assume_init()
    }
}
