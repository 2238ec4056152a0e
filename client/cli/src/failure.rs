//! What can go wrong, each with an exit code of its own, and with the fix if there is one.

use std::io;
use std::process::ExitCode;

use corelog::{ConsumeError, Error, ErrorCode, NoPlan, Obstacle};

/// For `corelog --help`, and the README.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, also if whoever read the output stopped reading
  1  refused or failed, and nothing was changed
  2  the command line or the input is wrong
  3  no broker answers
  4  no such topic, partition, lane or broker
  5  the topic exists already
  6  some records were certainly not stored
  7  it is not known whether something was done or stored
  8  the place asked for is not in the partition, or the data there is damaged";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Refused = 1,
    Input = 2,
    Unreachable = 3,
    NotFound = 4,
    Exists = 5,
    NotStored = 6,
    Unknown = 7,
    Unreadable = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ends early.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub exit: Exit,
    /// Names the topic, partition, offset, line or file.
    pub what: String,
    /// What to do about it.
    pub fix: Option<String>,
    /// Nothing is wrong: whoever read the output has gone.
    pub is_quiet: bool,
}

impl Failure {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), fix: None, is_quiet: false }
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub fn unreachable(broker: &str, why: &str) -> Self {
        Self::new(Exit::Unreachable, format!("no broker answers at {broker} ({why})"))
            .fix("start one with `corelogd`, or name another with --broker or CORELOG_BROKER")
    }

    /// A request about the broker failed.
    pub fn of_broker(broker: &str, error: &Error) -> Self {
        Self::of_request(broker, "", error)
    }

    /// A request about a topic failed.
    pub fn of_topic(broker: &str, topic: &str, error: &Error) -> Self {
        let mut failure = Self::of_request(broker, topic, error);
        if failure.exit == Exit::Unknown {
            failure.fix = Some(format!("`corelog topic describe {topic}` shows how it is now"));
        }
        failure
    }

    /// `topic` is empty if it is about none.
    fn of_request(broker: &str, topic: &str, error: &Error) -> Self {
        let what = |text: &str| match topic {
            "" => text.to_owned(),
            topic => format!("topic {topic}: {text}"),
        };
        match error {
            Error::UnknownTopic(topic) => {
                Self::new(Exit::NotFound, format!("there is no topic {topic}")).fix(format!(
                    "`corelog topic list` shows what there is; make it with `corelog topic create {topic}`"
                ))
            }
            Error::UnknownPartition { topic, partition } => {
                Self::new(Exit::NotFound, format!("topic {topic} has no partition {partition}"))
                    .fix(format!("`corelog topic describe {topic}` shows those that it has"))
            }
            Error::Obstructed(Obstacle::UnknownBroker { .. } | Obstacle::UnknownLane { .. }) => {
                Self::new(Exit::NotFound, what(&error.to_string()))
                    .fix("`corelog cluster status` shows what there is")
            }
            Error::Obstructed(obstacle) => {
                let failure = Self::new(Exit::Refused, what(&format!("not done: {obstacle}")));
                match obstacle.is_passing() {
                    true => failure.fix("try again in a moment"),
                    false => failure,
                }
            }
            Error::NoPlan(NoPlan::UnknownBroker { .. }) => {
                Self::new(Exit::NotFound, what(&error.to_string()))
                    .fix("`corelog cluster status` shows what there is")
            }
            Error::NoPlan(why) => {
                let failure = Self::new(Exit::Refused, what(&format!("not done: {why}")));
                match why {
                    NoPlan::NoPlace { .. } => {
                        failure.fix("start another broker with `join = true`, or undrain one")
                    }
                    NoPlan::NobodyKnows | NoPlan::LoadNotKnown { .. } => {
                        failure.fix("try again in a moment")
                    }
                    _ => failure,
                }
            }
            Error::Unfinished { .. } => Self::new(Exit::Unknown, what(&error.to_string()))
                .fix("`corelog cluster status` shows how far it is"),
            Error::Unreachable => Self::unreachable(broker, "no answer in time"),
            Error::DeadlineExceeded { sent: false } => {
                Self::new(Exit::Unreachable, what(&error.to_string()))
                    .fix("give it more time with --timeout")
            }
            Error::Refused(refusal) => match refusal.code {
                ErrorCode::TopicExists => {
                    Self::new(Exit::Exists, format!("there is a topic {topic} already")).fix(
                        format!("change it with `corelog topic alter {topic}`, or create with --if-missing"),
                    )
                }
                ErrorCode::UnknownTopic => {
                    Self::new(Exit::NotFound, what(&refusal.message))
                }
                code => {
                    let text = match &*refusal.message {
                        "" => code.to_string(),
                        message => format!("{message} ({code})"),
                    };
                    let exit = if code.is_definite() { Exit::Refused } else { Exit::Unknown };
                    let failure = Self::new(exit, what(&text));
                    match code {
                        ErrorCode::InvalidTopic => failure
                            .fix("use 1 to 249 letters, digits, dots, hyphens and underscores"),
                        ErrorCode::StorageFull => {
                            failure.fix("free room on the broker's disk; it goes on by itself then")
                        }
                        ErrorCode::Unsupported => {
                            failure.fix("the broker is of another version: use its command line")
                        }
                        code if code.may_retry() => failure.fix("try again in a moment"),
                        _ => failure,
                    }
                }
            },
            Error::OffsetOutOfRange { .. }
            | Error::RangeCorrupt { .. }
            | Error::Unpack { .. }
            | Error::CorruptEntry { .. }
            | Error::NotDense { .. } => Self::new(Exit::Unreadable, what(&error.to_string())),
            Error::InvalidArgument(_) | Error::InvalidRecord(_) => {
                Self::new(Exit::Input, what(&error.to_string()))
            }
            error if error.is_definite() => Self::new(Exit::Refused, what(&error.to_string())),
            error => Self::new(Exit::Unknown, what(&error.to_string())),
        }
    }

    /// A partition cannot be read on.
    pub fn of_read(broker: &str, error: &ConsumeError) -> Self {
        let ConsumeError { topic, partition, error } = error;
        let named = |text: String| format!("topic {topic}, partition {partition}: {text}");
        match error {
            Error::OffsetOutOfRange { log_start, .. } => {
                Self::new(Exit::Unreadable, named(error.to_string())).fix(format!(
                    "records are kept from offset {log_start} on: --partition {partition} --from offset:{log_start}"
                ))
            }
            Error::RangeCorrupt { end, .. } | Error::Unpack { end, .. } => {
                Self::new(Exit::Unreadable, named(error.to_string())).fix(format!(
                    "read on behind it: --partition {partition} --from offset:{end}"
                ))
            }
            Error::CorruptEntry { .. } | Error::NotDense { .. } => {
                Self::new(Exit::Unreadable, named(error.to_string()))
            }
            error => Self::of_topic(broker, topic, error),
        }
    }

    /// Tells it on stderr: two lines, or one JSON object.
    pub fn report(&self, json: bool) {
        // If stderr is closed, there is nobody to tell.
        let mut stderr = io::stderr().lock();
        let _ = if json {
            let told = serde_json::json!({
                "error": { "message": self.what, "fix": self.fix, "exit": self.exit as u8 }
            });
            io::Write::write_fmt(&mut stderr, format_args!("{told}\n"))
        } else {
            let fix = self.fix.as_ref().map(|fix| format!("  fix: {fix}\n")).unwrap_or_default();
            io::Write::write_fmt(&mut stderr, format_args!("corelog: {}\n{fix}", self.what))
        };
    }
}

/// Of writing the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let mut failure = Self::new(Exit::Refused, format!("cannot write the output: {error}"));
        failure.is_quiet = error.kind() == io::ErrorKind::BrokenPipe;
        failure
    }
}
