//! The world of one run: a broker on simulated disks, clients on a simulated network, faults.
//!
//! Everything happens in `World::happen`, one action at a time, in the order of the queue. The broker's side
//! is in `broker`, streams in `net`, clients and their workload in `clients`, faults in `faults`, and
//! the quiet end with its verdict in `ending`.

mod broker;
pub(in crate::sim) mod bytes;
mod clients;
mod consumers;
mod damage;
mod ending;
mod faults;
mod hostile;
mod net;
mod workload;

use crate::disk::OpId;
use crate::random::Random;
use crate::shard::event::{Conn, DialId};
use crate::shard::message::ShardMessage;
use crate::sim::check::Checks;
use crate::sim::check::history::Kept;
use crate::sim::disk::{Fault, Image, SimDisk};
use crate::sim::plan::{FaultKind, Plan, Theme};
use crate::sim::queue::Queue;
use crate::sim::tally::Tally;
use crate::sim::trace::{Checked, Trace, Violation};
use crate::time::{Monotonic, Now, Wall};

use broker::Broker;
use clients::Client;
use net::Link;

/// 2026-11-01, ms since 1970.
const WALL_START_MS: i64 = 1_793_491_200_000;

/// Everything that can be planned.
#[derive(Debug)]
enum Action {
    /// For one life of the broker only.
    Broker {
        life: u64,
        shard: usize,
        what: BrokerAction,
    },
    Connect {
        link: usize,
    },
    PumpUp {
        link: usize,
    },
    PumpDown {
        link: usize,
    },
    /// The broker's side of a link learns of its end.
    ConnClosed {
        life: u64,
        shard: usize,
        conn: Conn,
    },
    /// The client's side does.
    LinkClosed {
        link: usize,
    },
    HostileEnd {
        link: usize,
    },
    ClientTimer {
        client: usize,
        at: u64,
    },
    /// The client's workload goes on.
    ClientWork {
        client: usize,
    },
    Fault(FaultKind),
    StartBroker {
        shards: u16,
    },
    PowerCut,
    FreeDisk,
    /// The process is given up after a failed directory.
    Kill,
    End,
    Ending,
}

#[derive(Debug)]
enum BrokerAction {
    DiskDone { op: OpId, fault: Option<Fault> },
    Turn,
    Dialed { dial: DialId },
    Wake { at: Monotonic },
    Told { from: u16, message: Box<ShardMessage> },
}

pub struct World {
    plan: Plan,
    now: u64,
    wall_offset_ms: i64,
    /// The latest that the wall clock has shown.
    wall_max_ms: i64,
    queue: Queue<Action>,
    random: Random,
    pub trace: Trace,
    pub tally: Tally,
    pub checks: Checks,
    /// What the disk holds while no broker runs.
    image: Image,
    disk: SimDisk,
    broker: Option<Broker>,
    lives: u64,
    links: Vec<Link>,
    clients: Vec<Client>,
    faults: faults::Faults,
    ending: ending::Ending,
    violation: Option<Violation>,
    /// By topic of the history: partitions.
    topics: Vec<u32>,
    /// What honest clients said first.
    recorded: Vec<u8>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub hash: u64,
    pub events: u64,
    pub virtual_nanos: u64,
    pub tally: Tally,
    pub lines: Vec<String>,
}

impl World {
    pub fn new(plan: Plan, keep_lines: bool) -> Self {
        let mut world = Self {
            now: 1_000_000,
            wall_offset_ms: WALL_START_MS,
            wall_max_ms: WALL_START_MS,
            queue: Queue::default(),
            random: Random::new(plan.seed),
            trace: Trace::new(keep_lines),
            tally: Tally::default(),
            checks: Checks::default(),
            image: Image::default(),
            disk: SimDisk::new(),
            broker: None,
            lives: 0,
            links: Vec::new(),
            clients: Vec::new(),
            faults: faults::Faults::default(),
            ending: ending::Ending::default(),
            violation: None,
            topics: Vec::new(),
            recorded: Vec::new(),
            plan,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        if self.plan.theme == Theme::Medium {
            self.checks.durable.remember_records();
        }
        for topic in self.plan.topics.clone() {
            self.add_topic(topic.kept, topic.partitions);
        }
        self.add_clients();
        for (at, fault) in self.plan.faults.clone() {
            self.queue.at(at, Action::Fault(fault));
        }
        self.queue.at(self.plan.end, Action::End);
        let shards = self.plan.shards;
        self.queue.at(self.now, Action::StartBroker { shards });
    }

    fn add_topic(&mut self, kept: Kept, partitions: u32) -> usize {
        self.topics.push(partitions);
        self.checks.history.add_topic(kept)
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self) -> Outcome {
        while self.violation.is_none() && !self.ending.is_over() {
            let Some((at, action)) = self.queue.take_next() else {
                self.violated(Violation::new("simulator", "nothing is planned any more"));
                break;
            };
            assert!(at >= self.now);
            self.now = at;
            self.happen(action);
        }
        self.checks.count(&mut self.tally);
        self.count_broker();
        Outcome {
            violation: self.violation,
            hash: self.trace.hash(),
            events: self.trace.events(),
            virtual_nanos: self.now,
            tally: self.tally,
            lines: self.trace.lines().map(str::to_owned).collect(),
        }
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::Broker { life, shard, what } if life == self.lives => {
                self.broker_action(shard, what)
            }
            Action::ConnClosed { life, shard, conn } if life == self.lives => {
                self.conn_closed(shard, conn)
            }
            Action::Broker { .. } | Action::ConnClosed { .. } => {}
            Action::Connect { link } => self.connect(link),
            Action::PumpUp { link } => self.pump_up(link),
            Action::PumpDown { link } => self.pump_down(link),
            Action::LinkClosed { link } => self.link_closed(link),
            Action::HostileEnd { link } => self.hostile_end(link),
            Action::ClientTimer { client, at } => self.client_timer(client, at),
            Action::ClientWork { client } => self.client_work(client),
            Action::Fault(fault) => self.on_fault(fault),
            Action::StartBroker { shards } => self.start_broker(shards),
            Action::PowerCut => self.power_cut(),
            Action::FreeDisk => self.free_disk(),
            Action::Kill => self.kill(),
            Action::End => self.end(),
            Action::Ending => self.go_on_ending(),
        }
    }

    /// Plans an action `delay` ns from now.
    fn after(&mut self, delay: u64, action: Action) {
        self.queue.at(self.now + delay, action);
    }

    /// Short most of the time, now and then up to `most`.
    fn draw_delay(&mut self, most: u64) -> u64 {
        let most = most.max(2);
        match self.random.below(16) {
            0 => 1 + self.random.below(most),
            1..=4 => 1 + self.random.below(most / 2),
            _ => 1 + self.random.below((most / 8).max(1)),
        }
    }

    fn wall_ms(&self) -> i64 {
        self.wall_offset_ms + (self.now / 1_000_000) as i64
    }

    fn broker_now(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: Wall(self.wall_ms()) }
    }

    fn check(&mut self, checked: Checked) {
        if let Err(violation) = checked {
            self.violated(violation);
        }
    }

    /// The first one counts: what follows is its consequence.
    fn violated(&mut self, violation: Violation) {
        let now = self.now;
        self.trace.line(now, || format!("VIOLATION {violation}"));
        self.violation.get_or_insert(violation);
    }
}
