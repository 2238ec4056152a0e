//! Runs the simulator over seeds, and says what it did and what it found.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use clap::Parser;
use corelog_broker::planted::Bug;
use corelog_broker::sim::coverage::{MINIMUM, missing};
use corelog_broker::sim::fleet;
use corelog_broker::sim::lost_acks;
use corelog_broker::sim::plan::Plan;
use corelog_broker::sim::run::{LENGTH_DEFAULT, run_seed, seeds_until_caught};
use corelog_broker::sim::stories;
use corelog_broker::sim::sweep::long;
use corelog_broker::sim::sweep::workloads::truncation;
use corelog_broker::sim::tally::Tally;
use corelog_broker::sim::threads::share_out;
use corelog_broker::sim::world::Outcome;

/// Runs brokers with their clients in virtual time, on disks and networks that fail.
#[derive(Parser)]
struct Options {
    /// The first seed, or, without --seeds and --hours, the only one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Seeds until this much virtual time has passed, hours.
    #[arg(long)]
    hours: Option<f64>,
    /// The length of each seed's workload, virtual milliseconds: 2000 by default, 6000 with several brokers.
    #[arg(long)]
    length_ms: Option<u64>,
    /// Threads. Each seed runs on one.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Plants a bug by name: the run must then fail.
    #[arg(long)]
    plant: Option<String>,
    /// Plants each bug in turn, and prints how many seeds it takes to catch it.
    #[arg(long)]
    planted: bool,
    /// Runs every seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// Crashes small lives of a log after each of their steps, with every choice of what the disk keeps,
    /// instead of seeds through a whole broker.
    #[arg(long)]
    sweep: bool,
    /// Flips every bit of a data directory, one at a time, instead.
    #[arg(long)]
    flips: bool,
    /// So many records through an idempotent producer, half of whose acknowledgments are lost, instead.
    #[arg(long)]
    lost_acks: Option<u64>,
    /// With --flips: of the bits inside bodies and of zeros only each so-many-th.
    #[arg(long, default_value_t = 1)]
    stride: u64,
    /// A cluster of so many brokers, 3 or more, instead of one.
    #[arg(long, default_value_t = 1)]
    brokers: usize,
    /// With --brokers: nothing goes wrong.
    #[arg(long)]
    calm: bool,
    /// With --brokers: all of them lose power at once, with everything that is not flushed, one to three times.
    #[arg(long, conflicts_with = "calm")]
    blackout: bool,
    /// Prints the last lines of the trace.
    #[arg(long)]
    trace: bool,
}

impl Options {
    fn run(&self, seed: u64, length: u64, bug: Bug, keep_lines: bool) -> Outcome {
        match self.brokers {
            1 => run_seed(seed, length, bug, keep_lines),
            _ => fleet::run::run_plan(self.fleet_plan(seed, length), bug, keep_lines),
        }
    }

    fn fleet_plan(&self, seed: u64, length: u64) -> fleet::plan::Plan {
        let draw = match (self.calm, self.blackout) {
            (true, _) => fleet::plan::Plan::calm,
            (false, true) => fleet::plan::Plan::blackout,
            (false, false) => fleet::plan::Plan::draw,
        };
        draw(seed, self.brokers, length)
    }

    fn plan_of(&self, seed: u64, length: u64) -> String {
        match self.brokers {
            1 => Plan::draw(seed, length).to_string(),
            _ => self.fleet_plan(seed, length).to_string(),
        }
    }

    /// The length of a seed's workload, virtual ns.
    fn length(&self) -> u64 {
        let default = if self.brokers == 1 { LENGTH_DEFAULT } else { fleet::run::LENGTH_DEFAULT };
        self.length_ms.map_or(default, |millis| millis * 1_000_000)
    }

    fn missing(&self, tally: &Tally) -> Vec<&'static str> {
        match self.brokers {
            1 => missing(tally).collect(),
            _ => fleet::coverage::missing(tally).collect(),
        }
    }

    fn minimum(&self) -> usize {
        if self.brokers == 1 { MINIMUM.len() } else { fleet::coverage::MINIMUM.len() }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.brokers == 0 || options.brokers == 2 {
        eprintln!("--brokers is 1, or 3 and more");
        return ExitCode::from(2);
    }
    // A panic is a finding, told with its seed; its own message would only interleave.
    std::panic::set_hook(Box::new(|panic| {
        SEED.with(|seed| eprintln!("seed {}: {panic}", seed.get()));
    }));
    if options.sweep || options.flips || options.lost_acks.is_some() {
        return exhaust(&options);
    }
    if options.planted {
        return planted(&options);
    }
    let bug = match options.plant.as_deref().map(bug_of) {
        None => Bug::None,
        Some(Some(bug)) => bug,
        Some(None) => {
            eprintln!("There is no such bug. Known: {:?}", known_bugs().collect::<Vec<_>>());
            return ExitCode::from(2);
        }
    };
    run(&options, bug)
}

