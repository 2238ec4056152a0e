//! Deliberate bugs, one per thing that the simulator must be able to catch. Without the feature
//! `planted` every check is a constant `false` and costs nothing.

/// What can be planted. The name says what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Bug {
    None = 0,
    /// A produce is acknowledged as durable when it is written, before the flush.
    AckBeforeFlush,
    /// A flush is taken to cover writes that completed after it was issued.
    FlushCoversLaterWrite,
    /// Bodies whose checksum is wrong are accepted and served.
    BodyChecksumNotChecked,
    /// Recovery takes commits of a segment's previous life for its own.
    StaleBytesAccepted,
    /// The padding of a commit keeps what was in the buffer before.
    PaddingNotZeroed,
    /// A new segment is used before its directory entry is durable.
    DirectoryNotSynced,
    /// After a crash the next offset is one too low.
    OffsetReusedAfterCrash,
    /// Recovery ignores "supersedes" and replays truncated entries.
    SupersededResurrected,
    /// Recovery takes corruption below the durable LSN for a torn tail, and truncates.
    CorruptionTruncated,
    /// A replica forgets what it may have acknowledged before that is replaced durably.
    MarkDroppedEarly,
    /// A replica records the epoch that it has accepted without the truncation that goes with it.
    AcceptedWithoutTruncation,
    /// A follower takes entries of any epoch.
    CopyEpochNotChecked,
    /// Fetches serve records that are not yet committed.
    UncommittedServed,
    /// A write error is treated as if the write had worked.
    WriteErrorIgnored,
    /// Acknowledgments of commits in flight are sent out of order.
    AckOutOfOrder,
    /// The refusal of an overloaded shard is not sent.
    RefusalDropped,
    /// Retention deletes a segment that is still needed.
    RetentionTooEager,
    /// An ack names a higher level than was reached.
    LevelOverstated,
    /// A commit header attests entries that no flush has covered yet.
    DurableEndTooHigh,
    /// Recovery keeps a torn commit, and calls what it lacks corrupt.
    TornTailKept,
    /// Recovery ignores the log starts that retention has told.
    LogStartForgotten,
    /// A full disk is never tried again.
    FullForEver,
    /// The deadline of a long poll is not kept.
    LongPollForgotten,
    /// A damaged range is answered as if there were no data yet.
    CorruptRangeUnsaid,
    /// Requests are admitted whatever the memory budget says.
    BudgetIgnored,
    /// The buffer of a frame that did not come whole is not given back.
    SlotLeaked,
    /// A batch that comes again is appended again.
    DuplicateAppended,
    /// Recovery forgets what batches said of their producers.
    ProducersForgotten,
    /// A batch is appended although one before it has not come.
    GapAccepted,
    /// A batch of a producer's earlier epoch is appended.
    OldEpochAccepted,
    /// A batch that comes again is acknowledged as durable before its first copy is.
    DuplicateAckedEarly,
    /// A first batch that was sent before is taken for news, although much is forgotten.
    SentBeforeIgnored,
    /// A batch that stands in the log under its former stamp is appended under its new one.
    FormerStampIgnored,
    /// A member of the metadata's group votes before its vote is durable.
    VoteBeforeDurable,
    /// A follower acknowledges entries of the metadata's group before they are durable.
    EntriesAckedBeforeDurable,
    /// A snapshot that comes late, or twice, replaces a state that is ahead of it.
    OldSnapshotInstalled,
    /// A checkpoint of the group's log lets go of entries that are not in its image.
    CheckpointForgetsTail,
    /// A leader takes what is durable on itself alone for committed.
    MinorityCommits,
    /// A leader commits entries of an earlier epoch before its epoch start.
    OlderEpochCommitted,
    /// A follower drops what it has acknowledged in the leader's own epoch.
    EqualTruncated,
    /// A follower that truncates at something it cannot read forgets that it may have acknowledged it.
    MarkForgotten,
    /// A replica answers a fence, and obeys it, before its promise is durable.
    PromiseNotDurable,
    /// A follower that has promised a later epoch still acknowledges what it has of the one before.
    LateAck,
    /// A leader that was fenced still counts acknowledgments.
    FencedLeaderCounts,
    /// A leader that restarts leads on in its epoch.
    LeaderResumes,
    /// A leader begins although it cannot read what it was chosen for.
    BeginsFromLess,
    /// A follower acknowledges before it has compared its log with the leader's.
    AckBeforeMatch,
    /// A leader sends entries before it is durable that it has begun.
    BeginsBeforeAccepted,
    /// A leader is chosen without asking the set before the last change.
    OldSetNotAsked,
    /// A leader is chosen by what others can read, not by what they may have acknowledged.
    PerhapsIgnored,
    /// A follower serves readers what it has, whether or not that is committed.
    FollowerServesUncommitted,
    /// A replica that follows nobody in the present epoch, or has not heard of its leader for long, serves readers.
    FollowerServesStaleEpoch,
}

