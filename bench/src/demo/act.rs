//! The part with load: the leader of the busiest lane is killed and comes back, then another broker is killed, then all are
//! at once.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelog_broker::driver::LocalCluster;
use corelog_protocol::ids::{BrokerId, LaneId};
use indicatif::ProgressBar;

use super::{PATIENCE, PER_SECOND, Schedule};
use crate::report::thousands;
use crate::traffic::link::Link;
use crate::traffic::{self, Traffic};
use crate::verify::Partition;

/// How near is caught up: some 50 ms of the load. Counters of several brokers are not of the same moment, and that nothing is
/// missing shows when another broker is killed.
const NEARLY_BYTES: u64 = 128 << 10;

pub struct Act<'a> {
    pub traffic: &'a Arc<Traffic>,
    pub link: &'a Link,
    pub schedule: Schedule,
    pub bar: &'a ProgressBar,
}

/// How long things took, and what the brokers had counted when they were killed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub killed: BrokerId,
    /// Partitions of acknowledged levels that it led.
    pub led: usize,
    /// The longest time between two acks of a partition that it led.
    pub pause: Duration,
    /// From its start until it had again what the others have.
    pub catch_up: Duration,
    /// Of the second one, and the same.
    pub second_killed: BrokerId,
    pub second_pause: Duration,
    /// All down: from the start of the first until every partition acknowledged again.
    pub restart: Duration,
    pub forwarded: u64,
}

/// Who leads what, of the partitions that acknowledge.
struct Leaders {
    partitions: Vec<(Partition, LaneId, BrokerId)>,
}

impl Leaders {
    fn led_by(&self, broker: BrokerId) -> Vec<Partition> {
        let of = self.partitions.iter().filter(|(.., leader)| *leader == broker);
        of.map(|(partition, ..)| *partition).collect()
    }

    fn all(&self) -> Vec<Partition> {
        self.partitions.iter().map(|(partition, ..)| *partition).collect()
    }

    /// The leader of the lane with the most acks.
    fn of_busiest(&self, traffic: &Traffic) -> Option<BrokerId> {
        let mut acks: BTreeMap<(LaneId, BrokerId), u64> = BTreeMap::new();
        for (partition, lane, leader) in self.partitions.iter().filter(|(.., it)| it.0 != 0) {
            *acks.entry((*lane, *leader)).or_default() += traffic.acks_of(*partition);
        }
        acks.into_iter().max_by_key(|(_, acks)| *acks).map(|((_, leader), _)| leader)
    }
}

