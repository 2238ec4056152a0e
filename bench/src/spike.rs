//! A spike far above what the broker can take: normal load, twenty times as much, normal load again. Open loop; what
//! a client would refuse because its memory is used up (so many unanswered batches per connection) is refused at once
//! and counted, as the bundled client does with `Full`.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corelog_protocol::ids::{PartitionId, ShardId};
use corelog_protocol::{Durability, ErrorCode};

use crate::conditions::{self, Watch};
use crate::floor::{Cores, Options};
use crate::kill::Process;
use crate::latency::{Latencies, show};
use crate::load::admin::Admin;
use crate::load::connection::Connection;
use crate::load::{self, Pace, Shape, Spread, Target, wire};
use crate::os::{self, Epoll, Ready};
use crate::place;
use crate::report::{Table, thousands};

/// Settings of `corelog-bench spike`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: Option<PathBuf>,
    pub binary: PathBuf,
    /// Bytes of a record's value; a batch holds one.
    pub record_bytes: usize,
    /// Normal load, batches per second; chosen so that the spike is half as much again as the broker takes if absent.
    pub per_second: Option<f64>,
    /// How many times the normal load the spike is.
    pub times: f64,
    /// Lengths of the normal load before and after, and of the spike, seconds.
    pub normal_seconds: u64,
    pub spike_seconds: u64,
    /// What the topic keeps, bytes of each partition.
    pub kept_bytes: u64,
}

const CONNECTIONS: usize = 16;
/// Unanswered bytes that a connection's client has room for.
const ROOM_BYTES: usize = 1 << 20;
/// And batches: with many more the load would be what is measured.
const ROOM_BATCHES: usize = 64;

/// Records leave in bursts so far apart, as from clients that gather: one by one they would cost the load more than
/// the broker. It is part of each latency.
const TICK_SECONDS: f64 = 250e-6;

/// How long each rate of the ramp is held: the best single second of many is luck.
const STEP_SECONDS: usize = 3;

const GOODPUT_MIN: f64 = 0.9;
/// After so long the p99 must be what it was.
pub const RECOVERY_SECONDS: u64 = 10;
/// "What it was": two seconds in a row with a p99 of at most so many times the median of those before the spike.
const NORMAL_TIMES: f64 = 2.0;

#[derive(Default)]
struct Second {
    offered: u64,
    acknowledged: u64,
    /// By the client, without asking the broker.
    full: u64,
    refused: BTreeMap<&'static str, u64>,
    latencies: Latencies,
}

struct Spike {
    /// What is offered in each second.
    rates: Vec<f64>,
    connections: Vec<Connection>,
    room: usize,
    epoll: Epoll,
    start: Instant,
    next: u64,
    /// Nothing is handed over before this, seconds from the start.
    offer_at: f64,
    /// When the next batch is due, seconds from the start.
    due: f64,
    seconds: Vec<Second>,
    unexpected: Option<ErrorCode>,
}

/// Runs it and prints the story. True if every bar is reached.
pub fn run(settings: &Settings) -> io::Result<bool> {
    let folder = place::temporary_folder(settings.folder.as_deref())?;
    let mut process = Process::new(&settings.binary, folder.path())?;
    process.start(1)?;
    let mut admin = Admin::connect(process.address(), ShardId::ANY)?;
    let places = admin.create_topic("spikes", CONNECTIONS as u32, Some(settings.kept_bytes))?;
    let partitions: Vec<PartitionId> = places.iter().map(|place| place.partition).collect();
    let shard = places.first().map_or(ShardId::ANY, |place| place.shard);
    let target = Target {
        address: process.address(),
        shard,
        partitions: partitions.clone(),
        spread: Spread::One,
        level: Durability::QuorumDurable,
    };
    let room = (ROOM_BYTES / (settings.record_bytes + 200)).clamp(4, ROOM_BATCHES);
    let watch = Watch::start();
    let full = Shape {
        name: "capacity",
        connections: CONNECTIONS,
        pace: Pace::InFlight(room),
        records_per_batch: 1,
        record_bytes: settings.record_bytes,
    };
    let options = Options::seconds(2.0);
    let closed = load::run_beside(&full, &target, options.span, options.cores.load)?;
    // What the same open loop gets acknowledged at best, while more and more is offered: a closed loop sends in
    // larger bursts, which cost less.
    let ramp: Vec<f64> = (2..=14)
        .map(|tenths| closed.records_per_second() * f64::from(tenths) / 10.0)
        .flat_map(|rate| [rate; STEP_SECONDS])
        .collect();
    let ramp = beside(settings.record_bytes, ramp, room, &target)?;
    let taken = |step: &[Second]| step.iter().map(|second| second.acknowledged).sum::<u64>();
    let best = ramp.chunks(STEP_SECONDS).map(taken).max().unwrap_or(0);
    let capacity = best as f64 / STEP_SECONDS as f64;
    let before = admin.committed_end(&partitions)?;
    let per_second = settings.per_second.unwrap_or(capacity * 1.5 / settings.times);
    println!("{}", conditions::machine());
    println!(
        "records of {} B, durable, {CONNECTIONS} connections; capacity {}/s; normal load {}/s, spike of {} times that",
        thousands(settings.record_bytes as f64),
        thousands(capacity),
        thousands(per_second),
        settings.times
    );
    let normal = vec![per_second; settings.normal_seconds as usize];
    let spike = vec![per_second * settings.times; settings.spike_seconds as usize];
    let rates = [&normal[..], &spike, &normal].concat();
    let seconds = beside(settings.record_bytes, rates, room, &target)?;
    let acknowledged: u64 = seconds.iter().map(|second| second.acknowledged).sum();
    let kept = admin.committed_end(&partitions)? - before;
    process.kill()?;
    process.start(1)?;
    let mut admin = Admin::connect(process.address(), ShardId::ANY)?;
    let after_kill = admin.committed_end(&partitions)? - before;
    println!("{}\n", watch.stop());
    Ok(judge(settings, &seconds, capacity, acknowledged, kept, after_kill))
}

