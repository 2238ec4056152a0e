//! The input as a list of numbers and byte strings, and the other way round for seeds.

use arbitrary::Unstructured;
use corelog_protocol::checksum::crc32c;
use corelog_protocol::frame::FRAME_HEADER_BYTES;

/// Read from front to end. Behind the end everything is 0.
#[derive(Debug)]
pub struct Tape<'a>(Unstructured<'a>);

impl<'a> Tape<'a> {
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self(Unstructured::new(input))
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub fn u32(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub fn u64(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// One of `count`, which must not be 0.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.u8()) % count
    }

    /// A length, then so many bytes, or as many as there are.
    pub fn bytes(&mut self) -> &'a [u8] {
        let wanted = usize::from(self.u16());
        let len = wanted.min(self.0.len());
        self.0.bytes(len).unwrap_or_default()
    }

    /// Everything that is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    /// Changes a few bytes, or none.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.u8() % 4 {
            let (at, value) = (usize::from(self.u16()), self.u8());
            if value == 0 {
                bytes.truncate(bytes.len() - at.min(bytes.len()));
            } else if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
    }
}

/// Writes what a [`Tape`] reads.
#[derive(Clone, Default, Debug)]
pub struct Script(pub Vec<u8>);

impl Script {
    #[must_use]
    pub fn numbers(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.numbers(&value.to_le_bytes())
    }

    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.numbers(&value.to_le_bytes())
    }

    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.numbers(&value.to_le_bytes())
    }

    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.u16(bytes.len() as u16).numbers(bytes)
    }
}

/// Makes the checksums of a frame's header right again, so that what is behind them is reached too.
pub fn mend_frame(bytes: &mut [u8]) {
    let Some((header, rest)) = bytes.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else { return };
    let control_len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if let Some(control) = rest.get(..control_len as usize) {
        header[24..28].copy_from_slice(&crc32c(control).to_le_bytes());
    }
    let crc = crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the first four bytes the CRC32C of the rest, as in a batch.
pub fn mend_body(bytes: &mut [u8]) {
    if let Some((crc, rest)) = bytes.split_first_chunk_mut::<4>() {
        *crc = crc32c(rest).to_le_bytes();
    }
}
