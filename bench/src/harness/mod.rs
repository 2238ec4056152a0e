//! The bench harness: scenarios against a broker, with an honest report. `bench/README.md` says how to use it.
//!
//! What keeps it honest is spread over few places: [`schedule`] knows no answers, so a slow broker is not asked less
//! often; [`books`] count response time from the intended time and keep service time apart; [`mod@run`] verifies every message;
//! [`floors`] measures the machine in the same run; [`outcome`] says first what disturbed it.

mod again;
mod books;
mod brokers;
mod clock;
mod compare;
mod drivers;
mod floors;
mod folder;
mod hlog;
mod host;
mod jitter;
mod live;
mod mailbox;
mod null;
mod outcome;
mod page;
mod ratio;
mod run;
mod scenario;
mod schedule;
mod sweep;
mod target;
mod tell;

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use corelog_broker::config::Config;
use corelog_broker::driver::{Broker, LocalCluster, StartError, StopSignal};

use host::Host;
use live::Live;
use outcome::Outcome;
use scenario::{Fault, FaultKind, Scenario, shipped};
use target::{Session, Target};

#[derive(Subcommand)]
pub enum Command {
    /// Run a scenario, verify every message, and write a report
    Run {
        /// A TOML file, or the name of a shipped scenario
        scenario: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        length: Length,
        /// Where the result goes (default: bench-results/NAME)
        #[arg(long)]
        out: Option<PathBuf>,
        /// Instead of the scenario's faults: freeze the brokers for a second at this moment, and see it in the report
        #[arg(long, value_name = "SECONDS")]
        freeze_at: Option<f64>,
    },
    /// Find the highest rate that meets an objective
    Sweep {
        /// A TOML file, or the name of a shipped scenario: all but its schedule is kept
        scenario: String,
        /// Of response times, such as "p99 < 2ms"
        #[arg(long)]
        objective: sweep::Objective,
        /// The rate to begin with, per second
        #[arg(long, default_value_t = 1_000.0)]
        from: f64,
        /// No rate above this is tried
        #[arg(long, default_value_t = 2_000_000.0)]
        to: f64,
        /// Length of each trial
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// How close the answer is to a rate that does not meet it, percent
        #[arg(long, default_value_t = 5.0)]
        within_percent: f64,
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 1.0)]
        floor_seconds: f64,
        /// Where the result goes (default: bench-results/sweep-NAME)
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Measure A and B in turns, and say whether they differ
    Compare {
        /// `own` (the broker linked into the bench), the path of a corelogd, or of a scenario that ends in .toml
        a: String,
        /// The same
        b: String,
        /// For sides that are brokers
        #[arg(long, default_value = "single-durable")]
        scenario: String,
        #[arg(long, default_value_t = 30)]
        rounds: usize,
        /// Length of each measurement
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// An environment variable for B's broker, NAME=VALUE, as in an experiment
        #[arg(long, value_name = "NAME=VALUE")]
        b_env: Vec<String>,
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Corelog, the only kind of broker that can be compared: both sides are started for it
        #[arg(long, value_enum, default_value_t)]
        driver: target::Kind,
        /// Where the result goes (default: bench-results/compare)
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Run a stored result again with its settings, and say of each figure whether it came out as it did
    ///
    /// Exits with 0 if every message was verified and every figure came out as it did, else with 1: also if it differs only because
    /// the machine was disturbed, which is said.
    Verify {
        /// Its folder
        result: PathBuf,
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 1.0)]
        floor_seconds: f64,
        /// Where the new result goes (default: bench-results/verify)
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Make the report of a stored result anew
    Page {
        /// Its folder
        result: PathBuf,
        /// Where the page goes (default: report.html beside the result)
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// What the harness sustains, and what it adds to a message: a run against nothing
    Null {
        /// Length of each measurement
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// List the shipped scenarios
    Scenarios {
        /// Print this one as TOML, to begin one's own with
        name: Option<String>,
    },
    /// The broker that is linked into the bench, as a process of its own
    #[command(name = brokers::COMMAND, hide = true)]
    Broker {
        #[arg(long)]
        config: PathBuf,
        /// So many of them in this process, as `corelogd` does with the same option
        #[arg(long)]
        local_cluster: Option<usize>,
    },
}

#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Length {
    /// Run for so many times as long as the scenario says
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// Length of each measurement of the floor
    #[arg(long, default_value_t = 1.0)]
    pub floor_seconds: f64,
}

