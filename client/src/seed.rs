//! A seed that no other client has: 64 bits from the operating system, by way of the keys that the standard library
//! draws for its hash maps.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

pub(crate) fn fresh() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_are_the_same() {
        let mut seeds: Vec<u64> = (0..1_000).map(|_| super::fresh()).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 1_000);
    }
}
