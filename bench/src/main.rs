//! Measures Corelog and proves that it works: `corelog-bench help` lists how.

mod conditions;
mod cost;
mod demo;
mod faults;
mod floor;
mod forwarded;
mod harness;
mod history;
mod hostile;
mod kill;
mod latency;
mod load;
mod os;
mod place;
mod replicated;
mod report;
mod slow_follower;
mod speed;
mod spike;
mod topics;
mod traffic;
mod verify;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: cost::counting::Counting = cost::counting::Counting;

#[derive(Parser)]
#[command(name = "corelog-bench", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Harness(harness::Command),
    /// See it work: real messages through real sockets onto a real disk and back
    Demo {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// A quarter of the time
        #[arg(long)]
        quick: bool,
    },
    /// Measure the least that such a broker could cost on this machine
    Floor {
        /// A folder on the disk to measure (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Length of each measurement
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Print JSON instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Measure the broker beside the floor, in turns, and print the ratios
    Speed {
        /// A folder on the disk to measure (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// How often everything is measured; the medians count
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Length of each measurement
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Lanes of the one shard (the floor has one log)
        #[arg(long, default_value_t = 1)]
        lanes: u32,
        /// Partitions of the topic
        #[arg(long, default_value_t = 16)]
        partitions: u32,
        /// Only these lines of the table, counted from 1
        #[arg(long, value_delimiter = ',')]
        only: Vec<usize>,
        /// Print JSON instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Count allocations per batch and system calls per commit
    Cost {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Kill the real broker process under load, again and again, and check what it had acknowledged
    KillCycles {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The broker's binary (default: corelogd next to this one)
        #[arg(long)]
        broker: Option<PathBuf>,
        #[arg(long, default_value_t = 100)]
        cycles: u32,
        /// Chooses the moments of the kills (default: by the clock)
        #[arg(long)]
        seed: Option<u64>,
        /// Records per second
        #[arg(long, default_value_t = 5000.0)]
        per_second: f64,
        /// Instead: fill the broker with so much, kill it once, and time its recovery
        #[arg(long)]
        fill_gib: Option<f64>,
    },
    /// Kill, freeze and cut off the brokers of a cluster under load, one after another, and check the whole history
    ClusterFaults {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The broker's binary (default: corelogd next to this one)
        #[arg(long)]
        broker: Option<PathBuf>,
        /// `kill -9` of a broker, and its restart
        #[arg(long, default_value_t = 20)]
        kills: u32,
        /// A broker frozen for 1 to 3 s
        #[arg(long, default_value_t = 10)]
        pauses: u32,
        /// A broker cut off from the others, half of them in one direction; takes root
        #[arg(long, default_value_t = 0)]
        partitions: u32,
        /// Before all that, planned: a broker stopped in good order and started again, a lane's lead transferred, a broker
        /// drained, a new broker put in the place of one that is removed; nothing acknowledged may be lost by it at any
        /// level, and no producer be told of an error
        #[arg(long, default_value_t = 0)]
        operations: u32,
        /// Chooses faults, victims and moments (default: by the clock)
        #[arg(long)]
        seed: Option<u64>,
        /// Records per second
        #[arg(long, default_value_t = 2000.0)]
        per_second: f64,
        /// Shards of each broker
        #[arg(long, default_value_t = 1)]
        shards: usize,
        /// Keep data and logs also when all is well
        #[arg(long)]
        keep: bool,
    },
    /// Beside a healthy client: malformed frames, then connections that are idle or send a byte a second
    Hostile {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Malformed frames to send
        #[arg(long, default_value_t = 1_000_000)]
        frames: u64,
        /// At most so many of them per second
        #[arg(long, default_value_t = 20_000.0)]
        frames_per_second: f64,
        /// Draws the frames
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Connections that say hello and nothing more
        #[arg(long, default_value_t = 10_000)]
        idle: usize,
        /// Connections that send a byte a second
        #[arg(long, default_value_t = 1_000)]
        slow: usize,
        /// Length of each measurement of the healthy client
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// Brokers with 1, 100, 1,000 and 10,000 topics under the same load: rates, latencies, memory, start
    Topics {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The broker's binary (default: corelogd next to this one)
        #[arg(long)]
        broker: Option<PathBuf>,
        /// How many topics each broker has; the first is what the others are compared with
        #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000, 10_000])]
        counts: Vec<u32>,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Length of each measurement
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// Measure what a follower that stands still, or has a slow disk, costs the leader and who produces to it
    SlowFollower {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The broker's binary, built with `--features delays` (default: corelogd next to this one)
        #[arg(long)]
        broker: Option<PathBuf>,
        /// How often everything is measured; the medians count
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Length of each measurement, for which the follower stands still
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
        /// By how much its disk is slower
        #[arg(long, default_value_t = 100)]
        times: u32,
    },
    /// One broker and a local cluster of three under the same load: what three copies cost
    Replicated {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Length of each measurement
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// Normal load, a spike far above what the broker takes, normal load again
    Spike {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The broker's binary (default: corelogd next to this one)
        #[arg(long)]
        broker: Option<PathBuf>,
        /// Bytes of a record; a batch holds one
        #[arg(long, default_value_t = 100)]
        record_bytes: usize,
        /// Normal load, records per second (default: so that the spike is 1.5 times what the broker takes)
        #[arg(long)]
        per_second: Option<f64>,
        /// The spike, in times of the normal load
        #[arg(long, default_value_t = 20.0)]
        times: f64,
        /// Length of the normal load before the spike, and after it, seconds
        #[arg(long, default_value_t = 20)]
        normal_seconds: u64,
        /// Length of the spike, seconds
        #[arg(long, default_value_t = 60)]
        spike_seconds: u64,
        /// What the topic keeps of each of its 16 partitions, MiB
        #[arg(long, default_value_t = 64)]
        kept_mib: u64,
    },
    /// The other process of `hostile`
    #[command(name = hostile::visit::COMMAND, hide = true)]
    HostileCrowd {
        /// The broker's
        address: std::net::SocketAddr,
    },
    /// Check that the client talks to the core that owns the data, and that a client which insists
    /// on the wrong core is served all the same
    Forwarded {
        /// A folder on the disk to use (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Length of each of the three runs
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
}

fn main() -> ExitCode {
    let level = std::env::var("CORELOG_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::Level::ERROR))
        .with_writer(io::stderr)
        .init();
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("corelog-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False: it ran, and something was not as it should be.
fn run(command: Command) -> io::Result<bool> {
    match command {
        Command::Harness(command) => harness::run(command),
        Command::Demo { dir, quick } => demo::run(&demo::Settings { folder: dir, quick }),
        Command::Floor { dir, seconds, json } => {
            floor::report(dir.as_deref(), seconds, json).map(|()| true)
        }
        Command::Speed { dir: folder, rounds, seconds, lanes, partitions, only, json: as_json } => {
            speed::run(&speed::Settings {
                folder,
                rounds,
                seconds,
                lanes,
                partitions,
                only,
                as_json,
            })
        }
        Command::Cost { dir } => cost::run(dir.as_deref()),
        Command::KillCycles { dir: folder, broker, cycles, seed, per_second, fill_gib } => {
            let binary = broker.unwrap_or_else(kill::default_binary);
            match fill_gib {
                Some(gib) => kill::fill::run(&kill::fill::Settings { folder, binary, gib }),
                None => {
                    let seed = seed.unwrap_or_else(seed_by_the_clock);
                    kill::run(&kill::Settings { folder, binary, cycles, seed, per_second })
                }
            }
        }
        Command::ClusterFaults {
            dir: folder,
            broker,
            kills,
            pauses,
            partitions,
            operations,
            seed,
            per_second,
            shards,
            keep,
        } => faults::run(&faults::Settings {
            folder,
            binary: broker.unwrap_or_else(kill::default_binary),
            kills,
            pauses,
            partitions,
            operations,
            seed: seed.unwrap_or_else(seed_by_the_clock),
            per_second,
            shards,
            keep,
        }),
        Command::Hostile { dir: folder, frames, frames_per_second, seed, idle, slow, seconds } => {
            hostile::run(&hostile::Settings {
                folder,
                frames,
                frames_per_second,
                seed,
                idle,
                slow,
                seconds,
            })
        }
        Command::Topics { dir: folder, broker, counts, rounds, seconds } => {
            let binary = broker.unwrap_or_else(kill::default_binary);
            topics::run(&topics::Settings { folder, binary, counts, rounds, seconds })
        }
        Command::Replicated { dir: folder, rounds, seconds } => {
            replicated::run(&replicated::Settings { folder, rounds, seconds })
        }
        Command::SlowFollower { dir: folder, broker, rounds, seconds, times } => {
            let binary = broker.unwrap_or_else(kill::default_binary);
            slow_follower::run(&slow_follower::Settings { folder, binary, rounds, seconds, times })
        }
        Command::Spike {
            dir: folder,
            broker,
            record_bytes,
            per_second,
            times,
            normal_seconds,
            spike_seconds,
            kept_mib,
        } => spike::run(&spike::Settings {
            folder,
            binary: broker.unwrap_or_else(kill::default_binary),
            record_bytes,
            per_second,
            times,
            normal_seconds: normal_seconds.max(spike::RECOVERY_SECONDS + 1),
            spike_seconds: spike_seconds.max(1),
            kept_bytes: kept_mib << 20,
        }),
        Command::HostileCrowd { address } => hostile::visit::serve(address).map(|()| true),
        Command::Forwarded { dir, seconds } => forwarded::run(dir.as_deref(), seconds),
    }
}

fn seed_by_the_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |time| time.as_nanos() as u64)
}
