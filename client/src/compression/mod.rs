//! Compression of batches. Producers pack, consumers unpack, the broker stores what it is sent:
//! it reads the header, which tells the number of records, and never what is packed behind it.
//!
//! What comes out of a packed batch was checked by nobody but its producer, so nothing in it is
//! believed: no memory is taken for a length that it declares, output ends at
//! [`UNPACKED_BYTES_MAX`], the data must end where the batch ends, and the records are walked as
//! those of a plain batch are. Knows nothing of offsets and of connections.

mod lz4;
#[cfg(test)]
mod tests;
mod zstd;

use corelog_protocol::batch::{BATCH_HEADER_BYTES, BatchError, BatchView, Compression};
use std::fmt;

/// Bytes of the records of one batch once they are unpacked. No larger batch can have been packed
/// by this client: unpacked as well, a batch fits a frame.
pub const UNPACKED_BYTES_MAX: usize = 16 << 20;

/// A buffer that grew beyond this for one large batch is not kept.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Why a packed batch does not unpack. Its checksum is right: it was made so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackFault {
    /// It would have more than [`UNPACKED_BYTES_MAX`].
    TooLarge,
    /// It is not what its codec makes, is cut short, or goes on after its end.
    Garbage,
    /// What came out are not the records that its header tells.
    Records(BatchError),
}

/// Packs a plain batch, unless that would not make it smaller. Producers do it by themselves, see
/// [`ProducerConfig::compression`](crate::engine::ProducerConfig::compression); this is for tools.
#[must_use]
pub fn pack_batch(compression: Compression, mut batch: Vec<u8>) -> Vec<u8> {
    Codec::default().pack(compression, &mut batch);
    batch
}

/// The plain batch that was packed, with its own checksum, or a copy of one that never was.
/// Consumers do it by themselves; this is for tools that read what is stored.
///
/// # Errors
/// A [`PackFault`], whatever the bytes are. At most three times [`UNPACKED_BYTES_MAX`] is allocated
/// on the way, and nothing of that kept.
pub fn unpack_batch(batch: &[u8]) -> Result<Vec<u8>, PackFault> {
    let check = BatchView::check_header(batch).and_then(|view| view.check_crc());
    check.map_err(PackFault::Records)?;
    Codec::default().unpack(batch)
}

/// Packs and unpacks, and keeps buffers and contexts from one batch to the next.
#[derive(Debug, Default)]
pub(crate) struct Codec {
    zstd: zstd::Zstd,
    spare: Vec<u8>,
}

impl Codec {
    /// Packs a plain batch, unless that would not make it smaller. Gives the bytes saved.
    pub(crate) fn pack(&mut self, compression: Compression, batch: &mut Vec<u8>) -> usize {
        let Ok(view) = BatchView::check_header(batch) else { return 0 };
        if compression == Compression::None || view.header().compression != Compression::None {
            return 0;
        }
        let mut packed = std::mem::take(&mut self.spare);
        packed.clear();
        packed.resize(BATCH_HEADER_BYTES, 0);
        let is_packed = match compression {
            Compression::None => false,
            Compression::Lz4 => lz4::pack(view.record_bytes(), &mut packed),
            Compression::Zstd => self.zstd.pack(view.record_bytes(), &mut packed),
        };
        let saved = batch.len().saturating_sub(packed.len());
        if !is_packed || saved == 0 {
            self.spare = packed;
            return 0;
        }
        view.header().seal(compression, &mut packed);
        self.spare = std::mem::replace(batch, packed);
        if self.spare.capacity() > SPARE_BYTES_MAX {
            self.spare = Vec::new();
        }
        saved
    }

    /// The plain batch that was packed. `batch` is one whose header and checksum are right.
    pub(crate) fn unpack(&mut self, batch: &[u8]) -> Result<Vec<u8>, PackFault> {
        let view = BatchView::check_header(batch).map_err(PackFault::Records)?;
        // The header's room in front, the records behind it.
        let mut plain = vec![0; BATCH_HEADER_BYTES];
        let bytes_max = BATCH_HEADER_BYTES + UNPACKED_BYTES_MAX;
        match view.header().compression {
            Compression::None => plain.extend_from_slice(view.record_bytes()),
            Compression::Lz4 => lz4::unpack(view.record_bytes(), &mut plain, bytes_max)?,
            Compression::Zstd => self.zstd.unpack(view.record_bytes(), &mut plain, bytes_max)?,
        }
        view.header().seal(Compression::None, &mut plain);
        let check = BatchView::check_header(&plain).and_then(|view| view.check_records());
        check.map(|()| plain).map_err(PackFault::Records)
    }
}

impl fmt::Display for PackFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => {
                write!(f, "it would have more than {} MiB", UNPACKED_BYTES_MAX >> 20)
            }
            Self::Garbage => f.write_str("it is not what its codec makes"),
            Self::Records(error) => write!(f, "its records are not sound: {error}"),
        }
    }
}
