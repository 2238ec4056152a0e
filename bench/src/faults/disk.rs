//! What a stopped broker has on its disk, by a second reader of the format (see `log/FORMAT.md`): it shares the entry
//! header with the broker, and nothing else, and does not repair.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use corelog_protocol::batch::BatchView;
use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::{Entries, EntryHeader, EntryKind, LOCAL_PARTITION};
use corelog_protocol::ids::PartitionId;

use crate::history::{Disk, Entry, History, Log, Partition, SeenBatch};

const BLOCK: usize = 4096;
const COMMITS_START: usize = 2 * BLOCK;
const COMMIT_HEADER: usize = 64;
const SEGMENT_HEADER: usize = 128;
/// A segment of this version begins the log anew.
const VERSION_ANEW: u32 = 4;

/// Reads all lanes but the metadata's. `known`: the partitions of the run by their ids.
pub fn read(
    broker: u32,
    data: &Path,
    history: &History,
    known: &BTreeMap<PartitionId, Partition>,
) -> io::Result<Disk> {
    let mut disk = Disk { broker, lanes: BTreeMap::new() };
    for folder in sorted(&data.join("lanes"))? {
        let name = folder.file_name().and_then(|name| name.to_str());
        let Some(lane @ 1..) = name.and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mut log = Log::new();
        for file in sorted(&folder)? {
            if file.extension().is_some_and(|extension| extension == "seg") {
                let bytes = fs::read(&file)?;
                let decode = |header: &EntryHeader, body: &[u8]| {
                    let batch = batch_in(header, body, history, known);
                    Entry { epoch: header.epoch.0, checksum: checksum(header), batch }
                };
                read_segment(&bytes, &mut log, decode).ok_or_else(|| {
                    io::Error::other(format!("{} has no intact header", file.display()))
                })?;
            }
        }
        cut_at_hole(&mut log);
        disk.lanes.insert(lane, log);
    }
    Ok(disk)
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Takes what the segment supersedes out of the log, and what it has into it.
fn read_segment(
    bytes: &[u8],
    log: &mut Log,
    decode: impl Fn(&EntryHeader, &[u8]) -> Entry,
) -> Option<()> {
    let is_intact = |header: &&[u8]| {
        header.starts_with(b"CRLGSEGM") && u32_at(header, 124) == Some(crc32c(&header[..124]))
    };
    let header = [0, BLOCK]
        .into_iter()
        .filter_map(|at| bytes.get(at..at + SEGMENT_HEADER))
        .find(is_intact)?;
    let (nonce, supersedes) = (u64_at(header, 48)?, u64_at(header, 56)?);
    if u32_at(header, 8)? == VERSION_ANEW {
        log.clear();
    }
    log.split_off(&supersedes);
    let mut at = COMMITS_START;
    while let Some(block) = bytes.get(at..) {
        let Some(length) = commit_length(block, nonce, at as u64) else {
            at += BLOCK;
            continue;
        };
        let entries = block.get(COMMIT_HEADER..length)?;
        // What is damaged leaves a hole.
        for (entry, body) in Entries::new(entries).map_while(Result::ok) {
            if !is_local(&entry) {
                log.insert(entry.lsn.0, decode(&entry, body));
            }
        }
        at += length.next_multiple_of(BLOCK);
    }
    Some(())
}

/// It takes no LSN, and no other replica has it.
fn is_local(entry: &EntryHeader) -> bool {
    entry.kind == EntryKind::Padding
        || entry.kind == EntryKind::Checkpoint && entry.partition == LOCAL_PARTITION
}

/// The log of a replica ends at its first hole: what lies above was written and not flushed when the broker was killed.
fn cut_at_hole(log: &mut Log) {
    let follows = |((lsn, _), (next, _)): &((&u64, &Entry), (&u64, &Entry))| **next == **lsn + 1;
    let hole = log.iter().zip(log.iter().skip(1)).find(|pair| !follows(pair));
    if let Some((_, (&above, _))) = hole {
        log.split_off(&above);
    }
}

fn checksum(header: &EntryHeader) -> u32 {
    // The bytes that lie on the disk, since nothing but zeros lies in what is reserved.
    u32_at(&header.encode(), 4).unwrap_or_default()
}

fn batch_in(
    header: &EntryHeader,
    body: &[u8],
    history: &History,
    known: &BTreeMap<PartitionId, Partition>,
) -> Option<(Partition, SeenBatch)> {
    let partition = *known.get(&header.partition)?;
    if header.kind != EntryKind::Batch {
        return None;
    }
    let view = BatchView::check_header(body).ok();
    let records = view.iter().flat_map(|view| view.records()).map_while(Result::ok);
    let records = records.map(|record| history.recognise(record.key, record.value)).collect();
    Some((partition, SeenBatch { base: header.base_offset.0, at: u64::MAX, records }))
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
