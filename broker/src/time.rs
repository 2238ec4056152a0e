//! Time, as it is handed to the state machines. Nothing in this crate outside `driver/` asks a
//! clock; a step learns the time from its argument.

use std::fmt;
use std::ops::{Add, Sub};

/// Nanoseconds on a clock that never goes back. Means nothing across a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Monotonic(pub u64);

/// Milliseconds since the Unix epoch. May jump; used for append times and retention only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Wall(pub i64);

/// The time of a step.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Now {
    pub monotonic: Monotonic,
    pub wall: Wall,
}

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Nanos(pub u64);

impl Nanos {
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros * 1_000)
    }
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Add<Nanos> for Monotonic {
    type Output = Self;
    /// Saturates: a deadline beyond 584 years is "never".
    fn add(self, length: Nanos) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

impl Sub for Monotonic {
    type Output = Nanos;
    /// Saturates at zero: completions may be stamped a little before the step that sees them.
    fn sub(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Monotonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
