//! What will happen, in the order of time; at one time, in the order in which it was planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
struct Planned<A> {
    at: u64,
    number: u64,
    action: A,
}

impl<A> Ord for Planned<A> {
    /// Reversed: the heap gives the greatest, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<A> PartialOrd for Planned<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<A> PartialEq for Planned<A> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<A> Eq for Planned<A> {}

#[derive(Debug)]
pub struct Queue<A> {
    heap: BinaryHeap<Planned<A>>,
    number: u64,
}

impl<A> Default for Queue<A> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), number: 0 }
    }
}

impl<A> Queue<A> {
    /// Plans an action for a virtual time in nanoseconds.
    pub fn at(&mut self, at: u64, action: A) {
        self.number += 1;
        self.heap.push(Planned { at, number: self.number, action });
    }

    pub fn take_next(&mut self) -> Option<(u64, A)> {
        self.heap.pop().map(|planned| (planned.at, planned.action))
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_come_by_time_and_then_in_the_order_planned() {
        let mut queue = Queue::default();
        for (at, action) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b')] {
            queue.at(at, action);
        }
        let order: String =
            std::iter::from_fn(|| queue.take_next()).map(|(_, action)| action).collect();
        assert_eq!(order, "abcd");
    }
}
