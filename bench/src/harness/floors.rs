//! The floor of a run, measured beside it: what the machine can do at best, piece by piece, and a bare loop that is no
//! broker under the same load. Every result is a ratio to one of these.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use corelog_protocol::checksum::crc32c;
use serde::{Deserialize, Serialize};

use super::scenario::{Level, Scenario};
use super::schedule::Plan;
use crate::floor::{self, Mode, Options};
use crate::latency::Latencies;
use crate::load::{Pace, Shape};
use crate::os;

/// Nanoseconds, and bytes per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// One block written and flushed, one at a time.
    pub commit: Quantiles,
    pub sequential_write: f64,
    /// 100 B there and back.
    pub round_trip: Quantiles,
    /// Bytes per second over the loopback.
    pub stream: f64,
    /// From a thread's word to another one on a core of its own, which slept.
    pub wake_up: Quantiles,
    pub checksum: f64,
    pub copy: f64,
    /// A bare loop under the same load.
    pub same_load: Bare,
    /// The most that the bare loop takes of messages of this size, one to a batch.
    pub capacity: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bare {
    /// In words.
    pub load: String,
    pub per_second: f64,
    pub latency: Quantiles,
    /// Quantile and nanoseconds.
    pub curve: Vec<(f64, u64)>,
}

impl From<&Latencies> for Quantiles {
    fn from(latencies: &Latencies) -> Self {
        let summary = latencies.summary();
        Self { p50: summary.p50, p99: summary.p99, p999: summary.p999, max: summary.max }
    }
}

/// Measures each for so long.
pub fn measure(scenario: &Scenario, folder: &Path, seconds: f64) -> io::Result<Floor> {
    let mut options = Options::seconds(seconds);
    options.file_bytes = 64 << 20;
    // The floor pins its own threads; the broker is idle meanwhile.
    let device = floor::disk::run(folder, &options)?;
    let shape = shape(scenario);
    let mode = match scenario.messages.level {
        Level::LeaderMemory | Level::QuorumMemory => Mode::Memory,
        Level::LeaderDurable | Level::QuorumDurable => Mode::Durable,
    };
    let loaded = floor::run_loop(folder, mode, &shape, &options)?;
    let full = Shape { connections: 4, pace: Pace::InFlight(64), name: "full", ..shape.clone() };
    let full = floor::run_loop(folder, mode, &full, &options)?;
    let best = device.bandwidth.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let window = Duration::from_secs_f64(seconds / 4.0);
    Ok(Floor {
        commit: (&device.commit).into(),
        sequential_write: best,
        round_trip: (&floor::echo::run(&options)?).into(),
        stream: stream(window)?,
        wake_up: (&wake_up(window, &options)?).into(),
        checksum: rate_of(window, |bytes, _| u64::from(crc32c(bytes))),
        copy: rate_of(window, |bytes, target| {
            target.copy_from_slice(bytes);
            u64::from(target[0])
        }),
        same_load: Bare {
            load: describe(&shape, mode),
            per_second: loaded.records_per_second(),
            latency: (&loaded.latencies).into(),
            curve: curve(&loaded.latencies),
        },
        capacity: full.records_per_second(),
    })
}

/// The scenario's load as the bare loop takes it. A schedule that changes is taken at its mean.
fn shape(scenario: &Scenario) -> Shape {
    let pace = match &scenario.schedule {
        Plan::Closed { in_flight } => Pace::InFlight((*in_flight).max(1) as usize),
        Plan::Constant { per_second } | Plan::Poisson { per_second } => {
            Pace::PerSecond(*per_second)
        }
        Plan::Step { from_per_second, .. } => Pace::PerSecond(*from_per_second),
        Plan::Spike { per_second, .. } => Pace::PerSecond(*per_second),
        Plan::Trace { .. } => Pace::PerSecond(scenario.trace.len() as f64 / scenario.seconds),
    };
    Shape {
        name: "the same load",
        connections: match pace {
            Pace::InFlight(_) => 1,
            Pace::PerSecond(_) => scenario.messages.clients() as usize,
        },
        pace,
        records_per_batch: 1,
        record_bytes: scenario.messages.bytes,
    }
}

