//! The consumer: everything that comes goes into the ledger.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Traffic;
use super::link::{Link, Reader};
use crate::verify::Spot;

const POLL: Duration = Duration::from_millis(50);

/// Reads on from where the ledger stands, until told to stop.
pub fn read_along(traffic: &Traffic, reader: &mut Reader, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::SeqCst) {
        poll(traffic, reader)?;
    }
    Ok(())
}

/// Reads on until the ledger stands at the committed end of every partition.
pub fn read_to_end(
    traffic: &Traffic,
    link: &Link,
    reader: &mut Reader,
    patience: Duration,
) -> io::Result<()> {
    let limit = Instant::now() + patience;
    loop {
        let missing = missing(traffic, link)?;
        if missing == 0 {
            return Ok(());
        }
        if Instant::now() >= limit {
            let text = format!("{missing} committed records did not come within {patience:?}");
            return Err(io::Error::other(text));
        }
        let until = Instant::now() + Duration::from_millis(500);
        let seen = || traffic.with_ledger(|ledger| ledger.seen());
        let wanted = seen() + missing;
        while Instant::now() < until && seen() < wanted {
            poll(traffic, reader)?;
        }
    }
}

/// Committed records that the ledger has not seen.
fn missing(traffic: &Traffic, link: &Link) -> io::Result<u64> {
    let mut missing = 0;
    for (index, topic) in (0..).zip(&traffic.topics) {
        for partition in 0..topic.partitions {
            let end = link.committed_end(topic.name, partition)?;
            let next = traffic.with_ledger(|ledger| ledger.next_offset((index, partition)));
            missing += end.saturating_sub(next);
        }
    }
    Ok(missing)
}

fn poll(traffic: &Traffic, reader: &mut Reader) -> io::Result<()> {
    let Some(batch) = reader.poll(POLL)? else { return Ok(()) };
    // What is read was sent before, and so was its note: the ledger learns of it first.
    traffic.with_ledger(|ledger| {
        batch.each(|partition, offset, key, value| {
            ledger.on_record(Spot { partition, offset }, key, value);
        });
    });
    Ok(())
}
