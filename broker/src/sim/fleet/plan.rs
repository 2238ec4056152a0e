//! What a seed draws: the sizes, the workload, the faults.

use std::fmt;

use crate::random::Random;

const MILLIS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLIS;

/// How a power cut treats what is not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutStyle {
    /// All of it is lost.
    Bare,
    /// Each sector, name and size survives with this chance in a hundred.
    Torn(u64),
}

/// What a seed is mostly about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// Nothing goes wrong.
    Calm,
    /// A bit of everything.
    Mixed,
    /// Power cuts, often of all at once, and in quick succession.
    Power,
    /// Cuts, one-way cuts, resets, pauses.
    Network,
    /// Kills and restarts, also while the one before is not over.
    Kills,
    /// Power cuts at the moments at which something was promised and must not be forgotten.
    Aimed,
    /// A bit of everything, and what one of the brokers has on its disk rots.
    Rot,
    /// All brokers lose power in the same instant, and whatever was not flushed; sometimes just after something else went
    /// wrong. Never drawn, only asked for.
    Blackout,
}

/// When something was said that must be durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// A replica has promised an epoch, and tells what it has.
    Answered,
    /// A leader introduces itself.
    Led,
    /// A follower has compared its log with the leader's, and cut it if need be.
    Followed,
    /// A follower has acknowledged.
    Acknowledged,
    /// A member of the metadata's group votes.
    Voted,
    /// A member of the metadata's group has taken records.
    Recorded,
}

/// Whose power is cut then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    Sender,
    Receiver,
    Both,
    All,
}

/// A power cut that waits for its moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aimed {
    pub moment: Moment,
    /// So many of the kind pass by before.
    pub skips: u32,
    pub victim: Victim,
    pub style: CutStyle,
    /// Disk completions until it comes.
    pub after: u32,
    pub down: u64,
}

/// Which way between two hosts is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutWay {
    Both,
    /// From the first to the second only.
    OneWay,
}

/// A fault and what it hits. Lengths are ns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// The process ends without a word; its machine goes on.
    Kill {
        broker: usize,
        down: u64,
        shards: u16,
    },
    /// The machine loses power after so many more disk completions.
    PowerCut {
        broker: usize,
        style: CutStyle,
        after: u32,
        down: u64,
        shards: u16,
    },
    /// A machine, or more of them, loses power when something was said.
    AimedCut(Aimed),
    /// What lies on the broker's disk in data lanes changes at some places.
    Rot {
        broker: usize,
        places: u32,
    },
    /// All machines lose power at once.
    PowerCutAll {
        style: CutStyle,
        down: u64,
    },
    /// The process stands still, and goes on as if nothing had been.
    Pause {
        broker: usize,
        length: u64,
    },
    /// A stop in good order, then a start.
    Restart {
        broker: usize,
        shards: u16,
    },
    /// Every disk order takes until then.
    StallDisk {
        broker: usize,
        length: u64,
    },
    /// Every disk order takes so many times as long.
    SlowDisk {
        broker: usize,
        times: u64,
        length: u64,
    },
    /// Between two brokers.
    Cut {
        from: usize,
        to: usize,
        way: CutWay,
        length: u64,
    },
    /// Between one broker and all other brokers, in the direction away from it if one way.
    Isolate {
        broker: usize,
        way: CutWay,
        is_inward: bool,
        with_clients: bool,
        length: u64,
    },
    /// Between one broker and the clients.
    CutClients {
        broker: usize,
        length: u64,
    },
    /// Each connection of the broker ends with this chance in a hundred.
    Reset {
        broker: usize,
        share: u64,
    },
    /// Whoever dials the broker fails, half of the time.
    FailDials {
        broker: usize,
        length: u64,
    },
    WallJump {
        broker: usize,
        millis: i64,
    },
}

