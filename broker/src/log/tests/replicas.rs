//! Three replicas of a lane, from a seed: epochs, leaders chosen by what the logs say of themselves, crashes at any order,
//! torn writes, truncations. What a quorum had durable is in every later leader's log, byte for byte.

use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::ids::{Epoch, Lsn, Offset};

use super::chaos::power_cut;
use super::replica::{replica, resume};
use super::rig::{Disk, P, Q, Rig, body};
use crate::log::{Copies, LogConfig, LogEvent, Resume};
use crate::random::Random;
use crate::replica::Position;

const COUNT: usize = 3;
const QUORUM: usize = 2;

type Stored = Vec<(Lsn, Vec<u8>)>;

/// What a run has seen, so that a test can say that it looked at something.
#[derive(Default)]
struct Seen {
    committed: u64,
    truncations: u64,
    torn: u64,
    crashes: u64,
    led: u64,
    read: u64,
}

struct World {
    random: Random,
    config: LogConfig,
    rigs: Vec<Rig>,
    /// Takes the leader's entries, or is about to.
    follows: [bool; COUNT],
    committed: Stored,
    seen: Seen,
    tag: u32,
    seed: u64,
}

fn is_running(rig: &Rig) -> bool {
    rig.events.iter().any(|event| match event {
        LogEvent::Resumed => true,
        LogEvent::Recovered(report) => report.resumed,
        _ => false,
    })
}

