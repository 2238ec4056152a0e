//! Walks a segment from its first block to its last, in whatever pieces it is fed, and says what
//! it finds. Any bytes may come: each step moves on by at least a block or an entry.
//!
//! At a block boundary it looks for a commit header of this segment's life at its own position.
//! Without one it tries whether the entries behind a damaged header go on where the last ones
//! ended, else it tries the next block: after a power cut, valid commits may follow a torn one.

use corelog_protocol::batch::BATCH_HEADER_BYTES;
use corelog_protocol::checksum::Crc;
use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use corelog_protocol::ids::{LaneId, Lsn};

use crate::limits::BLOCK_BYTES;
use crate::log::format::commit_header::{COMMIT_HEADER_BYTES, CommitHeader};
use crate::log::format::{COMMITS_START, blocks, is_possible, repair};
use crate::planted::{Bug, is_planted};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What the walker finds.
#[derive(Debug)]
pub enum Item<'a> {
    Commit {
        position: u64,
    },
    /// An entry whose header is intact and in its place. `body` is `None` if it is damaged; of batches it is
    /// the head, for what they say of their producers.
    Entry {
        header: EntryHeader,
        position: u64,
        body: Option<&'a [u8]>,
    },
    End(CommitFound),
}

/// A commit, walked to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitFound {
    pub position: u64,
    /// Its place in the segment; 0 without a header.
    pub number: u64,
    /// Rounded up to a block.
    pub end_position: u64,
    pub first_lsn: Lsn,
    pub end_lsn: Lsn,
    /// The LSN after the entries at its beginning that are intact.
    pub whole_end: Lsn,
    /// What its header says; 0 without one.
    pub durable_end: Lsn,
    pub epoch_first: u64,
    pub epoch_last: u64,
    /// Entries whose header is lost: all from the first damaged one to the commit's end.
    pub lost: u64,
    /// Entries whose body is damaged.
    pub damaged: u64,
    /// It holds a checkpoint of the log itself, intact.
    pub has_checkpoint: bool,
    /// The header is intact and the digest binds the entries to it.
    pub bound: bool,
}

impl CommitFound {
    pub fn is_whole(&self) -> bool {
        self.bound && self.lost == 0 && self.damaged == 0
    }
}

#[derive(Debug)]
struct Current {
    found: CommitFound,
    header: Option<CommitHeader>,
    /// Where the entries must end.
    limit: u64,
    digest: Crc,
    entries: u64,
    next_lsn: Lsn,
}

#[derive(Debug)]
struct InBody {
    header: EntryHeader,
    position: u64,
    left: u64,
    is_start: bool,
    stored: [u8; 4],
    crc: Crc,
    /// So many bytes of the body are wanted.
    wanted: usize,
}

#[derive(Debug)]
pub struct Walker {
    lane: LaneId,
    nonce: u64,
    file_end: u64,
    position: u64,
    expected: Option<Lsn>,
    collect: bool,
    current: Option<Current>,
    body: Option<InBody>,
    collected: Vec<u8>,
    /// The last commit so far has no header that can be read, or is nothing else.
    is_ruined: bool,
}

impl Walker {
    /// `expected` is the LSN after the last one of the segments before, if known. With `collect`,
    /// bodies of entries that somebody folds are delivered.
    pub fn new(
        lane: LaneId,
        nonce: u64,
        file_bytes: u64,
        expected: Option<Lsn>,
        collect: bool,
    ) -> Self {
        Self {
            lane,
            nonce,
            file_end: file_bytes - file_bytes % BLOCK,
            position: COMMITS_START,
            expected,
            collect,
            current: None,
            body: None,
            collected: Vec::new(),
            is_ruined: false,
        }
    }

    /// Behind the last commit with a header there was another one: how far it went, nobody can tell.
    pub fn is_ruined(&self) -> bool {
        self.is_ruined
    }

    /// Where to read next; `None` when the segment is walked.
    pub fn wants(&self) -> Option<u64> {
        (self.position < self.file_end).then_some(self.position - self.position % BLOCK)
    }

