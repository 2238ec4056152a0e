//! The one error of all control decoders: the bytes are intact, but they do not say anything.

use std::error::Error;
use std::fmt;

use crate::error_code::ErrorCode;

/// A control part that breaks a rule of its kind. Answered with [`ErrorCode::Malformed`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedError {
    /// The rule that was broken, for a log line.
    pub reason: &'static str,
}

impl MalformedError {
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason }
    }

    /// What to answer.
    pub const fn code(self) -> ErrorCode {
        ErrorCode::Malformed
    }
}

impl fmt::Display for MalformedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed control: {}", self.reason)
    }
}

impl Error for MalformedError {}
