//! Which partition a record goes to. Keys hash as in Kafka's default partitioner, so that data
//! keyed by either system's producers meets in the same partitions.

/// Where records without key and without partition go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Partitioner {
    /// Stay with one partition until its batch leaves, then take the next: fuller batches.
    Sticky,
    /// The next partition for every record.
    RoundRobin,
}

/// Murmur2 over `bytes`, 32 bits, as Kafka's Java client computes it.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    // Kafka's seed. The length is an i32 there; keys beyond 2 GiB do not exist in either system.
    let mut h: u32 = 0x9747_b28c ^ (bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0u32, |k, &byte| k << 8 | u32::from(byte));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0u32, |k, &byte| k << 8 | u32::from(byte));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^= h >> 15;
    h as i32
}

/// The partition of `key` among `partitions`.
///
/// # Panics
/// If `partitions` is 0.
#[must_use]
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0);
    // Kafka's `toPositive` clears the sign bit rather than take the absolute value.
    (murmur2(key) as u32 & 0x7fff_ffff) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_the_values_of_kafkas_own_tests() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_gives_a_partition_in_range() {
        // -973,932,308 without its sign bit is 1,173,551,340.
        assert_eq!(partition_of_key(b"21", 7), 1_173_551_340 % 7);
        assert_eq!(partition_of_key(b"21", 1), 0);
    }
}
