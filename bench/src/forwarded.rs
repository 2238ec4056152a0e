//! Does a client talk to the core that owns the data? The bundled client must never need a
//! forward; one that insists on the wrong shard must be served all the same, and be counted.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use corelog_protocol::Durability;

use crate::place;
use crate::traffic::link::Link;
use crate::traffic::{self, Topic, Traffic};
use crate::verify::Verdict;

const PATIENCE: Duration = Duration::from_secs(20);
const PARTITIONS: u32 = 8;

/// Two runs on a broker of two shards. True if both are as they should be.
pub fn run(folder: Option<&Path>, seconds: f64) -> io::Result<bool> {
    let folder = place::temporary_folder(folder)?;
    let mut good = true;
    for insist in [None, Some(0), Some(1)] {
        let measured = measure(&folder.path().join(name(insist)), insist, seconds)?;
        let Measured { verdict, forwarded, first_failure } = &measured;
        let as_expected = measured.is_as_expected(insist);
        println!(
            "{}: {} records sent, {} acknowledged, {} read back, {} anomalies, \
             requests_forwarded {}: {}",
            name(insist),
            verdict.sent,
            verdict.acknowledged_durable + verdict.acknowledged_weakly,
            verdict.seen,
            verdict.anomalies_found,
            forwarded,
            if as_expected { "as it should be" } else { "WRONG" },
        );
        if let Some(failure) = first_failure {
            println!("  the first send that failed: {failure}");
        }
        for anomaly in &verdict.anomalies {
            println!("  {anomaly}");
        }
        good &= as_expected;
    }
    Ok(good)
}

struct Measured {
    verdict: Verdict,
    forwarded: u64,
    first_failure: Option<String>,
}

impl Measured {
    /// All that was sent was acknowledged and came back, and was forwarded only if it had to be.
    fn is_as_expected(&self, insist: Option<u16>) -> bool {
        let Verdict { sent, acknowledged_durable, acknowledged_weakly, seen, .. } = self.verdict;
        self.verdict.is_clean()
            && acknowledged_durable > 0
            && acknowledged_durable + acknowledged_weakly == sent
            && seen == sent
            && (self.forwarded == 0) == insist.is_none()
    }
}

fn name(insist: Option<u16>) -> &'static str {
    match insist {
        None => "client-that-routes",
        Some(0) => "client-that-insists-on-shard-0",
        Some(_) => "client-that-insists-on-shard-1",
    }
}

fn measure(folder: &Path, insist: Option<u16>, seconds: f64) -> io::Result<Measured> {
    let mut config = Config::embedded(folder);
    config.shards = 2;
    let broker = Broker::start(config).map_err(|error| io::Error::other(error.to_string()))?;
    let topics = vec![Topic { name: "wanderers", partitions: PARTITIONS }];
    let levels = [Durability::QuorumDurable, Durability::LeaderDurable, Durability::LeaderMemory];
    let plan: Vec<_> = levels.iter().flat_map(|&l| [(0, Some(100), l), (0, None, l)]).collect();
    let traffic = Arc::new(Traffic::new(7, topics, &plan, 100));
    let link = Link::connect(&[broker.address()], insist, &traffic)?;
    link.create_topic("wanderers", PARTITIONS)?;
    let mut reader = link.reader(&traffic.topics, |_, _| 0)?;
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| traffic::produce(&traffic, &link, 3000.0));
        std::thread::sleep(Duration::from_secs_f64(seconds));
        traffic.stop();
        producing.join().unwrap_or_else(|_| Err(io::Error::other("the producer panicked")))
    })?;
    let limit = Instant::now() + PATIENCE;
    while traffic.unsettled() > 0 && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(1));
    }
    traffic::read_to_end(&traffic, &link, &mut reader, PATIENCE)?;
    let forwarded = broker.counters().total("requests_forwarded");
    let first_failure = traffic.first_failure();
    drop(reader);
    drop(link);
    broker.stop();
    let verdict = match Arc::into_inner(traffic) {
        Some(traffic) => traffic.into_ledger().finish(),
        None => return Err(io::Error::other("a send never got an answer")),
    };
    Ok(Measured { verdict, forwarded, first_failure })
}
