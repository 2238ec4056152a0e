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

/// What a seed is mostly about. All kinds of faults and of work come in each, but rare things meet often
/// only where they are many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// A bit of everything.
    Mixed,
    /// Power cuts in quick succession, of recoveries too, with several commits in flight.
    Cuts,
    /// Small segments that expire soon: their files are used again, full of old bytes.
    Recycling,
    /// More than a shard may hold: a crowd of connections with frames that never end, and floods of records.
    Flood,
    /// The medium breaks its word.
    Medium,
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
    pub is_idempotent: bool,
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
    /// The next write of a data lane is reported and reaches nothing.
    LoseWrite,
    /// The next write of a data lane is reported and lands elsewhere in its file.
    MisdirectWrite,
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
    pub theme: Theme,
    pub shards: u16,
    pub lanes_per_shard: u16,
    pub directories: u16,
    pub segment_bytes: u64,
    pub gather_bytes: usize,
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

/// Connections that each hold most of a large frame: together more than a shard may hold.
const CROWD: u32 = 200;

fn pick<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize]
}

impl Plan {
    /// Everything follows from the seed. `length`: of the workload, in virtual ns.
    pub fn draw(seed: u64, length: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x51f1_5eed_0b0e_a55e);
        let theme = match random.below(16) {
            0..=2 => Theme::Cuts,
            3..=5 => Theme::Recycling,
            6 => Theme::Flood,
            7..=8 => Theme::Medium,
            _ => Theme::Mixed,
        };
        let is_small = matches!(theme, Theme::Cuts | Theme::Recycling);
        let segment_bytes = match is_small {
            true => pick(random, &[64 << 10, 64 << 10, 96 << 10]),
            false if theme == Theme::Flood => 1 << 20,
            false => pick(random, &[64 << 10, 96 << 10, 128 << 10, 256 << 10, 1 << 20]),
        };
        let frame_bytes = match theme {
            Theme::Flood => 128 << 10,
            _ => ((segment_bytes as usize) / 2).min(pick(random, &[16 << 10, 32 << 10, 128 << 10])),
        };
        let topics = 1 + random.below(3);
        let topics: Vec<TopicPlan> = (0..topics).map(|_| TopicPlan::draw(random, theme)).collect();
        let producers = 1 + random.below(4);
        let mut producers: Vec<_> = (0..producers)
            .map(|_| ProducerPlan::draw(random, theme, frame_bytes, length))
            .collect();
        if theme == Theme::Flood {
            producers.extend([ProducerPlan::flood(frame_bytes, length); 3]);
        }
        let consumers = 1 + random.below(3);
        let consumers = (0..consumers).map(|_| ConsumerPlan::draw(random)).collect();
        let mut plan = Self {
            seed,
            theme,
            shards: if is_small { pick(random, &[1, 1, 2]) } else { pick(random, &[1, 2, 2]) },
            lanes_per_shard: if is_small { 1 } else { pick(random, &[1, 1, 2]) },
            directories: pick(random, &[1, 1, 2]),
            segment_bytes,
            gather_bytes: pick(random, &[1, 1, 4 << 10, 128 << 10]),
            memory_bytes: match theme {
                Theme::Flood => 8 << 20,
                _ => pick(random, &[8 << 20, 8 << 20, 16 << 20]),
            },
            frame_bytes,
            topics,
            producers,
            consumers,
            churn: pick(random, &[0, 0, 1, 3]),
            hostile: match theme {
                Theme::Flood => CROWD,
                _ => pick(random, &[0, 0, 0, 5, 40]),
            },
            disk_latency: pick(random, &[100_000, 300_000, 2 * MILLIS, 10 * MILLIS]),
            net_latency: pick(random, &[20_000, 100_000, MILLIS, 20 * MILLIS]),
            chunk_bytes: pick(random, &[64 << 10, 64 << 10, 4096, 1400, 300]),
            socket_bytes: pick(random, &[8 << 10, 64 << 10, 256 << 10]),
            faults: Vec::new(),
            // Long enough for the broker's own deadlines, now and then.
            end: if random.chance(1, 12) { 4 * length } else { length },
        };
        let faults = match theme {
            Theme::Cuts | Theme::Medium => 4 + random.below(6),
            Theme::Recycling => 2 + random.below(5),
            Theme::Mixed | Theme::Flood => 1 + random.below(6),
        };
        for _ in 0..faults {
            let at = length / 10 + random.below(plan.end - length / 10);
            plan.faults.push((at, FaultKind::draw(random, theme)));
        }
        plan
    }
}