/// On a thread of its own, on the load's core.
fn beside(
    record_bytes: usize,
    rates: Vec<f64>,
    room: usize,
    target: &Target,
) -> io::Result<Vec<Second>> {
    std::thread::scope(|scope| {
        let load = scope.spawn(move || {
            os::pin_to(Cores::choose().load)?;
            Spike::new(record_bytes, rates, room, target)?.run()
        });
        load.join().unwrap_or_else(|_| Err(io::Error::other("the load panicked")))
    })
}

fn judge(
    settings: &Settings,
    seconds: &[Second],
    capacity: f64,
    acknowledged: u64,
    kept: u64,
    after_kill: u64,
) -> bool {
    let (normal, spike) = (settings.normal_seconds as usize, settings.spike_seconds as usize);
    let phases = [
        ("before", 0..normal),
        ("spike", normal..normal + spike),
        ("first 10 s after", normal + spike..normal + spike + RECOVERY_SECONDS as usize),
        ("later", normal + spike + RECOVERY_SECONDS as usize..seconds.len()),
    ];
    let mut table = Table::new([
        "phase",
        "offered/s",
        "acknowledged/s",
        "full at the client/s",
        "refused/s",
        "p50",
        "p99",
        "most",
    ]);
    for (name, range) in phases.clone() {
        let part = seconds.get(range).unwrap_or_default();
        let each = |count: u64| thousands(count as f64 / part.len().max(1) as f64);
        let mut latencies = Latencies::default();
        part.iter().for_each(|second| latencies.add(&second.latencies));
        let summary = latencies.summary();
        table.row([
            name.to_string(),
            each(part.iter().map(|second| second.offered).sum()),
            each(part.iter().map(|second| second.acknowledged).sum()),
            each(part.iter().map(|second| second.full).sum()),
            each(part.iter().flat_map(|second| second.refused.values()).sum()),
            show(summary.p50),
            show(summary.p99),
            show(summary.max),
        ]);
    }
    print!("{}", table.show());
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    for (code, count) in seconds.iter().flat_map(|second| &second.refused) {
        *refused.entry(code).or_default() += count;
    }
    println!("\nrefused by the broker: {refused:?}");
    let p99 = |second: &Second| second.latencies.summary().p99 as f64;
    let mut usual: Vec<f64> = seconds[..normal].iter().map(p99).collect();
    usual.sort_by(f64::total_cmp);
    let usual = usual[usual.len() / 2];
    let calm: Vec<bool> = seconds[normal + spike..]
        .iter()
        .map(|second| p99(second) <= NORMAL_TIMES * usual)
        .collect();
    let back = calm.windows(2).position(|pair| pair[0] && pair[1]).unwrap_or(calm.len()) as u64;
    let in_spike: u64 =
        seconds[normal..normal + spike].iter().map(|second| second.acknowledged).sum();
    let offered = seconds[normal..normal + spike].iter().map(|second| second.offered).sum::<u64>();
    // A spike that the broker can take is to be taken whole.
    let possible = capacity.min(offered as f64 / spike as f64);
    let goodput = in_spike as f64 / spike as f64 / possible;
    let bars = [
        (
            "goodput in the spike, of what is offered or can be taken",
            format!("{goodput:.2}"),
            goodput >= GOODPUT_MIN,
        ),
        (
            "p99 usual again after the spike, s",
            format!("{back} (usual: {})", show(usual as u64)),
            back <= RECOVERY_SECONDS,
        ),
        (
            "acknowledged, and there; after a kill -9",
            format!(
                "{}, {}; {}",
                thousands(acknowledged as f64),
                thousands(kept as f64),
                thousands(after_kill as f64)
            ),
            kept >= acknowledged && after_kill >= acknowledged,
        ),
    ];
    println!();
    let mut table = Table::new(["what", "figure", "reached"]);
    for (what, figure, reached) in &bars {
        table.row([(*what).into(), figure.clone(), if *reached { "yes" } else { "NO" }.into()]);
    }
    print!("{}", table.show());
    bars.iter().all(|bar| bar.2)
}

