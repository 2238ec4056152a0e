//! What is to be read of each partition: from an offset, up to another one if there is one.

use std::collections::BTreeMap;

use corelog::{Client, ConsumeError, Error, FetchedBatch, Offset, Position};

use crate::arguments::Consume;
use crate::context::Context;
use crate::failure::Failure;
use crate::place::{Place, wall_ms};

pub struct Spans {
    spans: BTreeMap<u32, Span>,
    /// Read until this time, which had not come when reading began (ms since 1970).
    until_ms: Option<i64>,
    done: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Span {
    next: u64,
    /// Not included. None: whatever comes.
    end: Option<u64>,
}

impl Spans {
    /// Asks where the places of the command are in each partition.
    pub fn find(
        context: &Context,
        client: &Client,
        command: &Consume,
        partitions: &[u32],
    ) -> Result<Self, Failure> {
        let until_ms = match command.until {
            Some(Place::Time(ms)) if command.follow && ms > wall_ms() => Some(ms),
            _ => None,
        };
        let mut spans = BTreeMap::new();
        for &partition in partitions {
            let span = span(context, client, command, partition, until_ms.is_some())?;
            if span.end.is_none_or(|end| span.next < end) {
                spans.insert(partition, span);
            }
        }
        Ok(Self { spans, until_ms, done: Vec::new() })
    }

    /// The partitions with something to read, and from where.
    pub fn open(&self) -> impl Iterator<Item = (u32, Position)> {
        self.spans.iter().map(|(&number, span)| (number, Position::Offset(Offset(span.next))))
    }

    pub fn is_done(&self) -> bool {
        self.spans.is_empty()
    }

    /// The first partition that is not read to its end, where it is, and where it ends.
    pub fn first_open(&self) -> Option<(u32, u64, u64)> {
        let (&partition, span) = self.spans.iter().next()?;
        Some((partition, span.next, span.end.unwrap_or(u64::MAX)))
    }

    /// The offset at which reading ends, if it is in this batch or before.
    pub fn end_in(&self, batch: &FetchedBatch) -> Option<u64> {
        let is_late = self.until_ms.is_some_and(|until| batch.append_time_ms >= until);
        match self.spans.get(&batch.partition) {
            // What was fetched before the partition was let go.
            None => Some(0),
            Some(_) if is_late => Some(batch.first_offset.0),
            Some(span) => span.end,
        }
    }

    /// All of the batch is printed, as far as it was wanted.
    pub fn passed(&mut self, batch: &FetchedBatch) {
        let end = self.end_in(batch);
        if let Some(span) = self.spans.get_mut(&batch.partition) {
            span.next = batch.end_offset.0;
            span.end = end;
        }
        self.let_go();
    }

    /// Once the time has come until which to read, it is known at which offsets that is.
    pub fn look_at_the_clock(
        &mut self,
        context: &Context,
        client: &Client,
        command: &Consume,
    ) -> Result<(), Failure> {
        let Some(until) = self.until_ms.filter(|&until| wall_ms() >= until) else { return Ok(()) };
        for (&partition, span) in &mut self.spans {
            let found =
                context.admin(client).offsets(&command.topic, partition, Position::Time(until));
            span.end = Some(found.map_err(context.of_topic(&command.topic))?.found.0);
        }
        self.until_ms = None;
        self.let_go();
        Ok(())
    }

    fn let_go(&mut self) {
        let done = &mut self.done;
        self.spans.retain(|&partition, span| {
            let is_open = span.end.is_none_or(|end| span.next < end);
            if !is_open {
                done.push(partition);
            }
            is_open
        });
    }

    /// The partitions that were read to their end since the last call.
    pub fn take_done(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.done)
    }
}

fn span(
    context: &Context,
    client: &Client,
    command: &Consume,
    partition: u32,
    ends_later: bool,
) -> Result<Span, Failure> {
    let topic = command.topic.as_str();
    let find = |place: Place| {
        let found = context.admin(client).offsets(topic, partition, place.position());
        found.map_err(context.of_topic(topic))
    };
    let from = find(command.from)?;
    let (log_start, committed_end) = (from.log_start.0, from.committed_end.0);
    let next = from.found.0;
    if !(log_start..=committed_end).contains(&next) {
        let error = Error::OffsetOutOfRange {
            asked: from.found,
            log_start: from.log_start,
            committed_end: from.committed_end,
        };
        let error = ConsumeError { topic: topic.into(), partition, error };
        return Err(Failure::of_read(&context.broker, &error));
    }
    let end = match command.until {
        _ if ends_later => None,
        None if command.follow => None,
        None | Some(Place::End) => Some(committed_end),
        Some(Place::Beginning) => Some(log_start),
        Some(Place::Offset(offset)) if command.follow => Some(offset),
        Some(Place::Offset(offset)) => Some(offset.min(committed_end)),
        Some(time @ Place::Time(_)) => Some(find(time)?.found.0),
    };
    Ok(Span { next, end })
}
