//! `corelog topic`: make, list, describe, alter, delete.

use std::io::{self, BufRead, IsTerminal, Write};

use corelog::{
    BrokerId, BrokerPlace, Brokers, Position, TopicChanges, TopicInfo, TopicSettings, TopicSummary,
};
use serde_json::{Value, json};

use crate::arguments::{Retention, TopicCommand};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Column, Output};
use crate::units::{age, bytes, count};

pub fn run(context: &Context, output: &mut Output, command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create { topic, partitions, retention, if_missing } => {
            let settings = TopicSettings {
                partitions,
                replicas: 0,
                // On the wire, "for ever" is the absence of a bound.
                retention_ms: retention.retention.map(|age| age.ms).filter(|&ms| ms > 0),
                retention_bytes: retention
                    .retention_bytes
                    .map(|size| size.bytes)
                    .filter(|&b| b > 0),
            };
            create(context, output, &topic, settings, if_missing)
        }
        TopicCommand::List => list(context, output),
        TopicCommand::Describe { topic } => describe(context, output, &topic),
        TopicCommand::Alter { topic, partitions, retention } => {
            alter(context, output, &topic, partitions, &retention)
        }
        TopicCommand::Delete { topic, yes } => delete(context, output, &topic, yes),
    }
}

fn create(
    context: &Context,
    output: &mut Output,
    topic: &str,
    settings: TopicSettings,
    if_missing: bool,
) -> Result<(), Failure> {
    let client = context.connect()?;
    let made = context.admin(&client).create_topic_with(topic, settings);
    match made.map_err(context.of_topic(topic)) {
        Ok(info) if output.json => output.json(&topic_json(&info)),
        Ok(info) => output.line(&format!("made topic {topic} with {}", settings_text(&info))),
        Err(Failure { exit: Exit::Exists, .. }) if if_missing => {
            let info =
                context.admin(&client).describe_topic(topic).map_err(context.of_topic(topic))?;
            match output.json {
                true => output.json(&topic_json(&info)),
                false => output.line(&format!(
                    "there was a topic {topic} already, with {}",
                    settings_text(&info)
                )),
            }
        }
        Err(failure) => Err(failure),
    }
}

fn list(context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = context.connect()?;
    let topics = context.admin(&client).list_topics().map_err(|error| context.of_broker(&error))?;
    if output.json {
        let topic = |topic: &TopicSummary| {
            json!({
                "name": topic.name, "id": topic.id.0,
                "partitions": topic.partitions, "replicas": topic.replicas,
            })
        };
        return output.json(&topics.iter().map(topic).collect::<Vec<Value>>());
    }
    if topics.is_empty() {
        return output.line("there are no topics yet: make one with `corelog topic create NAME`");
    }
    let columns =
        [("TOPIC", Column::Text), ("PARTITIONS", Column::Number), ("REPLICAS", Column::Number)];
    let rows = topics
        .into_iter()
        .map(|topic| vec![topic.name, topic.partitions.to_string(), topic.replicas.to_string()]);
    output.table(&columns, rows)
}

fn describe(context: &Context, output: &mut Output, topic: &str) -> Result<(), Failure> {
    let client = context.connect()?;
    let admin = context.admin(&client);
    let info = admin.describe_topic(topic).map_err(context.of_topic(topic))?;
    let mut bounds = Vec::new();
    let is_cluster = !info.brokers.places.is_empty();
    for (number, place) in (0u32..).zip(&info.places) {
        // One partition that cannot be read hides none of the others.
        let has_leader = !is_cluster || place.broker != BrokerId(0);
        bounds.push(match has_leader {
            true => admin.offsets(topic, number, Position::End).map_err(|error| error.to_string()),
            false => Err("nobody leads it now".to_owned()),
        });
    }
    if output.json {
        let place = |(number, place): (usize, &corelog::PartitionPlace)| {
            let bounds = bounds.get(number).and_then(|bounds| bounds.as_ref().ok());
            let mut told = json!({
                "partition": number, "id": place.partition.0,
                "shard": place.shard.0, "lane": place.lane.0,
                "log_start": bounds.map(|bounds| bounds.log_start.0),
                "committed_end": bounds.map(|bounds| bounds.committed_end.0),
            });
            if is_cluster {
                told["leader"] = json!((place.broker != BrokerId(0)).then_some(place.broker.0));
                told["epoch"] = json!(place.epoch.0);
                let replicas = info.replicas_of(place.lane).map(|broker| broker.0);
                told["replicas"] = json!(replicas.collect::<Vec<u32>>());
            }
            told
        };
        let mut told = topic_json(&info);
        if is_cluster {
            told["brokers"] = brokers_json(&info.brokers);
        }
        told["places"] = info.places.iter().enumerate().map(place).collect();
        return output.json(&told);
    }
    output.line(&format!("topic {topic}: {}", settings_text(&info)))?;
    let mut columns = vec![("PARTITION", Column::Number)];
    if is_cluster {
        output.line(&brokers_text(&info.brokers))?;
        columns.extend([
            ("LEADER", Column::Number),
            ("REPLICAS", Column::Text),
            ("EPOCH", Column::Number),
        ]);
    }
    columns.extend([
        ("SHARD", Column::Number),
        ("LANE", Column::Number),
        ("START", Column::Number),
        ("END", Column::Number),
        ("RECORDS", Column::Number),
    ]);
    let rows = info.places.iter().zip(&bounds).enumerate().map(|(number, (place, bounds))| {
        let mut row = vec![number.to_string()];
        if is_cluster {
            let leader = match place.broker {
                BrokerId(0) => "-".to_owned(),
                leader => leader.to_string(),
            };
            let replicas = info.replicas_of(place.lane).map(|broker| broker.to_string());
            let replicas = replicas.collect::<Vec<String>>().join(",");
            row.extend([leader, replicas, place.epoch.to_string()]);
        }
        row.extend([place.shard.to_string(), place.lane.0.to_string()]);
        match bounds {
            Ok(bounds) => {
                let (start, end) = (bounds.log_start.0, bounds.committed_end.0);
                row.extend([start.to_string(), end.to_string(), count(end.saturating_sub(start))]);
            }
            Err(error) => row.push(error.clone()),
        }
        row
    });
    output.table(&columns, rows)
}

