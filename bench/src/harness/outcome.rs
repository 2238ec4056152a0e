//! The result of a run, as it is stored: everything that a report tells, and nothing that names a machine or a folder.

use std::fs;
use std::io;
use std::path::Path;

use corelog_protocol::checksum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::books::ShardStages;
use super::brokers::{Brokers, Origin};
use super::drivers::About;
use super::floors::{self, Floor};
use super::host::Host;
use super::run::{CatchUp, Measured};
use super::scenario::{Level, Scenario};
use super::schedule::Plan;
use crate::latency::Latencies;

/// Of the file. A reader refuses any other.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub format: u32,
    /// The first line of every report: what disturbed the run, or that nothing did.
    pub first_line: String,
    pub is_disturbed: bool,
    pub is_open_loop: bool,
    pub scenario: Scenario,
    pub about: About,
    pub brokers: String,
    #[serde(default)]
    pub origin: Origin,
    /// Of the broker's settings and the scenario: two runs with the same one were set up alike.
    pub fingerprint: String,
    pub client_spins: bool,
    pub began_unix_seconds: u64,
    pub host: Host,
    pub conditions: Machine,
    pub verdict: Checked,
    pub figures: Figures,
    pub intervals: Vec<Interval>,
    pub stages: Vec<Stages>,
    pub shards: Vec<Shard>,
    pub catch_up: Vec<CatchUp>,
    pub floor: Option<Floor>,
    pub ratios: Vec<Ratio>,
}

/// The machine while the run went on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub steal_percent: f64,
    pub busy_percent: f64,
    /// Of all processors' time, what neither the harness nor brokers of its own used; not known of other brokers.
    pub others_percent: Option<f64>,
    pub load: f64,
    pub jitter_p99_ns: u64,
    pub jitter_max_ns: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    pub is_clean: bool,
    pub sent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Neither acknowledged nor refused.
    pub open: u64,
    pub read: u64,
    pub anomalies_found: u64,
    /// The first of them.
    pub anomalies: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub due: u64,
    pub acknowledged: u64,
    pub failed: u64,
    /// Due, and never sent: the broker did not keep up. They are in the response time, with the time that they waited.
    pub unsent: u64,
    pub first_failure: Option<String>,
    pub per_second: f64,
    pub megabytes_per_second: f64,
    /// Of the broker's processes.
    pub cpu_seconds_per_million: Option<f64>,
    /// From the intended send time. None in a closed loop, which has no such time.
    pub response: Option<Spread>,
    /// From the send.
    pub service: Spread,
    /// From the intended send time to the reader.
    pub end_to_end: Option<Spread>,
    /// How late the sender was itself.
    pub lag: Option<Spread>,
}

/// Nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// Quantile and nanoseconds.
    pub curve: Vec<(f64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub at_seconds: f64,
    pub due_per_second: f64,
    pub acknowledged_per_second: f64,
    pub failed: u64,
    /// Of response times; none in a closed loop.
    pub response: Option<Short>,
    pub service: Option<Short>,
    pub end_to_end: Option<Short>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Short {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// Where the service time of one core's messages went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    pub core: String,
    pub messages: u64,
    pub service_mean_ns: f64,
    pub stages: Vec<Stage>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub name: String,
    pub mean_ns: f64,
    pub p50: u64,
    pub p99: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    pub name: String,
    pub records_per_second: f64,
    pub megabytes_per_second: f64,
    pub records_per_commit: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub what: String,
    pub value: String,
    pub floor: String,
    pub of: String,
    pub ratio: f64,
}

impl Stages {
    /// The broker's stage that takes the most of the time. What is outside of the broker is not asked.
    pub fn longest(&self) -> Option<&Stage> {
        let inside = self.stages.iter().filter(|stage| stage.name != "outside");
        inside.max_by(|a, b| a.mean_ns.total_cmp(&b.mean_ns)).filter(|stage| stage.mean_ns > 0.0)
    }
}

impl Spread {
    fn of(latencies: &Latencies) -> Option<Self> {
        let summary = latencies.summary();
        (summary.count > 0).then(|| Self {
            count: summary.count,
            mean: latencies.mean(),
            p50: summary.p50,
            p90: latencies.at(0.9),
            p99: summary.p99,
            p999: summary.p999,
            max: summary.max,
            curve: floors::curve(latencies),
        })
    }
}

impl Short {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        })
    }
}