impl FaultKind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "fault kill",
            Self::PowerCut { .. } => "fault power cut",
            Self::PowerCutAll { .. } => "fault power cut of all",
            Self::AimedCut(aimed) => match aimed.moment {
                Moment::Answered => "fault power cut at a promise",
                Moment::Led => "fault power cut at a leader's first word",
                Moment::Followed => "fault power cut at a follower's first word",
                Moment::Acknowledged => "fault power cut at an acknowledgment",
                Moment::Voted => "fault power cut at a vote",
                Moment::Recorded => "fault power cut at a record",
            },
            Self::Rot { .. } => "fault rot",
            Self::Pause { .. } => "fault pause",
            Self::Restart { .. } => "fault restart",
            Self::StallDisk { .. } => "fault stalled disk",
            Self::SlowDisk { .. } => "fault slow disk",
            Self::Cut { way: CutWay::Both, .. } => "fault cut",
            Self::Cut { way: CutWay::OneWay, .. } => "fault one-way cut",
            Self::Isolate { way: CutWay::Both, .. } => "fault isolation",
            Self::Isolate { way: CutWay::OneWay, .. } => "fault one-way isolation",
            Self::CutClients { .. } => "fault clients cut off",
            Self::Reset { .. } => "fault links reset",
            Self::FailDials { .. } => "fault dials failing",
            Self::WallJump { .. } => "fault wall clock jump",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerPlan {
    pub records: u32,
    /// Records handed over at once, at most.
    pub burst: u64,
    /// Between bursts, at most.
    pub pause: u64,
    pub value_bytes_max: usize,
    pub window: usize,
    pub linger: u64,
    pub delivery: u64,
    pub batch_bytes: usize,
    pub is_idempotent: bool,
    /// In a hundred, the level of a record: none, leader_memory, leader_durable, quorum_memory; the rest quorum_durable.
    pub levels: [u64; 4],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerPlan {
    pub wait_ms: u32,
    /// How long a batch lies before it is taken, at most.
    pub slowness: u64,
    /// It reads from followers there.
    pub rack: Option<u64>,
}

/// What of the brokers is left broken while progress is demanded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    Nothing,
    /// This many, a minority, are down.
    Down(usize),
    /// This many are there, and cut off from everybody.
    CutOff(usize),
    /// This many stand still.
    Paused(usize),
    /// The disks of this many complete nothing.
    Hung(usize),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub seed: u64,
    pub theme: Theme,
    /// Those that begin, and those that join later.
    pub brokers: usize,
    /// When each of the last ones starts for the first time, and joins.
    pub joins: Vec<u64>,
    /// By broker, at its first start.
    pub shards: Vec<u16>,
    /// By broker. Not all say theirs.
    pub racks: Vec<Option<u64>>,
    pub replicas: usize,
    pub lanes_per_shard: u16,
    pub segment_bytes: u64,
    pub memory_bytes: usize,
    /// By topic, its partitions.
    pub topics: Vec<u32>,
    pub producers: Vec<ProducerPlan>,
    pub consumers: Vec<ConsumerPlan>,
    /// Slowest ordinary disk order, and network hop, ns.
    pub disk_latency: u64,
    pub net_latency: u64,
    /// Largest piece of a stream that arrives at once.
    pub chunk_bytes: usize,
    /// What a socket holds.
    pub socket_bytes: usize,
    pub faults: Vec<(u64, FaultKind)>,
    pub left: Left,
    /// Lanes are led elsewhere by themselves because of their load.
    pub balances: bool,
    /// When the faults stop.
    pub end: u64,
}

/// How many there are.
pub const RACKS: u64 = 3;

/// What a rack is called.
pub fn rack_name(rack: u64) -> String {
    format!("rack-{rack}")
}

/// Faults come once the cluster has had time to begin.
const QUIET_START: u64 = 1_500 * MILLIS;

impl Plan {
    /// How many brokers begin.
    pub fn first(&self) -> usize {
        self.brokers - self.joins.len()
    }

