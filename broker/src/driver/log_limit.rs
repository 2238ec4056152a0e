//! Log lines that strangers can provoke, at most one a second.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct LogLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// The number of lines left out since the last one, if one may be written now.
    pub fn pass(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < Duration::from_secs(1)) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_lines_of_a_second_one_is_written_and_the_others_are_counted() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.pass(), Some(0));
        let begin = Instant::now();
        let passed = (0..10_000).filter(|_| limit.pass().is_some()).count();
        assert!(passed as u64 <= begin.elapsed().as_secs() + 1, "{passed} lines");
        limit.last = Instant::now().checked_sub(Duration::from_secs(2));
        assert!(limit.pass().is_some_and(|left_out| left_out > 0 || passed == 10_000));
    }
}