impl Act<'_> {
    /// Producers and a consumer run all the time, whatever becomes of the brokers.
    pub fn play(&self, cluster: &mut LocalCluster) -> io::Result<Times> {
        let mut reader = self.link.reader(&self.traffic.topics, |_, _| 0)?;
        let done = AtomicBool::new(false);
        let times = std::thread::scope(|scope| {
            let producing = scope.spawn(|| traffic::produce(self.traffic, self.link, PER_SECOND));
            let reading = scope.spawn(|| traffic::read_along(self.traffic, &mut reader, &done));
            let times = self.direct(cluster);
            self.traffic.pause(false);
            self.traffic.stop();
            let produced = join(producing);
            let settled = if times.is_ok() { self.settle() } else { Ok(()) };
            done.store(true, Ordering::SeqCst);
            let read = join(reading);
            let times = times?;
            produced.and(settled).and(read)?;
            Ok::<_, io::Error>(times)
        })?;
        traffic::read_to_end(self.traffic, self.link, &mut reader, PATIENCE)?;
        Ok(times)
    }

    fn direct(&self, cluster: &mut LocalCluster) -> io::Result<Times> {
        let mut times = Times::default();
        let load = self.schedule.load;
        self.watch("under load", load * 3 / 4);

        let leaders = self.leaders()?;
        let victim = leaders.of_busiest(self.traffic).ok_or_else(|| failed("nobody leads"))?;
        let led = leaders.led_by(victim);
        times.killed = victim;
        times.led = led.len();
        self.bar.set_message(format!("broker {victim} killed"));
        times.pause = self.kill(cluster, victim, &led, &mut times.forwarded)?;
        // What came of the old leader's entries is in here, and is nothing that it missed.
        let before = taken_by_others(cluster, victim);
        self.watch("two of three brokers", load / 2);

        self.bar.set_message(format!("broker {victim} comes back"));
        let begin = Instant::now();
        cluster.restart(place(victim)).map_err(|error| failed(&error.to_string()))?;
        self.wait_until_caught_up(cluster, victim, before)?;
        times.catch_up = begin.elapsed();
        self.watch("three brokers again", load / 2);

        // With the third one down, nothing reaches a quorum's disks without the one that came back.
        let leaders = self.leaders()?;
        let others = (1..).map(BrokerId).take(cluster.brokers().len());
        let mut others = others.filter(|broker| *broker != victim);
        let second = others.next().ok_or_else(|| failed("there is no other broker"))?;
        times.second_killed = second;
        self.bar.set_message(format!("broker {second} killed"));
        let led = leaders.led_by(second);
        times.second_pause = self.kill(cluster, second, &led, &mut times.forwarded)?;
        self.watch("two others of three brokers", load / 8);

        self.bar.set_message("power cut: all brokers killed");
        times.forwarded += forwarded(cluster);
        self.traffic.begin_outage();
        cluster.kill_all();
        self.traffic.pause(true);
        self.bar.set_message("all start again");
        let begin = Instant::now();
        for at in 0..cluster.brokers().len() {
            cluster.restart(at).map_err(|error| failed(&error.to_string()))?;
        }
        self.traffic.pause(false);
        self.wait_for_acks(begin, &leaders.all())?;
        times.restart = begin.elapsed();
        self.traffic.end_outage();
        self.watch("under load again", load / 8);
        Ok(times)
    }

    /// Kills a broker, and waits until all that it led is acknowledged by others. How long producers saw nothing.
    fn kill(
        &self,
        cluster: &mut LocalCluster,
        victim: BrokerId,
        led: &[Partition],
        counted: &mut u64,
    ) -> io::Result<Duration> {
        if let Some(broker) = &cluster.brokers()[place(victim)] {
            *counted += broker.counters().total("requests_forwarded");
        }
        self.traffic.begin_outage();
        cluster.kill(place(victim));
        self.wait_for_acks(Instant::now(), led)?;
        self.traffic.end_outage();
        Ok(self.traffic.longest_pause(led))
    }

    fn wait_for_acks(&self, since: Instant, partitions: &[Partition]) -> io::Result<()> {
        let limit = since + PATIENCE;
        while let Some((topic, partition)) = self.traffic.silent_since(since, partitions) {
            if Instant::now() > limit {
                let name = self.traffic.topics[topic as usize].name;
                let text = format!(
                    "Partition {partition} of {name} acknowledged nothing for {PATIENCE:?} after the kill."
                );
                return Err(failed(&text));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Until the broker took as many bytes of entries as the others took from each other since it was killed. While each
    /// lane has one of them as leader and all the others as followers, they take the same.
    fn wait_until_caught_up(
        &self,
        cluster: &LocalCluster,
        victim: BrokerId,
        before: u64,
    ) -> io::Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let own = copied(cluster, place(victim));
            let missed = taken_by_others(cluster, victim).saturating_sub(before);
            if own > 0 && own + NEARLY_BYTES >= missed {
                return Ok(());
            }
            if Instant::now() > limit {
                let text = format!(
                    "Broker {victim} came back and took {own} bytes in {PATIENCE:?}, of {missed} that it missed."
                );
                return Err(failed(&text));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn leaders(&self) -> io::Result<Leaders> {
        let mut partitions = Vec::new();
        for (index, topic) in (0..).zip(&self.traffic.topics) {
            let mut producers = self.traffic.producers.iter();
            if producers.any(|it| it.topic == index && it.durability.is_acknowledged()) {
                let places = self.link.places(topic.name)?;
                let places = (0..).zip(places);
                partitions.extend(places.map(|(at, it)| ((index, at), it.lane, it.broker)));
            }
        }
        Ok(Leaders { partitions })
    }

    fn watch(&self, text: &str, time: Duration) {
        let start = Instant::now();
        let before = self.bar.position();
        while start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(100).min(time));
            self.bar.set_position(before + start.elapsed().as_millis() as u64);
            let seen = self.traffic.with_ledger(|ledger| ledger.seen());
            self.bar.set_message(format!("{text}: {} records checked", thousands(seen as f64)));
        }
    }

    /// Waits until the fate of all that was sent is known.
    fn settle(&self) -> io::Result<()> {
        let limit = Instant::now() + PATIENCE * 2;
        while self.traffic.unsettled() > 0 {
            if Instant::now() > limit {
                let open = self.traffic.unsettled();
                return Err(failed(&format!("{open} sends never got an answer")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A broker's place in the cluster.
fn place(broker: BrokerId) -> usize {
    broker.0.saturating_sub(1) as usize
}

/// Bytes of entries that a broker took from leaders since it started.
fn copied(cluster: &LocalCluster, at: usize) -> u64 {
    let broker = cluster.brokers().get(at).and_then(Option::as_ref);
    broker.map_or(0, |broker| broker.counters().total("copy_bytes_in"))
}

fn taken_by_others(cluster: &LocalCluster, broker: BrokerId) -> u64 {
    let others = (0..cluster.brokers().len()).filter(|at| *at != place(broker));
    others.map(|at| copied(cluster, at)).sum()
}

/// Requests that reached the wrong core of a broker that runs.
pub fn forwarded(cluster: &LocalCluster) -> u64 {
    let running = cluster.brokers().iter().flatten();
    running.map(|broker| broker.counters().total("requests_forwarded")).sum()
}

fn failed(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(failed("a thread of the demo panicked")))
}
