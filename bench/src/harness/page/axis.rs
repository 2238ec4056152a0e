//! Where a value stands on a chart, and which values are written beside it.

#[derive(Clone, Debug)]
pub struct Axis {
    pub label: &'static str,
    scale: Scale,
    low: f64,
    high: f64,
    /// Value and text.
    pub ticks: Vec<(f64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    Log,
}

impl Axis {
    /// From 0 to at least `high`.
    pub fn linear(label: &'static str, high: f64, show: impl Fn(f64) -> String) -> Self {
        let step = nice(high.max(1e-9) / 4.0);
        let count = (high / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|at| f64::from(at) * step);
        let ticks = ticks.map(|value| (value, show(value))).collect();
        Self { label, scale: Scale::Linear, low: 0.0, high: count * step, ticks }
    }

    /// Whole powers of ten around the values.
    pub fn log(label: &'static str, low: f64, high: f64, show: impl Fn(f64) -> String) -> Self {
        let (low, high) = (low.max(1.0), high.max(low * 1.01).max(1.01));
        let first = low.log10().floor() as i32;
        let last = (high.log10().ceil() as i32).max(first + 1);
        let ticks = (first..=last).map(|power| 10_f64.powi(power));
        Self {
            label,
            scale: Scale::Log,
            low: 10_f64.powi(first),
            high: 10_f64.powi(last),
            ticks: ticks.map(|value| (value, show(value))).collect(),
        }
    }

    /// Quantiles, evenly by their nines: 0, 90 %, 99 %, …, `nines` of them. Values are numbers of nines.
    pub fn quantiles(nines: u32) -> Self {
        let text = |count: u32| match count {
            0 => "0 %".to_owned(),
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            more => format!("99.{} %", "9".repeat(more as usize - 2)),
        };
        let nines = nines.max(1);
        Self {
            label: "messages that took at most so long",
            scale: Scale::Linear,
            low: 0.0,
            high: f64::from(nines),
            ticks: (0..=nines).map(|count| (f64::from(count), text(count))).collect(),
        }
    }

    /// 0 to 1, and never outside.
    pub fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        place.clamp(0.0, 1.0)
    }
}

/// Nines of a quantile: 0.99 has two.
pub fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-12).log10()
}

/// 1, 2 or 5 times a power of ten, not below the value.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * power)
        .into_iter()
        .find(|it| *it >= value * 0.999)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let axis = Axis::linear("s", 97.0, |value| format!("{value}"));
        let texts: Vec<&str> = axis.ticks.iter().map(|(_, text)| &**text).collect();
        assert_eq!(texts, ["0", "50", "100"]);
        assert_eq!(axis.place(50.0), 0.5);
        let axis = Axis::log("ns", 150.0, 90_000.0, |value| format!("{value}"));
        assert_eq!(axis.ticks.len(), 4);
        assert!((axis.place(10_000.0) - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(axis.place(0.0), 0.0);
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let axis = Axis::quantiles(3);
        assert!((axis.place(nines(0.9)) - 1.0 / 3.0).abs() < 1e-9);
        assert!((axis.place(nines(0.999)) - 1.0).abs() < 1e-9);
        assert_eq!(axis.ticks[3].1, "99.9 %");
    }
}