    /// Takes a piece of the file that starts at or before what it wants.
    pub fn feed(&mut self, piece_position: u64, piece: &[u8], sink: &mut dyn FnMut(Item<'_>)) {
        let piece_end = piece_position + piece.len() as u64;
        assert!(piece_position <= self.position);
        while self.position < piece_end && self.position < self.file_end {
            let at = (self.position - piece_position) as usize;
            let bytes = &piece[at..];
            let is_last = piece_end >= self.file_end;
            let moved = if self.body.is_some() {
                self.in_body(bytes, sink)
            } else if self.current.is_some() {
                self.in_commit(bytes, is_last, sink)
            } else {
                self.seek(bytes, is_last, sink)
            };
            if !moved {
                break;
            }
        }
        if self.position >= self.file_end {
            self.end_of_file(sink);
        }
    }

    fn end_of_file(&mut self, sink: &mut dyn FnMut(Item<'_>)) {
        if let Some(body) = self.body.take() {
            // The file is shorter than its header says.
            self.finish_body(&body, false, sink);
        }
        if self.current.is_some() {
            self.finish_commit(sink);
        }
        self.position = self.file_end;
    }

    fn seek(&mut self, bytes: &[u8], is_last: bool, sink: &mut dyn FnMut(Item<'_>)) -> bool {
        assert!(self.position.is_multiple_of(BLOCK));
        if bytes.len() < 2 * COMMIT_HEADER_BYTES && !is_last {
            return false;
        }
        let header = CommitHeader::decode(bytes)
            .or_else(|| repair::commit_header(bytes, self.nonce, self.position))
            .filter(|header| {
                (header.nonce == self.nonce || is_planted(Bug::StaleBytesAccepted))
                    && header.position == self.position
                    && header.position + u64::from(header.length) <= self.file_end
            });
        if let Some(header) = header {
            self.begin_commit(Some(header), header.first_lsn, sink);
            return true;
        }
        let behind = bytes.get(COMMIT_HEADER_BYTES..);
        match self.expected {
            Some(expected)
                if behind.is_some_and(|behind| self.entry(behind, expected).is_some()) =>
            {
                self.begin_commit(None, expected, sink);
            }
            _ => {
                self.is_ruined |= repair::is_ruin(bytes, self.nonce, self.position);
                self.position += BLOCK;
            }
        }
        true
    }

    fn begin_commit(
        &mut self,
        header: Option<CommitHeader>,
        first_lsn: Lsn,
        sink: &mut dyn FnMut(Item<'_>),
    ) {
        let position = self.position;
        sink(Item::Commit { position });
        self.is_ruined = header.is_none();
        self.current = Some(Current {
            found: CommitFound {
                position,
                number: header.map_or(0, |header| header.number),
                end_position: position,
                first_lsn,
                end_lsn: header.map_or(first_lsn, |header| header.end_lsn()),
                whole_end: first_lsn,
                durable_end: header.map_or(Lsn(0), |header| header.durable_end),
                epoch_first: 0,
                epoch_last: 0,
                lost: 0,
                damaged: 0,
                has_checkpoint: false,
                bound: false,
            },
            header,
            limit: header.map_or(self.file_end, |header| position + u64::from(header.length)),
            digest: Crc::new(),
            entries: 0,
            next_lsn: first_lsn,
        });
        self.position += COMMIT_HEADER_BYTES as u64;
    }

    /// The entry of this lane with this LSN, if its header is intact or one bit away from that.
    fn entry(&self, bytes: &[u8], lsn: Lsn) -> Option<EntryHeader> {
        let intact = EntryHeader::decode(bytes).ok();
        let header = intact.or_else(|| repair::entry_header(bytes, self.lane, lsn));
        header.filter(|header| header.lane == self.lane && header.lsn == lsn && is_possible(header))
    }

    fn in_commit(&mut self, bytes: &[u8], is_last: bool, sink: &mut dyn FnMut(Item<'_>)) -> bool {
        let Some(current) = &self.current else { return false };
        let entry = self.entry(bytes, current.next_lsn);
        let Some(current) = &mut self.current else { return false };
        let count = current.header.map(|header| u64::from(header.entry_count));
        if count == Some(current.entries) {
            self.finish_commit(sink);
            return true;
        }
        if bytes.len() < ENTRY_HEADER_BYTES && !is_last {
            return false;
        }
        let fits = |header: &EntryHeader| {
            self.position + header.entry_bytes() as u64 <= current.limit
                && header.epoch.0 >= current.found.epoch_last
        };
        let Some(header) = entry.filter(fits) else {
            self.finish_commit(sink);
            return true;
        };
        if current.entries == 0 {
            current.found.epoch_first = header.epoch.0;
        }
        current.found.epoch_last = header.epoch.0;
        current.entries += 1;
        current.next_lsn = header.next_lsn();
        let is_repaired = EntryHeader::decode(bytes).is_err();
        let stored: &[u8] = if is_repaired { &header.encode() } else { bytes };
        current.digest.update(&stored[4..8]);
        let wanted = match header.kind {
            _ if !self.collect => 0,
            EntryKind::Padding => 0,
            EntryKind::Batch => BATCH_HEADER_BYTES,
            _ => usize::MAX,
        };
        self.collected.clear();
        self.body = Some(InBody {
            header,
            position: self.position,
            left: u64::from(header.body_len),
            is_start: true,
            stored: [0; 4],
            crc: Crc::new(),
            wanted,
        });
        self.position += ENTRY_HEADER_BYTES as u64;
        true
    }

    fn in_body(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Item<'_>)) -> bool {
        let Some(body) = &mut self.body else { return false };
        let len = bytes.len().min(usize::try_from(body.left).unwrap_or(usize::MAX));
        let mut part = &bytes[..len];
        if body.wanted > 0 {
            let (wanted, _) = part.split_at(part.len().min(body.wanted));
            self.collected.extend_from_slice(wanted);
            body.wanted -= wanted.len();
        }
        if body.is_start {
            // A body starts 8-aligned and has at least 4 bytes, so they are never cut.
            let Some((stored, rest)) = part.split_first_chunk::<4>() else { return false };
            body.stored = *stored;
            body.is_start = false;
            part = rest;
        }
        body.crc.update(part);
        body.left -= len as u64;
        self.position += len as u64;
        if body.left == 0
            && let Some(body) = self.body.take()
        {
            let stored = u32::from_le_bytes(body.stored);
            let intact = stored == body.crc.value() && stored == body.header.body_crc;
            self.finish_body(&body, intact || is_planted(Bug::BodyChecksumNotChecked), sink);
        }
        true
    }

    fn finish_body(&mut self, body: &InBody, intact: bool, sink: &mut dyn FnMut(Item<'_>)) {
        self.position = body.position + body.header.entry_bytes() as u64;
        if let Some(current) = &mut self.current {
            let is_checkpoint = body.header.is_local() && body.header.kind == EntryKind::Checkpoint;
            current.found.damaged += u64::from(!intact);
            current.found.has_checkpoint |= intact && is_checkpoint;
            if intact && current.found.whole_end == body.header.lsn {
                current.found.whole_end = body.header.next_lsn();
            }
        }
        let bytes = intact.then_some(self.collected.as_slice());
        sink(Item::Entry { header: body.header, position: body.position, body: bytes });
    }

    fn finish_commit(&mut self, sink: &mut dyn FnMut(Item<'_>)) {
        let Some(current) = self.current.take() else { return };
        let mut found = current.found;
        match current.header {
            Some(header) => {
                let end = header.position + u64::from(header.length);
                found.lost = u64::from(header.entry_count) - current.entries;
                found.bound = found.lost == 0
                    && self.position == end
                    && current.digest.value() == header.entries_digest;
                found.end_position = blocks(end);
            }
            None => {
                found.end_lsn = current.next_lsn;
                found.end_position = blocks(self.position).max(found.position + BLOCK);
            }
        }
        self.position = found.end_position;
        self.expected = Some(found.end_lsn);
        sink(Item::End(found));
    }
}
