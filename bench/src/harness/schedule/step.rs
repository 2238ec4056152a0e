//! From one rate to another in equal steps: where does it stop to keep up?

use super::piecewise::Piecewise;

pub fn step(from: f64, to: f64, steps: u32, end: u64) -> Piecewise {
    let rate = |step: u32| match steps {
        1 => from,
        _ => from + (to - from) * f64::from(step) / f64::from(steps - 1),
    };
    let until = |step: u32| (end as f64 * f64::from(step + 1) / f64::from(steps)) as u64;
    Piecewise::new((0..steps).map(|step| (until(step), rate(step))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::schedule::{all, count_within};

    #[test]
    fn each_step_has_its_rate() {
        let times = all(step(100.0, 300.0, 3, 6_000_000_000));
        let counts = [0.0..2.0, 2.0..4.0, 4.0..6.0].map(|span| count_within(&times, span));
        assert_eq!(counts, [200, 400, 600]);
        assert!(times.is_sorted());
    }

    #[test]
    fn one_step_is_the_first_rate() {
        assert_eq!(all(step(10.0, 99.0, 1, 1_000_000_000)).len(), 10);
    }
}
