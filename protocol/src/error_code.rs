//! Why a request was not done, as a number that travels.
//!
//! A code is *definite* if the request had no effect and never will. Everything else leaves the
//! sender in doubt, and it must say so to its user (I5).

use std::fmt;

macro_rules! error_codes {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $definite:ident, $retry:ident; )*) => {
        /// A typed refusal or failure. The numbers are the wire's, and are never reused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum ErrorCode {
            $( $(#[$doc])* $name = $number, )*
        }

        impl ErrorCode {
            /// All codes, by number.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The code with this number. A number from a newer broker becomes
            /// [`ErrorCode::Unrecognised`]; 0, which means "no error", becomes `None`.
            pub const fn from_wire(value: u16) -> Option<Self> {
                match value {
                    0 => None,
                    $( $number => Some(Self::$name), )*
                    _ => Some(Self::Unrecognised),
                }
            }

            /// Its name, as in the documentation.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }

            /// Whether the request certainly had no effect and never will.
            pub const fn is_definite(self) -> bool {
                match self { $( Self::$name => error_codes!(@ $definite), )* }
            }

            /// Whether the same request may succeed later, or at the place that the answer names.
            /// Retrying an indefinite failure of a produce may store it twice, unless the producer
            /// has an id for deduplication.
            pub const fn may_retry(self) -> bool {
                match self { $( Self::$name => error_codes!(@ $retry), )* }
            }
        }
    };
    (@ definite) => { true };
    (@ indefinite) => { false };
    (@ retry) => { true };
    (@ final_) => { false };
}

error_codes! {
    // The conversation itself.
    /// The frame is intact, but its control part breaks a rule of its kind.
    Malformed = 1, definite, final_;
    /// The kind, version or flag is not known here. The answer names the versions that are.
    Unsupported = 2, definite, final_;
    /// Longer than the cap in force. The connection is closed after this answer.
    FrameTooLarge = 3, definite, final_;
    /// The connection has not said hello yet.
    HelloRequired = 4, definite, final_;
    /// The request needs an authenticated connection.
    AuthRequired = 5, definite, final_;
    /// The credentials are wrong. The same for an unknown user.
    AuthFailed = 6, definite, final_;
    /// Authenticated, but not allowed. The same for a thing that does not exist.
    AccessDenied = 7, definite, final_;
    /// The client is of another cluster, or has met another incarnation of this broker.
    WrongCluster = 8, definite, final_;
    /// The broker was removed from its cluster: the one that answers, or the one that asked. Others serve.
    BrokerRemoved = 9, definite, final_;

    // Things that have names.
    /// No topic of this name or id.
    UnknownTopic = 16, definite, final_;
    /// No partition of this id or number.
    UnknownPartition = 17, definite, final_;
    /// A topic of this name exists.
    TopicExists = 18, definite, final_;
    /// The topic name breaks a rule.
    InvalidTopic = 19, definite, final_;
    /// A setting is out of its bounds.
    InvalidConfig = 20, definite, final_;
    /// A bound on how many things there may be is reached.
    LimitReached = 21, definite, final_;

    // Data.
    /// The offset is below the log start or above the end.
    OffsetOutOfRange = 32, definite, final_;
    /// The batch's checksum does not match: damaged on its way. Nothing was appended.
    CorruptBatch = 33, definite, retry;
    /// The batch's counts, lengths, times or enums contradict each other. Nothing was appended.
    InvalidBatch = 34, definite, final_;
    /// The stored range is damaged here. The rest of the partition can be read.
    RangeCorrupt = 35, definite, final_;

    // The state of the broker.
    /// No memory or queue place now. Try again after the hint.
    Overloaded = 48, definite, retry;
    /// Above the client's quota. Try again after the hint.
    QuotaExceeded = 49, definite, retry;
    /// No room on the disk. Nothing was appended; reads go on.
    StorageFull = 50, definite, retry;
    /// The directory had failed before this request came. Nothing was appended.
    StorageUnavailable = 51, definite, retry;
    /// The directory failed under this request: it may or may not survive.
    StorageFailed = 52, indefinite, final_;
    /// The deadline passed before the request was begun.
    Expired = 53, definite, final_;
    /// The deadline passed while the request was under way.
    DeadlineExceeded = 54, indefinite, final_;
    /// The broker is stopping and had not begun this request.
    Stopping = 55, definite, retry;
    /// The broker cannot say what became of the request.
    OutcomeUnknown = 56, indefinite, final_;
    /// The broker is still recovering this lane.
    Recovering = 57, definite, retry;
    /// A bug of the broker.
    Internal = 58, indefinite, final_;

    // Leadership.
    /// Another broker leads this lane. Ask it.
    NotLeader = 64, definite, retry;
    /// The partition continues in another lane.
    Moved = 65, definite, retry;
    /// The sender's epoch or incarnation is out of date.
    Fenced = 66, definite, final_;
    /// Too few replicas for the wanted durability; nothing was appended.
    NoQuorum = 67, definite, retry;

    // Deduplication.
    /// The sequence leaves a gap after the last batch of this producer. Nothing was appended.
    OutOfOrder = 80, definite, final_;
    /// Nothing is remembered of this producer id, and the sequence is not 0, or the batch was sent before.
    UnknownProducer = 81, definite, final_;
    /// The same sequence with other bytes.
    DuplicateMismatch = 82, definite, final_;
    /// A newer epoch of this producer id has written.
    ProducerFenced = 83, definite, final_;
    /// The batch was appended before, and so many of its producer have come since that its offset is not
    /// remembered.
    DuplicateForgotten = 84, indefinite, final_;

    // 96 to 127 are reserved for groups, 128 to 159 for queues.
    /// A number that this version does not know. Never sent.
    Unrecognised = 65535, indefinite, final_;
}

impl ErrorCode {
    /// Its number on the wire.
    pub const fn to_wire(self) -> u16 {
        self as u16
    }

    /// The number of "perhaps an error": 0 for none.
    pub const fn option_to_wire(code: Option<Self>) -> u16 {
        match code {
            Some(code) => code.to_wire(),
            None => 0,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back_and_grow() {
        let mut last = 0;
        for &code in ErrorCode::ALL {
            assert!(code.to_wire() > last, "{code} is out of order");
            last = code.to_wire();
            assert_eq!(ErrorCode::from_wire(code.to_wire()), Some(code));
        }
        assert_eq!(ErrorCode::from_wire(0), None);
        assert_eq!(ErrorCode::from_wire(10), Some(ErrorCode::Unrecognised));
        assert_eq!(ErrorCode::option_to_wire(None), 0);
    }

    #[test]
    fn an_indefinite_failure_is_never_retried_blindly() {
        for &code in ErrorCode::ALL {
            assert!(code.is_definite() || !code.may_retry(), "{code}");
        }
    }
}
