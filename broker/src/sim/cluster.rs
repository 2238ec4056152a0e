//! Several brokers of a cluster on one thread: a [`World`] for each, one clock, and a network between them
//! that can be cut. No chance in it.
//!
//! Bytes of a link move at once unless the way is cut; a cut way says nothing to anybody, as a lost cable. A
//! broker that is killed hangs up on the others, and comes back with its disk and a new life.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, Incarnation};

use super::scene::{Client, Dial, World};
use super::wiretap::Wiretap;
use crate::shard::ShardConfig;
use crate::time::{Monotonic, Nanos};

/// Brokers are named by their place here: broker 0 has the number 1.
pub struct Cluster {
    pub brokers: Vec<Member>,
    wires: Vec<Wire>,
    /// Pairs of brokers between which nothing passes, the smaller first.
    cuts: BTreeSet<(usize, usize)>,
    /// Frames that went from one broker to another, greetings excepted, in order.
    pub said: Vec<Said>,
    config: Rc<dyn Fn(&mut ShardConfig)>,
}

pub struct Member {
    pub world: World,
    pub is_alive: bool,
    shards: u16,
    life: Rc<Cell<u64>>,
    incarnation: Rc<Cell<u64>>,
}

impl Member {
    /// One that has not started. `listed`: the brokers that it knows, this one among them.
    fn new(
        at: usize,
        shards: u16,
        listed: Vec<(BrokerId, Option<SocketAddr>)>,
        joins: bool,
        config: Rc<dyn Fn(&mut ShardConfig)>,
    ) -> Self {
        let life = Rc::new(Cell::new(1));
        let incarnation = Rc::new(Cell::new(100 + at as u64));
        let (own_life, own_incarnation) = (Rc::clone(&life), Rc::clone(&incarnation));
        let mut world = World::unstarted(shards, move |shard| {
            shard.broker = number(at);
            shard.incarnation = Incarnation(own_incarnation.get());
            shard.life = 1_000 * (at as u64 + 1) + own_life.get();
            shard.cluster_brokers.clone_from(&listed);
            shard.join = joins;
            shard.advertise = address(at);
            config(shard);
        });
        world.is_networked = true;
        Self { world, is_alive: true, shards, life, incarnation }
    }
}

/// A frame that one broker sent to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    pub from: usize,
    pub to: usize,
    pub kind: FrameKind,
    pub control: Vec<u8>,
    pub payload: Vec<u8>,
}

/// One end of a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End {
    broker: usize,
    client: Client,
    generation: u32,
}

#[derive(Debug)]
struct Wire {
    dialed: End,
    accepted: End,
    tap: Wiretap,
}

/// The number of the broker in this place.
pub fn number(broker: usize) -> BrokerId {
    BrokerId(broker as u32 + 1)
}

/// Where the broker in this place listens.
pub fn address(broker: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 7_001 + broker as u16))
}

impl Cluster {
    /// Brokers with one shard each that have started for the first time.
    pub fn new(brokers: usize) -> Self {
        Self::with(&vec![1; brokers], |_| {})
    }

    /// Brokers with so many shards each, and settings that are the same for all.
    pub fn with(shards: &[u16], config: impl Fn(&mut ShardConfig) + 'static) -> Self {
        let all: Vec<_> = (0..shards.len()).map(|at| (number(at), Some(address(at)))).collect();
        let config: Rc<dyn Fn(&mut ShardConfig)> = Rc::new(config);
        let make = |(at, &shards): (usize, &u16)| {
            Member::new(at, shards, all.clone(), false, Rc::clone(&config))
        };
        let brokers = shards.iter().enumerate().map(make).collect();
        let mut cluster =
            Self { brokers, wires: Vec::new(), cuts: BTreeSet::new(), said: Vec::new(), config };
        for broker in 0..cluster.brokers.len() {
            cluster.brokers[broker].world.start();
        }
        cluster.run();
        cluster
    }

    /// Another broker starts for the first time and joins those that are there, of which it knows these. Returns its place.
    pub fn join(&mut self, knows: &[usize]) -> usize {
        let at = self.brokers.len();
        let listed = knows.iter().chain([&at]).map(|&at| (number(at), Some(address(at)))).collect();
        let mut member = Member::new(at, 1, listed, true, Rc::clone(&self.config));
        let now = self.now();
        member.world.advance(now - member.world.now.monotonic);
        member.world.start();
        self.brokers.push(member);
        self.run();
        at
    }

