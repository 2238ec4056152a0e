//! The harness against nothing: what it sustains, and what it adds to a message, on one core of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::brokers::{Brokers, Cores};
use super::drivers::null::{Null, serve};
use super::run::{self, Measured, Nobody};
use super::scenario::Brokers as Wanted;
use super::scenario::{Messages, Readers, Scenario};
use super::schedule::Plan;
use crate::conditions::{self, Watch};
use crate::latency::{Latencies, median, show};
use crate::os;
use crate::report::thousands;

/// Messages of 100 B per second, in batches.
const RATE_MIN: f64 = 2e6;
/// What one message may take more at the median than a bare round trip, ns.
const ADDED_MAX: f64 = 5_000.0;

const BYTES: usize = 100;
const ROUNDS: usize = 5;

/// True if both bars are reached.
pub fn run(seconds: f64) -> io::Result<bool> {
    let cores = Cores::deal(&Wanted::default());
    let (server, load) = (cores.broker[0], cores.load[0]);
    let address = serve(server)?;
    os::pin_to(load)?;
    println!("{}", conditions::machine());
    println!(
        "The null server on core {server}, the whole harness on core {load}: sender, books, reader, every byte verified."
    );
    let watch = Watch::start();

    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        // As many as batches of 256 KiB hold.
        let measured = closed(address, 16_000, seconds)?;
        check(&measured)?;
        rates.push(measured.totals.acknowledged as f64 / (seconds * 0.8));
    }
    let mut added = Vec::new();
    let (mut bare, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let alone = round_trips(address, seconds / 2.0)?.at(0.5) as f64;
        let measured = closed(address, 1, seconds / 2.0)?;
        check(&measured)?;
        let through = measured.totals.service.at(0.5) as f64;
        added.push(through - alone);
        bare.push(alone);
        with.push(through);
    }
    let (rate, added) = (median(rates), median(added));
    println!(
        "\nin batches: {} messages of {BYTES} B per second, {}",
        thousands(rate),
        met(rate >= RATE_MIN)
    );
    println!(
        "one message at a time: p50 {} through the harness, {} in a bare loop: it adds {:.1} µs, {}",
        show(median(with) as u64),
        show(median(bare) as u64),
        added / 1e3,
        met(added <= ADDED_MAX)
    );
    println!("medians of {ROUNDS} rounds in turn; {}", watch.stop());
    Ok(rate >= RATE_MIN && added <= ADDED_MAX)
}

fn met(is_met: bool) -> &'static str {
    if is_met { "the bar is reached" } else { "the bar is MISSED" }
}

fn closed(address: SocketAddr, in_flight: u32, seconds: f64) -> io::Result<Measured> {
    let scenario = Scenario {
        title: "against nothing".into(),
        about: String::new(),
        seconds,
        warm_up_seconds: seconds * 0.2,
        schedule: Plan::Closed { in_flight },
        messages: Messages { bytes: BYTES, ..Messages::default() },
        topics: super::scenario::Topics::default(),
        readers: Readers::default(),
        broker: Wanted::default(),
        faults: Vec::new(),
        bounds: super::scenario::Bounds::default(),
        trace: Vec::new(),
    };
    let mut nobody = Brokers::there(Vec::new());
    run::measure(&scenario, &Null::connect(address), &mut nobody, 1, &Nobody)
}

fn check(measured: &Measured) -> io::Result<()> {
    let verdict = &measured.verdict;
    if verdict.is_clean() && verdict.acknowledged_durable > 0 && verdict.open == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("the null server gave back something else: {verdict:?}")))
}

/// The same bytes with nothing around them.
fn round_trips(address: SocketAddr, seconds: f64) -> io::Result<Latencies> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut bytes = [7; BYTES + 4];
    let mut latencies = Latencies::default();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs_f64(seconds) {
        let sent = Instant::now();
        socket.write_all(&bytes)?;
        socket.read_exact(&mut bytes)?;
        latencies.record(sent.elapsed());
    }
    Ok(latencies)
}
