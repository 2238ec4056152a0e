//! What a batch costs the broker besides time: allocations on its thread, and system calls.

pub mod counting;
mod syscalls;
mod world;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use corelog_protocol::Durability;

use crate::conditions::{Conditions, Watch};
use crate::floor::{self, Mode, Options};
use crate::load::{self, Shape, Span, wire};
use crate::place;
use crate::report::{Table, thousands};
use crate::speed::Subject;
use counting::Allocations;
use syscalls::Counted;
use world::World;

const COUNTED: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(2);

/// Counts, prints, and says whether the broker's own path is free of allocations.
pub fn run(folder: Option<&Path>) -> io::Result<bool> {
    let folder = place::temporary_folder(folder)?;
    let options = Options::seconds(1.0);
    let before = threads()?;
    let subject = Subject::start(&folder.path().join("broker"), 1, 4, None, options.cores.broker)?;
    let shard = thread_called("corelog-0", &before)?;
    let mut table = Table::new([
        "load, durable",
        "batches",
        "commits",
        "allocations per batch",
        "bytes per batch",
    ]);
    for shape in [Shape::ONE_AT_A_TIME, Shape::SINGLES, Shape::BATCHES] {
        let (cost, batches, commits) = allocations(&subject, &shape, shard, &options)?;
        table.row([
            shape.name.to_string(),
            thousands(batches as f64),
            thousands(commits as f64),
            format!("{:.4}", cost.count as f64 / batches.max(1) as f64),
            format!("{:.1}", cost.bytes as f64 / batches.max(1) as f64),
        ]);
    }
    let step = step_alone()?;
    println!("allocations of the shard's step alone, in a world without an operating system:\n");
    println!("{}", step.table.show());
    println!("allocations on the shard's thread (step, driver and glommio together):\n");
    println!("{}", table.show());
    broker_calls(&subject, shard, &options)?;
    subject.broker.stop();
    floor_calls(folder.path(), &options)?;
    Ok(step.is_free_of_allocations)
}

struct StepAlone {
    table: Table,
    is_free_of_allocations: bool,
}

/// Batches before counting begins: until the tail cache is full and recycles what it holds. Of the
/// smallest batches, one block each, 64 MiB are 16,384.
const STEP_WARM_UP: u64 = 40_000;
const STEP_COUNTED: u64 = 20_000;

/// A roll to the next segment allocates its index and footer, some twenty times in thousands of
/// batches. One allocation in a hundred batches is more than that.
const BATCHES_PER_ALLOCATION_MIN: u64 = 100;

fn step_alone() -> io::Result<StepAlone> {
    let mut table = Table::new([
        "batches of",
        "batches",
        "steps",
        "writes",
        "segments",
        "allocations",
        "bytes",
    ]);
    let mut is_free_of_allocations = true;
    for (name, records, bytes) in [("1 x 100 B", 1, 100), ("64 x 1 KiB", 64, 1024)] {
        let mut world = World::start()?;
        let partition = world.create_topic()?;
        let batch = wire::batch(records, bytes);
        let mut frame = wire::produce(partition, Durability::LeaderDurable, &batch);
        for correlation in 0..STEP_WARM_UP {
            world.produce(&mut frame, correlation)?;
        }
        let (cost, steps) = (world.allocated, world.steps);
        let (writes, segments) = (world.writes, world.segments);
        for correlation in 0..STEP_COUNTED {
            world.produce(&mut frame, STEP_WARM_UP + correlation)?;
        }
        let cost = world.allocated.since(cost);
        is_free_of_allocations &= cost.count * BATCHES_PER_ALLOCATION_MIN < STEP_COUNTED;
        table.row([
            name.to_string(),
            thousands(STEP_COUNTED as f64),
            thousands((world.steps - steps) as f64),
            thousands((world.writes - writes) as f64),
            (world.segments - segments).to_string(),
            cost.count.to_string(),
            cost.bytes.to_string(),
        ]);
    }
    Ok(StepAlone { table, is_free_of_allocations })
}

/// Of the shard's thread while a load runs, from after its warm-up to before its end.
fn allocations(
    subject: &Subject,
    shape: &Shape,
    shard: u32,
    options: &Options,
) -> io::Result<(Allocations, u64, u64)> {
    let total = |name: &str| subject.broker.counters().total(name);
    within_load(subject, shape, options, || {
        let (batches, commits) = (total("batches_in"), total("commits"));
        let start = counting::of_thread(shard);
        std::thread::sleep(COUNTED);
        let cost = counting::of_thread(shard).since(start);
        Ok((cost, total("batches_in") - batches, total("commits") - commits))
    })
}

