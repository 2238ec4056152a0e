//! Little-endian fields at fixed places. The arrays have a known length and the places are
//! constants, so the bounds checks fold away.

#[inline]
pub(crate) fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(crate) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
pub(crate) fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[inline]
pub(crate) fn i64_at<const N: usize>(bytes: &[u8; N], at: usize) -> i64 {
    u64_at(bytes, at).cast_signed()
}

#[inline]
pub(crate) fn put<const N: usize, const M: usize>(bytes: &mut [u8; N], at: usize, field: [u8; M]) {
    bytes[at..at + M].copy_from_slice(&field);
}

/// `len` rounded up to a multiple of 8.
#[inline]
pub(crate) const fn pad8(len: usize) -> usize {
    len.next_multiple_of(8)
}