    /// Draws the run of a seed that so many brokers begin, 3 or more, with a workload of `length` ns. In some runs more join.
    pub fn draw(seed: u64, brokers: usize, length: u64) -> Self {
        let mut random = Random::new(seed ^ 0x000f_1ee7 ^ ((brokers as u64) << 56));
        let theme = match random.below(16) {
            0 => Theme::Calm,
            1..=4 => Theme::Mixed,
            5..=7 => Theme::Power,
            8..=9 => Theme::Network,
            10..=11 => Theme::Kills,
            12..=13 => Theme::Rot,
            _ => Theme::Aimed,
        };
        Self::draw_themed(seed, brokers, length, theme, &mut random)
    }

    /// One in which all brokers lose power at once, one to three times, and all that is not flushed is lost.
    pub fn blackout(seed: u64, brokers: usize, length: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0b1a_c0e7 ^ ((brokers as u64) << 56));
        Self::draw_themed(seed, brokers, length, Theme::Blackout, &mut random)
    }

    /// The same without any fault.
    pub fn calm(seed: u64, brokers: usize, length: u64) -> Self {
        Self::draw_themed(seed, brokers, length, Theme::Calm, &mut Random::new(seed))
    }

    fn draw_themed(
        seed: u64,
        brokers: usize,
        length: u64,
        theme: Theme,
        random: &mut Random,
    ) -> Self {
        // Of a chance of its own: runs in which nobody joins are what they would be without.
        let mut joining = Random::new(seed ^ 0x4a6f_696e);
        let spares = if joining.chance(1, 3) { 1 + joining.below(2) } else { 0 };
        let joins: Vec<u64> =
            (0..spares).map(|_| QUIET_START + joining.below(length.max(1))).collect();
        let first = brokers;
        let brokers = first + joins.len();
        let replicas = if first >= 5 && random.chance(1, 2) { 5 } else { 3 };
        let shards: Vec<u16> = (0..brokers).map(|_| 1 + random.below(2) as u16).collect();
        let topics = (0..1 + random.below(2)).map(|_| 1 + random.below(4) as u32).collect();
        let producers = (0..1 + random.below(3)).map(|_| ProducerPlan::draw(length, random));
        let producers = producers.collect();
        let consumers = (0..1 + random.below(2)).map(|_| ConsumerPlan {
            wait_ms: random.below(300) as u32,
            slowness: if random.chance(1, 3) { random.below(50 * MILLIS) } else { 0 },
            rack: None,
        });
        let mut consumers: Vec<ConsumerPlan> = consumers.collect();
        let fast = random.chance(1, 2);
        let rotting = random.below(brokers as u64) as usize;
        let mut faults = Faults { random, brokers, theme, rotting };
        let minority = (replicas - 1) / 2;
        // Drawn apart, so that all else of a seed is as it was.
        let mut apart = Random::new(seed ^ 0x0000_7ac4);
        let racks = (0..brokers as u64).map(|broker| apart.chance(7, 8).then_some(broker % RACKS));
        let racks = racks.collect();
        for consumer in &mut consumers {
            consumer.rack = apart.chance(3, 4).then(|| apart.below(RACKS));
        }
        let faults = faults.draw(length);
        let some = 1 + random.below(minority as u64) as usize;
        let left = match random.below(5) {
            _ if theme == Theme::Calm => Left::Nothing,
            0 | 1 => Left::Nothing,
            2 => Left::Down(some),
            3 => Left::CutOff(some),
            _ if Random::new(seed ^ 0x0d15_c000).chance(1, 2) => Left::Hung(some),
            _ => Left::Paused(some),
        };
        Self {
            seed,
            theme,
            brokers,
            joins,
            shards,
            racks,
            replicas,
            lanes_per_shard: 1 + random.below(2) as u16,
            segment_bytes: (128 << 10) << random.below(4),
            memory_bytes: 16 << 20,
            topics,
            producers,
            consumers,
            disk_latency: if fast { 400_000 } else { 4 * MILLIS },
            net_latency: if random.chance(1, 2) { 100_000 } else { 3 * MILLIS },
            chunk_bytes: 1 << (8 + random.below(9)),
            socket_bytes: 1 << (14 + random.below(5)),
            faults,
            left,
            balances: Random::new(seed ^ 0x0010_ad00).chance(1, 2),
            end: QUIET_START + length,
        }
    }
}

