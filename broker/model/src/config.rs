//! How far a model goes, and which error is planted in it.

use crate::planted::Planted;

/// Greatest epoch that a model can reach. Bounds choose less.
pub const EPOCH_MAX: usize = 4;

/// Bounds of one exploration. Whatever they allow, in whatever order, is tried.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Replicas of the lane at first.
    pub replicas: u8,
    /// Replicas with an empty disk and a new id, who may follow as learners and take a place by a change of the set.
    pub spares: u8,
    /// Whether spares follow leaders before they are in the set. If not, they join with nothing, which safety must stand as well.
    pub learners: bool,
    /// Greatest epoch.
    pub epochs: u8,
    /// Entries in a log, epoch starts among them.
    pub entries: u8,
    /// Crashes, of all replicas together.
    pub crashes: u8,
    /// Whether a crash may tear what was not flushed and keep what was written after it; otherwise it keeps a prefix.
    pub torn: bool,
    /// Durable entries that rot, of all replicas together.
    pub rots: u8,
    /// Disks that are lost.
    pub wipes: u8,
    /// Changes of the replica set.
    pub changes: u8,
    /// Whether a truncation is in force before it is durable, so that a crash may undo it.
    pub lazy_truncation: bool,
    /// The error that is planted.
    pub planted: Planted,
}

impl Config {
    /// Three replicas whose disks and processes do not fail; only messages are late.
    pub const fn new(epochs: u8, entries: u8) -> Config {
        Config {
            replicas: 3,
            spares: 0,
            learners: false,
            epochs,
            entries,
            crashes: 0,
            torn: false,
            rots: 0,
            wipes: 0,
            changes: 0,
            lazy_truncation: false,
            planted: Planted::Nothing,
        }
    }

    /// With this many crashes that keep a prefix of what was not flushed.
    pub const fn crashes(self, crashes: u8) -> Config {
        Config { crashes, ..self }
    }

    /// With this many crashes that may also tear, and leave a hole.
    pub const fn torn(self, crashes: u8) -> Config {
        Config { crashes, torn: true, ..self }
    }

    /// With this many durable entries that rot.
    pub const fn rots(self, rots: u8) -> Config {
        Config { rots, ..self }
    }

    /// With this many lost disks.
    pub const fn wipes(self, wipes: u8) -> Config {
        Config { wipes, ..self }
    }

    /// With one spare replica and one change of the set.
    pub const fn change(self) -> Config {
        Config { spares: 1, changes: 1, ..self }
    }

    /// With spares that follow before they join.
    pub const fn learners(self) -> Config {
        Config { learners: true, ..self }
    }

    /// With truncations that a crash may undo until they are flushed.
    pub const fn lazy_truncation(self) -> Config {
        Config { lazy_truncation: true, ..self }
    }

    /// With `planted`.
    pub const fn plant(self, planted: Planted) -> Config {
        Config { planted, ..self }
    }

    pub(crate) fn has(&self, planted: Planted) -> bool {
        self.planted == planted
    }
}
