//! Partitions move: between shards, between lanes, and with their lane's leader between brokers. What
//! was meant for the old place follows, in its order.

use super::assignment::Stage;
use super::door::Ask;
use super::queue::Queue;
use super::time::Now;
use super::{Effect, Effects, Engine, Retry};
use crate::Error;
use corelog_protocol::message::{PartitionPlace, TopicInfo};
use std::collections::BTreeSet;
use std::sync::Arc;

impl<T> Engine<T> {
    /// Takes over where a topic's partitions are now. False: some of it is older than what is known.
    pub(super) fn place(
        &mut self,
        now: Now,
        topic: usize,
        info: &TopicInfo,
        effects: &mut Effects<T>,
    ) -> bool {
        let mut is_new = true;
        for (number, place) in (0u32..).zip(&info.places) {
            let target = self.door_of_place(place);
            match self.topics[topic].queues.get(number as usize) {
                Some(&at) => is_new &= self.place_queue(now, at, place, target),
                None => {
                    // While nobody leads it, it needs a door all the same.
                    let door = target.unwrap_or_else(|| self.door_of_metadata());
                    let mut queue = Queue::new(topic, number, place, door);
                    queue.is_led = target.is_some();
                    self.topics[topic].queues.push(self.producer.queues.len());
                    self.producer.queues.push(queue);
                }
            }
        }
        let count = info.places.len() as u32;
        self.topics[topic].copies.clear();
        for copy in &info.replica_places {
            self.topics[topic].copies.entry(copy.lane).or_default().push(copy.broker);
        }
        self.topics[topic].partition_count = count;
        self.topics[topic].is_known = true;
        for at in self.topics[topic].queues.split_off(count as usize) {
            let partition = self.producer.queues[at].number;
            let name = Arc::clone(&self.topics[topic].name);
            self.fail_waiting(at, &Error::UnknownPartition { topic: name, partition }, effects);
        }
        self.move_assignments(topic, effects);
        self.move_requests(topic, effects);
        self.close_left_behind(now, topic, effects);
        self.append_pending(now, topic, effects);
        self.place_assignments(topic, effects);
        self.place_requests(topic, effects);
        is_new
    }

    /// The door to where a partition is led. None: nobody leads it now, or a broker that is not listed.
    fn door_of_place(&mut self, place: &PartitionPlace) -> Option<usize> {
        if !self.cluster.is_known() {
            return Some(self.door_to(place.broker, place.shard));
        }
        self.cluster.get(place.broker)?;
        Some(self.door_to(place.broker, place.shard))
    }

    fn place_queue(
        &mut self,
        now: Now,
        at: usize,
        place: &PartitionPlace,
        target: Option<usize>,
    ) -> bool {
        let queue = &mut self.producer.queues[at];
        if self.cluster.is_known() && place.lane == queue.lane {
            let is_older = place.epoch < queue.epoch;
            if is_older || (place.epoch == queue.epoch && target.is_none() && queue.is_led) {
                return !is_older;
            }
        }
        let is_elected = self.cluster.is_known() && place.epoch > queue.epoch;
        queue.id = place.partition;
        queue.lane = place.lane;
        queue.epoch = place.epoch;
        let (was_led, was_at) = (queue.is_led, queue.target());
        queue.is_led = target.is_some();
        if let Some(door) = target {
            queue.next_door = (queue.door != door).then_some(door);
            // Once it may go on at once. Brokers that send each other's clients in circles are
            // waited for.
            if (!was_led || was_at != door) && queue.redirects <= 1 {
                queue.not_before = now.monotonic;
            }
        }
        if let Some(door) = target.filter(|_| is_elected) {
            // Whoever was elected lives, however often it could not be reached before.
            self.doors[door].not_before = now.monotonic;
        }
        self.wake_queue(now.monotonic, at);
        true
    }

    /// Whoever reads a partition goes on at its new place, and does not wait for the old one.
    fn move_assignments(&mut self, topic: usize, effects: &mut Effects<T>) {
        for id in self.topics[topic].readers.clone() {
            let Some(at) = self.assignments.get(&id) else { continue };
            if !matches!(at.stage, Stage::Locating(_) | Stage::Fetching) {
                continue;
            }
            let (leader, is_fetching) = (self.door_of(at), at.is_fetching);
            let target = match at.stage {
                Stage::Fetching => self.source_of(id),
                _ => leader,
            };
            let Some(at) = self.assignments.get(&id) else { continue };
            // What its leader is about to send is taken, also if a replica is nearer.
            let is_well = target == at.door || is_fetching && leader == at.door;
            if target.is_none() || is_well {
                continue;
            }
            let Some(at) = self.assignments.get_mut(&id) else { continue };
            at.generation += 1;
            at.is_fetching = false;
            if let Some(retry_at) = at.retry_at.filter(|_| at.redirects <= 1) {
                at.retry_at = None;
                at.is_listed = false;
                self.retries.remove(&(retry_at, Retry::Assignment(id)));
            }
            if let Some(door) = at.door.take() {
                let fetchable = &mut self.doors[door].fetchable;
                let length = fetchable.len();
                fetchable.retain(|&other| other != id);
                at.is_listed &= fetchable.len() == length;
            }
            if !at.is_listed {
                self.go_on(id, effects);
            }
        }
    }

    /// Questions about a partition that wait in the door of its old place.
    fn move_requests(&mut self, topic: usize, effects: &mut Effects<T>) {
        for (id, partition) in self.requests_about(topic) {
            let Some(&queue) = self.topics[topic].queues.get(partition as usize) else { continue };
            let target = self.producer.queues[queue].target();
            let mut was_waiting = false;
            for (_, door) in self.doors.iter_mut().enumerate().filter(|(at, _)| *at != target) {
                let length = door.asks.len();
                door.asks.retain(|ask| *ask != Ask::Admin(id));
                was_waiting |= door.asks.len() < length;
            }
            if was_waiting {
                self.ask(id, effects);
            }
        }
    }

    /// Connections that have been silent for long, and from which a partition has moved away: what
    /// is under way through them can be sent to where it is now.
    fn close_left_behind(&mut self, now: Now, topic: usize, effects: &mut Effects<T>) {
        for at in self.topics[topic].queues.clone() {
            let queue = &self.producer.queues[at];
            let door = queue.door;
            if queue.next_door.is_some() && self.is_doubted(door) {
                if let Some(link) = &self.doors[door].link {
                    effects.push(Effect::Close { link: link.id });
                }
                self.lose(now, door, effects);
            }
        }
    }

    /// Nothing that waits for a partition of this topic has reason to ask where it is once more.
    pub(super) fn has_no_question(&self, topic: usize) -> bool {
        if !self.cluster.is_known() {
            return true;
        }
        let read = self.topics[topic].readers.iter().filter_map(|id| self.assignments.get(id));
        let read = read.filter(|at| at.stage != Stage::Failed);
        let asked = self.requests_about(topic).into_iter().map(|(_, partition)| partition);
        let wanted: BTreeSet<u32> = read.map(|at| at.partition).chain(asked).collect();
        let queues = self.topics[topic].queues.iter().map(|&at| &self.producer.queues[at]);
        (0u32..).zip(queues).all(|(number, queue)| {
            let door = &self.doors[queue.target()];
            let is_reached = match &door.link {
                Some(link) => !link.is_doubted(),
                None => door.failures == 0,
            };
            let is_written = !queue.waiting.is_empty() || !queue.flying.is_empty();
            (queue.is_led && is_reached) || !(is_written || wanted.contains(&number))
        })
    }
}
