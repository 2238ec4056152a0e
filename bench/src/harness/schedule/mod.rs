//! When messages are meant to be sent. A schedule knows no clock: it lists intended times, in nanoseconds from the start
//! of the run, and whoever sends is late or not.
//!
//! One file per kind. What they have in common is [`Schedule`].

mod constant;
mod piecewise;
mod poisson;
mod spike;
mod step;
mod trace;

use serde::{Deserialize, Serialize};

pub use poisson::Poisson;
pub use trace::Trace;

const SECOND: f64 = 1e9;

/// Intended times, in order. `None`: nothing more is meant to be sent.
pub trait Schedule: Send {
    fn next(&mut self) -> Option<u64>;
}

/// `[schedule]` of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Plan {
    /// At even distances.
    Constant { per_second: f64 },
    /// At random moments, independent of each other.
    Poisson { per_second: f64 },
    /// Evenly, first at one rate and at last at another, in equal steps.
    Step { from_per_second: f64, to_per_second: f64, steps: u32 },
    /// Evenly, and for a while so many times as often.
    Spike { per_second: f64, times: f64, at_seconds: f64, for_seconds: f64 },
    /// At the times listed in a file, seconds from the start, one on each line.
    Trace { file: String },
    /// Closed loop: so many messages are without an answer at any time, and each answer has the next one sent. What
    /// is slow is then asked less often, so its times say nothing about latency, and none is told.
    Closed { in_flight: u32 },
}

impl Plan {
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    /// The schedule of an open loop over so many seconds; `None` for a closed one. `times`: of a trace.
    pub fn schedule(&self, seconds: f64, seed: u64, times: &[u64]) -> Option<Box<dyn Schedule>> {
        let end = (seconds * SECOND) as u64;
        Some(match *self {
            Self::Constant { per_second } => Box::new(constant::constant(per_second, end)),
            Self::Poisson { per_second } => Box::new(Poisson::new(per_second, end, seed)),
            Self::Step { from_per_second, to_per_second, steps } => {
                Box::new(step::step(from_per_second, to_per_second, steps, end))
            }
            Self::Spike { per_second, times, at_seconds, for_seconds } => {
                Box::new(spike::spike(per_second, times, at_seconds, for_seconds, end))
            }
            Self::Trace { .. } => Box::new(Trace::new(times.to_vec(), end)),
            Self::Closed { .. } => return None,
        })
    }

    /// The same over a time that is so many times as long.
    #[must_use]
    pub fn scaled(&self, scale: f64) -> Self {
        let mut scaled = self.clone();
        if let Self::Spike { at_seconds, for_seconds, .. } = &mut scaled {
            *at_seconds *= scale;
            *for_seconds *= scale;
        }
        scaled
    }

    /// What is wrong with it: the field, and why.
    pub fn check(&self) -> Result<(), String> {
        let positive = |field: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(format!("`schedule.{field}` is {value}: it must be above 0")),
        };
        match *self {
            Self::Constant { per_second } | Self::Poisson { per_second } => {
                positive("per_second", per_second)
            }
            Self::Step { from_per_second, to_per_second, steps } => {
                positive("from_per_second", from_per_second)?;
                positive("to_per_second", to_per_second)?;
                positive("steps", f64::from(steps))
            }
            Self::Spike { per_second, times, at_seconds, for_seconds } => {
                positive("per_second", per_second)?;
                positive("times", times)?;
                positive("at_seconds", at_seconds)?;
                positive("for_seconds", for_seconds)
            }
            Self::Trace { .. } => Ok(()),
            Self::Closed { in_flight } => positive("in_flight", f64::from(in_flight)),
        }
    }
}

#[cfg(test)]
fn all(mut schedule: impl Schedule) -> Vec<u64> {
    std::iter::from_fn(|| schedule.next()).collect()
}

#[cfg(test)]
fn count_within(times: &[u64], seconds: std::ops::Range<f64>) -> usize {
    let inside = |time: &&u64| seconds.contains(&(**time as f64 / SECOND));
    times.iter().filter(inside).count()
}