impl Bug {
    /// Those of the metadata's group, which its own random test must catch: one broker alone elects nobody.
    pub const CONSENSUS: &[Bug] = &[
        Bug::VoteBeforeDurable,
        Bug::EntriesAckedBeforeDurable,
        Bug::OldSnapshotInstalled,
        Bug::CheckpointForgetsTail,
    ];

    /// Those of a lane's replicas, which their own random test must catch.
    pub const REPLICA: &[Bug] = &[
        Bug::MinorityCommits,
        Bug::OlderEpochCommitted,
        Bug::EqualTruncated,
        Bug::MarkForgotten,
        Bug::PromiseNotDurable,
        Bug::LateAck,
        Bug::FencedLeaderCounts,
        Bug::LeaderResumes,
        Bug::BeginsFromLess,
        Bug::AckBeforeMatch,
        Bug::BeginsBeforeAccepted,
    ];

    /// Those of one replica's log, which its own tests must catch.
    pub const REPLICA_LOG: &[Bug] = &[
        Bug::MarkDroppedEarly,
        Bug::AcceptedWithoutTruncation,
        Bug::CopyEpochNotChecked,
        Bug::UncommittedServed,
    ];
    /// Those of readers of a follower, which the stories of a shard must catch.
    pub const READERS: &[Bug] = &[Bug::FollowerServesUncommitted, Bug::FollowerServesStaleEpoch];
    /// Those of the choice of a lane's leader, which the random test of `metadata::fence` must catch.
    pub const LEADERS: &[Bug] = &[Bug::OldSetNotAsked, Bug::PerhapsIgnored];

    /// Those that the simulator must catch.
    pub const ALL: &[Bug] = &[
        Bug::AckBeforeFlush,
        Bug::FlushCoversLaterWrite,
        Bug::BodyChecksumNotChecked,
        Bug::StaleBytesAccepted,
        Bug::PaddingNotZeroed,
        Bug::DirectoryNotSynced,
        Bug::OffsetReusedAfterCrash,
        Bug::SupersededResurrected,
        Bug::CorruptionTruncated,
        Bug::UncommittedServed,
        Bug::WriteErrorIgnored,
        Bug::AckOutOfOrder,
        Bug::RefusalDropped,
        Bug::RetentionTooEager,
        Bug::LevelOverstated,
        Bug::DurableEndTooHigh,
        Bug::TornTailKept,
        Bug::LogStartForgotten,
        Bug::FullForEver,
        Bug::LongPollForgotten,
        Bug::CorruptRangeUnsaid,
        Bug::BudgetIgnored,
        Bug::SlotLeaked,
        Bug::DuplicateAppended,
        Bug::ProducersForgotten,
        Bug::GapAccepted,
        Bug::OldEpochAccepted,
        Bug::DuplicateAckedEarly,
        Bug::SentBeforeIgnored,
        Bug::FormerStampIgnored,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    // Per thread, so that tests with and without a bug can run side by side.
    thread_local! {
        static PLANTED: Cell<Bug> = const { Cell::new(Bug::None) };
    }

    /// Removes the bug when its time is over, also by a panic.
    struct Planted;

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(Bug::None);
        }
    }

    /// What `work` returns with a bug planted, on this thread and for this long.
    pub fn with<T>(bug: Bug, work: impl FnOnce() -> T) -> T {
        PLANTED.set(bug);
        let _planted = Planted;
        work()
    }

    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == bug
    }
}

#[cfg(feature = "planted")]
pub use switch::{is_planted, with};

#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
