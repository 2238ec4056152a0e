//! What a seed draws: the sizes, the workload, the faults. Small numbers, so that edges are near.

use std::fmt;

use crate::random::Random;
use crate::sim::check::history::Kept;

const MILLIS: u64 = 1_000_000;

/// How a power cut treats what is loose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashStyle {
    /// Nothing loose survives.
    Bare,
    /// Everything survives: a killed process, not a power cut.
    Whole,
    /// Each loose thing survives with this chance in a hundred.
    Torn(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicPlan {
    pub partitions: u32,
    pub kept: Kept,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerPlan {
    pub records: u32,
    /// Records handed over at once, at most.
    pub burst: u64,
    /// Between bursts, at most.
    pub pause: u64,
    pub value_bytes_max: usize,
    pub keyed: bool,
    pub window: usize,
    pub linger: u64,
    pub delivery: u64,
    pub batch_bytes: usize,
    pub insists_on_shard: bool,
    /// In a hundred, the level of a record: none, leader_memory, leader_durable, quorum_memory; the rest quorum_durable.
    pub levels: [u64; 4],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerPlan {
    pub ahead_bytes: usize,
    pub wait_ms: u32,
    pub bytes_min: u32,
    /// How long a batch lies before it is taken, at most.
    pub slowness: u64,
    pub from_end: bool,
}

/// A fault and when it comes, ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// The power fails after this many more disk completions.
    Crash {
        style: CrashStyle,
        after: u32,
        shards: u16,
        down: u64,
        again: bool,
        damage: bool,
    },
    /// A stop in good order, then a start with this many shards.
    Restart {
        shards: u16,
    },
    /// Every disk order takes until then.
    StallDisk {
        length: u64,
    },
    /// The next write or flush is refused; later the process is restarted.
    RefuseWrite {
        flush: bool,
    },
    /// The next read is refused.
    RefuseRead,
    FullDisk {
        length: u64,
        room: u64,
    },
    ResetLinks,
    StallLinks {
        length: u64,
    },
    /// The links go silent and never come back.
    HalfOpen,
    /// A bit flips on its way to the broker.
    CorruptUp,
    WallJump {
        millis: i64,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: u16,
    pub lanes_per_shard: u16,
    pub directories: u16,
    pub segment_bytes: u64,
    pub memory_bytes: usize,
    pub frame_bytes: usize,
    pub topics: Vec<TopicPlan>,
    pub producers: Vec<ProducerPlan>,
    pub consumers: Vec<ConsumerPlan>,
    pub churn: u32,
    /// Connections of a client that breaks every rule.
    pub hostile: u32,
    /// Slowest ordinary disk order, and network hop, ns.
    pub disk_latency: u64,
    pub net_latency: u64,
    /// Largest piece of a stream that arrives at once.
    pub chunk_bytes: usize,
    pub socket_bytes: usize,
    pub faults: Vec<(u64, FaultKind)>,
    /// When faults and workload end, ns.
    pub end: u64,
}

fn pick<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize]
}

impl Plan {
    /// Everything follows from the seed. `length`: of the workload, in virtual ns.
    pub fn draw(seed: u64, length: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x51f1_5eed_0b0e_a55e);
        let segment_bytes =
            pick(random, &[64 << 10, 64 << 10, 96 << 10, 128 << 10, 256 << 10, 1 << 20]);
        let frame_bytes =
            ((segment_bytes as usize) / 2).min(pick(random, &[16 << 10, 32 << 10, 128 << 10]));
        let shards = pick(random, &[1, 2, 2]);
        let topics = 1 + random.below(3);
        let topics: Vec<TopicPlan> = (0..topics).map(|_| TopicPlan::draw(random)).collect();
        let producers = 1 + random.below(4);
        let mut producers: Vec<_> =
            (0..producers).map(|_| ProducerPlan::draw(random, frame_bytes, length)).collect();
        if random.chance(1, 12) {
            producers.extend([ProducerPlan::flood(frame_bytes, length); 3]);
        }
        let consumers = 1 + random.below(3);
        let consumers = (0..consumers).map(|_| ConsumerPlan::draw(random)).collect();
        let mut plan = Self {
            seed,
            shards,
            lanes_per_shard: pick(random, &[1, 1, 2]),
            directories: pick(random, &[1, 1, 2]),
            segment_bytes,
            memory_bytes: pick(random, &[8 << 20, 8 << 20, 16 << 20]),
            frame_bytes,
            topics,
            producers,
            consumers,
            churn: pick(random, &[0, 0, 1, 3]),
            hostile: pick(random, &[0, 0, 0, 5, 40]),
            disk_latency: pick(random, &[100_000, 300_000, 2 * MILLIS, 10 * MILLIS]),
            net_latency: pick(random, &[20_000, 100_000, MILLIS, 20 * MILLIS]),
            chunk_bytes: pick(random, &[64 << 10, 64 << 10, 4096, 1400, 300]),
            socket_bytes: pick(random, &[8 << 10, 64 << 10, 256 << 10]),
            faults: Vec::new(),
            end: length,
        };
        let faults = 1 + random.below(6);
        for _ in 0..faults {
            let at = length / 10 + random.below(length * 9 / 10);
            plan.faults.push((at, FaultKind::draw(random)));
        }
        plan
    }
}

impl TopicPlan {
    fn draw(random: &mut Random) -> Self {
        let kept = match random.below(6) {
            0 => Kept { age_ms: Some(200 + random.below(1000)), bytes: None },
            1 => Kept { age_ms: None, bytes: Some(20_000 + random.below(200_000)) },
            _ => Kept::default(),
        };
        Self { partitions: 1 + random.below(4) as u32, kept }
    }
}

