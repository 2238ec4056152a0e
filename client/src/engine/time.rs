//! Time, as it is handed to the engine. Nothing in the engine asks a clock.

/// Nanoseconds on a clock that never goes back. Its zero means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// This time and `nanos` more. Saturates: beyond 584 years is "never".
    #[must_use]
    pub const fn after(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds since `earlier`, 0 if that lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time of a step.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Now {
    pub monotonic: Monotonic,
    /// Milliseconds since the Unix epoch: the timestamp of records that bring none.
    pub wall_ms: i64,
}

pub(crate) const MILLIS: u64 = 1_000_000;
