//! Records whose bytes follow from who sent them, and as what.
//!
//! ```text
//! value:  seed u64 │ producer u32 │ length u32 │ number u64 │ filler, by all of these
//! ```

/// Bytes in front of the filler, and so the least length of a value.
pub const HEAD_BYTES: usize = 24;

/// Who sent a record, and as its how-manieth. Numbers of a producer are dense from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    pub producer: u32,
    pub number: u64,
}

/// Writes the value of a record into `value`. `bytes` is at least [`HEAD_BYTES`].
pub fn fill(seed: u64, identity: Identity, bytes: usize, value: &mut Vec<u8>) {
    assert!(bytes >= HEAD_BYTES);
    value.resize(bytes, 0);
    let (head, body) = value.split_at_mut(HEAD_BYTES);
    head[..8].copy_from_slice(&seed.to_le_bytes());
    head[8..12].copy_from_slice(&identity.producer.to_le_bytes());
    head[12..16].copy_from_slice(&(bytes as u32).to_le_bytes());
    head[16..].copy_from_slice(&identity.number.to_le_bytes());
    let mut filler = Filler::new(seed, identity);
    let (words, rest) = body.as_chunks_mut();
    words.iter_mut().for_each(|word| *word = filler.next());
    rest.copy_from_slice(&filler.next()[..rest.len()]);
}

/// Whose value this is, if every byte of it is as [`fill`] writes it.
pub fn identify(seed: u64, value: &[u8]) -> Option<Identity> {
    let (head, body) = value.split_at_checked(HEAD_BYTES)?;
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| head[at + index]));
    let identity = Identity { producer: word(8) as u32, number: word(16) };
    if word(0) != seed || (word(8) >> 32) as usize != value.len() {
        return None;
    }
    let mut filler = Filler::new(seed, identity);
    let (words, rest) = body.as_chunks();
    let is_whole =
        words.iter().all(|word| *word == filler.next()) && *rest == filler.next()[..rest.len()];
    is_whole.then_some(identity)
}

/// The key of a keyed producer's record: one of `keys`, in a scattered order.
pub fn key(identity: Identity, keys: u64) -> [u8; 16] {
    let chosen = mix(identity.number.wrapping_mul(31) + u64::from(identity.producer)) % keys;
    let mut key = [0; 16];
    key[..8].copy_from_slice(&u64::from(identity.producer).to_be_bytes());
    key[8..].copy_from_slice(&chosen.to_be_bytes());
    key
}

struct Filler {
    state: u64,
}

impl Filler {
    fn new(seed: u64, identity: Identity) -> Self {
        Self { state: mix(seed ^ mix(u64::from(identity.producer)) ^ identity.number) }
    }

    fn next(&mut self) -> [u8; 8] {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state).to_le_bytes()
    }
}

/// The finaliser of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_who_sent_it() {
        for bytes in [24, 25, 31, 32, 100, 1024] {
            let identity = Identity { producer: 3, number: 77 };
            let mut value = Vec::new();
            fill(9, identity, bytes, &mut value);
            assert_eq!(value.len(), bytes);
            assert_eq!(identify(9, &value), Some(identity));
            assert_eq!(identify(8, &value), None, "another run's");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let mut value = Vec::new();
        fill(9, Identity { producer: 3, number: 77 }, 61, &mut value);
        for bit in 0..value.len() * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(identify(9, &value), None, "bit {bit}");
            value[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..value.len() {
            assert_eq!(identify(9, &value[..len]), None, "cut to {len}");
        }
    }
}
