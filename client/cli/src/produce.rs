//! `corelog produce`: each line becomes a record. Many are under way at once; the first one that
//! is not stored ends the reading, and names its line, so that one knows where to go on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use corelog::{Builder, Error, Header, ObjectiveState, Record, Report};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::arguments::Produce;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Column, Output};
use crate::units::{Text, count};

/// The most that a frame may be configured to hold: a longer line can be no record.
const LINE_BYTES_MAX: u64 = 16 << 20;

pub fn run(context: &Context, output: &mut Output, command: &Produce) -> Result<(), Failure> {
    let input = Input::open(command)?;
    let client = context.connect_with(|builder| settings(command, builder))?;
    // Otherwise each record would tell, after its own deadline, that there is no such topic.
    let info = context.admin(&client).describe_topic(&command.topic);
    let partitions = info.map_err(context.of_topic(&command.topic))?.settings.partitions;
    if let Some(partition) = command.partition.filter(|&partition| partition >= partitions) {
        let topic = command.topic.as_str().into();
        return Err(context.of_topic(&command.topic)(Error::UnknownPartition { topic, partition }));
    }
    let tally = Arc::new(Tally::default());
    let told = Arc::clone(&tally);
    let producer = client.producer().on_delivery(move |line, outcome| told.note(line, outcome));
    let progress = Progress::new(&input);
    let mut sent = 0;
    let stopped =
        send_lines(command, input, output, &tally, &progress, &mut sent, |record, line| {
            producer.send(record, line)
        });
    let mut state = tally.lock();
    while state.done() < sent {
        drop(state);
        print_acks(command, output, &tally)?;
        progress.show(sent, &tally);
        state = tally.wait();
    }
    drop(state);
    print_acks(command, output, &tally)?;
    progress.finish();
    let state = tally.lock();
    summarise(command, output, &state)?;
    output.flush()?;
    if let Some((line, error)) = &state.first_failure {
        return Err(not_stored(context, command, &state, *line, error));
    }
    stopped
}

fn settings(command: &Produce, builder: Builder) -> Builder {
    let builder = builder.compression(command.compression);
    let Some(goal) = command.objective else { return builder };
    builder.objective(goal).on_objective(|report| match report.state {
        ObjectiveState::Infeasible => eprintln!(
            "corelog: 99 of 100 records take {:?} at {} a second: {:?} is out of reach at this load",
            report.p99, report.records_per_second, report.goal
        ),
        _ => eprintln!("corelog: 99 of 100 records are stored within {:?} again", report.goal),
    })
}

/// Reads and sends until the end, or until something goes wrong.
fn send_lines(
    command: &Produce,
    mut input: Input,
    output: &mut Output,
    tally: &Tally,
    progress: &Progress,
    sent: &mut u64,
    send: impl Fn(&Record<'_>, u64) -> Result<(), Error>,
) -> Result<(), Failure> {
    let headers: Vec<Header<'_>> = command
        .headers
        .iter()
        .map(|(name, value)| Header { name, value: Some(value.as_bytes()) })
        .collect();
    let mut line = Vec::new();
    for number in 1.. {
        if !input.read_line(&mut line, number)? || tally.lock().first_failure.is_some() {
            break;
        }
        let (key, value) = split(&line, command.key_separator.as_ref(), number)?;
        let mut record = Record::to(&command.topic).value(value).headers(&headers);
        record = record.level(command.durability);
        record.key = key;
        record.partition = command.partition;
        if let Err(error) = send(&record, number) {
            let mut state = tally.lock();
            state.failed += 1;
            state.note_failure(number, error);
            *sent += 1;
            break;
        }
        *sent += 1;
        if sent.is_multiple_of(256) || input.is_interactive {
            progress.at(input.bytes_read);
            progress.show(*sent, tally);
            print_acks(command, output, tally)?;
        }
    }
    Ok(())
}

fn split<'a>(
    line: &'a [u8],
    separator: Option<&Text>,
    number: u64,
) -> Result<(Option<&'a [u8]>, &'a [u8]), Failure> {
    let Some(Text(separator)) = separator else { return Ok((None, line)) };
    let at = line.windows(separator.len()).position(|window| window == separator);
    let Some(at) = at else {
        let text = String::from_utf8_lossy(separator).escape_debug().to_string();
        return Err(Failure::new(Exit::Input, format!("line {number} has no \"{text}\" in it"))
            .fix(
                "each line must have a key, the separator, and a value; what was before it is sent",
            ));
    };
    let (key, rest) = line.split_at(at);
    Ok((Some(key), rest.get(separator.len()..).unwrap_or_default()))
}