/// System calls of the shard's thread per commit, at one message per batch and one at a time.
fn broker_calls(subject: &Subject, shard: u32, options: &Options) -> io::Result<()> {
    let commits = || subject.broker.counters().total("commits");
    let watch = Watch::start();
    let (counted, commits) = within_load(subject, &Shape::ONE_AT_A_TIME, options, || {
        // Both counts span the same time, but for the tool's own start; so rates are compared.
        let before = commits();
        let begin = Instant::now();
        let counted = syscalls::of_thread(shard, COUNTED)?;
        let rate = (commits() - before) as f64 / begin.elapsed().as_secs_f64();
        Ok((counted, rate * COUNTED.as_secs_f64()))
    })?;
    tell_calls("the broker's shard", &counted, commits, watch.stop());
    Ok(())
}

/// The same of the floor's loop, in which each message is a commit.
fn floor_calls(folder: &Path, options: &Options) -> io::Result<()> {
    let mut options = options.clone();
    options.span = Span { warm_up: WARM_UP, measured: COUNTED * 2 + Duration::from_secs(4) };
    let before = threads()?;
    let watch = Watch::start();
    let shape = Shape::ONE_AT_A_TIME;
    let (outcome, counted) = std::thread::scope(|scope| {
        let floor = scope.spawn(|| floor::run_loop(folder, Mode::Durable, &shape, &options));
        std::thread::sleep(WARM_UP + COUNTED / 2);
        let counted =
            thread_called("floor", &before).and_then(|thread| syscalls::of_thread(thread, COUNTED));
        let outcome =
            floor.join().unwrap_or_else(|_| Err(io::Error::other("the floor panicked")))?;
        io::Result::Ok((outcome, counted?))
    })?;
    let commits = outcome.records_per_second() * COUNTED.as_secs_f64();
    tell_calls("the floor's loop", &counted, commits, watch.stop());
    Ok(())
}

fn tell_calls(whose: &str, counted: &Counted, commits: f64, conditions: Conditions) {
    println!(
        "system calls of {whose} per commit, {}, durable; about {} commits (counted by {}; \
         {conditions}):\n",
        Shape::ONE_AT_A_TIME.name,
        thousands(commits),
        counted.tool,
    );
    let mut table = Table::new(["system call", "calls", "per commit"]);
    let mut row = |name: &str, count: u64| {
        let per_commit = format!("{:.2}", count as f64 / commits);
        table.row([name.to_string(), thousands(count as f64), per_commit]);
    };
    for (name, count) in &counted.by_name {
        row(name, *count);
    }
    row("all", counted.total());
    println!("{}", table.show());
}

/// Runs `work` in the middle of a load.
fn within_load<T>(
    subject: &Subject,
    shape: &Shape,
    options: &Options,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let target = subject.target(Durability::LeaderDurable);
    // Longer than the work: a tool takes its time to attach to hundreds of tracepoints.
    let measured = COUNTED * 2 + Duration::from_secs(6);
    let span = Span { warm_up: WARM_UP, measured };
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load::run(shape, &target, span, Some(options.cores.load)));
        std::thread::sleep(WARM_UP);
        let result = work();
        load.join().unwrap_or_else(|_| Err(io::Error::other("the load panicked")))?;
        result
    })
}

/// The threads of this process and their names.
fn threads() -> io::Result<Vec<(u32, String)>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if let Ok(thread) = entry.file_name().to_string_lossy().parse() {
            threads.push((thread, name.trim().to_owned()));
        }
    }
    Ok(threads)
}

/// The executor's thread: the first that was not there before and has this in its name. Those of
/// its blocking pool, started by it and so later, inherit its name.
fn thread_called(part: &str, before: &[(u32, String)]) -> io::Result<u32> {
    let now = threads()?;
    now.iter()
        .filter(|(thread, name)| {
            name.contains(part) && before.iter().all(|(known, _)| known != thread)
        })
        .map(|(thread, _)| *thread)
        .min()
        .ok_or_else(|| io::Error::other(format!("no thread is called after {part}")))
}
