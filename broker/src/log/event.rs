//! What the log tells its shard, and how it answers.

use corelog_protocol::entry::EntryError;
use corelog_protocol::ids::{Epoch, LaneId, Lsn, Offset, PartitionId};

use super::producers::Claim;
use crate::memory::Piece;
use crate::replica::Position;
use crate::time::Monotonic;

/// A body to append. It begins with the CRC32C of its rest, whatever its kind.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// In a slot of the pool; copied once, from there into the commit.
    Piece(Piece),
    Bytes(&'a [u8]),
}

/// An entry that the shard wants in the log.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The number of an `EntryKind` of `corelog_protocol::entry` that the shard may write. Epoch starts,
    /// log starts and padding are the log's own.
    pub kind: u8,
    /// `NO_PARTITION` for entries that belong to none.
    pub partition: PartitionId,
    /// Where an earlier append found the partition, to spare the search; any number is allowed.
    pub partition_at: u32,
    /// How many offsets the entry takes: the records of a batch, 0 for everything else.
    pub record_count: u32,
    pub body: Body<'a>,
    /// The caller has compared the body with the CRC in its first 4 bytes during this step.
    /// If not, `append` does, on the copy, while it is hot.
    pub crc_checked: bool,
    /// What a batch says of its producer. The caller has asked [`super::Log::judge`].
    pub claim: Option<Claim>,
    /// Somebody waits until the entry is durable. Entries for which nobody does gather for a while.
    pub awaited: bool,
}

/// The partition of entries that belong to none.
pub const NO_PARTITION: PartitionId = PartitionId(0);

/// An entry's place. It is in memory, nothing more, until `LogEvent::Durable` covers its LSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub lsn: Lsn,
    /// For the next [`NewEntry`] of the same partition.
    pub partition_at: u32,
    pub base_offset: Offset,
    pub epoch: Epoch,
    /// Milliseconds since the Unix epoch.
    pub append_time: i64,
}

/// Why nothing was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendError {
    /// The pipeline is full. `LogEvent::Room` says when to try again.
    Busy,
    /// The disk is full. The log retries by itself; `LogEvent::Room` says when it has succeeded.
    Full,
    /// A write or flush failed: this log takes nothing any more in this process.
    Failed,
    /// Recovery is not over; or this replica leads no epoch.
    Recovering,
    Stopping,
    UnknownPartition,
    TooLarge {
        bytes_max: u32,
    },
    TooManyRecords {
        records_max: u32,
    },
    /// The body does not match its CRC.
    CorruptBody,
}

/// How a replica's log goes on after a start: from where, in which epoch. It becomes one durable record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// What is here and above is void.
    pub at: Lsn,
    /// The epoch in which entries are taken or appended from now on.
    pub accepted: Epoch,
    /// What this replica may have acknowledged of the void, and must go on to tell until it is replaced.
    pub perhaps: Option<Position>,
}

/// Why no entry of a leader was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyError {
    /// As for an append.
    Refused(AppendError),
    /// This replica leads an epoch itself.
    Leading,
    /// No whole entry: damaged, or cut.
    Entry(EntryError),
    /// Of another lane.
    Lane(LaneId),
    /// Not the entry that comes next.
    Lsn { expected: Lsn, found: Lsn },
    /// Below that of the last entry, or above the accepted one.
    Epoch { last: Epoch, accepted: Epoch, found: Epoch },
    /// Offsets that this log has given out, or more than can be.
    Offset { partition: PartitionId, expected: Offset, found: Offset },
}

/// A read that waits for the disk. Never reused in the life of a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReadId(pub u64);

/// The answer to a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// The pieces hold whole entries, the first of which contains the offset. The caller owns a
    /// reference of each piece's slot.
    Ready {
        bytes: u32,
    },
    /// `LogEvent::ReadDone` follows.
    Waiting(ReadId),
    /// The offset is the committed end, or behind it and not behind all that was appended: nothing yet.
    AtEnd,
    OutOfRange {
        log_start: Offset,
        committed_end: Offset,
    },
    /// These offsets (`from` inclusive, `to` exclusive) cannot be read; `to` and later can be asked for.
    Corrupt {
        from: Offset,
        to: Offset,
    },
    /// Too many reads wait for the disk already: try again after `LogEvent::ReadRoom`.
    Busy,
    UnknownPartition,
    /// The disk refused the read, which leaves untouched what it holds; or the log was never
    /// recovered, or is closing.
    Failed,
}