/// False: it ran, and something was not as it should be.
pub fn run(command: Command) -> io::Result<bool> {
    match command {
        Command::Run { scenario: name, target, length, out, freeze_at } => {
            let what = FaultKind::Freeze;
            let frozen = freeze_at.map(|at_seconds| Fault { what, at_seconds, for_seconds: 1.0 });
            let scenario = read(&name, length.scale, frozen)?;
            let out = out.unwrap_or_else(|| results(&stem(&name)));
            let outcome = run_once(&scenario, &target, length, &out)?;
            print!("{}", tell::tell(&outcome));
            println!("\n{}", out.join("report.html").display());
            Ok(outcome.is_clean())
        }
        Command::Sweep {
            scenario,
            objective,
            from,
            to,
            seconds,
            within_percent,
            target,
            floor_seconds,
            out,
        } => {
            let settings =
                sweep::Settings { objective, from, to, seconds, within: within_percent / 100.0 };
            let out = out.unwrap_or_else(|| results(&format!("sweep-{}", stem(&scenario))));
            sweep::run(&scenario::read(&scenario)?, &target, &settings, floor_seconds, &out)
        }
        Command::Compare { a, b, scenario, rounds, seconds, b_env, dir, driver, out } => {
            let variable = |text: &String| {
                let (name, value) = text.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            };
            let variables = b_env.iter().map(variable).collect::<Option<_>>();
            let variables =
                variables.ok_or_else(|| io::Error::other("--b-env: write NAME=VALUE"))?;
            let settings =
                compare::Settings { sides: [a, b], scenario, rounds, seconds, variables };
            let target = Target { dir, driver, ..Target::default() };
            compare::run(&settings, &target, &out.unwrap_or_else(|| results("compare")))
        }
        Command::Verify { result, target, floor_seconds, out } => {
            let length = Length { scale: 1.0, floor_seconds };
            again::run(&result, &target, length, &out.unwrap_or_else(|| results("verify")))
        }
        Command::Null { seconds } => null::run(seconds),
        Command::Scenarios { name: Some(name) } => {
            print!(
                "{}",
                shipped::text(&name)
                    .ok_or_else(|| io::Error::other(format!("no scenario {name}")))?
            );
            Ok(true)
        }
        Command::Scenarios { name: None } => {
            for name in shipped::names() {
                let title =
                    shipped::by_name(name).map_or_else(String::new, |scenario| scenario.title);
                println!("{name:<24}{title}");
            }
            Ok(true)
        }
        Command::Page { result, out } => {
            let out = out.unwrap_or_else(|| result.join("report.html"));
            std::fs::write(&out, page::render(&Outcome::read(&result)?))?;
            println!("{}", out.display());
            Ok(true)
        }
        Command::Broker { config, local_cluster } => serve(&config, local_cluster).map(|()| true),
    }
}

/// `fault`: instead of the scenario's.
fn read(name: &str, scale: f64, fault: Option<Fault>) -> io::Result<Scenario> {
    let mut scenario = scenario::read(name)?.scaled(scale);
    if let Some(fault) = fault {
        scenario.faults = vec![fault];
    }
    scenario
        .check()
        .map_err(|error| io::Error::other(format!("{name} with --scale {scale}: {error}")))?;
    Ok(scenario)
}

/// Where results go if nothing else is said.
fn results(name: &str) -> PathBuf {
    PathBuf::from("bench-results").join(name)
}

/// The name of a scenario without folder and ending.
fn stem(name: &str) -> String {
    let path = std::path::Path::new(name);
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn run_once(
    scenario: &Scenario,
    target: &Target,
    length: Length,
    out: &std::path::Path,
) -> io::Result<Outcome> {
    target.check(scenario)?;
    let mut session = Session::start(target, scenario)?;
    let floor = floors::measure(scenario, session.folder(), length.floor_seconds)?;
    let about = session.about(scenario)?;
    let began = unix_seconds();
    let live = Live::start(scenario.seconds);
    let measured = session.measure(scenario, &live)?;
    drop(live);
    let host = Host::look(session.folder());
    let outcome =
        Outcome::new(scenario, about, session.brokers(), host, Some(floor), began, &measured);
    folder::write(out, &outcome, Some(&measured.series))?;
    Ok(outcome)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn serve(config: &std::path::Path, local_cluster: Option<usize>) -> io::Result<()> {
    let text = std::fs::read_to_string(config)?;
    let config = Config::parse(&text).map_err(io::Error::other)?;
    let signal = StopSignal::block();
    let failed = |error: StartError| io::Error::other(error.to_string());
    if let Some(count) = local_cluster {
        let folder = config.data.first().cloned().unwrap_or_default();
        let cluster = LocalCluster::start(&folder, count, &config).map_err(failed)?;
        for (number, address) in (1..).zip(cluster.addresses()) {
            println!("broker {number} listens on {address}.");
        }
        signal.wait();
        cluster.stop();
        return Ok(());
    }
    let broker = Broker::start(config).map_err(failed)?;
    println!("the broker listens on {}.", broker.address());
    signal.wait();
    broker.stop();
    Ok(())
}