impl Outcome {
    /// `began`: seconds since 1970.
    pub fn new(
        scenario: &Scenario,
        about: About,
        brokers: &Brokers,
        host: Host,
        floor: Option<Floor>,
        began: u64,
        measured: &Measured,
    ) -> Self {
        let machine = Machine {
            steal_percent: measured.conditions.steal_percent,
            busy_percent: measured.conditions.busy_percent,
            others_percent: measured.others_percent,
            load: measured.conditions.load,
            jitter_p99_ns: measured.jitter.p99,
            jitter_max_ns: measured.jitter.max,
        };
        let (is_disturbed, first_line) = disturbance(scenario, &machine);
        let is_open_loop = scenario.schedule.is_open();
        let figures = figures(scenario, measured);
        let ratios = floor.as_ref().map(|floor| ratios(scenario, &figures, floor));
        Self {
            format: FORMAT,
            first_line,
            is_disturbed,
            is_open_loop,
            scenario: scenario.clone(),
            about,
            brokers: brokers.description.clone(),
            origin: brokers.origin,
            fingerprint: fingerprint(scenario, brokers),
            client_spins: scenario.messages.spin_us > 0,
            began_unix_seconds: began,
            host,
            conditions: machine,
            verdict: checked(measured),
            intervals: intervals(measured, is_open_loop),
            stages: stages(measured),
            shards: shards(measured),
            catch_up: measured.catch_up.clone(),
            ratios: ratios.unwrap_or_default(),
            figures,
            floor,
        }
    }

    /// Nothing was lost, doubled, out of order or changed, and every reader got what there was.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean
    }

    pub fn read(folder: &Path) -> io::Result<Self> {
        let path = folder.join("result.json");
        let named = |error: String| io::Error::other(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| named(error.to_string()))?;
        let outcome: Self =
            serde_json::from_str(&text).map_err(|error| named(error.to_string()))?;
        if outcome.format != FORMAT {
            return Err(named(format!(
                "format {} is not {FORMAT}, which this bench reads",
                outcome.format
            )));
        }
        Ok(outcome)
    }
}

/// `DISTURBED` and what by, or `Quiet`.
fn disturbance(scenario: &Scenario, machine: &Machine) -> (bool, String) {
    let bounds = &scenario.bounds;
    let jitter = machine.jitter_p99_ns as f64 / 1e3;
    let others = match machine.others_percent {
        Some(percent) => {
            format!("{percent:.0} % of the processors (bound {} %)", bounds.others_percent)
        }
        None => "not known".to_owned(),
    };
    let facts = format!(
        "steal {:.1} % (bound {} %), other programs {others}, wake-ups up to {:.0} µs late at p99 \
         (bound {} µs)",
        machine.steal_percent, bounds.steal_percent, jitter, bounds.jitter_us
    );
    let is_disturbed = machine.steal_percent > bounds.steal_percent
        || machine.others_percent.is_some_and(|percent| percent > bounds.others_percent)
        || jitter > bounds.jitter_us as f64;
    match is_disturbed {
        true => (
            true,
            format!(
                "DISTURBED by the machine: {facts}. Tails say more about it than about the broker."
            ),
        ),
        false => (false, format!("Quiet machine: {facts}.")),
    }
}

fn fingerprint(scenario: &Scenario, brokers: &Brokers) -> String {
    let mut named = scenario.clone();
    if let Plan::Trace { file } = &mut named.schedule {
        // By its times, wherever the file lies.
        let times = scenario.trace.iter().flat_map(|time| time.to_le_bytes());
        *file = format!("{:08x}", checksum::crc32c(&times.collect::<Vec<u8>>()));
    }
    let text = format!("{}\n{}", toml::to_string(&named).unwrap_or_default(), brokers.settings);
    format!("{:08x}", checksum::crc32c(text.as_bytes()))
}

fn figures(scenario: &Scenario, measured: &Measured) -> Figures {
    let totals = &measured.totals;
    let is_open = scenario.schedule.is_open();
    let warm_up = scenario.warm_up_seconds;
    let last = totals.last_at as f64 / 1e9;
    let seconds = (last.max(scenario.seconds) - warm_up).max(1e-9);
    let million = measured.verdict.sent as f64 / 1e6;
    Figures {
        due: totals.due,
        acknowledged: totals.acknowledged,
        failed: totals.failed,
        unsent: totals.unsent,
        first_failure: totals.first_failure.clone(),
        per_second: totals.acknowledged as f64 / seconds,
        megabytes_per_second: totals.bytes as f64 / seconds / 1e6,
        cpu_seconds_per_million: measured
            .broker_cpu_seconds
            .filter(|_| million > 0.0)
            .map(|cpu| cpu / million),
        response: Spread::of(&totals.response).filter(|_| is_open),
        service: Spread::of(&totals.service).unwrap_or_default(),
        end_to_end: Spread::of(&totals.end_to_end).filter(|_| is_open),
        lag: Spread::of(&totals.lag).filter(|_| is_open),
    }
}