/// Where the follower's log stops being the leader's.
fn divergence(follower: &Rig, leader: &Rig) -> Lsn {
    let mut at = follower.log.has().end.min(leader.log.next_lsn());
    let epoch = |rig: &Rig, at: Lsn| rig.log.epoch_of(Lsn(at.0 - 1));
    while at > Lsn(0) && epoch(follower, at) != epoch(leader, at) {
        at = Lsn(at.0 - 1);
    }
    at
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut config = replica();
        config.gather_bytes = 1 << random.below(17);
        config.commits_in_flight_max = 1 + random.below(4) as usize;
        config.tail_cache_bytes = 1 << random.below(21);
        let rigs = (0..COUNT).map(|_| Rig::started(config.clone(), Disk::new())).collect();
        let (committed, seen) = (Stored::new(), Seen::default());
        Self { random, config, rigs, follows: [false; COUNT], committed, seen, tag: 0, seed }
    }

    /// Crashes, and starts again, dormant.
    fn crash(&mut self, at: usize) {
        let rig = &mut self.rigs[at];
        // Writes that were ordered and not reported may be on the medium too.
        for (_, order) in std::mem::take(&mut rig.orders) {
            if matches!(order, crate::disk::DiskOrder::Write { .. }) {
                rig.disk.carry_out(&mut rig.memory, &order);
            }
        }
        let disk = if self.random.chance(1, 4) {
            let mut killed = rig.disk.clone();
            killed.forget_handles();
            killed
        } else {
            power_cut(&rig.disk, &mut self.random)
        };
        self.rigs[at] = Rig::started(self.config.clone(), disk);
        let log = &self.rigs[at].log;
        assert!(log.has() <= log.perhaps());
        self.seen.torn += u64::from(log.has() < log.perhaps());
        self.seen.crashes += 1;
        self.follows[at] = false;
    }

    /// The one to lead, by the rule of the fence among those that answer.
    fn chosen(&self, answers: &[usize]) -> Option<(usize, Position)> {
        let log = |at: &usize| &self.rigs[*at].log;
        let best = *answers.iter().max_by_key(|at| log(at).has())?;
        let position = self.rigs[best].log.has();
        let sure = answers.iter().filter(|at| log(at).perhaps() <= position).count();
        (sure >= QUORUM || answers.len() == COUNT).then_some((best, position))
    }

    /// The follower goes on where its log is the leader's.
    fn join(&mut self, at: usize, leader: usize, epoch: u64, start: Lsn) {
        let (ours, theirs) = (&self.rigs[at], &self.rigs[leader]);
        let end = divergence(ours, theirs);
        let (has, perhaps) = (ours.log.has(), ours.log.perhaps());
        // What it may have acknowledged in this epoch, the leader has; what before it, only below the epoch's start.
        let is_new = ours.log.accepted() < Epoch(epoch);
        let marked = perhaps.end.min(if is_new { start } else { theirs.log.next_lsn() });
        let mark = (perhaps > has && marked > end).then_some(Position { end: marked, ..perhaps });
        let to: Resume = resume(end.0, epoch, mark);
        self.follows[at] = true;
        let rig = &mut self.rigs[at];
        if end == has.end {
            rig.call(|log, io| log.resume(io, to));
            return;
        }
        self.seen.truncations += 1;
        rig.stop();
        let mut disk = rig.disk.clone();
        disk.forget_handles();
        *rig = Rig::made(self.config.clone(), disk);
        rig.call(|log, io| log.start_at(io, to));
    }

    fn pull(&mut self, at: usize, leader: usize) {
        let from = self.rigs[at].log.next_lsn();
        let max = 1 << self.random.below(18);
        match self.rigs[leader].copies(from, max) {
            Ok((_, bytes)) => {
                let mut rest = &bytes[..];
                while let Ok(used) = self.rigs[at].copy(rest)
                    && used > 0
                {
                    rest = &rest[used as usize..];
                }
            }
            Err(answer) => assert_eq!(answer, Copies::AtEnd, "seed {}", self.seed),
        }
    }

    /// What is durable on a quorum, if it is of this epoch, is committed.
    fn commit(&mut self, leader: usize, start: Lsn) {
        let acked = |at: usize| {
            let counts = at == leader || self.follows[at] && is_running(&self.rigs[at]);
            if counts { self.rigs[at].log.has().end } else { Lsn(0) }
        };
        let mut ends: Vec<Lsn> = (0..COUNT).map(acked).collect();
        ends.sort_unstable();
        let end = ends[COUNT - QUORUM];
        if end <= start {
            return;
        }
        let known = self.committed.len() as u64;
        if end.0 > known {
            let (found, _) = self.rigs[leader].all_copies(Lsn(known));
            self.committed.extend(found.into_iter().take_while(|(lsn, _)| *lsn < end));
            assert_eq!(self.committed.len() as u64, end.0);
        }
        for at in 0..COUNT {
            if at == leader || self.follows[at] && is_running(&self.rigs[at]) {
                self.rigs[at].log.set_committed(end);
                self.check_bounds(at);
            }
        }
    }

    /// Consumers see what is committed and durable, all of it and nothing else.
    fn check_bounds(&mut self, at: usize) {
        let log = &self.rigs[at].log;
        for partition in [P, Q] {
            let is_batch = |(lsn, bytes): &&(Lsn, Vec<u8>)| {
                let header = EntryHeader::decode(bytes).unwrap();
                *lsn < log.durable_end()
                    && header.kind == EntryKind::Batch
                    && header.partition == partition
            };
            let batches = self.committed.iter().filter(is_batch).count() as u64;
            let bounds = log.partition(partition).unwrap();
            assert_eq!(bounds.committed_end, Offset(batches), "seed {}", self.seed);
        }
        self.seen.read += 1;
    }

    fn step(&mut self, leader: usize, epoch: u64, start: Lsn) {
        let at = self.random.below(COUNT as u64) as usize;
        match self.random.below(16) {
            0..6 => {
                let rig = &mut self.rigs[at];
                if !rig.orders.is_empty() {
                    let chosen = self.random.below(rig.orders.len() as u64) as usize;
                    let chosen = rig.orders[chosen].1.clone();
                    rig.complete(|order| *order == chosen);
                }
            }
            6..9 => {
                let partition = if self.random.chance(1, 2) { P } else { Q };
                let scale = self.random.below(10);
                let len = 8 + self.random.below(8 << scale) as usize;
                self.tag += 1;
                let _ = self.rigs[leader].append(partition, &body(self.tag, len));
            }
            9..12 => {
                let rig = &mut self.rigs[at];
                if rig.log.wants_turn() {
                    rig.call(|log, io| log.on_turn(io));
                }
            }
            12..14 if at != leader => match self.follows[at] {
                true if is_running(&self.rigs[at]) => self.pull(at, leader),
                true => {}
                false => self.join(at, leader, epoch, start),
            },
            14 if self.random.chance(1, 8) => {
                let rig = &mut self.rigs[at];
                rig.now.monotonic.0 += self.random.below(200_000_000);
                rig.call(|log, io| log.on_wake(io));
            }
            15 if at != leader && self.random.chance(1, 30) => self.crash(at),
            _ => self.commit(leader, start),
        }
    }

    fn lead(&mut self, epoch: u64) {
        let count = if self.random.chance(1, 2) { COUNT } else { QUORUM };
        let first = self.random.below(COUNT as u64) as usize;
        let answers: Vec<usize> = (0..count).map(|at| (first + at) % COUNT).collect();
        let Some((leader, position)) = self.chosen(&answers) else { return };
        let (found, _) = self.rigs[leader].all_copies(Lsn(0));
        let kept = &found[..self.committed.len().min(found.len())];
        assert!(kept == self.committed, "seed {}: a leader lacks what was committed", self.seed);
        let start = position.end;
        let rig = &mut self.rigs[leader];
        rig.call(|log, io| log.resume(io, resume(start.0, epoch, None)));
        for _ in 0..self.random.below(40) {
            if let Some((_, order)) = rig.orders.front().cloned() {
                rig.complete(|it| *it == order);
            }
        }
        if !is_running(rig) {
            return;
        }
        rig.call(|log, io| log.begin_epoch(io, Epoch(epoch))).unwrap();
        self.seen.led += 1;
        for _ in 0..self.random.below(1_500) {
            self.step(leader, epoch, start);
        }
        self.seen.committed = self.committed.len() as u64;
        let (whole, _) = self.rigs[leader].all_copies(Lsn(0));
        for at in 0..COUNT {
            if at != leader && self.follows[at] && is_running(&self.rigs[at]) {
                let (found, _) = self.rigs[at].all_copies(Lsn(0));
                let same = found.iter().zip(&whole).all(|(ours, theirs)| ours == theirs);
                assert!(same, "seed {}: {at} differs from its leader", self.seed);
            }
        }
    }
}

fn run(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for epoch in 1..2 + world.random.below(6) {
        world.lead(epoch);
        for at in 0..COUNT {
            world.crash(at);
        }
    }
    world.seen
}

#[test]
fn what_a_quorum_had_durable_is_in_every_later_leaders_log() {
    let mut all = Seen::default();
    for seed in 0..100 {
        println!("seed {seed}");
        let seen = run(seed);
        all.committed += seen.committed;
        all.truncations += seen.truncations;
        all.torn += seen.torn;
        all.crashes += seen.crashes;
        all.led += seen.led;
        all.read += seen.read;
    }
    let Seen { committed, truncations, torn, crashes, led, read } = all;
    println!(
        "{committed} committed, {truncations} truncations, {torn} torn, {crashes} crashes, {led} epochs"
    );
    assert!(committed > 1_000 && truncations > 20 && torn > 20 && led > 100 && read > 1_000);
}
