//! Several brokers with their clients, on one thread, from one seed: machines that lose power, processes that are
//! killed or stand still, a network that is cut in one way or both, and what must hold whatever happens.
//!
//! ```text
//! plan ──▶ faults ──▶ machines (a disk, a process of a few shards) ◀── streams ──▶ clients (real engines)
//!             │                      │                                   │
//!             └─▶ network (cuts)     └──────────── check/ listens ───────┘
//! ```
//! Everything happens in `World::happen`, one action at a time, in the order of the queue. A run has faults first; then
//! they stop, a majority is there, and progress is demanded; then all are there, and all is read back and compared:
//! `ending`. A checker believes no broker: it listens to the wire and looks at the disks.

mod aim;
mod answers;
pub mod check;
mod clients;
mod consumers;
pub mod coverage;
mod ending;
mod faults;
mod machine;
mod network;
mod operations;
mod peers;
pub mod plan;
mod power;
mod rot;
pub mod run;
mod shards;
mod streams;
mod workload;

use corelog_protocol::ids::ShardId;

use crate::disk::OpId;
use crate::random::Random;
use crate::shard::event::{Conn, DialId};
use crate::shard::message::ShardMessage;
use crate::sim::queue::Queue;
use crate::sim::tally::Tally;
use crate::sim::threads::caught;
use crate::sim::trace::{Checked, Trace, Violation};
use crate::sim::world::Outcome;
use crate::time::Monotonic;

use check::Checks;
use clients::Client;
use machine::Machine;
use network::Network;
use plan::{Aimed, FaultKind, Plan};
use streams::Stream;

/// 2026-11-01, ms since 1970.
const WALL_START_MS: i64 = 1_793_491_200_000;

/// Everything that can be planned.
#[derive(Debug)]
enum Action {
    /// For one life of a broker only. It waits while the process stands still.
    Broker {
        broker: usize,
        life: u64,
        shard: usize,
        what: BrokerAction,
    },
    /// A connection attempt arrives.
    Dial {
        stream: usize,
    },
    /// The one who dialed hears that it stands.
    Established {
        stream: usize,
    },
    /// Or that it does not.
    DialFailed {
        stream: usize,
    },
    Pump {
        stream: usize,
        way: usize,
    },
    /// What has not passed for so long never will.
    Break {
        stream: usize,
        way: usize,
        stall: u64,
    },
    ClientTimer {
        client: usize,
        at: u64,
    },
    ClientWork {
        client: usize,
    },
    Fault(FaultKind),
    /// The ways that a fault cut pass again.
    Mend {
        ways: Vec<(usize, usize)>,
        heals: u32,
    },
    Resume {
        broker: usize,
        until: u64,
    },
    Start {
        broker: usize,
    },
    /// A power cut that waits for disk orders which do not come.
    PowerCut {
        broker: usize,
        life: u64,
    },
    End,
    Ending,
}

#[derive(Debug)]
enum BrokerAction {
    DiskDone { op: OpId },
    Turn,
    DialFailed { dial: DialId },
    Wake { at: Monotonic },
    Told { from: ShardId, message: Box<ShardMessage> },
    Closed { conn: Conn },
}

pub struct World {
    plan: Plan,
    now: u64,
    queue: Queue<Action>,
    random: Random,
    pub trace: Trace,
    pub tally: Tally,
    pub checks: Checks,
    machines: Vec<Machine>,
    network: Network,
    /// Power cuts that wait for their moment.
    aimed: Vec<Aimed>,
    streams: Vec<Stream>,
    clients: Vec<Client>,
    ending: ending::Ending,
    violation: Option<Violation>,
}

impl World {
    pub fn new(plan: Plan, keep_lines: bool) -> Self {
        let brokers = plan.brokers;
        let mut world = Self {
            now: 1_000_000,
            queue: Queue::default(),
            random: Random::new(plan.seed),
            trace: Trace::new(keep_lines),
            tally: Tally::default(),
            checks: Checks::new(brokers, plan.replicas),
            machines: (0..brokers).map(|_| Machine::new(WALL_START_MS)).collect(),
            network: Network::default(),
            aimed: Vec::new(),
            streams: Vec::new(),
            clients: Vec::new(),
            ending: ending::Ending::default(),
            violation: None,
            plan,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        for _ in 0..self.plan.topics.len() {
            self.checks.history.add_topic(Default::default());
        }
        self.add_clients();
        for (at, fault) in self.plan.faults.clone() {
            self.queue.at(at, Action::Fault(fault));
        }
        self.queue.at(self.plan.end, Action::End);
        for broker in 0..self.plan.brokers {
            self.machines[broker].shards_next = self.plan.shards[broker];
            let delay = match broker.checked_sub(self.plan.first()) {
                Some(joiner) => self.plan.joins[joiner],
                None => self.random.below(100_000_000),
            };
            self.after(delay, Action::Start { broker });
        }
    }

    /// Runs to the end, or to the first violation. A panic, which is an assertion of a broker or of a client, is a
    /// violation too.
    pub fn run(mut self) -> Outcome {
        if let Err(text) = caught(|| self.go_on()) {
            self.violated(Violation::new("panic", text));
        }
        self.checks.count(&mut self.tally);
        for broker in 0..self.machines.len() {
            self.count_broker(broker);
        }
        Outcome {
            violation: self.violation,
            hash: self.trace.hash(),
            events: self.trace.events(),
            virtual_nanos: self.now,
            tally: self.tally,
            lines: self.trace.lines().map(str::to_owned).collect(),
        }
    }

    fn go_on(&mut self) {
        while self.violation.is_none() && !self.ending.is_over() {
            let Some((at, action)) = self.queue.take_next() else {
                self.violated(Violation::new("simulator", "nothing is planned any more"));
                break;
            };
            assert!(at >= self.now);
            self.now = at;
            self.happen(action);
        }
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::Broker { broker, life, shard, what } => {
                if self.machines[broker].life() != Some(life) {
                    return;
                }
                if self.machines[broker].paused_until.is_some() {
                    let action = Action::Broker { broker, life, shard, what };
                    return self.machines[broker].held.push(action);
                }
                self.broker_action(broker, shard, what);
            }
            Action::Dial { stream } => self.dial_arrives(stream),
            Action::Established { stream } => self.established(stream),
            Action::DialFailed { stream } => self.dial_failed(stream),
            Action::Pump { stream, way } => self.pump(stream, way),
            Action::Break { stream, way, stall } => self.break_stalled(stream, way, stall),
            Action::ClientTimer { client, at } => self.client_timer(client, at),
            Action::ClientWork { client } => self.client_work(client),
            Action::Fault(fault) => self.on_fault(fault),
            Action::Mend { ways, heals } => self.mend(&ways, heals),
            Action::Resume { broker, until } => self.resume(broker, until),
            Action::Start { broker } => self.start_broker(broker),
            Action::PowerCut { broker, life } => self.overdue_power_cut(broker, life),
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

    fn check(&mut self, checked: Checked) {
        if let Err(violation) = checked {
            self.violated(violation);
        }
    }

    fn line(&mut self, text: impl FnOnce() -> String) {
        self.trace.line(self.now, text);
    }

    /// The first one counts: what follows is its consequence.
    fn violated(&mut self, violation: Violation) {
        self.line(|| format!("VIOLATION {violation}"));
        self.violation.get_or_insert(violation);
    }
}
