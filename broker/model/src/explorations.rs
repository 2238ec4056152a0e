//! The bounds that are explored to the end: small ones by every `cargo test`, larger ones by the binary.
//! And for each planted error the bounds in which it is found.

use crate::config::Config;
use crate::planted::Planted;

/// A name, and bounds.
pub type Exploration = (&'static str, Config);

/// Together under two minutes on two cores.
pub const SMALL: [Exploration; 9] = [
    ("late messages", Config::new(3, 2)),
    ("late messages, four epochs", Config::new(4, 2)),
    ("crashes", Config::new(3, 2).crashes(2)),
    ("torn writes and holes", Config::new(2, 3).torn(1)),
    ("torn writes, two crashes", Config::new(2, 2).torn(2)),
    ("truncations that a crash undoes", Config::new(2, 2).torn(2).lazy_truncation()),
    ("rot", Config::new(2, 3).rots(1)),
    ("rot and torn writes", Config::new(2, 2).torn(1).rots(1)),
    ("a change of the set", Config::new(2, 2).change()),
];

/// Seconds to minutes each, and gigabytes.
pub const LARGE: [Exploration; 11] = [
    ("late messages, three entries", Config::new(3, 3)),
    ("crashes, three entries", Config::new(3, 3).crashes(1)),
    ("crashes, four epochs", Config::new(4, 2).crashes(1)),
    ("torn writes, three epochs", Config::new(3, 2).torn(1)),
    ("truncations that a crash undoes, three epochs", Config::new(3, 2).torn(1).lazy_truncation()),
    ("rot, three epochs", Config::new(3, 2).rots(1)),
    ("rot and torn writes, three entries", Config::new(2, 3).torn(1).rots(1)),
    ("rot and torn writes, three epochs", Config::new(3, 2).torn(1).rots(1)),
    ("a change of the set, with learners", Config::new(2, 2).change().learners()),
    ("a change of the set, three epochs", Config::new(3, 2).change()),
    ("a lost disk and a change of the set", Config::new(2, 2).change().wipes(1).crashes(1)),
];

impl Planted {
    /// Small bounds in which this error does harm.
    pub const fn bounds(self) -> Config {
        let bounds = match self {
            Planted::Nothing => Config::new(1, 1),
            Planted::AckBeforeMatch | Planted::BeginsBelowPromise => Config::new(3, 2),
            Planted::FencedLeaderCounts | Planted::LateAck | Planted::TwoProposals => {
                Config::new(2, 2)
            }
            Planted::PromiseNotDurable | Planted::TruncatesEqual => Config::new(2, 2).crashes(1),
            Planted::CommitOlderEpoch => Config::new(4, 2),
            Planted::GreatestLsn => Config::new(3, 3),
            Planted::HoleIsEnd | Planted::BeginsFromLess => Config::new(2, 2).rots(1),
            Planted::UndecidedByLsn | Planted::UndecidedOfEpochBelow => Config::new(3, 2).rots(1),
            Planted::OnlyIntactQuorumDrops => Config::new(2, 2).torn(2),
            Planted::MarkDroppedBeforeRepair => Config::new(2, 2).crashes(1).rots(1),
            Planted::NewSetOnly | Planted::OldSetForgottenAtOnce => Config::new(3, 2).change(),
            Planted::LearnerCounts => Config::new(2, 2).change().learners(),
            Planted::AmnesiaCounts => Config::new(2, 2).wipes(1),
            Planted::TruncationNotDurable => Config::new(3, 2).crashes(1).lazy_truncation(),
            Planted::AcceptedBeforeTruncation => Config::new(2, 2).torn(1).lazy_truncation(),
            Planted::LeaderResumes => Config::new(1, 2).crashes(1),
        };
        bounds.plant(self)
    }
}
