//! What happened, as one number, and as its last lines for whoever must understand a failure.

use std::collections::VecDeque;
use std::fmt;

const LINES_MAX: usize = 1_000_000;

#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    /// Kept only on request: text costs more than the simulation itself.
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub fn new(keep_lines: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: keep_lines.then(VecDeque::new) }
    }

    /// Adds numbers that say what happened: to whom, what, when, how much.
    pub fn mix(&mut self, numbers: &[u64]) {
        self.events += 1;
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    /// Adds a line of text, made only if lines are kept.
    pub fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{:>4}.{:06} ms  {}", now / 1_000_000, now % 1_000_000, text()));
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flatten().map(String::as_str)
    }
}

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// As in the design: `I2`; or what else broke.
    pub invariant: &'static str,
    pub text: String,
}

impl Violation {
    pub fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self { invariant, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}

/// What a check says.
pub type Checked = Result<(), Violation>;