fn not_stored(
    context: &Context,
    command: &Produce,
    state: &State,
    line: u64,
    error: &Error,
) -> Failure {
    let mut failure = Failure::of_topic(&context.broker, &command.topic, error);
    let (exit, fate) = match state.is_open {
        false => (Exit::NotStored, "not stored"),
        true => (Exit::Unknown, "not known to be stored"),
    };
    failure.exit = exit;
    failure.what = format!(
        "{} of {} records are {fate}; the first is line {line}: {}",
        count(state.failed),
        count(state.done()),
        failure.what
    );
    failure
}

/// What became of the records so far. Written on the client's IO thread.
#[derive(Default)]
struct Tally {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stored: u64,
    failed: u64,
    /// Of some, it is not known whether they are stored.
    is_open: bool,
    /// The lowest line, and why.
    first_failure: Option<(u64, Error)>,
    /// By partition: how many, the first and the last offset.
    places: BTreeMap<u32, Place>,
    /// Not printed yet.
    acks: Vec<(u64, u32, Option<u64>)>,
}

#[derive(Default)]
struct Place {
    records: u64,
    offsets: Option<(u64, u64)>,
}

impl State {
    fn done(&self) -> u64 {
        self.stored + self.failed
    }

    fn note_failure(&mut self, line: u64, error: Error) {
        self.is_open |= !error.is_definite();
        if self.first_failure.as_ref().is_none_or(|(first, _)| line < *first) {
            self.first_failure = Some((line, error));
        }
    }
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something has changed, or a moment has passed.
    fn wait(&self) -> MutexGuard<'_, State> {
        let moment = Duration::from_millis(50);
        let waited = self.changed.wait_timeout(self.lock(), moment);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn note(&self, line: u64, outcome: Result<&Report, &Error>) {
        let mut state = self.lock();
        match outcome {
            Ok(report) => {
                state.stored += 1;
                let offset = report.offset.map(|offset| offset.0);
                let place = state.places.entry(report.partition).or_default();
                place.records += 1;
                if let Some(offset) = offset {
                    let (first, last) = place.offsets.unwrap_or((offset, offset));
                    place.offsets = Some((first.min(offset), last.max(offset)));
                }
                state.acks.push((line, report.partition, offset));
            }
            Err(error) => {
                state.failed += 1;
                state.note_failure(line, error.clone());
            }
        }
        drop(state);
        self.changed.notify_one();
    }
}

fn print_acks(command: &Produce, output: &mut Output, tally: &Tally) -> Result<(), Failure> {
    let acks = std::mem::take(&mut tally.lock().acks);
    if !command.acks || acks.is_empty() {
        return Ok(());
    }
    for (line, partition, offset) in acks {
        if output.json {
            output.json(&json!({ "line": line, "partition": partition, "offset": offset }))?;
        } else {
            let offset = offset.map_or("unknown".to_owned(), |offset| offset.to_string());
            output.line(&format!("line {line}: partition {partition}, offset {offset}"))?;
        }
    }
    output.flush()
}

fn summarise(command: &Produce, output: &mut Output, state: &State) -> Result<(), Failure> {
    let topic = &command.topic;
    if output.json {
        let place = |(partition, place): (&u32, &Place)| {
            json!({
                "partition": partition, "records": place.records,
                "first_offset": place.offsets.map(|offsets| offsets.0),
                "last_offset": place.offsets.map(|offsets| offsets.1),
            })
        };
        let places: Vec<Value> = state.places.iter().map(place).collect();
        return output.json(&json!({
            "topic": topic, "records": state.stored, "failed": state.failed, "partitions": places,
        }));
    }
    let level = match command.durability.is_acknowledged() {
        true => format!("stored, {}", command.durability),
        false => "sent, without an answer".to_owned(),
    };
    let records = if state.stored == 1 { "record" } else { "records" };
    output.line(&format!("{} {records} to topic {topic} {level}", count(state.stored)))?;
    if state.places.is_empty() {
        return Ok(());
    }
    let columns =
        [("PARTITION", Column::Number), ("RECORDS", Column::Number), ("OFFSETS", Column::Text)];
    let rows = state.places.iter().map(|(partition, place)| {
        let offsets = match place.offsets {
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first} to {last}"),
            None => String::new(),
        };
        vec![partition.to_string(), count(place.records), offsets]
    });
    output.table(&columns, rows)
}

