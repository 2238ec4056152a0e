//! A histogram of times: 16 buckets for each power of two, so a percentile is 6 % too high at most.

const BUCKETS_PER_OCTAVE: u64 = 16;
const BUCKETS: usize = 61 * BUCKETS_PER_OCTAVE as usize;

#[derive(Clone, Debug)]
pub(super) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Latencies {
    /// `count` times `nanos`.
    pub(super) fn add(&mut self, nanos: u64, count: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(nanos)) {
            *bucket += count;
            self.count += count;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The least bound that 99 of 100 do not exceed. None: there are none.
    pub(super) fn p99(&self) -> Option<u64> {
        // Of 100, one may be above.
        let above_max = self.count / 100;
        let mut above = 0;
        for (number, &count) in self.buckets.iter().enumerate().rev() {
            above += count;
            if above > above_max {
                return Some(top_of(number));
            }
        }
        None
    }

    pub(super) fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }
}

/// Below 16, each number has a bucket. From there on, the top five bits decide.
fn bucket_of(nanos: u64) -> usize {
    let octave = u64::from(nanos.max(1).ilog2()).saturating_sub(4);
    (octave * BUCKETS_PER_OCTAVE + (nanos >> octave)) as usize
}

/// The greatest number of a bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * BUCKETS_PER_OCTAVE {
        return bucket;
    }
    let octave = bucket / BUCKETS_PER_OCTAVE - 1;
    let mantissa = bucket - octave * BUCKETS_PER_OCTAVE;
    ((u128::from(mantissa + 1) << octave) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_in_its_bucket_and_6_percent_below_its_top_at_most() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for nanos in edges.chain([1_000_000, 123_456_789, u64::MAX]) {
            let bucket = bucket_of(nanos);
            assert!(bucket < BUCKETS, "{nanos}");
            let top = top_of(bucket);
            assert!(top >= nanos, "{nanos}: {top}");
            assert!(top - nanos <= nanos / 16, "{nanos}: {top}");
            assert!(bucket == 0 || top_of(bucket - 1) < nanos, "{nanos}");
        }
    }

    #[test]
    fn the_99th_of_100_is_found() {
        let mut all = Latencies::default();
        assert_eq!(all.p99(), None);
        all.add(10, 99);
        all.add(31, 1);
        assert_eq!(all.p99(), Some(10));
        all.add(31, 1);
        assert_eq!(all.p99(), Some(31));
        all.clear();
        all.add(7, 1);
        assert_eq!((all.p99(), all.count()), (Some(7), 1));
    }
}
