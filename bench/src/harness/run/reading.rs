//! The threads that read: one along with the load, for the verdict; others from the beginning, later.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Seen, Shared};
use crate::harness::drivers::Reader;
use crate::verify::{Spot, content};

const POLL: Duration = Duration::from_millis(20);

/// Until the run is over. An error ends the reading, and so fails the run.
pub fn along(shared: &Shared<'_>, mut reader: Box<dyn Reader>) {
    let mut letters = Vec::new();
    while !shared.is_over.load(Ordering::Relaxed) {
        let mut at = None;
        let polled = reader.poll(POLL, &mut |record| {
            // What comes at once has one time: the moment at which the program had it.
            let at = *at.get_or_insert_with(|| shared.clock.now());
            letters.push(Seen {
                spot: Spot { partition: (record.topic, record.partition), offset: record.offset },
                key: record.key.map(Into::into),
                identity: record.value.and_then(|value| content::identify(shared.seed, value)),
                at,
            });
        });
        shared.seen.append(&mut letters);
        if let Err(error) = polled {
            shared.reading_failed.push(io::Error::other(format!("reading failed: {error}")));
            shared.is_over.store(true, Ordering::SeqCst);
            return;
        }
    }
}

/// What a reader found that began at the first message while others came.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CatchUp {
    pub records: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Corrupt, or not in the order of the offsets.
    pub anomalies: u64,
    /// It was given all that had been acknowledged when it began.
    pub is_complete: bool,
}

/// Reads from the beginning up to what had been sent when it began, or until the run is over.
pub fn catch_up(shared: &Shared<'_>, mut reader: Box<dyn Reader>) -> io::Result<CatchUp> {
    let begin_at = (shared.scenario.readers.catch_up_at_seconds * 1e9) as u64;
    while shared.clock.now() < begin_at {
        if shared.is_over.load(Ordering::Relaxed) {
            return Ok(CatchUp::default());
        }
        std::thread::sleep(shared.clock.until(begin_at).min(Duration::from_millis(20)));
    }
    let wanted = shared.outbox.settled();
    let begin = Instant::now();
    let mut found = CatchUp::default();
    let mut next: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    while found.records < wanted && !shared.is_over.load(Ordering::Relaxed) {
        reader.poll(POLL, &mut |record| {
            found.records += 1;
            found.bytes += record.value.map_or(0, <[u8]>::len) as u64;
            let expected = next.entry((record.topic, record.partition)).or_default();
            let is_good = *expected == record.offset
                && record.value.and_then(|value| content::identify(shared.seed, value)).is_some();
            *expected = record.offset + 1;
            found.anomalies += u64::from(!is_good);
        })?;
    }
    found.seconds = begin.elapsed().as_secs_f64();
    found.is_complete = found.records >= wanted;
    Ok(found)
}