fn describe(shape: &Shape, mode: Mode) -> String {
    let pace = match shape.pace {
        Pace::InFlight(depth) => format!("{depth} in flight"),
        Pace::PerSecond(rate) => format!("{rate:.0}/s"),
    };
    format!("{pace} of {} B, one to a batch, {}", shape.record_bytes, mode.name())
}

/// Points of a curve of percentiles, ever closer to 1.
pub fn curve(latencies: &Latencies) -> Vec<(f64, u64)> {
    let count = latencies.count();
    let mut points: Vec<(f64, u64)> = (0..=100)
        .map(|tenth| 1.0 - 10_f64.powf(-f64::from(tenth) / 10.0))
        .take_while(|at| count > 0 && (1.0 - at) * count as f64 >= 1.0)
        .map(|at| (at, latencies.at(at)))
        .collect();
    if count > 0 {
        points.push((1.0, latencies.summary().max));
    }
    points
}

fn stream(window: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    let (mut other, _) = listener.accept()?;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || -> io::Result<u64> {
            let (mut bytes, mut sum) = (vec![0; 256 << 10], 0);
            loop {
                match other.read(&mut bytes)? {
                    0 => return Ok(sum),
                    count => sum += count as u64,
                }
            }
        });
        let bytes = vec![7; 256 << 10];
        while begin.elapsed() < window {
            socket.write_all(&bytes)?;
        }
        drop(socket);
        let sum =
            reading.join().map_err(|_| io::Error::other("the stream's reader panicked"))??;
        Ok(sum as f64 / begin.elapsed().as_secs_f64())
    })
}

fn wake_up(window: Duration, options: &Options) -> io::Result<Latencies> {
    let slot: Mutex<Option<Option<Instant>>> = Mutex::new(None);
    let told = Condvar::new();
    let (sleeper, waker) = (options.cores.broker, options.cores.load);
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| -> io::Result<Latencies> {
            os::pin_to(sleeper)?;
            let mut latencies = Latencies::default();
            loop {
                let mut word = slot.lock().unwrap_or_else(PoisonError::into_inner);
                let said = loop {
                    match word.take() {
                        Some(said) => break said,
                        None => word = told.wait(word).unwrap_or_else(PoisonError::into_inner),
                    }
                };
                match said {
                    Some(at) => latencies.record(at.elapsed()),
                    None => return Ok(latencies),
                }
            }
        });
        let waking = scope.spawn(|| -> io::Result<()> {
            os::pin_to(waker)?;
            os::precise_timers();
            let begin = Instant::now();
            let mut is_over = false;
            while !is_over {
                std::thread::sleep(Duration::from_micros(500));
                is_over = begin.elapsed() >= window;
                let word = (!is_over).then(Instant::now);
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
                told.notify_one();
            }
            Ok(())
        });
        let panicked = |_| io::Error::other("a thread of the wake-ups panicked");
        waking.join().map_err(panicked)??;
        sleeping.join().map_err(panicked)?
    })
}

/// Bytes per second of some work on 64 KiB that are in cache, as a batch is when it has come from a socket.
fn rate_of(window: Duration, work: impl Fn(&[u8], &mut [u8]) -> u64) -> f64 {
    let bytes: Vec<u8> = (0..64 << 10).map(|index| (index * 31) as u8).collect();
    let mut target = vec![0; bytes.len()];
    let (begin, mut sum) = (Instant::now(), 0_u64);
    while begin.elapsed() < window {
        for _ in 0..16 {
            std::hint::black_box(work(
                std::hint::black_box(&bytes),
                std::hint::black_box(&mut target),
            ));
            sum += bytes.len() as u64;
        }
    }
    sum as f64 / begin.elapsed().as_secs_f64()
}
