//! A record on its way to the broker: borrowed, and copied once, into its batch.

use crate::Durability;
use corelog_protocol::batch::Header;

/// A record to be sent. Borrows everything: it is copied once, into the batch that is sent.
///
/// ```
/// # use corelog::{Record, Durability};
/// let record = Record::to("orders").key(b"customer 7").value(b"3 apples").level(Durability::LeaderDurable);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub topic: &'a str,
    /// None: by the key's hash, or without a key by the producer's partitioner.
    pub partition: Option<u32>,
    pub key: Option<&'a [u8]>,
    /// None is a tombstone, which differs from an empty value.
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header<'a>],
    /// Milliseconds since the Unix epoch. None: the time of the call.
    pub timestamp_ms: Option<i64>,
    /// None: the producer's default.
    pub level: Option<Durability>,
    /// Ask the broker where the time went.
    pub stages: bool,
}

impl<'a> Record<'a> {
    #[must_use]
    pub const fn to(topic: &'a str) -> Self {
        Self {
            topic,
            partition: None,
            key: None,
            value: None,
            headers: &[],
            timestamp_ms: None,
            level: None,
            stages: false,
        }
    }

    #[must_use]
    pub const fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    #[must_use]
    pub fn key<B: AsRef<[u8]> + ?Sized>(mut self, key: &'a B) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    #[must_use]
    pub fn value<B: AsRef<[u8]> + ?Sized>(mut self, value: &'a B) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    #[must_use]
    pub const fn headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = headers;
        self
    }

    #[must_use]
    pub const fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    #[must_use]
    pub const fn level(mut self, level: Durability) -> Self {
        self.level = Some(level);
        self
    }

    #[must_use]
    pub const fn stages(mut self) -> Self {
        self.stages = true;
        self
    }
}