impl Spike {
    fn new(record_bytes: usize, rates: Vec<f64>, room: usize, target: &Target) -> io::Result<Self> {
        os::precise_timers();
        let batch = wire::batch(1, record_bytes);
        let mut connections = Vec::new();
        let epoll = Epoll::new()?;
        for (token, &partition) in target.partitions.iter().enumerate() {
            let connection = Connection::open(target, &[partition], &batch)?;
            connection.socket.set_nonblocking(true)?;
            epoll.add(&connection.socket, token)?;
            connections.push(connection);
        }
        let seconds = rates.iter().map(|_| Second::default()).collect();
        let start = Instant::now();
        Ok(Self {
            rates,
            connections,
            room,
            epoll,
            start,
            next: 0,
            offer_at: 0.0,
            due: 0.0,
            seconds,
            unexpected: None,
        })
    }

    fn run(mut self) -> io::Result<Vec<Second>> {
        let mut ready: Vec<Ready> = Vec::new();
        let end = self.seconds.len() as f64;
        loop {
            let is_over = self.start.elapsed().as_secs_f64() >= end;
            let idle = self.connections.iter().all(|connection| connection.in_flight() == 0);
            if is_over && (idle || self.start.elapsed().as_secs_f64() >= end + 10.0) {
                return match (self.unexpected, idle) {
                    (Some(code), _) => {
                        Err(io::Error::other(format!("an unexpected refusal: {code}")))
                    }
                    (None, false) => {
                        Err(io::Error::other("answers are missing 10 s after the end"))
                    }
                    (None, true) => Ok(self.seconds),
                };
            }
            let timeout = if is_over { Duration::from_millis(100) } else { self.offer()? };
            ready.clear();
            ready.extend(self.epoll.wait(Some(timeout))?);
            for event in &ready {
                if event.readable {
                    self.receive(event.token)?;
                }
                self.connections[event.token].flush(&self.epoll, event.token)?;
            }
        }
    }

    /// Hands over all that is due, or refuses it; gives the time until the next.
    fn offer(&mut self) -> io::Result<Duration> {
        let now = self.start.elapsed().as_secs_f64();
        if now < self.offer_at {
            return Ok(Duration::from_secs_f64(self.offer_at - now));
        }
        self.offer_at = now + TICK_SECONDS;
        let mut offered = 0;
        let mut asked = [false; CONNECTIONS];
        while self.due <= now {
            let token = self.next as usize % self.connections.len();
            let at = (self.due as usize).min(self.seconds.len() - 1);
            self.seconds[at].offered += 1;
            if self.connections[token].in_flight() < self.room {
                self.connections[token].ask(self.start + Duration::from_secs_f64(self.due));
                asked[token] = true;
            } else {
                self.seconds[at].full += 1;
            }
            self.next += 1;
            self.due += 1.0 / self.rates[at];
            offered += 1;
            // Answers are heard in between.
            if offered == 4096 {
                break;
            }
        }
        for token in (0..CONNECTIONS).filter(|&token| asked[token]) {
            // A socket that is full says when it is not.
            if !self.connections[token].wants_write() {
                self.connections[token].flush(&self.epoll, token)?;
            }
        }
        let left = self.due.max(self.offer_at) - self.start.elapsed().as_secs_f64();
        Ok(Duration::from_secs_f64(left.clamp(0.0, 0.1)))
    }

    fn receive(&mut self, token: usize) -> io::Result<()> {
        let now = Instant::now();
        let at = now.duration_since(self.start).as_secs() as usize;
        let at = at.min(self.seconds.len() - 1);
        let (second, unexpected) = (&mut self.seconds[at], &mut self.unexpected);
        self.connections[token].receive_all(|answer| {
            match answer {
                Ok(due) => {
                    second.acknowledged += 1;
                    second.latencies.record(now.saturating_duration_since(due));
                }
                Err((code, _)) => {
                    *second.refused.entry(code.name()).or_default() += 1;
                    // What an overloaded broker may say; anything else is a fault.
                    if code != ErrorCode::Overloaded {
                        unexpected.get_or_insert(code);
                    }
                }
            }
            Ok(())
        })
    }
}