fn checked(measured: &Measured) -> Checked {
    let verdict = &measured.verdict;
    let mut anomalies: Vec<String> = verdict.anomalies.iter().map(ToString::to_string).collect();
    let mut found = verdict.anomalies_found;
    for (number, reader) in (1..).zip(&measured.catch_up) {
        if reader.anomalies > 0 || !reader.is_complete {
            found += reader.anomalies.max(1);
            anomalies.push(format!(
                "reader {number} from the beginning: {} records corrupt or out of order, {}",
                reader.anomalies,
                if reader.is_complete { "all there" } else { "not all there" }
            ));
        }
    }
    if verdict.acknowledged_durable + verdict.acknowledged_weakly == 0 {
        found += 1;
        anomalies.push("nothing was acknowledged, so nothing was proved".into());
    }
    Checked {
        is_clean: found == 0,
        sent: verdict.sent,
        acknowledged: verdict.acknowledged_durable + verdict.acknowledged_weakly,
        refused: verdict.refused,
        open: verdict.open,
        read: verdict.seen,
        anomalies_found: found,
        anomalies,
    }
}

fn intervals(measured: &Measured, is_open: bool) -> Vec<Interval> {
    let length = measured.series.length() as f64 / 1e9;
    let list = measured.series.intervals().enumerate().map(|(at, interval)| Interval {
        at_seconds: at as f64 * length,
        due_per_second: interval.due as f64 / length,
        acknowledged_per_second: interval.acknowledged as f64 / length,
        failed: interval.failed,
        response: Short::of(&interval.response).filter(|_| is_open),
        service: Short::of(&interval.service),
        end_to_end: Short::of(&interval.end_to_end).filter(|_| is_open),
    });
    list.collect()
}

fn stages(measured: &Measured) -> Vec<Stages> {
    let of = |(core, of): &(String, ShardStages)| Stages {
        core: core.clone(),
        messages: of.service.count(),
        service_mean_ns: of.service.mean(),
        stages: of
            .each()
            .map(|(name, times)| Stage {
                name: name.into(),
                mean_ns: times.mean(),
                p50: times.at(0.5),
                p99: times.at(0.99),
            })
            .collect(),
    };
    measured.stages.iter().map(of).collect()
}

fn shards(measured: &Measured) -> Vec<Shard> {
    let list = measured.shards.iter().map(|work| Shard {
        name: work.name.clone(),
        records_per_second: work.records as f64 / measured.seconds,
        megabytes_per_second: work.bytes as f64 / measured.seconds / 1e6,
        records_per_commit: work.records as f64 / (work.commits.max(1) as f64),
    });
    list.collect()
}

fn ratios(scenario: &Scenario, figures: &Figures, floor: &Floor) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    let mut time = |what: &str, value: u64, bound: u64, of: &str| {
        ratios.push(Ratio {
            what: what.into(),
            value: crate::latency::show(value),
            floor: crate::latency::show(bound),
            of: of.into(),
            ratio: value as f64 / (bound.max(1) as f64),
        });
    };
    let bare = floor.same_load.latency;
    let loop_at = format!("the bare loop, {}", floor.same_load.load);
    if let Some(response) = &figures.response {
        time("response time p50", response.p50, bare.p50, &loop_at);
        time("response time p99", response.p99, bare.p99, &loop_at);
        time("response time p99.9", response.p999, bare.p999, &loop_at);
    }
    let is_durable = matches!(scenario.messages.level, Level::LeaderDurable | Level::QuorumDurable);
    let (least, of) = match is_durable {
        true => {
            (floor.round_trip.p50 + floor.commit.p50, "one round trip and one flushed block, p50")
        }
        false => (floor.round_trip.p50, "one round trip, p50"),
    };
    time("service time p50", figures.service.p50, least, of);
    if let Some(end_to_end) = &figures.end_to_end {
        let least = least + floor.round_trip.p50 / 2;
        time(
            "producer to reader p50",
            end_to_end.p50,
            least,
            "the same and half a round trip, p50",
        );
    }
    let mut rate = |what: &str, value: f64, bound: f64, unit: &str, of: &str| {
        ratios.push(Ratio {
            what: what.into(),
            value: format!("{} {unit}", crate::report::thousands(value)),
            floor: format!("{} {unit}", crate::report::thousands(bound)),
            of: of.into(),
            ratio: value / bound.max(1e-9),
        });
    };
    if !scenario.schedule.is_open() {
        rate("throughput", figures.per_second, floor.same_load.per_second, "/s", &loop_at);
    }
    rate(
        "throughput",
        figures.per_second,
        floor.capacity,
        "/s",
        "the bare loop at its most, one message to a batch",
    );
    let write = floor.sequential_write / 1e6;
    rate("bandwidth", figures.megabytes_per_second, write, "MB/s", "sequential writes");
    rate(
        "bandwidth",
        figures.megabytes_per_second,
        floor.stream / 1e6,
        "MB/s",
        "a loopback stream",
    );
    ratios
}
