//! One record: to be written, and as it is read.
//!
//! ```text
//! length │ timestamp delta │ key length + 1 │ key │ value length + 1 │ value │ headers │ header …
//!                                                    header: name length │ name │ value length + 1 │ value
//! ```
//! All numbers are varints; the timestamp delta is zigzag; a length + 1 of 0 means null.

use std::iter::FusedIterator;

use super::error::RecordFault;
use super::varint::{VARINT_BYTES_MAX, put_varint, take_varint, unzigzag, varint_bytes, zigzag};

/// Headers of a record.
pub const HEADERS_PER_RECORD_MAX: usize = 256;

/// A header's name. 256 names of 255 bytes are just below 64 KiB, so that checking a single record
/// stays within what a step may touch.
pub const HEADER_NAME_BYTES_MAX: usize = 255;

/// A name and perhaps a value, beside the record's own value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Any UTF-8 of at most [`HEADER_NAME_BYTES_MAX`]. Names may repeat.
    pub name: &'a str,
    /// `None` is null, which differs from empty.
    pub value: Option<&'a [u8]>,
}

/// A record to be added to a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NewRecord<'a> {
    /// ms since 1970.
    pub timestamp: i64,
    /// `None` is null, which differs from empty.
    pub key: Option<&'a [u8]>,
    /// `None` is null, which differs from empty. With a key: a deletion, where keys are compacted.
    pub value: Option<&'a [u8]>,
    /// In order. At most [`HEADERS_PER_RECORD_MAX`].
    pub headers: &'a [Header<'a>],
}

/// A record of a batch. Borrows the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its place in the batch: its offset is the entry's base offset plus this.
    pub index: u32,
    /// ms since 1970.
    pub timestamp: i64,
    /// `None` is null, which differs from empty.
    pub key: Option<&'a [u8]>,
    /// `None` is null, which differs from empty.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

/// The headers of a record, in order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Headers<'a> {
    remaining: u16,
    /// Walked once when the record was read: well-formed.
    bytes: &'a [u8],
}

/// More bytes than such a record takes in a batch: a quick bound before it is built.
#[must_use]
pub fn record_bytes_max(record: &NewRecord<'_>) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| header.name.len() + nullable_len(header.value) + 2 * VARINT_BYTES_MAX)
        .sum();
    nullable_len(record.key) + nullable_len(record.value) + headers + 5 * VARINT_BYTES_MAX
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(0, <[u8]>::len)
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint_bytes(bytes.len() as u64 + 1) + bytes.len(),
        None => 1,
    }
}

impl NewRecord<'_> {
    pub(crate) fn headers_are_in_bounds(&self) -> bool {
        self.headers.len() <= HEADERS_PER_RECORD_MAX
            && self.headers.iter().all(|header| header.name.len() <= HEADER_NAME_BYTES_MAX)
    }

    /// Bytes after the length, and with it.
    pub(crate) fn encoded_bytes(&self, timestamp_delta: i64) -> (usize, usize) {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| {
                let len = header.name.len();
                varint_bytes(len as u64) + len + nullable_bytes(header.value)
            })
            .sum();
        let inner = varint_bytes(zigzag(timestamp_delta))
            + nullable_bytes(self.key)
            + nullable_bytes(self.value)
            + varint_bytes(self.headers.len() as u64)
            + headers;
        (inner, varint_bytes(inner as u64) + inner)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, inner: usize, timestamp_delta: i64) {
        put_varint(out, inner as u64);
        put_varint(out, zigzag(timestamp_delta));
        put_nullable(out, self.key);
        put_nullable(out, self.value);
        put_varint(out, self.headers.len() as u64);
        for header in self.headers {
            put_varint(out, header.name.len() as u64);
            out.extend_from_slice(header.name.as_bytes());
            put_nullable(out, header.value);
        }
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
        None => out.push(0),
    }
}

impl<'a> Record<'a> {
    /// The headers, in order.
    pub const fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// Takes the record with this index off the front of `bytes`. Every part of it is checked,
    /// its headers too.
    #[inline]
    pub(crate) fn take(
        bytes: &mut &'a [u8],
        index: u32,
        base_timestamp: i64,
        max_timestamp: i64,
    ) -> Result<Self, RecordFault> {
        let mut inner = take_bytes_of_length(bytes)?;
        let delta = unzigzag(take_part(&mut inner)?);
        let timestamp = match base_timestamp.checked_add(delta) {
            Some(timestamp) if timestamp <= max_timestamp => timestamp,
            _ => return Err(RecordFault::Timestamp),
        };
        let key = take_nullable(&mut inner)?;
        let value = take_nullable(&mut inner)?;
        let count = take_part(&mut inner)?;
        if count > HEADERS_PER_RECORD_MAX as u64 {
            return Err(RecordFault::HeaderCount);
        }
        let headers = Headers { remaining: count as u16, bytes: inner };
        for _ in 0..count {
            take_header(&mut inner)?;
        }
        if !inner.is_empty() {
            return Err(RecordFault::Length);
        }
        Ok(Self { index, timestamp, key, value, headers })
    }
}

/// A number inside a record. The record's length is known, so running out means that it lied.
#[inline]
fn take_part(inner: &mut &[u8]) -> Result<u64, RecordFault> {
    take_varint(inner).map_err(|fault| match fault {
        RecordFault::Truncated => RecordFault::Length,
        fault => fault,
    })
}

#[inline]
fn take_bytes_of_length<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], RecordFault> {
    let len = take_varint(bytes)?;
    split(bytes, len).ok_or(RecordFault::Truncated)
}

#[inline]
fn take_nullable<'a>(inner: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordFault> {
    match take_part(inner)? {
        0 => Ok(None),
        len_and_one => split(inner, len_and_one - 1).map(Some).ok_or(RecordFault::Length),
    }
}

#[inline]
fn take_header<'a>(inner: &mut &'a [u8]) -> Result<Header<'a>, RecordFault> {
    let len = take_part(inner)?;
    if len > HEADER_NAME_BYTES_MAX as u64 {
        return Err(RecordFault::HeaderName);
    }
    let name = split(inner, len).ok_or(RecordFault::Length)?;
    let name = str::from_utf8(name).map_err(|_| RecordFault::HeaderName)?;
    let value = take_nullable(inner)?;
    Ok(Header { name, value })
}

/// Takes `len` bytes off the front.
#[inline]
fn split<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(front)
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.remaining == 0 {
            return None;
        }
        // Walked before, so this cannot fail; if it did, the list would just end.
        let header = take_header(&mut self.bytes).ok()?;
        self.remaining -= 1;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let remaining = usize::from(self.remaining);
        (remaining, Some(remaining))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}