impl ProducerPlan {
    fn draw(length: u64, random: &mut Random) -> Self {
        let records = 100 + random.below(400) as u32;
        let burst = 1 + random.below(16);
        let is_idempotent = !random.chance(1, 5);
        let levels = match random.below(4) {
            0 => [5, 15, 20, 20],
            1 => [0, 20, 20, 20],
            _ => [0; 4],
        };
        Self {
            records,
            burst,
            // So that the work lasts about as long as the faults.
            pause: (2 * length * burst / u64::from(records)).max(MILLIS),
            value_bytes_max: 1 << (5 + random.below(8)),
            window: 1 + random.below(5) as usize,
            linger: if random.chance(1, 3) { random.below(10 * MILLIS) } else { 0 },
            delivery: if random.chance(1, 3) { 2 * SECOND } else { 20 * SECOND },
            batch_bytes: 1 << (9 + random.below(7)),
            is_idempotent,
            levels,
        }
    }
}

/// What faults are drawn from.
struct Faults<'a> {
    random: &'a mut Random,
    brokers: usize,
    theme: Theme,
    /// Whose disk rots: no other one does, so that each entry has a sound copy.
    rotting: usize,
}

impl Faults<'_> {
    fn draw(&mut self, length: u64) -> Vec<(u64, FaultKind)> {
        if self.theme == Theme::Blackout {
            return self.blackouts(length);
        }
        let count = match self.theme {
            Theme::Calm => 0,
            Theme::Mixed | Theme::Rot => 3 + self.random.below(12),
            _ => 3 + self.random.below(9),
        };
        let mut faults: Vec<_> = (0..count)
            .map(|_| (QUIET_START + self.random.below(length), self.draw_one()))
            .collect();
        for at in 0..faults.len() {
            if let (time, FaultKind::AimedCut(_)) = faults[at]
                && self.random.chance(3, 4)
            {
                // So that something is promised.
                faults.push((time + self.random.below(20 * MILLIS), self.upset()));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        faults
    }

    fn blackouts(&mut self, length: u64) -> Vec<(u64, FaultKind)> {
        let mut faults = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let at = QUIET_START + self.random.below(length);
            let down = 1 + self.random.below(300 * MILLIS);
            faults.push((at, FaultKind::PowerCutAll { style: CutStyle::Bare, down }));
            if self.random.chance(1, 2) {
                // So that replicas differ, or somebody is about to lead, when it comes.
                faults.push((at - self.random.below(SECOND), self.upset()));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        faults
    }

    fn broker(&mut self) -> usize {
        self.random.below(self.brokers as u64) as usize
    }

    fn length(&mut self) -> u64 {
        // Below and above what is noticed.
        match self.random.below(3) {
            0 => 1 + self.random.below(300 * MILLIS),
            1 => 300 * MILLIS + self.random.below(SECOND),
            _ => SECOND + self.random.below(2 * SECOND),
        }
    }

    fn style(&mut self) -> CutStyle {
        if self.random.chance(1, 3) {
            CutStyle::Bare
        } else {
            CutStyle::Torn(10 + self.random.below(80))
        }
    }

    fn aimed(&mut self) -> Aimed {
        const MOMENTS: [Moment; 6] = [
            Moment::Answered,
            Moment::Led,
            Moment::Followed,
            Moment::Acknowledged,
            Moment::Voted,
            Moment::Recorded,
        ];
        const VICTIMS: [Victim; 4] = [Victim::Sender, Victim::Receiver, Victim::Both, Victim::All];
        Aimed {
            moment: MOMENTS[self.random.below(6) as usize],
            skips: self.random.below(4) as u32,
            victim: VICTIMS[self.random.below(4) as usize],
            style: self.style(),
            after: self.random.below(4) as u32,
            down: 1 + self.random.below(300 * MILLIS),
        }
    }

    /// What makes others lead.
    fn upset(&mut self) -> FaultKind {
        let (broker, length) = (self.broker(), 500 * MILLIS + self.random.below(SECOND));
        match self.random.below(4) {
            0 => FaultKind::Kill { broker, down: length / 4, shards: 1 },
            1 => FaultKind::Pause { broker, length },
            2 => {
                let step = 1 + self.random.below(self.brokers as u64 - 1) as usize;
                let (to, way) = ((broker + step) % self.brokers, CutWay::Both);
                FaultKind::Cut { from: broker, to, way, length }
            }
            _ => FaultKind::Isolate {
                broker,
                way: if self.random.chance(1, 2) { CutWay::Both } else { CutWay::OneWay },
                is_inward: self.random.chance(1, 2),
                with_clients: false,
                length,
            },
        }
    }

    fn draw_one(&mut self) -> FaultKind {
        let broker = self.broker();
        let shards = 1 + self.random.below(2) as u16;
        let length = self.length();
        let way = if self.random.chance(1, 2) { CutWay::Both } else { CutWay::OneWay };
        let kind = match self.theme {
            Theme::Calm | Theme::Mixed | Theme::Blackout => self.random.below(16),
            Theme::Aimed => [15, 15, 15, 0, 1, 3, 7, 8][self.random.below(8) as usize],
            Theme::Rot if self.random.chance(1, 3) => 16,
            Theme::Rot => self.random.below(16),
            Theme::Power => [1, 1, 1, 2, 2, 0, 9, 5][self.random.below(8) as usize],
            Theme::Network => [3, 7, 7, 8, 8, 9, 10, 11, 12][self.random.below(9) as usize],
            Theme::Kills => [0, 0, 0, 1, 4, 3, 7][self.random.below(7) as usize],
        };
        match kind {
            0 | 13 => FaultKind::Kill { broker, down: length, shards },
            1 | 14 => {
                let (style, after) = (self.style(), self.random.below(60) as u32);
                FaultKind::PowerCut { broker, style, after, down: length, shards }
            }
            2 => FaultKind::PowerCutAll { style: self.style(), down: length / 2 },
            3 => FaultKind::Pause { broker, length },
            4 => FaultKind::Restart { broker, shards },
            5 => FaultKind::StallDisk { broker, length },
            6 => FaultKind::SlowDisk { broker, times: 2 + self.random.below(30), length },
            7 => {
                let step = 1 + self.random.below(self.brokers as u64 - 1) as usize;
                FaultKind::Cut { from: broker, to: (broker + step) % self.brokers, way, length }
            }
            8 => FaultKind::Isolate {
                broker,
                way,
                is_inward: self.random.chance(1, 2),
                with_clients: self.random.chance(1, 2),
                length,
            },
            9 => FaultKind::Reset { broker, share: 20 + self.random.below(81) },
            10 => FaultKind::CutClients { broker, length },
            11 => FaultKind::FailDials { broker, length },
            15 => FaultKind::AimedCut(self.aimed()),
            16 => FaultKind::Rot { broker: self.rotting, places: 1 + self.random.below(3) as u32 },
            _ => {
                let millis = self.random.below(20_000_000) as i64 - 10_000_000;
                FaultKind::WallJump { broker, millis }
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:#?}", Self { faults: Vec::new(), ..self.clone() })?;
        for (at, fault) in &self.faults {
            writeln!(f, "{:>8} ms  {fault:?}", at / MILLIS)?;
        }
        Ok(())
    }
}
