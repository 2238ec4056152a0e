//! What a medium that broke its word still attests.
//!
//! A lost, misdirected or flipped write cannot be undone with one replica. What the design (section 4) demands instead:
//! wrong bytes are never served; an entry below the greatest durable end that an intact header carries is
//! never truncated, its offsets are there or answer a typed error; from there on the log may end, at the
//! first commit that is not whole at its place, and nowhere before.
//!
//! So for each lane this finds the LSN up to which everything is promised even now:
//!
//! ```text
//! durable end D, from any intact header ──┐          ┌── first commit from D on that is not whole
//! ── whole or refused, never truncated ───┤── whole ─┤── no promise: one replica cannot know
//! ```
//! Reads headers by their published layout (`log/FORMAT.md`), not with the log's own code.

use std::collections::BTreeMap;

use corelog_protocol::checksum::{Crc, crc32c};

use super::durable::entries;
use crate::limits::BLOCK_BYTES;
use crate::sim::disk::Image;

const COMMIT_HEADER_BYTES: usize = 64;
const FIRST_COMMIT: usize = 2 * BLOCK_BYTES;

#[derive(Debug)]
struct Segment {
    lane: u32,
    nonce: u64,
    supersedes: u64,
    durable_end: u64,
}

#[derive(Debug)]
struct Commit {
    first_lsn: u64,
    end_lsn: u64,
    durable_end: u64,
    is_whole: bool,
}

#[derive(Default, Debug)]
struct Lane {
    durable_end: u64,
    /// Whole commits that nothing supersedes: first LSN and end.
    whole: BTreeMap<u64, u64>,
}

/// By lane, the LSN from which on nothing is promised any more.
pub fn promised_ends(image: &Image) -> BTreeMap<u32, u64> {
    let mut lanes: BTreeMap<u32, Lane> = BTreeMap::new();
    for (_, bytes) in image.files.iter().filter(|(place, _)| place.path.ends_with(".seg")) {
        let Some(segment) = segment(bytes) else { continue };
        let lane = lanes.entry(segment.lane).or_default();
        lane.durable_end = lane.durable_end.max(segment.durable_end);
        lane.whole.retain(|first, _| *first < segment.supersedes);
        for block in (FIRST_COMMIT..bytes.len()).step_by(BLOCK_BYTES) {
            let Some(commit) = commit(&bytes[block..], block as u64, segment.nonce) else {
                continue;
            };
            lane.durable_end = lane.durable_end.max(commit.durable_end);
            if commit.is_whole && commit.end_lsn > commit.first_lsn {
                lane.whole.insert(commit.first_lsn, commit.end_lsn);
            }
        }
    }
    lanes.iter().map(|(lane, found)| (*lane, found.promised_end())).collect()
}

impl Lane {
    fn promised_end(&self) -> u64 {
        let mut end = self.durable_end;
        // The commit that holds D, then all that follow without a gap.
        while let Some((_, next)) = self.whole.range(..=end).next_back()
            && *next > end
        {
            end = *next;
        }
        end
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The first intact copy of a segment's header.
fn segment(bytes: &[u8]) -> Option<Segment> {
    let copies = [0, BLOCK_BYTES].into_iter().filter_map(|at| bytes.get(at..at + 128));
    let mut intact = copies
        .filter(|copy| copy.starts_with(b"CRLGSEGM") && u32_at(copy, 124) == crc32c(&copy[..124]));
    intact.next().map(|copy| Segment {
        lane: u32_at(copy, 12),
        nonce: u64_at(copy, 48),
        supersedes: u64_at(copy, 56),
        durable_end: u64_at(copy, 64),
    })
}

/// A commit whose header is intact and at its place.
fn commit(bytes: &[u8], position: u64, nonce: u64) -> Option<Commit> {
    let header = bytes.get(..COMMIT_HEADER_BYTES)?;
    let mut crc = Crc::new();
    crc.update(&header[..4]);
    crc.update(&header[8..]);
    let is_intact = header.starts_with(b"CRLC")
        && u32_at(header, 4) == crc.value()
        && u64_at(header, 8) == nonce
        && u64_at(header, 24) == position;
    if !is_intact {
        return None;
    }
    let (count, first_lsn) = (u64::from(u32_at(header, 36)), u64_at(header, 40));
    let length = u32_at(header, 32) as usize;
    let inside = bytes.get(COMMIT_HEADER_BYTES..length).unwrap_or_default();
    let mut end_lsn = first_lsn;
    let sound = entries(inside).take_while(|(entry, body)| {
        let is_sound = entry.lsn.0 == end_lsn && entry.check_body(body).is_ok();
        // What is local takes no LSN.
        end_lsn += u64::from(is_sound && !entry.is_local());
        is_sound
    });
    let is_whole = sound.count() as u64 == count;
    let durable_end = u64_at(header, 48);
    Some(Commit { first_lsn, end_lsn, durable_end, is_whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(durable_end: u64, whole: &[(u64, u64)]) -> Lane {
        Lane { durable_end, whole: whole.iter().copied().collect() }
    }

    #[test]
    fn the_promise_reaches_the_durable_end_and_the_whole_commits_behind_it() {
        assert_eq!(lane(5, &[(0, 5), (5, 7), (7, 9), (10, 12)]).promised_end(), 9);
        assert_eq!(lane(5, &[(0, 3), (6, 8)]).promised_end(), 5, "a hole at 5");
        assert_eq!(lane(5, &[(0, 3), (4, 8)]).promised_end(), 8, "5 is inside a whole commit");
        assert_eq!(lane(0, &[]).promised_end(), 0);
    }
}
