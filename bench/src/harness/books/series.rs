//! The run in intervals of equal length. A latency belongs to the interval in which its message was due, so that a pause
//! is seen where it began; an acknowledgment is counted in the interval in which it came.

use std::ops::Range;

use hdrhistogram::Histogram;

pub struct Series {
    length: u64,
    intervals: Vec<Interval>,
    /// Which one was asked for last, and its times: mostly it is asked for again.
    last: (usize, Range<u64>),
}

/// Two digits: there may be hundreds.
pub struct Interval {
    pub due: u64,
    pub acknowledged: u64,
    pub failed: u64,
    pub response: Histogram<u64>,
    pub service: Histogram<u64>,
    pub end_to_end: Histogram<u64>,
}

/// What is later than this after the start is counted in the last interval.
const INTERVALS_MAX: usize = 4_000;

impl Series {
    pub fn new(length: u64) -> Self {
        Self { length: length.max(1), intervals: Vec::new(), last: (0, 0..0) }
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn intervals(&self) -> impl Iterator<Item = &Interval> {
        self.intervals.iter()
    }

    pub fn at(&mut self, time: u64) -> &mut Interval {
        if !self.last.1.contains(&time) {
            let number = time / self.length;
            let index = (number as usize).min(INTERVALS_MAX - 1);
            while self.intervals.len() <= index {
                self.intervals.push(Interval::new());
            }
            let begin = number * self.length;
            self.last = (index, begin..begin.saturating_add(self.length));
        }
        &mut self.intervals[self.last.0]
    }
}

impl Interval {
    fn new() -> Self {
        let minute = 60_000_000_000;
        let histogram =
            Histogram::new_with_bounds(1_000, minute, 2).expect("the bounds are in order");
        Self {
            due: 0,
            acknowledged: 0,
            failed: 0,
            response: histogram.clone(),
            service: histogram.clone(),
            end_to_end: histogram,
        }
    }
}