/// The crash sweep, the flips, and the lost acknowledgments.
fn exhaust(options: &Options) -> ExitCode {
    let began = Instant::now();
    let say = |line: &str| println!("{:>7.1} s  {line}", began.elapsed().as_secs_f64());
    let defaults = long::Options::default();
    let long = long::Options {
        seed: options.seed,
        seeds: options.seeds.unwrap_or(defaults.seeds),
        threads: options.jobs,
        flip_stride: options.stride.max(1),
        ..defaults
    };
    // A panic is caught where it belongs, and told as a violation.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = false;
    let mut conclude = |finding: Result<String, String>| match finding {
        Ok(total) => say(&format!("{total}. No violation.")),
        Err(violation) => {
            say(&format!("VIOLATION {violation}"));
            failed = true;
        }
    };
    if options.sweep {
        let total = long::crashes(&long, &say);
        conclude(total.map(|total| format!("SWEEP: {} lives, {total}", total.lives)));
    }
    if options.flips {
        conclude(long::flips(&long, &say).map(|total| format!("FLIPS: {total}")));
    }
    if let Some(sends) = options.lost_acks {
        let outcome = lost_acks::run_all(options.seed, sends, options.jobs, &say);
        conclude(outcome.map(|outcome| {
            let sends = outcome.sends;
            format!("LOST ACKS: {sends} records sent, each stands once and in order")
        }));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn known_bugs() -> impl Iterator<Item = Bug> {
    let replicas = [Bug::REPLICA, Bug::REPLICA_LOG, Bug::READERS];
    let lists = [Bug::ALL, Bug::CONSENSUS, Bug::LEADERS].into_iter().chain(replicas);
    lists.into_iter().flatten().copied()
}

fn bug_of(name: &str) -> Option<Bug> {
    known_bugs().find(|bug| format!("{bug:?}").eq_ignore_ascii_case(name))
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// What all threads found.
#[derive(Default)]
struct Totals {
    tally: Tally,
    seeds: u64,
    events: u64,
    virtual_nanos: u64,
    /// Over all hashes, whatever the order of the threads.
    hash: u64,
    failures: Vec<(u64, String)>,
}

/// So many seeds may fail until no other is begun.
const FAILURES_MAX: usize = 20;

fn run(options: &Options, bug: Bug) -> ExitCode {
    let length = options.length();
    let single = options.seeds.is_none() && options.hours.is_none();
    let (count, nanos_max) = match (options.seeds, options.hours) {
        (Some(seeds), None) => (seeds, u64::MAX),
        (seeds, Some(hours)) => (seeds.unwrap_or(u64::MAX), (hours * 3600e9) as u64),
        (None, None) => (1, u64::MAX),
    };
    if single {
        print!("{}", options.plan_of(options.seed, length));
    }
    let began = Instant::now();
    let totals = Mutex::new(Totals::default());
    share_out(options.jobs, count, |number| {
        let seed = options.seed + number;
        SEED.with(|cell| cell.set(seed));
        let seed_began = Instant::now();
        let outcome = options.run(seed, length, bug, options.trace && single);
        let seconds = seed_began.elapsed().as_secs_f64();
        if seconds > 5.0 {
            eprintln!("seed {seed} took {seconds:.1} s for {} events", outcome.events);
        }
        let mut failure = outcome.violation.map(|violation| violation.to_string());
        if options.twice && failure.is_none() {
            let again = options.run(seed, length, bug, false);
            if again.hash != outcome.hash {
                failure =
                    Some(format!("two runs differ: {:016x} and {:016x}", outcome.hash, again.hash));
            }
        }
        outcome.lines.iter().for_each(|line| println!("{line}"));
        let mut totals = totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        totals.tally.merge(&outcome.tally);
        totals.seeds += 1;
        totals.events += outcome.events;
        totals.virtual_nanos += outcome.virtual_nanos;
        totals.hash ^= outcome.hash.rotate_left((seed % 64) as u32);
        if let Some(failure) = failure {
            eprintln!("VIOLATION seed {seed}: {failure}");
            totals.failures.push((seed, failure));
        }
        match totals.failures.len() >= FAILURES_MAX || totals.virtual_nanos >= nanos_max {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let totals = totals.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    report(options, &totals, began.elapsed().as_secs_f64())
}

/// So many seeds must have met everything that [`MINIMUM`] lists.
const COVERED_FROM: u64 = 500;

fn report(options: &Options, totals: &Totals, seconds: f64) -> ExitCode {
    for (name, count) in totals.tally.iter() {
        println!("{count:>14}  {}", name.trim_start_matches('.'));
    }
    println!(
        "{} seeds of at least {} ms of workload each, {:.2} virtual hours, {} events, {:.1} s ({:.1} seeds/s), hash {:016x}",
        totals.seeds,
        options.length() / 1_000_000,
        totals.virtual_nanos as f64 / 3600e9,
        totals.events,
        seconds,
        totals.seeds as f64 / seconds,
        totals.hash,
    );
    let mut failed = false;
    let mut failures = totals.failures.clone();
    failures.sort();
    for (seed, failure) in &failures {
        failed = true;
        println!("VIOLATION seed {seed}: {failure}");
    }
    if let Some((seed, _)) = failures.first() {
        let length = options.length();
        let bug = options.plant.as_deref().and_then(bug_of).unwrap_or(Bug::None);
        println!(
            "--- the options and the last lines of the first one:\n{}",
            options.plan_of(*seed, length)
        );
        let lines = options.run(*seed, length, bug, true).lines;
        lines.iter().skip(lines.len().saturating_sub(40)).for_each(|line| println!("{line}"));
        let kind = match (options.calm, options.blackout) {
            (true, _) => " --calm",
            (false, true) => " --blackout",
            (false, false) => "",
        };
        println!("--- again: simulate --brokers {}{kind} --seed {seed} --trace", options.brokers);
    }
    let is_of_all = !options.calm && !options.blackout;
    if !is_of_all && !failed {
        println!("No violation.");
    }
    if totals.seeds >= COVERED_FROM && !failed && is_of_all {
        for name in options.missing(&totals.tally) {
            failed = true;
            println!("NOT COVERED: {name}");
        }
        if !failed {
            println!(
                "No violation. Every one of {} coverage counters is above zero.",
                options.minimum()
            );
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn planted(options: &Options) -> ExitCode {
    const STARTS: [u64; 5] = [1, 10_001, 20_001, 30_001, 40_001];
    let bound = options.seeds.unwrap_or(500);
    std::panic::set_hook(Box::new(|_| {}));
    let lines = Mutex::new(vec![None; Bug::ALL.len()]);
    share_out(options.jobs, Bug::ALL.len() as u64, |index| {
        let bug = Bug::ALL[index as usize];
        let mut counts = Vec::new();
        let mut example = String::new();
        for start in STARTS {
            let caught = match bug {
                // Its tail is too rare in a whole broker: the sweep makes nothing else.
                Bug::SupersededResurrected => {
                    long::lives_until_caught(bug, truncation, start, bound)
                        .map(|(count, sign)| (count, format!("sweep: {sign}")))
                }
                // Their occasions are rare too: a refusal before an accepted batch, a copy that comes late.
                Bug::GapAccepted
                | Bug::OldEpochAccepted
                | Bug::DuplicateAckedEarly
                | Bug::SentBeforeIgnored
                | Bug::FormerStampIgnored => {
                    stories::told_with(bug).err().map(|sign| (1, format!("story: {sign}")))
                }
                _ => seeds_until_caught(bug, start, bound)
                    .map(|(count, sign)| (count, sign.to_string())),
            };
            match caught {
                Some((count, sign)) => {
                    counts.push(count);
                    example = sign;
                }
                None => counts.push(u64::MAX),
            }
        }
        eprintln!("{bug:?}: {counts:?} {example}");
        let mut lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        lines[index as usize] = Some((bug, counts, example));
        ControlFlow::Continue(())
    });
    let lines = lines.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut failed = false;
    let mut always = 0;
    let mut all = Vec::new();
    let show = |count: u64| if count == u64::MAX { "never".to_owned() } else { count.to_string() };
    println!(
        "{:<26} {:<36} {:>6}  first sign",
        "planted bug", "seeds until caught, by start", "median"
    );
    for (bug, counts, example) in lines.into_iter().flatten() {
        let mut sorted = counts.clone();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        let counts: Vec<String> = counts.into_iter().map(show).collect();
        failed |= sorted.contains(&u64::MAX);
        always += usize::from(!sorted.contains(&u64::MAX));
        all.push(median);
        let example: String = example.chars().take(90).collect();
        println!(
            "{:<26} {:<36} {:>6}  {example}",
            format!("{bug:?}"),
            counts.join(" "),
            show(median)
        );
    }
    all.sort_unstable();
    println!(
        "{} bugs, {always} of them caught from each of {} starts within {bound} seeds; the median of the medians is {}, the greatest {}",
        all.len(),
        STARTS.len(),
        show(all[all.len() / 2]),
        all.last().map_or_else(String::new, |most| show(*most)),
    );
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