fn alter(
    context: &Context,
    output: &mut Output,
    topic: &str,
    partitions: Option<u32>,
    retention: &Retention,
) -> Result<(), Failure> {
    let changes = TopicChanges {
        partitions,
        retention_ms: retention.retention.map(|age| age.ms),
        retention_bytes: retention.retention_bytes.map(|size| size.bytes),
    };
    if changes == TopicChanges::default() {
        return Err(Failure::new(Exit::Input, "nothing to change was given")
            .fix("give --retention, --retention-bytes or --partitions"));
    }
    let client = context.connect()?;
    let altered = context.admin(&client).alter_topic(topic, changes);
    let info = altered.map_err(context.of_topic(topic))?;
    match output.json {
        true => output.json(&topic_json(&info)),
        false => output.line(&format!("topic {topic} now has {}", settings_text(&info))),
    }
}

fn delete(context: &Context, output: &mut Output, topic: &str, yes: bool) -> Result<(), Failure> {
    if !yes && !is_confirmed(topic)? {
        return Err(Failure::new(Exit::Input, format!("topic {topic} is not deleted"))
            .fix("give --yes if it is meant"));
    }
    let client = context.connect()?;
    context.admin(&client).delete_topic(topic).map_err(context.of_topic(topic))?;
    match output.json {
        true => output.json(&json!({ "deleted": topic })),
        false => output.line(&format!("deleted topic {topic}")),
    }
}

/// Asks, if there is a person to ask.
fn is_confirmed(topic: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "Delete topic {topic} and all of its records? Write its name to confirm: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && answer.trim() == topic)
}

/// `brokers: 1 at 10.0.0.1:7420, 2 at 10.0.0.2:7420 in eu-1a`.
pub fn brokers_text(brokers: &Brokers) -> String {
    let place = |broker: &BrokerPlace| match broker.rack.as_str() {
        "" => format!("{} at {}", broker.id, broker.address),
        rack => format!("{} at {} in {rack}", broker.id, broker.address),
    };
    let places: Vec<String> = brokers.places.iter().map(place).collect();
    format!("brokers: {}", places.join(", "))
}

pub fn brokers_json(brokers: &Brokers) -> Value {
    let place = |broker: &BrokerPlace| json!({ "id": broker.id.0, "address": broker.address.to_string(), "shards": broker.shards, "rack": broker.rack });
    brokers.places.iter().map(place).collect()
}

fn topic_json(info: &TopicInfo) -> Value {
    json!({
        "name": info.name, "id": info.id.0,
        "partitions": info.settings.partitions, "replicas": info.settings.replicas,
        "retention_ms": info.settings.retention_ms,
        "retention_bytes": info.settings.retention_bytes,
    })
}

fn settings_text(info: &TopicInfo) -> String {
    let partitions = match info.settings.partitions {
        1 => "1 partition".to_owned(),
        many => format!("{} partitions", count(u64::from(many))),
    };
    let kept = match (info.settings.retention_ms, info.settings.retention_bytes) {
        (None, None) => "records kept for ever".to_owned(),
        (Some(ms), None) => format!("records kept {}", age(Some(ms))),
        (None, Some(size)) => format!("the newest {} of each kept", bytes(Some(size))),
        (Some(ms), Some(size)) => {
            format!(
                "records kept {} or the newest {} of each, whichever is less",
                age(Some(ms)),
                bytes(Some(size))
            )
        }
    };
    format!("{partitions}, {kept}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_told_with_their_addresses() {
        let broker = |id| BrokerPlace {
            id: BrokerId(id),
            address: ([10, 0, 0, id as u8], 7420).into(),
            shards: 2,
            incarnation: Default::default(),
            rack: if id == 2 { "eu-1a".into() } else { String::new() },
        };
        let brokers = Brokers { me: BrokerId(2), places: vec![broker(1), broker(2)] };
        let text = "brokers: 1 at 10.0.0.1:7420, 2 at 10.0.0.2:7420 in eu-1a";
        assert_eq!(brokers_text(&brokers), text);
        let first = &brokers_json(&brokers)[0];
        let plain = json!({ "id": 1, "address": "10.0.0.1:7420", "shards": 2, "rack": "" });
        assert_eq!(*first, plain);
    }
}
