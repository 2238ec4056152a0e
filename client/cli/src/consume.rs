//! `corelog consume`: prints records, from a place to a place.

mod format;
mod span;

use std::time::{Duration, Instant};

use corelog::{Client, Consumer, ConsumerConfig, Error};

use crate::arguments::{Consume, Format};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use format::Printer;
use span::Spans;

/// How often one looks whether the end has come, while nothing does.
const BEAT: Duration = Duration::from_millis(200);

pub fn run(context: &Context, output: &mut Output, command: &Consume) -> Result<(), Failure> {
    let client = context.connect()?;
    let partitions = chosen(context, &client, command)?;
    let mut spans = Spans::find(context, &client, command, &partitions)?;
    let config = ConsumerConfig { rack: command.rack.clone(), ..ConsumerConfig::default() };
    let mut consumer = client.consumer_with(config);
    for (partition, position) in spans.open() {
        consumer.assign(&command.topic, partition, position);
    }
    let is_json = output.json || command.format == Format::Json;
    let printer = Printer::new(is_json, &command.with);
    let is_watched = output.is_terminal() || command.follow;
    let mut left = command.count.unwrap_or(u64::MAX);
    let mut heard_at = Instant::now();
    while left > 0 && !spans.is_done() {
        let polled = consumer.poll(BEAT);
        let Some(batch) = polled.map_err(|error| Failure::of_read(&context.broker, &error))? else {
            output.flush()?;
            spans.look_at_the_clock(context, &client, command)?;
            drop_done(&mut consumer, command, &mut spans);
            if !command.follow && heard_at.elapsed() > context.timeout {
                return Err(stalled(command, &spans));
            }
            continue;
        };
        heard_at = Instant::now();
        let end = spans.end_in(&batch);
        for record in batch.records() {
            if left == 0 || end.is_some_and(|end| record.offset.0 >= end) {
                break;
            }
            printer.print(output, &batch, &record)?;
            left -= 1;
        }
        spans.passed(&batch);
        drop_done(&mut consumer, command, &mut spans);
        if is_watched {
            output.flush()?;
        }
    }
    output.flush()
}

/// The partitions to read.
fn chosen(context: &Context, client: &Client, command: &Consume) -> Result<Vec<u32>, Failure> {
    let topic = &command.topic;
    let info = context.admin(client).describe_topic(topic).map_err(context.of_topic(topic))?;
    let all = info.settings.partitions;
    if command.partitions.is_empty() {
        return Ok((0..all).collect());
    }
    let mut partitions = command.partitions.clone();
    partitions.sort_unstable();
    partitions.dedup();
    match partitions.iter().find(|&&partition| partition >= all) {
        None => Ok(partitions),
        Some(&partition) => {
            let named = topic.as_str().into();
            Err(context.of_topic(topic)(Error::UnknownPartition { topic: named, partition }))
        }
    }
}

fn drop_done(consumer: &mut Consumer, command: &Consume, spans: &mut Spans) {
    for partition in spans.take_done() {
        consumer.unassign(&command.topic, partition);
    }
}

fn stalled(command: &Consume, spans: &Spans) -> Failure {
    let (partition, next, end) = spans.first_open().unwrap_or_default();
    let what = format!(
        "topic {}, partition {partition}: nothing comes at offset {next}, and the end is {end}",
        command.topic
    );
    Failure::new(Exit::Unreachable, what)
        .fix("look at the broker with `corelog status`, or give it more time with --timeout")
}