impl ProducerPlan {
    fn draw(random: &mut Random, frame_bytes: usize, length: u64) -> Self {
        let levels = pick(
            random,
            &[[0, 0, 0, 0], [0, 0, 50, 0], [10, 20, 20, 10], [0, 60, 20, 10], [25, 25, 25, 0]],
        );
        let records = pick(random, &[60, 150, 300, 600]);
        let burst = pick(random, &[1, 4, 20, 100]);
        Self {
            records,
            burst,
            // The bursts fill the time of the run.
            pause: 2 * length * burst.div_ceil(2) / u64::from(records),
            value_bytes_max: pick(random, &[40, 200, 1000, 4000]).min(frame_bytes / 4),
            keyed: random.chance(1, 2),
            window: pick(random, &[1, 2, 5, 5]),
            linger: pick(random, &[0, 0, MILLIS, 5 * MILLIS]),
            delivery: pick(random, &[300 * MILLIS, 3_000 * MILLIS, 30_000 * MILLIS]),
            batch_bytes: pick(random, &[1024, 8 << 10, 64 << 10]).min(frame_bytes - 1024),
            insists_on_shard: random.chance(1, 4),
            levels,
        }
    }
}

impl ProducerPlan {
    /// More than a shard may hold, at once.
    fn flood(frame_bytes: usize, length: u64) -> Self {
        Self {
            records: ((10 << 20) / (frame_bytes / 8)) as u32,
            burst: u64::MAX,
            pause: length / 4,
            value_bytes_max: frame_bytes / 4,
            keyed: false,
            window: 64,
            linger: 0,
            delivery: 3_000 * MILLIS,
            batch_bytes: frame_bytes - 1024,
            insists_on_shard: false,
            levels: [0, 30, 40, 0],
        }
    }
}

impl ConsumerPlan {
    fn draw(random: &mut Random) -> Self {
        Self {
            ahead_bytes: pick(random, &[4 << 10, 64 << 10, 1 << 20]),
            wait_ms: pick(random, &[10, 50, 500]),
            bytes_min: pick(random, &[1, 1, 5000]),
            slowness: pick(random, &[0, 0, 2 * MILLIS, 50 * MILLIS]),
            from_end: random.chance(1, 5),
        }
    }
}

impl FaultKind {
    fn draw(random: &mut Random) -> Self {
        let shards = 1 + random.below(2) as u16;
        match random.below(17) {
            0..=6 => FaultKind::Crash {
                style: match random.below(10) {
                    0..=2 => CrashStyle::Bare,
                    3 => CrashStyle::Whole,
                    _ => CrashStyle::Torn(pick(random, &[10, 50, 50, 90])),
                },
                after: random.below(30) as u32,
                shards,
                down: random.below(200 * MILLIS),
                again: random.chance(1, 3),
                damage: random.chance(1, 6),
            },
            7 => FaultKind::Restart { shards },
            8 => FaultKind::StallDisk { length: random.below(500 * MILLIS) },
            9 => FaultKind::RefuseWrite { flush: random.chance(1, 2) },
            10 => FaultKind::RefuseRead,
            11 => FaultKind::FullDisk {
                length: random.below(800 * MILLIS),
                room: random.below(100_000),
            },
            12 => FaultKind::ResetLinks,
            13 => FaultKind::StallLinks { length: random.below(400 * MILLIS) },
            14 => FaultKind::HalfOpen,
            15 => FaultKind::CorruptUp,
            _ => FaultKind::WallJump { millis: random.below(20_000) as i64 - 10_000 },
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Crash { .. } => "fault crash",
            FaultKind::Restart { .. } => "fault restart",
            FaultKind::StallDisk { .. } => "fault stalled disk",
            FaultKind::RefuseWrite { flush: false } => "fault write refused",
            FaultKind::RefuseWrite { flush: true } => "fault flush refused",
            FaultKind::RefuseRead => "fault read refused",
            FaultKind::FullDisk { .. } => "fault full disk",
            FaultKind::ResetLinks => "fault links reset",
            FaultKind::StallLinks { .. } => "fault links stalled",
            FaultKind::HalfOpen => "fault links half open",
            FaultKind::CorruptUp => "fault bit flipped on the network",
            FaultKind::WallJump { .. } => "fault wall clock jump",
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} shards x {} lanes, {} directories, segments {} KiB, memory {} MiB, frames {} KiB, disk {} us, net {} us, chunks {} B, sockets {} B, churn {}, hostile {}, {} ms",
            self.seed,
            self.shards,
            self.lanes_per_shard,
            self.directories,
            self.segment_bytes >> 10,
            self.memory_bytes >> 20,
            self.frame_bytes >> 10,
            self.disk_latency / 1000,
            self.net_latency / 1000,
            self.chunk_bytes,
            self.socket_bytes,
            self.churn,
            self.hostile,
            self.end / MILLIS,
        )?;
        self.topics.iter().try_for_each(|topic| writeln!(f, "  {topic:?}"))?;
        self.producers.iter().try_for_each(|producer| writeln!(f, "  {producer:?}"))?;
        self.consumers.iter().try_for_each(|consumer| writeln!(f, "  {consumer:?}"))?;
        self.faults
            .iter()
            .try_for_each(|(at, fault)| writeln!(f, "  at {} ms {fault:?}", at / MILLIS))
    }
}
