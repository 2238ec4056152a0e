//! Normal load, for a while many times that, normal load again.

use super::SECOND;
use super::piecewise::Piecewise;

pub fn spike(per_second: f64, times: f64, at: f64, length: f64, end: u64) -> Piecewise {
    let moment = |seconds: f64| ((seconds * SECOND) as u64).min(end);
    Piecewise::new([
        (moment(at), per_second),
        (moment(at + length), per_second * times),
        (end, per_second),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::schedule::{all, count_within};

    #[test]
    fn the_rate_is_twenty_times_as_high_for_a_while() {
        let times = all(spike(50.0, 20.0, 3.0, 2.0, 10_000_000_000));
        let counts = [0.0..3.0, 3.0..5.0, 5.0..10.0].map(|span| count_within(&times, span));
        assert_eq!(counts, [150, 2000, 250]);
        assert!(times.is_sorted());
    }

    #[test]
    fn a_spike_that_begins_after_the_end_never_comes() {
        assert_eq!(all(spike(50.0, 20.0, 30.0, 2.0, 1_000_000_000)).len(), 50);
    }
}
