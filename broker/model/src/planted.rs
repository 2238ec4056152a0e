//! The errors that the checker must find. One at a time is planted; each names the rule that it breaks.

/// One broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The protocol as it should be.
    Nothing,
    /// A follower acknowledges what it has before it has matched the leader's log.
    AckBeforeMatch,
    /// The answer to a fence leaves before the promise is durable.
    PromiseNotDurable,
    /// A leader that has promised a higher epoch counts its own flush when it completes.
    FencedLeaderCounts,
    /// A follower that has promised a higher epoch acknowledges a write that was in flight.
    LateAck,
    /// A leader commits through an entry of an older epoch (figure 8 of the Raft paper).
    CommitOlderEpoch,
    /// The leader is the one with the greatest LSN, whatever its epoch.
    GreatestLsn,
    /// A hole is taken for the end of the log: what was above counts as never there.
    HoleIsEnd,
    /// An undecided LSN is settled by any entry that a peer has at that LSN, whatever its epoch.
    UndecidedByLsn,
    /// An undecided entry is held to be of the epoch of the entry below it.
    UndecidedOfEpochBelow,
    /// An undecided entry is dropped only by a quorum that is intact there, and not by all replicas together.
    OnlyIntactQuorumDrops,
    /// A repair removes the mark of a bad entry before its replacement is durable.
    MarkDroppedBeforeRepair,
    /// A change of the set asks for a quorum of the new set only.
    NewSetOnly,
    /// The old set is forgotten when the leader of the new one is named, not when its epoch start is committed.
    OldSetForgottenAtOnce,
    /// The acknowledgments of a learner count.
    LearnerCounts,
    /// A replica that lost its disk goes on under its old id.
    AmnesiaCounts,
    /// A proposal is applied although its epoch has a leader.
    TwoProposals,
    /// An acknowledgment leaves while a crash could still undo the truncation before it.
    TruncationNotDurable,
    /// The epoch in which a follower takes entries is recorded before the truncation that goes with it.
    AcceptedBeforeTruncation,
    /// A follower that matches again truncates what equals the leader's log, too.
    TruncatesEqual,
    /// A leader that restarts leads on in its epoch.
    LeaderResumes,
    /// A leader begins although it cannot read its log through the position for which it was named.
    BeginsFromLess,
    /// A leader that was named begins although it has promised a higher epoch.
    BeginsBelowPromise,
}

impl Planted {
    /// Every error, in the order above.
    pub const ALL: [Planted; 22] = [
        Planted::AckBeforeMatch,
        Planted::PromiseNotDurable,
        Planted::FencedLeaderCounts,
        Planted::LateAck,
        Planted::CommitOlderEpoch,
        Planted::GreatestLsn,
        Planted::HoleIsEnd,
        Planted::UndecidedByLsn,
        Planted::UndecidedOfEpochBelow,
        Planted::OnlyIntactQuorumDrops,
        Planted::MarkDroppedBeforeRepair,
        Planted::NewSetOnly,
        Planted::OldSetForgottenAtOnce,
        Planted::LearnerCounts,
        Planted::AmnesiaCounts,
        Planted::TwoProposals,
        Planted::TruncationNotDurable,
        Planted::AcceptedBeforeTruncation,
        Planted::TruncatesEqual,
        Planted::LeaderResumes,
        Planted::BeginsFromLess,
        Planted::BeginsBelowPromise,
    ];
}
