//! Rates that hold for a while each. Within a piece the distances are even, and every time is computed from the beginning
//! of its piece, so that nothing drifts.

use std::collections::VecDeque;

use super::{SECOND, Schedule};

pub struct Piecewise {
    /// End of each piece and its rate.
    pieces: VecDeque<(u64, f64)>,
    start: u64,
    count: u64,
}

impl Piecewise {
    /// `pieces`: where each ends, in order, and its rate per second.
    pub fn new(pieces: impl IntoIterator<Item = (u64, f64)>) -> Self {
        Self { pieces: pieces.into_iter().collect(), start: 0, count: 0 }
    }
}

impl Schedule for Piecewise {
    fn next(&mut self) -> Option<u64> {
        loop {
            let &(end, per_second) = self.pieces.front()?;
            let time = self.start + (self.count as f64 * SECOND / per_second) as u64;
            if time < end {
                self.count += 1;
                return Some(time);
            }
            self.start = end.max(self.start);
            self.count = 0;
            self.pieces.pop_front();
        }
    }
}
