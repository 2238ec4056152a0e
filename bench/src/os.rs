//! The few calls to the kernel that the standard library does not offer: a thread's core, what
//! kind of file system a folder is on, and epoll with timeouts in nanoseconds.
//!
//! The only file of this crate with `unsafe` besides the counting allocator.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// Lets the calling thread run on `cpu` only.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    pin_to_any(&[cpu])
}

/// Lets the calling thread, and those that it starts from now on, run on these only.
pub fn pin_to_any(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: `cpu_set_t` is plain bits, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::other(format!("cpu {cpu} is beyond what a cpu set can name")));
        }
        // SAFETY: `cpu` is within the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the set outlives the call that reads it.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Timers of the calling thread fire on time, and not up to 50 µs late as is the default.
pub fn precise_timers() {
    // SAFETY: sets a number of the calling thread; no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// The calling thread yields to all others.
pub fn lowest_priority() -> io::Result<()> {
    // SAFETY: sets a number of the calling thread (on Linux, niceness is a thread's); no memory is passed.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS as _, 0, 19) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the limit of open descriptors to `wanted`.
///
/// # Errors
/// The host allows fewer.
pub fn demand_open_files(wanted: u64) -> io::Result<()> {
    let allowed = raise_open_files(wanted)?;
    if allowed >= wanted {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{wanted} descriptors are needed, and the host allows {allowed}: raise the limit (ulimit -Hn), or ask for \
         fewer connections (--idle, --slow)"
    )))
}

/// Raises the limit of open descriptors to `wanted`, or as far as the host allows. Gives the limit then.
fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is valid for the call that fills it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let above = libc::rlimit { rlim_cur: wanted, rlim_max: wanted.max(limit.rlim_max) };
    let within = libc::rlimit { rlim_cur: wanted.min(limit.rlim_max), rlim_max: limit.rlim_max };
    for better in [above, within] {
        if better.rlim_cur <= limit.rlim_cur {
            continue;
        }
        // SAFETY: the struct is valid for the call that reads it. The first needs a privilege that root has.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &better) } == 0 {
            return Ok(better.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

/// Whether the folder lies in memory, where direct I/O and flushes mean nothing.
pub fn is_in_memory(folder: &Path) -> io::Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let path = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: `statfs` is plain numbers, for which zero is a valid value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call, and the path ends with a zero.
    if unsafe { libc::statfs(path.as_ptr(), &mut facts) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::unnecessary_cast, reason = "the type of f_type differs by architecture")]
    let kind = facts.f_type as i64;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// The device number (major, minor) that a file lies on.
pub fn device_of(path: &Path) -> io::Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(path)?.dev();
    Ok((libc::major(device), libc::minor(device)))
}

/// A second descriptor of a socket that something else owns.
pub fn duplicate(socket: RawFd) -> io::Result<TcpStream> {
    // SAFETY: duplicating a number that is no descriptor fails cleanly.
    let copy = unsafe { libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` is a fresh descriptor that nothing else owns.
    Ok(unsafe { TcpStream::from_raw_fd(copy) })
}

/// What is ready on a descriptor, with the token it was registered under.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub token: usize,
    pub readable: bool,
    pub writable: bool,
}

/// Level-triggered readiness of some sockets.
pub struct Epoll {
    descriptor: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no memory.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor, events: vec![libc::epoll_event { events: 0, u64: 0 }; 64] })
    }

    pub fn add(&self, socket: &impl AsRawFd, token: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, false)
    }

    /// Also tell when the socket takes bytes again, or no longer.
    pub fn want_write(&self, socket: &impl AsRawFd, token: usize, want: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, want)
    }

    fn control(
        &self,
        what: i32,
        socket: &impl AsRawFd,
        token: usize,
        write: bool,
    ) -> io::Result<()> {
        let mut interest = libc::EPOLLIN;
        if write {
            interest |= libc::EPOLLOUT;
        }
        let mut event = libc::epoll_event { events: interest as u32, u64: token as u64 };
        // SAFETY: the event outlives the call; the descriptors are open while they are borrowed.
        let result = unsafe {
            libc::epoll_ctl(self.descriptor.as_raw_fd(), what, socket.as_raw_fd(), &mut event)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until something is ready or the time is over (`None`: for ever).
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Ready> + '_> {
        let limit = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the list has room for as many events as are asked for; the limit is null or valid.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.descriptor.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len(),
                limit,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        let count = if count >= 0 {
            count as usize
        } else {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            0
        };
        Ok(self.events.iter().take(count).map(|event| {
            let bits = event.events as i32;
            Ready {
                token: event.u64 as usize,
                readable: bits & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0,
                writable: bits & libc::EPOLLOUT != 0,
            }
        }))
    }
}

/// Calls again what a signal interrupted. A read with a timeout ends so when the process is stopped
/// and continued, without any handler.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The memory of a process (a number, or `self`) that is in RAM, bytes; 0 if it is gone.
pub fn resident_bytes(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// User and system time of this process so far.
pub fn cpu_time() -> io::Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: there is room for the answer.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and then filled in.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// A process that this command starts gets SIGKILL when the thread that starts it ends, in whatever way.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call with plain numbers, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // SAFETY: sets a number of the calling process; no memory is passed.
            let result = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}

/// Sends a signal to a process that was started here and was not yet waited for.
pub fn signal(child: &Child, signal: i32) -> io::Result<()> {
    // SAFETY: the number is that of our child, which cannot be given anew before it is waited for.
    let result = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Processors of the machine, whichever this thread may use.
pub fn processors() -> usize {
    // SAFETY: takes a number and gives one.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    count.max(1) as usize
}

/// User and system time of another process so far, seconds; 0 if it is gone.
pub fn cpu_seconds_of(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything. Behind it come state, and as 12th and 13th, the times.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks =
        rest.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok());
    // SAFETY: takes a number and gives one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks.sum::<f64>() / (per_second.max(1) as f64)
}
