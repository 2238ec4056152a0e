//! What happened somewhere, once more: the times come from a file.

use super::{SECOND, Schedule};

pub struct Trace {
    times: std::vec::IntoIter<u64>,
    end: u64,
}

impl Trace {
    /// `times` in order; those at `end` and later are left out.
    pub fn new(times: Vec<u64>, end: u64) -> Self {
        Self { times: times.into_iter(), end }
    }

    /// One time on each line, in seconds from the start, in order. Empty lines and those that begin with `#` are passed
    /// over.
    pub fn parse(text: &str) -> Result<Vec<u64>, String> {
        let mut times = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let seconds: f64 = line
                .parse()
                .ok()
                .filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
                .ok_or_else(|| format!("line {number}: `{line}` is no time in seconds"))?;
            // To the nearest: so what was read and written is read as the same.
            let time = (seconds * SECOND).round() as u64;
            if times.last().is_some_and(|last| *last > time) {
                return Err(format!("line {number}: {line} is earlier than the line before"));
            }
            times.push(time);
        }
        if times.is_empty() {
            return Err("there is no time in it".into());
        }
        Ok(times)
    }
}

impl Schedule for Trace {
    fn next(&mut self) -> Option<u64> {
        self.times.next().filter(|time| *time < self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::schedule::all;

    #[test]
    fn the_times_of_the_file_are_those_of_the_run() {
        let times = Trace::parse("# a trace\n0\n0.5\n\n0.5\n2.25\n").unwrap();
        assert_eq!(times, [0, 500_000_000, 500_000_000, 2_250_000_000]);
        assert_eq!(all(Trace::new(times, 2_000_000_000)), [0, 500_000_000, 500_000_000]);
    }

    #[test]
    fn a_line_that_is_no_time_is_named() {
        let error = |text| Trace::parse(text).unwrap_err();
        assert_eq!(error("0\nsoon\n"), "line 2: `soon` is no time in seconds");
        assert_eq!(error("1\n-1"), "line 2: `-1` is no time in seconds");
        assert_eq!(error("1\n0.5"), "line 2: 0.5 is earlier than the line before");
        assert_eq!(error("# nothing\n"), "there is no time in it");
    }
}