impl TopicPlan {
    fn draw(random: &mut Random, theme: Theme) -> Self {
        let kept = match random.below(6) {
            _ if theme == Theme::Recycling => {
                Kept { age_ms: None, bytes: Some(4_000 + random.below(30_000)) }
            }
            0 => Kept { age_ms: Some(200 + random.below(1000)), bytes: None },
            1 => Kept { age_ms: None, bytes: Some(20_000 + random.below(200_000)) },
            _ => Kept::default(),
        };
        Self { partitions: 1 + random.below(4) as u32, kept }
    }
}

impl ProducerPlan {
    fn draw(random: &mut Random, theme: Theme, frame_bytes: usize, length: u64) -> Self {
        let levels = pick(
            random,
            &[[0, 0, 0, 0], [0, 0, 50, 0], [10, 20, 20, 10], [0, 60, 20, 10], [25, 25, 25, 0]],
        );
        let is_recycling = theme == Theme::Recycling;
        let records = pick(random, &[60, 150, 300, 600]) * if is_recycling { 2 } else { 1 };
        let burst = pick(random, &[1, 4, 20, 100]);
        let value_bytes_max = match is_recycling {
            true => pick(random, &[1000, 2000, 4000]),
            false => pick(random, &[40, 200, 1000, 4000]),
        };
        Self {
            records,
            burst,
            // The bursts fill the time of the run.
            pause: 2 * length * burst.div_ceil(2) / u64::from(records),
            value_bytes_max: value_bytes_max.min(frame_bytes / 4),
            keyed: random.chance(1, 2),
            window: pick(random, &[1, 2, 5, 5]),
            linger: pick(random, &[0, 0, MILLIS, 5 * MILLIS]),
            delivery: pick(random, &[300 * MILLIS, 3_000 * MILLIS, 30_000 * MILLIS]),
            batch_bytes: pick(random, &[1024, 8 << 10, 64 << 10]).min(frame_bytes - 1024),
            insists_on_shard: random.chance(1, 4),
            is_idempotent: random.chance(3, 4),
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
            is_idempotent: true,
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
    fn draw(random: &mut Random, theme: Theme) -> Self {
        let shards = 1 + random.below(2) as u16;
        let is_medium = theme == Theme::Medium;
        let kind = match theme {
            Theme::Cuts => random.below(10),
            Theme::Recycling => random.below(12),
            _ => random.below(17),
        };
        if is_medium && random.chance(1, 3) {
            return pick(random, &[FaultKind::LoseWrite, FaultKind::MisdirectWrite]);
        }
        match kind {
            0..=6 => FaultKind::Crash {
                style: match random.below(10) {
                    0..=2 => CrashStyle::Bare,
                    3 => CrashStyle::Whole,
                    _ => CrashStyle::Torn(pick(random, &[10, 50, 50, 90])),
                },
                after: random.below(30) as u32,
                shards,
                down: random.below(200 * MILLIS),
                again: random.chance(1, if theme == Theme::Cuts { 2 } else { 3 }),
                damage: is_medium && random.chance(1, 2),
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
            FaultKind::LoseWrite => ".fault lost write planned",
            FaultKind::MisdirectWrite => ".fault misdirected write planned",
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
            "seed {} ({:?}): {} shards x {} lanes, {} directories, segments {} KiB, gather {} B, memory {} MiB, frames {} KiB, disk {} us, net {} us, chunks {} B, sockets {} B, churn {}, hostile {}, {} ms",
            self.seed,
            self.theme,
            self.shards,
            self.lanes_per_shard,
            self.directories,
            self.segment_bytes >> 10,
            self.gather_bytes,
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
