//! One measurement: producers that send by a schedule, readers that check everything, books that are kept.
//!
//! One thread sends. The books are kept on another one, which looks into three mailboxes every few milliseconds, so that
//! neither sender nor client waits for it; a reader has a thread of its own. What was read was sent before, so the mailbox of
//! what was read is emptied first and entered last.

mod faults;
mod progress;
mod reading;
mod send;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::books::{Books, Frame, Seen, Sent, Series, ShardStages, Totals};
use super::brokers::Brokers;
use super::clock::Clock;
use super::drivers::{Driver, Outbox, Settled, ShardWork, TopicPlan};
use super::jitter::Jitter;
use super::mailbox::Mailbox;
use super::scenario::{FaultKind, Scenario};
use crate::conditions::{Conditions, Watch};
use crate::latency::Summary;
use crate::os;
use crate::verify::Verdict;
use progress::Meter;
pub use progress::{Nobody, Progress, Watcher};
pub use reading::CatchUp;

/// Between making the topics and the first message.
const AHEAD: Duration = Duration::from_millis(50);

/// The books are kept so often.
const TICK: Duration = Duration::from_millis(5);

/// How long what was sent may go without an answer after the end, and what was acknowledged without being read.
const PATIENCE: Duration = Duration::from_secs(40);

/// What was measured.
pub struct Measured {
    pub verdict: Verdict,
    pub series: Series,
    pub totals: Totals,
    /// Of each core that acknowledged something, by its name.
    pub stages: Vec<(String, ShardStages)>,
    pub catch_up: Vec<CatchUp>,
    pub conditions: Conditions,
    pub jitter: Summary,
    /// Of all processors' time, what neither this process nor its brokers used; not known if the brokers are not ours.
    pub others_percent: Option<f64>,
    /// Work of the broker's cores during the run.
    pub shards: Vec<ShardWork>,
    pub broker_cpu_seconds: Option<f64>,
    /// From the first message to the last answer.
    pub seconds: f64,
}

/// What the threads of a run share.
struct Shared<'a> {
    scenario: &'a Scenario,
    seed: u64,
    clock: Clock,
    sent: Mailbox<Sent>,
    settled: Arc<Mailbox<Settled>>,
    seen: Mailbox<Seen>,
    /// Due times of messages that never left, and when they were given up.
    unsent: Mailbox<(u64, u64)>,
    outbox: Arc<Outbox>,
    sending_is_over: AtomicBool,
    is_over: AtomicBool,
    messages_sent: AtomicU64,
    reading_failed: Mailbox<io::Error>,
}