/// The answer to a read of copies, for a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copies {
    /// The pieces hold whole entries, from the one asked for up to `end` without a gap; local ones may lie between.
    /// The caller owns a reference of each piece's slot.
    Ready { end: Lsn, bytes: u32 },
    /// `LogEvent::CopiesDone` follows.
    Waiting(ReadId),
    /// No commit has this entry yet.
    AtEnd,
    /// Too many reads wait for the disk already: try again after `LogEvent::ReadRoom`.
    Busy,
    /// Retention has taken it; `first` is the first entry there is.
    Gone { first: Lsn },
    /// This entry cannot be read: from now on the log says so ([`super::Log::has`]).
    Unreadable { lsn: Lsn },
    /// The log was never recovered, or is closing.
    Failed,
}

/// The answer to "from which offset on were records appended at this time or later".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// The first offset of the first entry whose append time is at least the one asked for.
    /// `None`: there is none yet.
    Found(Option<Offset>),
    /// `LogEvent::LookupDone` follows.
    Waiting(ReadId),
    Busy,
    UnknownPartition,
    Failed,
}

/// A partition as this replica knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionBounds {
    /// The first offset that is kept.
    pub log_start: Offset,
    /// The offset that the next record will get.
    pub next_offset: Offset,
    /// Consumers see offsets below this one.
    pub committed_end: Offset,
}

/// An entry found by recovery that the shard has to fold.
#[derive(Debug)]
pub struct Replayed {
    pub lsn: Lsn,
    pub epoch: Epoch,
    pub kind: u8,
    pub partition: PartitionId,
    pub append_time: i64,
    /// The body, CRC checked. The receiver owns a reference of the slot.
    pub body: Piece,
}

/// What a recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub segments: u64,
    /// Segments that had to be read because they have no usable footer.
    pub segments_scanned: u64,
    pub bytes_read: u64,
    /// The first LSN of this life.
    pub next_lsn: Lsn,
    /// The epoch of this life.
    pub epoch: Epoch,
    /// Commits above the durable LSN that were dropped.
    pub commits_truncated: u64,
    /// Entries at or below the durable LSN that cannot be read.
    pub entries_corrupt: u64,
    /// False if the disk was full: reads work, appends wait for space.
    pub writable: bool,
    /// Of a replica: the greatest epoch that it has accepted.
    pub accepted: Epoch,
    /// Of a replica: the log goes on as [`super::Log::start_at`] was told. False: it is dormant, because nothing was
    /// told, or it cannot be read so far, or has accepted a later epoch.
    pub resumed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFailure {
    Write,
    Flush,
    /// Recovery could not read what it needs.
    Recovery,
    /// The lane's folder holds segments of another cluster or lane, or of a newer format.
    Foreign,
    /// Another log of the same data directory failed.
    Directory,
}

#[derive(Debug)]
pub enum LogEvent {
    /// Reads, and appends if writable, are welcome.
    Recovered(RecoveryReport),
    /// In LSN order, before `Recovered`.
    Replayed(Replayed),
    /// A dormant log goes on: what [`super::Log::resume`] said is durable.
    Resumed,
    /// Everything through this LSN is durable, and on a lane with one replica committed.
    Durable {
        through: Lsn,
        write_ordered_at: Monotonic,
        write_done_at: Monotonic,
        flush_done_at: Monotonic,
    },
    /// After `AppendError::Busy` or `Full`: try again.
    Room,
    /// The directory is failed for the life of the process. Reads go on.
    Failed(LogFailure),
    ReadDone {
        read: ReadId,
        answer: Read,
        pieces: Vec<Piece>,
    },
    LookupDone {
        read: ReadId,
        answer: Lookup,
    },
    /// `from` is what was asked for.
    CopiesDone {
        read: ReadId,
        from: Lsn,
        answer: Copies,
        pieces: Vec<Piece>,
    },
    /// The entry with this LSN was durable and cannot be read any more; it is in the segment of this number. Told of
    /// the lowest.
    Damaged {
        lsn: Lsn,
        sequence: u64,
    },
    /// After `Read::Busy`, `Lookup::Busy` or `Copies::Busy`: try again.
    ReadRoom,
    /// Retention has moved these log starts; read the bounds anew.
    LogStartMoved,
    /// A new segment is in use. A shard that folds entries writes its checkpoint soon.
    Rolled {
        first_lsn: Lsn,
    },
    Stopped,
}
