//! Records that say who they are: every byte of a value follows from its producer, number and length.

use corelog_protocol::batch::BatchView;

/// A record, unique in a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordId {
    pub producer: u32,
    pub sequence: u32,
}

/// The shortest value that carries an identity.
pub const VALUE_BYTES_MIN: usize = 12;

/// The value of a record, of `len` bytes, written into a buffer that is used again.
pub fn write_value(id: RecordId, len: usize, value: &mut Vec<u8>) {
    assert!(len >= VALUE_BYTES_MIN);
    value.clear();
    value.extend_from_slice(&id.producer.to_le_bytes());
    value.extend_from_slice(&id.sequence.to_le_bytes());
    value.extend_from_slice(&(len as u32).to_le_bytes());
    let mut word = pattern(id);
    while value.len() < len {
        word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ 0x5bd1_e995;
        let bytes = word.to_le_bytes();
        let take = bytes.len().min(len - value.len());
        value.extend_from_slice(&bytes[..take]);
    }
}

/// Who a value says it is, if every byte of it agrees.
pub fn read_value(value: &[u8], scratch: &mut Vec<u8>) -> Option<RecordId> {
    let word = |at: usize| value.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let id = RecordId { producer: word(0)?, sequence: word(4)? };
    let len = word(8)? as usize;
    if len != value.len() {
        return None;
    }
    write_value(id, len, scratch);
    (scratch == value).then_some(id)
}

/// Who the records of a batch say they are, in order. Only their first bytes are looked at.
pub fn record_ids<'a>(batch: &BatchView<'a>) -> impl Iterator<Item = RecordId> + 'a {
    let values = batch.records().map_while(Result::ok).filter_map(|record| record.value);
    values.filter_map(|value| {
        let word = |at: usize| value.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        Some(RecordId { producer: word(0)?, sequence: word(4)? })
    })
}

/// The key of a record that has one: few keys, so that they meet.
pub fn key_of(id: RecordId) -> Vec<u8> {
    format!("key-{}", pattern(id) % 13).into_bytes()
}

fn pattern(id: RecordId) -> u64 {
    (u64::from(id.producer) << 32 | u64::from(id.sequence)).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_record_and_any_changed_byte_is_noticed() {
        let id = RecordId { producer: 3, sequence: 900 };
        let (mut value, mut scratch) = (Vec::new(), Vec::new());
        for len in [12, 13, 20, 777] {
            write_value(id, len, &mut value);
            assert_eq!(read_value(&value, &mut scratch), Some(id));
            for at in 0..len {
                value[at] ^= 1;
                assert_ne!(read_value(&value, &mut scratch), Some(id), "byte {at} of {len}");
                value[at] ^= 1;
            }
            assert_eq!(read_value(&value[..len - 1], &mut scratch), None);
        }
    }
}
