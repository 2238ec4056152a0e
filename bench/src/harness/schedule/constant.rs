//! At even distances.

use super::piecewise::Piecewise;

pub fn constant(per_second: f64, end: u64) -> Piecewise {
    Piecewise::new([(end, per_second)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::schedule::all;

    #[test]
    fn the_distances_are_even_and_nothing_drifts() {
        let times = all(constant(3000.0, 1_000_000_000_000));
        assert_eq!(times.len(), 3_000_000);
        assert_eq!(times[..4], [0, 333_333, 666_666, 1_000_000]);
        assert_eq!(times[2_999_999], 999_999_666_666);
    }
}
