//! The report as a page: one file, nothing from anywhere else, no scripts.

mod axis;
mod chart;
mod stages;

use std::fmt::Write;

use super::outcome::{Interval, Outcome, Short, Spread};
use super::tell::{CLOSED, longest_stages, verdict};
use crate::latency::show;
use crate::report::thousands;
use axis::{Axis, nines};
pub use chart::{Chart, Line};

const STYLE: &str = include_str!("style.css");

/// A whole page around a body.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\"><title>{}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n{body}\n</main></body>\n</html>\n",
        escape(title)
    )
}

/// A table that becomes a list of rows, one value to a line, where there is no room for it.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"table\"><table class=\"stack\"><thead><tr>");
    for heading in headings {
        let _ = write!(html, "<th>{}</th>", escape(heading));
    }
    html += "</tr></thead>\n";
    for row in rows {
        html += "<tr>";
        for (heading, cell) in headings.iter().zip(row) {
            let _ = write!(html, "<td data-label=\"{}\">{}</td>", escape(heading), escape(cell));
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page of a run.
pub fn render(outcome: &Outcome) -> String {
    document(&outcome.scenario.title, &body(outcome))
}

/// The same without what is around it.
pub fn body(outcome: &Outcome) -> String {
    let mut body = head(outcome);
    body += &times(outcome);
    body += "<h2>Curves</h2>\n<div class=\"charts\">\n";
    body += &percentiles(outcome).render();
    body += &over_time(outcome).render();
    body += &rates(outcome).render();
    if outcome.is_open_loop {
        body += &offered(&outcome.intervals).render();
    }
    if !outcome.stages.is_empty() {
        body += &stages::render(&outcome.stages);
    }
    body += "</div>\n";
    for sentence in longest_stages(outcome) {
        let _ = writeln!(body, "<p>{}</p>", escape(&sentence));
    }
    body += &floor(outcome);
    body += &cores(outcome);
    body + &facts(outcome)
}

fn head(outcome: &Outcome) -> String {
    let class = |is_bad: bool| if is_bad { "banner bad" } else { "banner" };
    let kind = if outcome.is_open_loop { "open loop" } else { "closed loop" };
    let mut html = format!(
        "<p class=\"{}\">{}</p>\n",
        class(outcome.is_disturbed),
        escape(&outcome.first_line)
    );
    let _ = write!(
        html,
        "<h1>{} <span class=\"soft\">({kind})</span></h1>\n<p>{}</p>\n",
        escape(&outcome.scenario.title),
        escape(&outcome.scenario.about)
    );
    let _ = writeln!(
        html,
        "<p class=\"soft\">{} {}, {}. An acknowledgment means {}.</p>",
        escape(&outcome.about.name),
        escape(&outcome.about.version),
        escape(&outcome.brokers),
        escape(&outcome.about.ack)
    );
    let _ = writeln!(
        html,
        "<p class=\"{}\">{}</p>",
        class(!outcome.is_clean()),
        escape(&verdict(outcome)).replace('\n', "<br>")
    );
    if !outcome.is_open_loop {
        let _ = writeln!(html, "<p class=\"banner bad\">{}</p>", escape(CLOSED));
    }
    if outcome.figures.unsent > 0 {
        let _ = writeln!(
            html,
            "<p class=\"banner bad\">The broker did not keep up: {} of {} messages that were due were never sent. They count with the \
             time that they waited.</p>",
            thousands(outcome.figures.unsent as f64),
            thousands(outcome.figures.due as f64)
        );
    }
    html
}

fn times(outcome: &Outcome) -> String {
    let figures = &outcome.figures;
    let mut rows = Vec::new();
    let mut row = |name: &str, spread: &Spread| {
        let Spread { count, p50, p90, p99, p999, max, .. } = *spread;
        let mut cells = vec![name.to_owned(), thousands(count as f64)];
        cells.extend([p50, p90, p99, p999, max].map(show));
        rows.push(cells);
    };
    if let Some(response) = &figures.response {
        row("Response, from the intended time", response);
    }
    row("Service, from the send", &figures.service);
    if let Some(end_to_end) = &figures.end_to_end {
        row("Producer to reader, from the intended time", end_to_end);
    }
    if let Some(lag) = &figures.lag {
        row("Of the response: the sender was late", lag);
    }
    let cpu = figures
        .cpu_seconds_per_million
        .map(|cpu| format!(" The broker's processors: {cpu:.2} s for a million."));
    let failed = match figures.failed {
        0 => String::new(),
        failed => format!(
            " {} failed, the first: {}.",
            thousands(failed as f64),
            escape(figures.first_failure.as_deref().unwrap_or_default())
        ),
    };
    format!(
        "<h2>Times</h2>{}<p><b>{}</b> acknowledged per second, <b>{:.1} MB/s</b>.{}{failed}</p>\n",
        table(&["", "count", "p50", "p90", "p99", "p99.9", "max"], &rows),
        thousands(figures.per_second),
        figures.megabytes_per_second,
        cpu.unwrap_or_default()
    )
}

fn time_axis(label: &'static str, values: impl Iterator<Item = u64>) -> Axis {
    let (mut low, mut high) = (u64::MAX, 1);
    values.filter(|value| *value > 0).for_each(|value| {
        low = low.min(value);
        high = high.max(value);
    });
    let low = if low == u64::MAX { 1_000 } else { low };
    Axis::log(label, low as f64, high as f64, power)
}

/// A power of ten in nanoseconds, short.
fn power(nanos: f64) -> String {
    let (value, unit) = match nanos {
        ..1e3 => (nanos, "ns"),
        ..1e6 => (nanos / 1e3, "µs"),
        ..1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

fn line(name: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.into(), color, is_dashed: false, points }
}

fn dashed(name: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Line {
    Line { is_dashed: true, ..line(name, color, points) }
}

fn percentiles(outcome: &Outcome) -> Chart {
    let figures = &outcome.figures;
    let floor = outcome.floor.as_ref().map(|floor| &floor.same_load.curve);
    type Curve<'a> = (&'a str, usize, bool, &'a [(f64, u64)]);
    let curves: Vec<Curve<'_>> = [
        figures.response.as_ref().map(|spread| ("response", 0, false, &spread.curve[..])),
        Some(("service", 2, false, &figures.service.curve[..])),
        figures
            .end_to_end
            .as_ref()
            .map(|spread| ("producer to reader", 3, false, &spread.curve[..])),
        floor.map(|curve| ("floor: the bare loop", 7, true, &curve[..])),
    ]
    .into_iter()
    .flatten()
    .collect();
    let count = figures.response.as_ref().map_or(figures.service.count, |spread| spread.count);
    let most = (count.max(10) as f64).log10().ceil() as u32;
    let lines = curves.iter().map(|&(name, color, is_dashed, curve)| Line {
        name: name.into(),
        color,
        is_dashed,
        points: curve
            .iter()
            .filter(|(at, _)| *at < 1.0)
            .map(|(at, nanos)| (nines(*at), *nanos as f64))
            // The slowest one stands where it would be one of so many.
            .chain(curve.last().map(|(_, max)| (f64::from(most), *max as f64)))
            .collect(),
    });
    Chart {
        title: "Percentiles".into(),
        note: "How long the slowest of ten, of a hundred, of a thousand took.".into(),
        x: Axis::quantiles(most),
        y: time_axis(
            "time",
            curves.iter().flat_map(|(.., curve)| curve.iter().map(|point| point.1)),
        ),
        lines: lines.collect(),
    }
}

fn over_time(outcome: &Outcome) -> Chart {
    let is_open = outcome.is_open_loop;
    let shorts: Vec<(f64, Short)> = outcome
        .intervals
        .iter()
        .filter_map(|interval| {
            Some((interval.at_seconds, if is_open { interval.response } else { interval.service }?))
        })
        .collect();
    let of = |pick: fn(&Short) -> u64| {
        shorts.iter().map(|(at, short)| (*at, pick(short) as f64)).collect()
    };
    let values = shorts.iter().flat_map(|(_, short)| [short.p50, short.max]);
    Chart {
        title: if is_open {
            "Response time over time".into()
        } else {
            "Service time over time (no latency)".into()
        },
        note: "By the moment at which a message was meant to be sent.".into(),
        x: Axis::linear("seconds", last_second(&outcome.intervals), |value| format!("{value}")),
        y: time_axis("time", values),
        lines: vec![
            line("max", 1, of(|short| short.max)),
            line("p99", 4, of(|short| short.p99)),
            line("p50", 0, of(|short| short.p50)),
        ],
    }
}

fn last_second(intervals: &[Interval]) -> f64 {
    intervals.last().map_or(1.0, |interval| interval.at_seconds.max(0.5))
}

fn rates(outcome: &Outcome) -> Chart {
    let of = |pick: fn(&Interval) -> f64| {
        outcome
            .intervals
            .iter()
            .map(|interval| (interval.at_seconds, pick(interval)))
            .collect::<Vec<_>>()
    };
    let (due, done) = (of(|it| it.due_per_second), of(|it| it.acknowledged_per_second));
    let high = due.iter().chain(&done).map(|point| point.1).fold(1.0, f64::max);
    let mut lines = vec![line("acknowledged per second", 0, done)];
    if outcome.is_open_loop {
        lines.insert(0, dashed("due per second", 7, due));
    }
    Chart {
        title: "Throughput over time".into(),
        note: "What the schedule asked for, and what was acknowledged.".into(),
        x: Axis::linear("seconds", last_second(&outcome.intervals), |value| format!("{value}")),
        y: Axis::linear("per second", high, short_number),
        lines,
    }
}

/// Intervals of the same rate are one point.
fn offered(intervals: &[Interval]) -> Chart {
    let mut by_rate: std::collections::BTreeMap<u64, Vec<f64>> = std::collections::BTreeMap::new();
    for interval in intervals.iter().filter(|interval| interval.due_per_second > 0.0) {
        // Two digits: random arrivals are not all different loads.
        let digits = 10_f64.powf(interval.due_per_second.log10().floor() - 1.0);
        let rate = ((interval.due_per_second / digits).round() * digits) as u64;
        by_rate.entry(rate).or_default().push(interval.acknowledged_per_second);
    }
    let points = by_rate
        .into_iter()
        .map(|(rate, done)| (rate as f64, done.iter().sum::<f64>() / done.len() as f64));
    throughput(points.collect())
}

/// Throughput against offered load, both per second.
pub fn throughput(points: Vec<(f64, f64)>) -> Chart {
    let high = points.iter().map(|point| point.0).fold(1.0, f64::max);
    let highest = points.iter().map(|point| point.1).fold(high, f64::max);
    Chart {
        title: "Throughput against offered load".into(),
        note: "Where the line leaves the diagonal the broker does not keep up.".into(),
        x: Axis::linear("offered per second", high, short_number),
        y: Axis::linear("acknowledged per second", highest, short_number),
        lines: vec![
            dashed("all that is offered", 7, vec![(0.0, 0.0), (high, high)]),
            line("acknowledged", 0, points),
        ],
    }
}

/// Response times against offered load: quantile by quantile.
pub fn latency_by_load(p50: Vec<(f64, f64)>, p99: Vec<(f64, f64)>) -> Chart {
    let high = p99.iter().map(|point| point.0).fold(1.0, f64::max);
    let values = p50.iter().chain(&p99).map(|point| point.1 as u64).collect::<Vec<_>>();
    Chart {
        title: "Response time against offered load".into(),
        note: "From the intended time.".into(),
        x: Axis::linear("offered per second", high, short_number),
        y: time_axis("time", values.into_iter()),
        lines: vec![line("p99", 4, p99), line("p50", 0, p50)],
    }
}

fn short_number(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", (value / 1e5).round() / 10.0),
        1e3.. => format!("{}k", (value / 1e2).round() / 10.0),
        _ => format!("{}", (value * 100.0).round() / 100.0),
    }
}

fn floor(outcome: &Outcome) -> String {
    let Some(floor) = &outcome.floor else { return String::new() };
    let mut html = String::from(
        "<h2>Beside the floor of the same run</h2><p>What the machine can do at best, measured just before. A ratio travels better than a \
         figure.</p>",
    );
    let row = |ratio: &super::outcome::Ratio| {
        let number = format!("{:.2}", ratio.ratio);
        vec![ratio.what.clone(), number, ratio.value.clone(), ratio.floor.clone(), ratio.of.clone()]
    };
    let rows: Vec<Vec<String>> = outcome.ratios.iter().map(row).collect();
    html += &table(&["", "ratio", "result", "floor", "the floor is"], &rows);
    html += "<dl>";
    let gigabytes = |rate: f64| format!("{:.2} GB/s", rate / 1e9);
    let pair = |times: super::floors::Quantiles| {
        format!("{} p50, {} p99", show(times.p50), show(times.p99))
    };
    for (name, value) in [
        ("4 KiB written and flushed", pair(floor.commit)),
        ("sequential writes", gigabytes(floor.sequential_write)),
        ("100 B over the loopback and back", pair(floor.round_trip)),
        ("loopback stream", gigabytes(floor.stream)),
        ("wake-up of a pinned core", pair(floor.wake_up)),
        ("CRC32C", gigabytes(floor.checksum)),
        ("copy in cache", gigabytes(floor.copy)),
    ] {
        let _ = write!(html, "<dt>{name}</dt><dd>{value}</dd>");
    }
    html + "</dl>\n"
}

fn cores(outcome: &Outcome) -> String {
    let mut html = String::new();
    if !outcome.shards.is_empty() {
        html += "<h2>Cores of the broker</h2>";
        let row = |shard: &super::outcome::Shard| {
            vec![
                shard.name.clone(),
                thousands(shard.records_per_second),
                format!("{:.1}", shard.megabytes_per_second),
                format!("{:.1}", shard.records_per_commit),
            ]
        };
        let rows: Vec<Vec<String>> = outcome.shards.iter().map(row).collect();
        html += &table(&["", "records/s", "MB/s", "records per commit"], &rows);
    }
    for (number, reader) in (1..).zip(&outcome.catch_up) {
        let _ = writeln!(
            html,
            "<p>Reader {number} began at the first message and read {} records in {:.2} s, {:.0} MB/s.</p>",
            thousands(reader.records as f64),
            reader.seconds,
            reader.bytes as f64 / reader.seconds.max(1e-9) / 1e6
        );
    }
    html
}

fn facts(outcome: &Outcome) -> String {
    let (host, machine) = (&outcome.host, &outcome.conditions);
    let mut html = String::from("<h2>Machine and settings</h2><dl>");
    let others = machine.others_percent.map(|percent| format!("{percent:.0} % of the processors"));
    let others = others.unwrap_or_else(|| "not known".into());
    let yes = |is: bool| if is { "yes" } else { "no" };
    for (name, value) in [
        (
            "processor",
            format!(
                "{} x {}{}",
                host.cores,
                host.processor,
                if host.hypervisor { ", virtual" } else { "" }
            ),
        ),
        ("memory", format!("{} GiB", host.memory_gib)),
        ("kernel", host.kernel.clone()),
        ("governor", host.governor.clone()),
        ("mitigations", host.mitigations.join("; ")),
        ("disk", format!("{}, {}", host.disk, host.disk_blocks)),
        ("file system", host.file_system.clone()),
        ("steal in the run", format!("{:.1} %", machine.steal_percent)),
        ("other programs in the run", others),
        (
            "wake-ups late by",
            format!("{} p99, {} most", show(machine.jitter_p99_ns), show(machine.jitter_max_ns)),
        ),
        ("processors busy, load", format!("{:.0} %, {:.2}", machine.busy_percent, machine.load)),
        ("client spins", yes(outcome.client_spins).into()),
        ("commit", host.commit.clone()),
        ("build", host.flags.clone()),
        ("settings' fingerprint", outcome.fingerprint.clone()),
        ("began", format!("{} s after 1970", outcome.began_unix_seconds)),
    ] {
        let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    let scenario = toml::to_string(&outcome.scenario).unwrap_or_default();
    let _ = write!(html, "</dl>\n<h2>Scenario</h2><pre>{}</pre>\n", escape(&scenario));
    html
}
