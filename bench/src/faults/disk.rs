//! What a stopped broker has on its disk, by a second reader of the format (see `log/FORMAT.md`): it shares the entry
//! header with the broker, and nothing else, and does not repair.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use corelog_protocol::batch::BatchView;
use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::{Entries, EntryKind};
use corelog_protocol::ids::PartitionId;

use crate::history::{History, Partition, Reader, Reading, SeenBatch};

const BLOCK: usize = 4096;
const COMMITS_START: usize = 2 * BLOCK;
const COMMIT_HEADER: usize = 64;
const SEGMENT_HEADER: usize = 128;

/// Batches of a lane by LSN: what a later segment supersedes is gone.
type Lane = BTreeMap<u64, (PartitionId, SeenBatch)>;

/// Reads all lanes but the metadata's. `known`: the partitions of the run by their ids.
pub fn read(
    broker: u32,
    data: &Path,
    history: &History,
    known: &BTreeMap<PartitionId, Partition>,
) -> io::Result<Reading> {
    let mut reading = Reading::new(Reader::Disk(broker));
    for lane in sorted(&data.join("lanes"))? {
        if lane.file_name().is_some_and(|name| name == "0") {
            continue;
        }
        let mut batches = Lane::new();
        for file in sorted(&lane)? {
            if file.extension().is_some_and(|extension| extension == "seg") {
                let bytes = fs::read(&file)?;
                read_segment(&bytes, history, &mut batches).ok_or_else(|| {
                    io::Error::other(format!("{} has no intact header", file.display()))
                })?;
            }
        }
        for (partition, batch) in batches.into_values() {
            if let Some(partition) = known.get(&partition) {
                reading.push(*partition, batch);
            }
        }
    }
    Ok(reading)
}

fn sorted(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn read_segment(bytes: &[u8], history: &History, batches: &mut Lane) -> Option<()> {
    let is_intact = |header: &&[u8]| {
        header.starts_with(b"CRLGSEGM") && u32_at(header, 124) == Some(crc32c(&header[..124]))
    };
    let header = [0, BLOCK]
        .into_iter()
        .filter_map(|at| bytes.get(at..at + SEGMENT_HEADER))
        .find(is_intact)?;
    let (nonce, supersedes) = (u64_at(header, 48)?, u64_at(header, 56)?);
    batches.split_off(&supersedes);
    let mut at = COMMITS_START;
    while let Some(block) = bytes.get(at..) {
        let Some(length) = commit_length(block, nonce, at as u64) else {
            at += BLOCK;
            continue;
        };
        let entries = block.get(COMMIT_HEADER..length)?;
        // What is damaged leaves a gap, which the check finds.
        for (entry, body) in Entries::new(entries).map_while(Result::ok) {
            if entry.kind != EntryKind::Batch {
                continue;
            }
            let view = BatchView::check_header(body).ok();
            let records = view.iter().flat_map(|view| view.records()).map_while(Result::ok);
            let records =
                records.map(|record| history.recognise(record.key, record.value)).collect();
            let batch = SeenBatch { base: entry.base_offset.0, at: u64::MAX, records };
            batches.insert(entry.lsn.0, (entry.partition, batch));
        }
        at += length.next_multiple_of(BLOCK);
    }
    Some(())
}

/// Of an intact commit of this life of the file.
fn commit_length(block: &[u8], nonce: u64, position: u64) -> Option<usize> {
    let header = block.get(..COMMIT_HEADER)?;
    // The checksum is of all but itself.
    let mut rest = [0; COMMIT_HEADER - 4];
    rest[..4].copy_from_slice(&header[..4]);
    rest[4..].copy_from_slice(&header[8..]);
    let is_ours = header.starts_with(b"CRLC")
        && u32_at(header, 4)? == crc32c(&rest)
        && u64_at(header, 8)? == nonce
        && u64_at(header, 24)? == position;
    let length = u32_at(header, 32)? as usize;
    (is_ours && length > COMMIT_HEADER && length <= block.len()).then_some(length)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