/// Makes topics of its own, runs the scenario, and waits until everything is settled and read.
pub fn measure(
    scenario: &Scenario,
    driver: &dyn Driver,
    brokers: &mut Brokers,
    seed: u64,
    watcher: &dyn Watcher,
) -> io::Result<Measured> {
    let topics = TopicPlan {
        prefix: format!("bench-{seed:x}"),
        count: scenario.topics.count,
        partitions: scenario.topics.partitions,
        retention_bytes: (scenario.topics.retention_mib > 0)
            .then_some(scenario.topics.retention_mib << 20),
    };
    driver.make_topics(&topics)?;
    let settled = Arc::new(Mailbox::default());
    let reader = driver.reader()?;
    let catch_up: Vec<_> =
        (0..scenario.readers.catch_up).map(|_| driver.reader()).collect::<io::Result<_>>()?;
    let clock = Clock::starting_in(AHEAD);
    let outbox = Arc::new(Outbox::new(clock, Arc::clone(&settled)));
    let producers = (0..scenario.messages.clients())
        .map(|_| driver.producer(Arc::clone(&outbox)))
        .collect::<io::Result<Vec<_>>>()?;
    let shared = Shared {
        scenario,
        seed,
        clock,
        sent: Mailbox::default(),
        settled,
        seen: Mailbox::default(),
        unsent: Mailbox::default(),
        outbox,
        sending_is_over: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        messages_sent: AtomicU64::new(0),
        reading_failed: Mailbox::default(),
    };
    let books = Books::new(&frame(scenario, seed));
    let before = driver.shards()?;
    let cpu_before = brokers.cpu_seconds();
    let watch = Watch::start();
    let own_cpu = os::cpu_time()?;
    let jitter = Jitter::start();
    let begin = Instant::now();

    let (books, catch_up) = std::thread::scope(|scope| -> io::Result<_> {
        let shared = &shared;
        // However this ends, the other threads end too.
        let guard = EndAll(shared);
        scope.spawn(move || reading::along(shared, reader));
        let catch_up: Vec<_> = catch_up
            .into_iter()
            .map(|reader| scope.spawn(move || reading::catch_up(shared, reader)))
            .collect();
        let sending = scope.spawn(move || send::send(shared, producers));
        let faults = scope.spawn(|| faults::play(shared, brokers, &topics.name(0)));
        let keeping = scope.spawn(move || keep(shared, books, watcher, driver));
        let sent = join(sending);
        let played = join(faults);
        if sent.is_err() || played.is_err() {
            shared.is_over.store(true, Ordering::SeqCst);
        }
        shared.sending_is_over.store(true, Ordering::SeqCst);
        let kept = join(keeping);
        drop(guard);
        let catch_up = catch_up.into_iter().map(join).collect::<io::Result<Vec<_>>>();
        sent.and(played)?;
        Ok((kept?, catch_up?))
    })?;
    let mut failures = Vec::new();
    shared.reading_failed.take(&mut failures);
    if let Some(error) = failures.into_iter().next() {
        return Err(error);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let shards = since(&driver.shards()?, &before);
    let cpu =
        cpu_before.zip(brokers.cpu_seconds()).map(|(before, after)| (after - before).max(0.0));
    let conditions = watch.stop();
    let own = (os::cpu_time()? - own_cpu).as_secs_f64() + cpu.unwrap_or_default();
    let own_percent = own * 100.0 / (seconds * os::processors() as f64);
    let others_percent = cpu.map(|_| (conditions.busy_percent - own_percent).max(0.0));
    let killed = scenario.faults.iter().any(|fault| fault.what == FaultKind::Kill);
    let (verdict, series, totals, stages) = books.finish();
    let stages = stages.into_iter().map(|(core, of)| (driver.core_name(core), of)).collect();
    Ok(Measured {
        verdict,
        series,
        totals,
        stages,
        catch_up,
        conditions,
        others_percent,
        jitter: jitter.stop(),
        shards,
        // A process that was killed has taken its count with it.
        broker_cpu_seconds: cpu.filter(|_| !killed),
        seconds,
    })
}

struct EndAll<'a>(&'a Shared<'a>);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

fn frame(scenario: &Scenario, seed: u64) -> Frame {
    let nanos = |seconds: f64| (seconds * 1e9) as u64;
    Frame {
        seed,
        producers: scenario.messages.producers,
        topics: scenario.topics.count,
        keys: scenario.messages.keys,
        bytes: scenario.messages.bytes,
        warm_up: nanos(scenario.warm_up_seconds),
        interval: nanos(scenario.interval_seconds()),
    }
}

/// Keeps the books until all is sent, settled and read, or patience is over: what is not there then is lost.
fn keep(
    shared: &Shared<'_>,
    mut books: Books,
    watcher: &dyn Watcher,
    driver: &dyn Driver,
) -> io::Result<Books> {
    let mut desk = Desk::default();
    let mut progress = Meter::new(shared.scenario, watcher);
    let mut settled = 0_u64;
    let mut last_news = Instant::now();
    loop {
        let is_last = shared.sending_is_over.load(Ordering::SeqCst);
        let (news, count) = desk.enter(shared, &mut books);
        settled += count;
        if news {
            last_news = Instant::now();
        }
        progress.tell(shared.clock.now(), &books, driver);
        let open = shared.messages_sent.load(Ordering::SeqCst).saturating_sub(settled);
        let failed = shared.is_over.load(Ordering::SeqCst);
        if is_last && (failed || (open == 0 && !news && books.unread() == 0)) {
            return Ok(books);
        }
        if is_last && last_news.elapsed() > PATIENCE {
            return Ok(books);
        }
        std::thread::sleep(TICK);
    }
}

#[derive(Default)]
struct Desk {
    sent: Vec<Sent>,
    settled: Vec<Settled>,
    seen: Vec<Seen>,
    unsent: Vec<(u64, u64)>,
}

impl Desk {
    /// True if there was anything; and how many messages were settled.
    fn enter(&mut self, shared: &Shared<'_>, books: &mut Books) -> (bool, u64) {
        shared.seen.take(&mut self.seen);
        shared.settled.take(&mut self.settled);
        shared.sent.take(&mut self.sent);
        shared.unsent.take(&mut self.unsent);
        let news = !(self.seen.is_empty() && self.settled.is_empty() && self.sent.is_empty());
        self.sent.drain(..).for_each(|sent| books.on_sent(sent));
        self.unsent.drain(..).for_each(|(due, at)| books.on_unsent(due, at));
        let settled = self.settled.iter().map(|settled| u64::from(settled.count)).sum();
        self.settled.drain(..).for_each(|settled| books.on_settled(&settled));
        self.seen.drain(..).for_each(|seen| books.on_seen(&seen));
        (news, settled)
    }
}

fn since(now: &[ShardWork], before: &[ShardWork]) -> Vec<ShardWork> {
    let earlier = |name: &str| before.iter().find(|work| work.name == name).cloned();
    let less = |work: &ShardWork| {
        let earlier = earlier(&work.name).unwrap_or_default();
        ShardWork {
            name: work.name.clone(),
            // One that was started anew counts from 0.
            records: work.records.checked_sub(earlier.records).unwrap_or(work.records),
            bytes: work.bytes.checked_sub(earlier.bytes).unwrap_or(work.bytes),
            commits: work.commits.checked_sub(earlier.commits).unwrap_or(work.commits),
        }
    };
    now.iter().map(less).collect()
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the harness panicked")))
}
