//! LEB128 numbers in their shortest form: one number, one encoding.

use super::error::RecordFault;

/// The longest encoding of a u64.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Bytes that `value` takes.
#[inline]
pub(crate) const fn varint_bytes(value: u64) -> usize {
    // 7 bits a byte; 0 takes one byte like 1 does.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Adds `value` to `out`.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front of `bytes`.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64, RecordFault> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Err(RecordFault::Truncated);
    };
    if first < 0x80 {
        *bytes = rest;
        return Ok(u64::from(first));
    }
    take_long_varint(bytes)
}

fn take_long_varint(bytes: &mut &[u8]) -> Result<u64, RecordFault> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        // The tenth byte has room for one bit.
        if index == VARINT_BYTES_MAX - 1 && byte > 1 {
            return Err(RecordFault::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            if byte == 0 {
                return Err(RecordFault::Varint);
            }
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    Err(RecordFault::Truncated)
}

/// Small numbers of either sign become small numbers.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The way back.
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back_in_their_shortest_form() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u64::MAX]) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_bytes(value), "{value}");
            let mut bytes = &out[..];
            assert_eq!(take_varint(&mut bytes), Ok(value));
            assert!(bytes.is_empty());
            for cut in 0..out.len() {
                assert_eq!(take_varint(&mut &out[..cut]), Err(RecordFault::Truncated));
            }
        }
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn long_forms_and_overflow_are_rejected() {
        assert_eq!(take_varint(&mut &[0x80, 0x00][..]), Err(RecordFault::Varint));
        let overflow = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(take_varint(&mut &overflow[..]), Err(RecordFault::Varint));
        assert_eq!(take_varint(&mut &[0xff; 11][..]), Err(RecordFault::Varint));
    }
}
