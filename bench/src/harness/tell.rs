//! A result in the terminal: the first line says whether the machine was quiet, the last one whether all was right.

use super::outcome::{Outcome, Spread};
use crate::latency::show;
use crate::report::{Table, thousands};

/// Said with every closed loop.
pub const CLOSED: &str = "Closed loop: each answer has the next message sent, so while the broker is slow it is asked less often, and a \
    pause is one slow answer in the service time however many users it would have kept waiting. The service time is no latency, and none \
    is told.";

pub fn tell(outcome: &Outcome) -> String {
    let mut text = format!("{}\n\n", outcome.first_line);
    let kind = if outcome.is_open_loop { "open loop" } else { "CLOSED LOOP" };
    text += &format!("{} ({kind})\n", outcome.scenario.title);
    text += &format!("{} {}, {}\n", outcome.about.name, outcome.about.version, outcome.brokers);
    text += &format!("an acknowledgment means {}\n", outcome.about.ack);
    text += &format!("{}\n\n", outcome.host.describe());
    text += &times(outcome).show();
    text += &format!("\n{}\n", rates(outcome));
    if !outcome.is_open_loop {
        text += &format!("\n{CLOSED}\n");
    }
    if !outcome.ratios.is_empty() {
        let mut table = Table::new([
            "beside the floor of the same run",
            "result",
            "floor",
            "ratio",
            "floor is",
        ]);
        for ratio in &outcome.ratios {
            let number = format!("{:.2}", ratio.ratio);
            table.row([
                ratio.what.clone(),
                ratio.value.clone(),
                ratio.floor.clone(),
                number,
                ratio.of.clone(),
            ]);
        }
        text += &format!("\n{}", table.show());
    }
    text += &stages(outcome);
    for (number, reader) in (1..).zip(&outcome.catch_up) {
        text += &format!(
            "\nReader {number} from the beginning: {} records in {:.2} s, {:.0} MB/s.",
            thousands(reader.records as f64),
            reader.seconds,
            reader.bytes as f64 / reader.seconds.max(1e-9) / 1e6
        );
    }
    text + &format!("\n{}\n", verdict(outcome))
}

fn times(outcome: &Outcome) -> Table {
    let mut table = Table::new(["time", "count", "p50", "p90", "p99", "p99.9", "max"]);
    let mut row = |name: &str, spread: &Spread| {
        let Spread { count, p50, p90, p99, p999, max, .. } = *spread;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(show);
        table.row([name.into(), thousands(count as f64), p50, p90, p99, p999, max]);
    };
    let figures = &outcome.figures;
    if let Some(response) = &figures.response {
        row("response (from the intended time)", response);
    }
    row("service (from the send)", &figures.service);
    if let Some(end_to_end) = &figures.end_to_end {
        row("producer to reader (from the intended time)", end_to_end);
    }
    if let Some(lag) = &figures.lag {
        row("of the response: the sender was late", lag);
    }
    table
}

fn rates(outcome: &Outcome) -> String {
    let figures = &outcome.figures;
    let mut text = format!(
        "{} acknowledged per second, {:.1} MB/s",
        thousands(figures.per_second),
        figures.megabytes_per_second
    );
    if let Some(cpu) = figures.cpu_seconds_per_million {
        text += &format!(", {cpu:.2} s of the broker's processors for a million");
    }
    text += ".";
    if figures.failed > 0 {
        let why = figures.first_failure.as_deref().unwrap_or_default();
        text += &format!(" {} failed, the first: {why}.", thousands(figures.failed as f64));
    }
    if figures.unsent > 0 {
        text += &format!(
            " The broker did not keep up: {} of {} messages that were due were never sent; they count with the time they waited.",
            thousands(figures.unsent as f64),
            thousands(figures.due as f64)
        );
    }
    text
}

/// One sentence for each core: which of the broker's stages takes the most.
pub fn longest_stages(outcome: &Outcome) -> Vec<String> {
    let sentence = |of: &super::outcome::Stages| {
        let stage = of.longest()?;
        Some(format!(
            "{}: of {} service time on average, most at the broker is {}, {} ({:.0} %).",
            of.core,
            show(of.service_mean_ns as u64),
            stage.name,
            show(stage.mean_ns as u64),
            stage.mean_ns * 100.0 / of.service_mean_ns.max(1.0)
        ))
    };
    outcome.stages.iter().filter_map(sentence).collect()
}

fn stages(outcome: &Outcome) -> String {
    let mut text = String::new();
    for of in &outcome.stages {
        let mut table = Table::new(["stage", "mean", "p50", "p99", "share"]);
        for stage in of.stages.iter().filter(|stage| stage.mean_ns > 0.0) {
            table.row([
                format!("{}, {}", of.core, stage.name),
                show(stage.mean_ns as u64),
                show(stage.p50),
                show(stage.p99),
                format!("{:.0} %", stage.mean_ns * 100.0 / of.service_mean_ns.max(1.0)),
            ]);
        }
        text += &format!("\n{}", table.show());
    }
    for sentence in longest_stages(outcome) {
        text += &format!("{sentence}\n");
    }
    text
}

pub fn verdict(outcome: &Outcome) -> String {
    let checked = &outcome.verdict;
    let count = |count: u64| thousands(count as f64);
    if checked.is_clean {
        return format!(
            "Verified: all {} acknowledged of {} sent were read back, byte for byte, each once, in order and at the offset told \
             ({} refused, {} without an answer).",
            count(checked.acknowledged),
            count(checked.sent),
            count(checked.refused),
            count(checked.open)
        );
    }
    let first: String = checked.anomalies.iter().map(|anomaly| format!("\n  {anomaly}")).collect();
    format!("FAILED: {} anomalies. The first:{first}", count(checked.anomalies_found))
}
