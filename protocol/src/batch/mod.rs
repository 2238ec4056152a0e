//! The unit in which records travel and are stored. Built once, by the producer.
//!
//! ```text
//! ┌──────────────┬────────┬────────┬───
//! │ header, 48 B │ record │ record │ …       the same bytes on the wire, on disk and in a fetch
//! └──────────────┴────────┴────────┴───
//! ```
//! - [`BatchBuilder`] writes one, in a buffer that it uses again.
//! - [`BatchView`] reads one without copying. Its checks are separate calls, so that the broker
//!   does each exactly once: [`BatchView::check_header`] when the header is there,
//!   [`BatchView::check_crc`] and [`BatchView::check_records`] when the whole batch is.
//!
//! The offset of a record is the entry's base offset plus the record's index: no offset is stored.

mod builder;
mod check;
mod error;
mod header;
mod record;
#[cfg(test)]
mod tests;
mod varint;
mod view;

pub use builder::{BatchBuilder, PushError};
pub use check::RecordCheck;
pub use error::{BatchError, RecordFault};
pub use header::{
    BATCH_FORMAT, BATCH_HEADER_BYTES, BatchHeader, Compression, RECORD_BYTES_MIN,
    RECORDS_PER_BATCH_MAX, UnknownCompression, set_producer,
};
pub use record::{
    HEADER_NAME_BYTES_MAX, HEADERS_PER_RECORD_MAX, Header, Headers, NewRecord, Record,
    record_bytes_max,
};
pub use view::{BatchView, RecordCursor, Records};