/// Lines of stdin or of a file.
struct Input {
    name: String,
    reader: Box<dyn BufRead>,
    bytes: Option<u64>,
    bytes_read: u64,
    /// A person types.
    is_interactive: bool,
}

impl Input {
    fn open(command: &Produce) -> Result<Self, Failure> {
        let Some(path) = &command.file else {
            let is_interactive = io::stdin().is_terminal();
            if is_interactive && io::stderr().is_terminal() {
                eprintln!("Write a record a line, then press Ctrl-D.");
            }
            let reader = Box::new(BufReader::with_capacity(64 << 10, io::stdin()));
            return Ok(Self {
                name: "stdin".into(),
                reader,
                bytes: None,
                bytes_read: 0,
                is_interactive,
            });
        };
        let name = path.display().to_string();
        let file = File::open(path)
            .map_err(|error| Failure::new(Exit::Input, format!("cannot read {name}: {error}")))?;
        let bytes = file.metadata().ok().filter(|facts| facts.is_file()).map(|facts| facts.len());
        let reader = Box::new(BufReader::with_capacity(64 << 10, file));
        Ok(Self { name, reader, bytes, bytes_read: 0, is_interactive: false })
    }

    /// The next line, without its line feed. False: there is none.
    fn read_line(&mut self, line: &mut Vec<u8>, number: u64) -> Result<bool, Failure> {
        line.clear();
        let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX + 1);
        let read = bounded.read_until(b'\n', line).map_err(|error| {
            let what = format!("cannot read line {number} of {}: {error}", self.name);
            Failure::new(Exit::Input, what)
        })?;
        self.bytes_read += read as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            let what = format!("line {number} of {} is longer than 16 MiB", self.name);
            return Err(Failure::new(Exit::Input, what).fix("no record can be so large"));
        }
        Ok(read > 0)
    }
}

/// On stderr, if it is a terminal and nobody types there.
struct Progress {
    bar: ProgressBar,
    shown_at: Mutex<Instant>,
}

impl Progress {
    fn new(input: &Input) -> Self {
        let (bar, template) = match input.bytes {
            _ if input.is_interactive || !io::stderr().is_terminal() => (ProgressBar::hidden(), ""),
            Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {bytes} of {total_bytes}  {msg}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, shown_at: Mutex::new(Instant::now()) }
    }

    fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn show(&self, sent: u64, tally: &Tally) {
        let mut shown_at = self.shown_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.bar.is_hidden() && shown_at.elapsed() >= Duration::from_millis(100) {
            *shown_at = Instant::now();
            let stored = tally.lock().stored;
            self.bar.set_message(format!("{} sent, {} acknowledged", count(sent), count(stored)));
            self.bar.tick();
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        let separator = Text(b"::".to_vec());
        let of = |line: &'static str| split(line.as_bytes(), Some(&separator), 3);
        assert_eq!(of("k::v::w"), Ok((Some(&b"k"[..]), &b"v::w"[..])));
        assert_eq!(of("::v"), Ok((Some(&b""[..]), &b"v"[..])));
        assert_eq!(of("k::"), Ok((Some(&b"k"[..]), &b""[..])));
        assert_eq!(of("kv:").unwrap_err().what, "line 3 has no \"::\" in it");
        assert_eq!(split(b"kv", None, 1), Ok((None, &b"kv"[..])));
    }

    #[test]
    fn of_failures_the_lowest_line_is_told_and_one_unknown_makes_all_unknown() {
        let mut state = State::default();
        state.note_failure(7, Error::Full);
        state.note_failure(9, Error::ConnectionLost);
        state.note_failure(5, Error::Unreachable);
        assert_eq!(state.first_failure, Some((5, Error::Unreachable)));
        assert!(state.is_open);
    }
}
