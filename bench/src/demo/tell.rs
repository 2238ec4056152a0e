//! What the demo says: a table, what it saw of the kills, and one plain sentence.

use corelog_protocol::Durability;

use super::{BROKERS, PER_SECOND, Story, VALUE_BYTES};
use crate::latency::show;
use crate::report::{Table, thousands};
use crate::traffic::Tally;

pub fn tell(story: &Story) {
    let mut table = Table::new(["level", "messages", "MB/s", "p50", "p99", "p99.9", "max"]);
    for level in Durability::ALL {
        let mut sum = Tally::default();
        for (_, tally) in story.tallies.iter().filter(|(of, _)| *of == level) {
            sum.add(tally);
        }
        if level.is_acknowledged() {
            let rate = sum.value_bytes as f64 / story.load.as_secs_f64() / 1e6;
            table.row(row(level.name(), sum.acknowledged, rate, &sum.latencies));
        } else {
            let nothing = || "-".to_string();
            let sent = thousands(sum.sent() as f64);
            let rate = (sum.sent() * VALUE_BYTES as u64) as f64 / story.load.as_secs_f64() / 1e6;
            let rate = format!("{rate:.2}");
            let name = level.name().to_string();
            table.row([name, sent, rate, nothing(), nothing(), nothing(), nothing()]);
        }
    }
    for (name, floor) in
        [("floor, in memory", &story.in_memory), ("floor, durable", &story.durable)]
    {
        table.row(row(name, floor.batches, floor.megabytes_per_second(), &floor.latencies));
    }
    println!("\n{}", table.show());
    println!(
        "Latency is from the intended send time to the ack, open loop, {}/s of {VALUE_BYTES} B over \
         all levels, without what was under way in an outage; the load, the consumer and {BROKERS} brokers of {} \
         shard(s) share the same processors and the same disk. The floor is a bare loop at the same rate, \
         its load on a core of its own. {}.",
        thousands(PER_SECOND),
        story.shards,
        story.conditions
    );
}

fn row(name: &str, messages: u64, rate: f64, latencies: &crate::latency::Latencies) -> [String; 7] {
    let summary = latencies.summary();
    [
        name.to_string(),
        thousands(messages as f64),
        format!("{rate:.2}"),
        show(summary.p50),
        show(summary.p99),
        show(summary.p999),
        show(summary.max),
    ]
}

/// True if everything was proved.
pub fn conclude(story: &Story) -> bool {
    let verdict = &story.verdict;
    let times = &story.times;
    let count = |count: u64| thousands(count as f64);
    println!(
        "\nSent {}: {} acknowledged at quorum_durable, {} at other levels, {} refused, {} without an answer (level \
         none, or given up; {} of them arrived).",
        count(verdict.sent),
        count(verdict.acknowledged_durable),
        count(verdict.acknowledged_weakly),
        count(verdict.refused),
        count(verdict.open),
        count(verdict.open_seen),
    );
    println!(
        "Killed broker {}, which led the busiest lane and {} partitions: their producers waited {} ms at most. It came \
         back and had caught up in {} ms. Then killed broker {} ({} ms), so that nothing could be acknowledged without the \
         one that came back. Then killed all at once: every partition acknowledged again {} ms after the start.",
        times.killed,
        times.led,
        times.pause.as_millis(),
        times.catch_up.as_millis(),
        times.second_killed,
        times.second_pause.as_millis(),
        times.restart.as_millis(),
    );
    println!("Lost of what was acknowledged, as these levels allow: {}.", lost(story));
    if let Some(failure) = &story.first_failure {
        println!("The first send that failed: {failure}.");
    }
    if !verdict.is_clean() {
        println!("\nFAILED: {} anomalies. The first:", count(verdict.anomalies_found));
        for anomaly in &verdict.anomalies {
            println!("  {anomaly}");
        }
        return false;
    }
    if verdict.acknowledged_durable == 0 || verdict.seen == 0 {
        println!("\nFAILED: nothing went through, so nothing was proved.");
        return false;
    }
    if story.forwarded != 0 {
        println!("\nFAILED: {} requests reached the wrong core.", count(story.forwarded));
        return false;
    }
    println!(
        "\nProved: all {} records acknowledged at quorum_durable were read back, twice, byte for byte, each once, in \
         order and at its offset, across the loss of each of two brokers and a hard stop of all three. No request \
         reached the wrong core.",
        count(verdict.acknowledged_durable),
    );
    true
}

/// By level, of those that may lose something.
fn lost(story: &Story) -> String {
    let levels = Durability::ALL.into_iter();
    let levels = levels.filter(|it| it.is_acknowledged() && *it != Durability::QuorumDurable);
    let told = levels.map(|level| {
        let of = story.tallies.iter().zip(&story.verdict.weak_lost_of);
        let lost: u64 = of.filter(|((of, _), _)| *of == level).map(|(_, lost)| lost).sum();
        format!("{} {}", thousands(lost as f64), level.name())
    });
    told.collect::<Vec<_>>().join(", ")
}