    pub fn world(&mut self, broker: usize) -> &mut World {
        &mut self.brokers[broker].world
    }

    /// A counter of a shard, by its name.
    pub fn counter(&self, broker: usize, shard: usize, name: &str) -> u64 {
        self.brokers[broker].world.counter(shard, name)
    }

    /// Links of a shard to other brokers that are up.
    pub fn links_up(&self, broker: usize, shard: usize) -> u64 {
        self.brokers[broker].world.nodes[shard].shard.peer_links_up()
    }

    /// Nothing passes between the two any more, and neither hears so.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cuts.insert((a.min(b), a.max(b)));
    }

    /// Bytes pass again, also those that waited.
    pub fn mend(&mut self, a: usize, b: usize) {
        self.cuts.remove(&(a.min(b), a.max(b)));
        self.run();
    }

    /// All connections between the two end, and what was on its way is lost.
    pub fn reset(&mut self, a: usize, b: usize) {
        for wire in self.take_wires(|wire| wire.is_between(a, b)) {
            self.hang_up(wire.dialed);
            self.hang_up(wire.accepted);
        }
        self.run();
    }

    /// The process of the broker ends without a word.
    pub fn kill(&mut self, broker: usize) {
        self.brokers[broker].is_alive = false;
        self.brokers[broker].world.crash();
        for wire in self.take_wires(|wire| wire.has(broker)) {
            let other = if wire.dialed.broker == broker { wire.accepted } else { wire.dialed };
            self.hang_up(other);
        }
        self.run();
    }

    /// It starts again, with the disk that it had.
    pub fn restart(&mut self, broker: usize) {
        let member = &mut self.brokers[broker];
        member.is_alive = true;
        member.life.set(member.life.get() + 1);
        member.world.crash_and_restart(member.shards);
        self.run();
    }

    /// It starts again with an empty disk: nothing is left of what it promised.
    pub fn restart_wiped(&mut self, broker: usize) {
        let member = &mut self.brokers[broker];
        member.incarnation.set(member.incarnation.get() + 1_000);
        member.world.crash();
        member.world.wipe();
        self.restart(broker);
    }

    /// Delivers everything that can happen without time passing.
    pub fn run(&mut self) {
        for _ in 0..1_000_000 {
            self.share_clock();
            for member in self.brokers.iter_mut().filter(|member| member.is_alive) {
                member.world.run();
            }
            if !self.move_bytes() && !self.end_wires() && !self.answer_dials() {
                return;
            }
        }
        panic!("the brokers never come to rest");
    }

    /// Lets time pass for all.
    pub fn pass(&mut self, length: Nanos) {
        self.run();
        let end = self.now() + length;
        loop {
            self.share_clock();
            let alive = self.brokers.iter().enumerate().filter(|(_, member)| member.is_alive);
            let wakes = alive.filter_map(|(at, member)| Some((member.world.next_wake()?, at)));
            let Some((at, broker)) = wakes.min().filter(|(at, _)| *at <= end) else { break };
            self.advance(at - self.now());
            self.brokers[broker].world.wake();
            self.run();
        }
        self.advance(end - self.now());
    }

    fn now(&self) -> Monotonic {
        let clocks = self.brokers.iter().map(|member| member.world.now.monotonic);
        clocks.max().unwrap_or_default()
    }

    /// Each step takes some time, and then it is that late for everybody.
    fn share_clock(&mut self) {
        self.advance(Nanos(0));
    }

    fn advance(&mut self, length: Nanos) {
        let then = self.now() + length;
        for member in &mut self.brokers {
            member.world.advance(then - member.world.now.monotonic);
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    fn take_wires(&mut self, mut which: impl FnMut(&Wire) -> bool) -> Vec<Wire> {
        let (taken, kept) = self.wires.drain(..).partition(|wire| which(wire));
        self.wires = kept;
        taken
    }

    /// False: its shard is gone, or another connection has its place.
    fn is_open(&self, end: End) -> bool {
        let member = &self.brokers[end.broker];
        let node = member.world.nodes.get(end.client.shard);
        let link = node.and_then(|node| node.links.get(end.client.link));
        member.is_alive
            && link.is_some_and(|link| !link.is_closed && link.generation == end.generation)
    }

    fn hang_up(&mut self, end: End) {
        if self.is_open(end) {
            self.world(end.broker).hang_up(end.client);
        }
    }

    fn move_bytes(&mut self) -> bool {
        let mut has_moved = false;
        for at in 0..self.wires.len() {
            let (dialed, accepted) = (self.wires[at].dialed, self.wires[at].accepted);
            if self.is_cut(dialed.broker, accepted.broker) {
                continue;
            }
            // A side that has closed may have said something last.
            let up = self.take_from(dialed);
            if !up.is_empty() {
                has_moved = true;
                self.overhear(at, &up);
                if self.is_open(accepted) {
                    self.world(accepted.broker).queue(accepted.client, &up);
                }
            }
            let down = self.take_from(accepted);
            if !down.is_empty() {
                has_moved = true;
                if self.is_open(dialed) {
                    self.world(dialed.broker).queue(dialed.client, &down);
                }
            }
        }
        has_moved
    }

    fn take_from(&mut self, end: End) -> Vec<u8> {
        let member = &mut self.brokers[end.broker];
        let Some(node) = member.world.nodes.get(end.client.shard) else { return Vec::new() };
        match node.links.get(end.client.link) {
            Some(link) if link.generation == end.generation => member.world.take_bytes(end.client),
            _ => Vec::new(),
        }
    }

    fn overhear(&mut self, at: usize, bytes: &[u8]) {
        let wire = &mut self.wires[at];
        wire.tap.feed(bytes);
        while let Some((header, frame)) = wire.tap.frame() {
            if header.kind == FrameKind::PeerHello {
                continue;
            }
            self.said.push(Said {
                from: wire.dialed.broker,
                to: wire.accepted.broker,
                kind: header.kind,
                control: header.control(frame).expect("intact").to_vec(),
                payload: header.payload(frame).expect("whole").to_vec(),
            });
        }
        assert!(!wire.tap.is_lost(), "a broker sent bytes that are no frames");
    }

    /// Where one side has closed, the other hears of it.
    fn end_wires(&mut self) -> bool {
        let open: Vec<bool> = self
            .wires
            .iter()
            .map(|wire| {
                let is_silent = self.is_cut(wire.dialed.broker, wire.accepted.broker);
                is_silent || self.is_open(wire.dialed) && self.is_open(wire.accepted)
            })
            .collect();
        let mut open = open.into_iter();
        let over = self.take_wires(|_| !open.next().expect("one for each"));
        for wire in &over {
            self.hang_up(wire.dialed);
            self.hang_up(wire.accepted);
        }
        !over.is_empty()
    }

    fn answer_dials(&mut self) -> bool {
        let mut is_any = false;
        for broker in 0..self.brokers.len() {
            for dial in self.world(broker).take_dials() {
                is_any = true;
                self.answer_dial(broker, dial);
            }
        }
        is_any
    }

    fn answer_dial(&mut self, from: usize, dial: Dial) {
        let to = (0..self.brokers.len()).find(|&to| address(to) == dial.address);
        let Some(to) = to.filter(|&to| self.brokers[to].is_alive && !self.is_cut(from, to)) else {
            return self.world(from).refuse_dial(dial);
        };
        let world = self.world(to);
        let is_ready = world.nodes.iter().all(|node| node.is_ready && !node.is_stopped);
        if !is_ready {
            return self.world(from).refuse_dial(dial);
        }
        // As a driver does with a number that it does not have.
        let shard = usize::from(dial.wanted.0);
        let shard = if shard < world.nodes.len() { shard } else { 0 };
        let accepted = world.connect(shard);
        let dialed = self.world(from).answer_dial(dial);
        let accepted = self.end(to, accepted);
        let dialed = self.end(from, dialed);
        self.wires.push(Wire { dialed, accepted, tap: Wiretap::default() });
    }

    fn end(&mut self, broker: usize, client: Client) -> End {
        let generation = self.world(broker).link(client).generation;
        End { broker, client, generation }
    }
}

impl Wire {
    fn has(&self, broker: usize) -> bool {
        self.dialed.broker == broker || self.accepted.broker == broker
    }

    fn is_between(&self, a: usize, b: usize) -> bool {
        self.has(a) && self.has(b)
    }
}
