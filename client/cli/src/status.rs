//! `corelog status`: how a broker is, shard by shard.

use std::time::Duration;

use corelog::{Admin, Brokers, StatusReply};
use serde_json::{Map, Value, json};

use crate::arguments::Status;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Column, Output};
use crate::topic::{brokers_json, brokers_text};
use crate::units::{bytes, count};

pub fn run(context: &Context, output: &mut Output, command: &Status) -> Result<(), Failure> {
    let client = context.connect()?;
    let prefix = command.counters.as_deref().unwrap_or_default();
    let status =
        context.admin(&client).status(prefix).map_err(|error| context.of_broker(&error))?;
    if status.names.is_empty() {
        let what = format!("no counter has a name that begins with {prefix}");
        return Err(
            Failure::new(Exit::NotFound, what).fix("`corelog status --counters` shows all of them")
        );
    }
    let brokers = brokers(&context.admin(&client));
    if output.json {
        let mut told = object(context, &status);
        if let Some(brokers) = brokers {
            told["me"] = json!(brokers.me.0);
            told["brokers"] = brokers_json(&brokers);
        }
        return output.json(&told);
    }
    if command.counters.is_some() {
        counters(output, &status)
    } else {
        summary(context, output, &status)?;
        match brokers {
            None => Ok(()),
            Some(brokers) => {
                let me = format!("this is broker {} of {}", brokers.me, brokers.places.len());
                output.line(&format!("{me}; {}", brokers_text(&brokers)))
            }
        }
    }
}

/// Who else is there, as told with any topic. None: nobody, or there is no topic to ask about.
fn brokers(admin: &Admin) -> Option<Brokers> {
    let topics = admin.list_topics().ok()?;
    let brokers = admin.describe_topic(&topics.first()?.name).ok()?.brokers;
    (!brokers.places.is_empty()).then_some(brokers)
}

fn object(context: &Context, status: &StatusReply) -> Value {
    let shard = |shard: &corelog::ShardCounters| {
        let values = status.names.iter().cloned().zip(shard.values.iter().map(|&v| json!(v)));
        json!({ "shard": shard.shard.0, "counters": values.collect::<Map<String, Value>>() })
    };
    let shards: Vec<Value> = status.shards.iter().map(shard).collect();
    json!({ "broker": context.broker, "uptime_ms": status.uptime_ms, "shards": shards })
}

fn counters(output: &mut Output, status: &StatusReply) -> Result<(), Failure> {
    let names: Vec<String> =
        status.shards.iter().map(|shard| format!("SHARD {}", shard.shard.0)).collect();
    let mut columns = vec![("COUNTER", Column::Text)];
    columns.extend(names.iter().map(|name| (name.as_str(), Column::Number)));
    let rows = status.names.iter().enumerate().map(|(at, name)| {
        let mut row = vec![name.clone()];
        let values = status.shards.iter().map(|shard| shard.values.get(at).copied());
        row.extend(values.map(|value| count(value.unwrap_or(0))));
        row
    });
    output.table(&columns, rows)
}

fn summary(context: &Context, output: &mut Output, status: &StatusReply) -> Result<(), Failure> {
    // Seconds are enough.
    let uptime = Duration::from_secs(status.uptime_ms / 1_000);
    output.line(&format!(
        "broker {}, up {}: connections {}, partitions {}, records in {}, requests forwarded {}",
        context.broker,
        humantime::format_duration(uptime),
        count(status.total("connections").unwrap_or(0)),
        count(status.total("partitions").unwrap_or(0)),
        count(status.total("records_in").unwrap_or(0)),
        count(status.total("requests_forwarded").unwrap_or(0)),
    ))?;
    output.line("commit times are of the last one to two minutes")?;
    let columns = [
        ("SHARD", Column::Number),
        ("LANES", Column::Number),
        ("PARTITIONS", Column::Number),
        ("MEMORY", Column::Number),
        ("OF", Column::Number),
        ("WRITE P50", Column::Number),
        ("P99", Column::Number),
        ("FLUSH P50", Column::Number),
        ("P99", Column::Number),
        ("FORWARDED", Column::Number),
    ];
    let rows = status.shards.iter().map(|shard| {
        let value = |name: &str| {
            let at = status.names.iter().position(|known| known == name);
            at.and_then(|at| shard.values.get(at)).copied()
        };
        let number = |name: &str| value(name).map_or("?".to_owned(), count);
        let size = |name: &str| value(name).map_or("?".to_owned(), |size| bytes(Some(size)));
        vec![
            shard.shard.to_string(),
            number("lanes"),
            number("partitions"),
            size("memory_used_bytes"),
            size("memory_budget_bytes"),
            micros(value("commit_write_p50_us")),
            micros(value("commit_write_p99_us")),
            micros(value("commit_flush_p50_us")),
            micros(value("commit_flush_p99_us")),
            number("requests_forwarded"),
        ]
    });
    output.table(&columns, rows)
}

/// `87 µs`, `4.2 ms`; `-` if there was no commit.
fn micros(us: Option<u64>) -> String {
    match us {
        None => "?".into(),
        Some(0) => "-".into(),
        Some(us @ ..1_000) => format!("{us} µs"),
        Some(us @ ..1_000_000) => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_reads_well() {
        let table = [(0, "-"), (87, "87 µs"), (4_213, "4.2 ms"), (2_000_000, "2.0 s")];
        for (us, text) in table {
            assert_eq!(micros(Some(us)), text);
        }
    }
}
