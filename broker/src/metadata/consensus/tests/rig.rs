//! The group and its world, on one thread and from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::metadata::consensus::*;
use crate::random::Random;

/// The replicated state of the tests: a chain over all commands so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// Of the last command or of the snapshot.
    pub index: u64,
    pub last_command: u64,
    pub hash: u64,
}

impl Chain {
    fn apply(&mut self, index: u64, command: &[u8]) {
        self.index = index;
        self.last_command = index;
        self.hash = mix(self.hash, index);
        for &byte in command {
            self.hash = mix(self.hash, u64::from(byte));
        }
    }

    pub fn image(&self) -> Bytes {
        [self.last_command.to_le_bytes(), self.hash.to_le_bytes()].concat().into()
    }

    pub fn of_snapshot(snapshot: &Snapshot) -> Self {
        let number =
            |at: usize| u64::from_le_bytes(snapshot.image[at..at + 8].try_into().expect("8 bytes"));
        Self { index: snapshot.index, last_command: number(0), hash: number(8) }
    }
}

pub fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

pub struct Node {
    pub group: Option<Group>,
    /// What is durable: bodies, oldest first.
    pub disk: Vec<Vec<u8>>,
    /// In the disk's order, number and body.
    pub written: VecDeque<(RecordNumber, Vec<u8>)>,
    /// Where on the disk the first record of this life that is still there is, and its number.
    life_begins: (usize, RecordNumber),
    checkpoint: Option<(RecordNumber, RecordNumber)>,
    pub chain: Chain,
    pub restarts: u32,
}

struct Packet {
    at: u64,
    bytes: Vec<u8>,
}

/// What was seen of the group: what must never be contradicted.
#[derive(Default)]
pub struct Seen {
    /// The hash of the chain behind each command, by index.
    chains: BTreeMap<u64, u64>,
    terms: BTreeMap<u64, u64>,
    commands: BTreeSet<u64>,
    pub leaders: BTreeMap<u64, ReplicaId>,
    pub acknowledged: u64,
    pub lost: BTreeSet<u64>,
    pub installs: u64,
    pub step_downs: u64,
    pub members: u64,
    pub crashes: u64,
    pub drops: u64,
}

pub struct Rig {
    pub random: Random,
    pub now: u64,
    pub nodes: BTreeMap<u64, Node>,
    first_members: Members,
    network: Vec<Packet>,
    /// From, to.
    pub cut: BTreeSet<(u64, u64)>,
    pub drop_percent: u64,
    pub double_percent: u64,
    pub delay_max: u64,
    /// A node's records become durable at once.
    pub is_disk_instant: bool,
    pub seen: Seen,
    next_command: u64,
    /// By context: which node waits, and in which of its lives.
    waiting: BTreeMap<u64, (u64, u32)>,
    /// Over everything that happened.
    pub trace: u64,
}

pub fn id(id: u64) -> ReplicaId {
    ReplicaId(id)
}

impl Rig {
    /// `voters` of the nodes make up the group, the others wait to be added.
    pub fn new(seed: u64, nodes: u64, voters: u64) -> Self {
        let ids: Vec<ReplicaId> = (1..=voters).map(id).collect();
        let mut rig = Self {
            random: Random::new(seed),
            now: 0,
            nodes: BTreeMap::new(),
            first_members: Members::of_voters(&ids),
            network: Vec::new(),
            cut: BTreeSet::new(),
            drop_percent: 0,
            double_percent: 0,
            delay_max: 1,
            is_disk_instant: true,
            seen: Seen::default(),
            next_command: 1,
            waiting: BTreeMap::new(),
            trace: seed,
        };
        for node in 1..=nodes {
            let empty = Node {
                group: None,
                disk: Vec::new(),
                written: VecDeque::new(),
                life_begins: (0, 1),
                checkpoint: None,
                chain: Chain::default(),
                restarts: 0,
            };
            rig.nodes.insert(node, empty);
            rig.start(node);
        }
        rig
    }

    pub fn group(&mut self, node: u64) -> &mut Group {
        self.nodes.get_mut(&node).unwrap().group.as_mut().expect("it runs")
    }

    pub fn runs(&self, node: u64) -> bool {
        self.nodes[&node].group.is_some()
    }

    /// Loses everything that was not durable.
    pub fn crash(&mut self, node: u64) {
        let node = self.nodes.get_mut(&node).unwrap();
        self.seen.crashes += u64::from(node.group.is_some());
        node.group = None;
        node.written.clear();
        node.checkpoint = None;
    }

    pub fn start(&mut self, number: u64) {
        let random = Random::new(self.random.next_u64());
        let is_first = self.first_members.voters.contains(&id(number));
        let first_members = self.first_members.clone();
        let node = self.nodes.get_mut(&number).unwrap();
        assert!(node.group.is_none());
        node.restarts += 1;
        node.life_begins = (node.disk.len(), 1);
        let mut fold = Fold::default();
        node.disk.iter().for_each(|body| fold.on_record(body));
        let config = GroupConfig::new(id(number));
        let group = if !fold.is_empty() {
            let recovered = fold.finish().expect("its own records");
            node.chain = recovered.snapshot.as_ref().map(Chain::of_snapshot).unwrap_or_default();
            Group::restart(config, recovered, random)
        } else if is_first {
            node.chain = Chain { index: 1, ..Chain::default() };
            Group::bootstrap(config, first_members, node.chain.image(), random)
        } else {
            node.chain = Chain::default();
            Group::join(config, random)
        };
        node.group = Some(group);
        self.settle(number);
    }

    /// Proposes a command to this node; its context, if it took it.
    pub fn propose(&mut self, node: u64) -> Option<u64> {
        let command = self.next_command;
        let taken = self.group(node).propose(command.to_le_bytes().to_vec(), command);
        if taken.is_ok() {
            self.next_command += 1;
            let life = self.nodes[&node].restarts;
            self.waiting.insert(command, (node, life));
            self.settle(node);
        }
        taken.ok().map(|()| command)
    }

    pub fn is_acknowledged(&self, command: u64) -> bool {
        self.seen.commands.contains(&command) && !self.waiting.contains_key(&command)
    }

    pub fn change(&mut self, node: u64, changes: &[Change]) -> Result<(), ProposeError> {
        let changed = self.group(node).change_members(changes, u64::MAX);
        self.settle(node);
        changed
    }

    /// The log is trimmed to an image, as far as a random segment boundary.
    pub fn checkpoint(&mut self, node: u64) {
        let image = self.nodes[&node].chain.image();
        let made = self.group(node).checkpoint(image);
        let node_ = self.nodes.get_mut(&node).unwrap();
        node_.checkpoint = made.or(node_.checkpoint);
        self.settle(node);
    }

    /// Everything written so far, or a part of it, is durable.
    pub fn make_durable(&mut self, number: u64, count: usize) {
        let random = self.random.next_u64();
        let node = self.nodes.get_mut(&number).unwrap();
        let count = count.min(node.written.len());
        let Some(&(through, _)) = count.checked_sub(1).and_then(|at| node.written.get(at)) else {
            return;
        };
        node.disk.extend(node.written.drain(..count).map(|(_, body)| body));
        if let Some((first, last)) = node.checkpoint
            && last <= through
        {
            node.checkpoint = None;
            let (begins, begins_with) = node.life_begins;
            let needed = begins + (first - begins_with) as usize;
            // Segments go whole, so a little more may stay.
            let dropped = needed.saturating_sub((random % 4) as usize);
            node.disk.drain(..dropped);
            let of_life = dropped.saturating_sub(begins);
            node.life_begins =
                (begins.saturating_sub(dropped), begins_with + of_life as RecordNumber);
        }
        if let Some(group) = &mut node.group {
            group.on_durable(through);
        }
        self.settle(number);
    }

    pub fn tick(&mut self, node: u64) {
        self.group(node).tick();
        self.settle(node);
    }

    /// Every node ticks, and what is due arrives, so many times.
    pub fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.now += 1;
            self.deliver();
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                if self.runs(node) {
                    self.tick(node);
                }
            }
        }
    }

    /// Messages on their way whose time has come.
    pub fn deliver(&mut self) {
        let now = self.now;
        let mut due: Vec<Packet> = self.network.extract_if(.., |packet| packet.at <= now).collect();
        // As they come: order between equals is chance.
        while !due.is_empty() {
            let at = self.random.below(due.len() as u64) as usize;
            let packet = due.swap_remove(at);
            let message = PeerMessage::decode(&packet.bytes).expect("what a member says");
            let (from, to) = (message.from.0, message.to.0);
            if self.cut.contains(&(from, to)) || !self.nodes.contains_key(&to) || !self.runs(to) {
                self.seen.drops += 1;
                continue;
            }
            self.trace = mix(mix(self.trace, from), to);
            match self.group(to).on_message(&message) {
                Ok(()) | Err(Refused::NotNow | Refused::NotAMember | Refused::Stranger { .. }) => {}
                Err(refused) => panic!("node {to} refused {message:?}: {refused}"),
            }
            self.settle(to);
        }
    }

    /// Carries out all that a node orders, and judges all that it tells.
    fn settle(&mut self, number: u64) {
        loop {
            let node = self.nodes.get_mut(&number).unwrap();
            let Some(output) = node.group.as_mut().and_then(Group::poll) else { break };
            self.on_output(number, output);
        }
        if self.is_disk_instant && !self.nodes[&number].written.is_empty() {
            self.make_durable(number, usize::MAX);
        }
    }

    fn on_output(&mut self, number: u64, output: Output) {
        let node = self.nodes.get_mut(&number).unwrap();
        self.trace = mix(self.trace, number);
        match output {
            Output::Append { number, body } => {
                self.trace =
                    body.iter().fold(self.trace, |trace, &byte| mix(trace, u64::from(byte)));
                let next = node.written.back().map_or(number, |(last, _)| last + 1);
                assert_eq!(number, next, "records are dense");
                node.written.push_back((number, body));
            }
            Output::Send(message) => self.send(&message),
            Output::Committed { index, term, context, command } => {
                assert!(index > node.chain.index, "node {number} applies {index} again");
                node.chain.apply(index, &command);
                let chain = node.chain;
                self.on_committed(number, term, chain, context, &command);
            }
            Output::Install(snapshot) => {
                let chain = Chain::of_snapshot(&snapshot);
                assert!(snapshot.index > node.chain.index, "node {number} goes back in time");
                let before = self.seen.chains.range(..=chain.last_command).next_back();
                let expected = before.map_or(0, |(_, hash)| *hash);
                assert_eq!(chain.hash, expected, "node {number} installs another history");
                node.chain = chain;
                self.seen.installs += 1;
            }
            Output::Members { index, members, .. } => {
                assert!(index > node.chain.index && members.is_valid(), "{members:?}");
                node.chain.index = index;
                self.seen.members += 1;
            }
            Output::Dropped { context, is_lost } => {
                self.waiting.remove(&context);
                if is_lost && context != u64::MAX {
                    self.seen.lost.insert(context);
                }
            }
            Output::SnapshotWanted => {
                // The state is behind nothing that was given out: outputs come one by one.
                let image = node.chain.image();
                let group = node.group.as_mut().unwrap();
                let mut rest = Vec::new();
                while let Some(output) = group.poll() {
                    rest.push(output);
                }
                assert!(
                    rest.iter().all(|output| !matches!(
                        output,
                        Output::Committed { .. } | Output::Install(_)
                    )),
                    "asked for before it was all told"
                );
                group.offer_snapshot(image);
                rest.into_iter().for_each(|output| self.on_output(number, output));
            }
            Output::Status(status) => self.on_status(number, status),
        }
    }

    fn on_committed(
        &mut self,
        number: u64,
        term: u64,
        chain: Chain,
        context: Option<u64>,
        command: &[u8],
    ) {
        let hash = *self.seen.chains.entry(chain.index).or_insert(chain.hash);
        assert_eq!(hash, chain.hash, "node {number} has another history at {}", chain.index);
        let seen_term = *self.seen.terms.entry(chain.index).or_insert(term);
        assert_eq!(seen_term, term);
        let command = u64::from_le_bytes(command.try_into().expect("8 bytes"));
        self.seen.commands.insert(command);
        if let Some(context) = context {
            assert_eq!(context, command, "the answer is for another");
            let (waits, life) = self.waiting.remove(&context).expect("it was proposed once");
            assert_eq!((waits, life), (number, self.nodes[&number].restarts));
            self.seen.acknowledged += 1;
        }
    }

    fn on_status(&mut self, number: u64, status: Status) {
        if status.role != Role::Leader {
            let led = self.seen.leaders.values().any(|leader| *leader == id(number));
            self.seen.step_downs += u64::from(led);
            return;
        }
        let leader = *self.seen.leaders.entry(status.term).or_insert(id(number));
        assert_eq!(leader, id(number), "two leaders of term {}", status.term);
        let group = self.nodes[&number].group.as_ref().unwrap();
        let terms = self.seen.terms.iter().rev().take(64);
        for (index, term) in terms {
            assert!(group.last_index() >= *index, "leader {number} lacks committed {index}");
            if let Some(had) = group.term_at(*index) {
                assert_eq!(had, *term, "leader {number} has another entry at {index}");
            }
        }
    }

    fn send(&mut self, message: &PeerMessage) {
        let bytes = message.encode();
        assert_eq!(PeerMessage::decode(&bytes).as_ref(), Ok(message));
        let copies = 1 + u64::from(self.random.chance(self.double_percent, 100));
        for _ in 0..copies {
            if self.random.chance(self.drop_percent, 100) {
                self.seen.drops += 1;
                continue;
            }
            // Now and then one comes when everybody has forgotten it.
            let is_stray = self.delay_max > 1 && self.random.chance(1, 50);
            let delay = if is_stray { 200 } else { self.delay_max };
            let at = self.now + 1 + self.random.below(delay);
            self.network.push(Packet { at, bytes: bytes.clone() });
        }
    }

    pub fn leader(&self) -> Option<u64> {
        let leads = |node: &&u64| {
            let group = self.nodes[*node].group.as_ref();
            group.is_some_and(|group| group.status().role == Role::Leader)
        };
        // The newest, if an old one does not know yet.
        let term = |node: &&u64| self.nodes[*node].group.as_ref().map(|group| group.status().term);
        self.nodes.keys().filter(leads).max_by_key(term).copied()
    }

    /// Runs until there is a leader.
    pub fn elect(&mut self) -> u64 {
        for _ in 0..1_000 {
            self.run(1);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("no leader");
    }

    /// What the records on disk and on the way to it come to is what the member has in memory.
    pub fn check_records(&self, number: u64) {
        let node = &self.nodes[&number];
        let Some(group) = &node.group else { return };
        let mut fold = Fold::default();
        let written = node.written.iter().map(|(_, body)| body);
        node.disk.iter().chain(written).for_each(|body| fold.on_record(body));
        let recovered = fold.finish().expect("its own records");
        let base = recovered.snapshot.map_or(0, |snapshot| snapshot.index);
        let last = recovered.log.back().map_or(base, |entry| entry.index);
        assert_eq!(last, group.last_index(), "node {number}");
        for entry in &recovered.log {
            assert_eq!(group.term_at(entry.index), Some(entry.term), "node {number}");
        }
        assert_eq!(recovered.hard.term, group.status().term, "node {number}");
    }

    /// The commands in force everywhere, if all these nodes agree and have everything.
    pub fn agreement(&self, members: &[ReplicaId]) -> Option<u64> {
        let chains: Option<Vec<Chain>> =
            members.iter().map(|member| self.nodes.get(&member.0).map(|node| node.chain)).collect();
        let chains = chains?;
        let first = chains.first()?;
        let newest = self.seen.chains.last_key_value().map_or(0, |(index, _)| *index);
        let is_same =
            |chain: &Chain| (chain.last_command, chain.hash) == (first.last_command, first.hash);
        (first.last_command == newest && chains.iter().all(is_same)).then_some(newest)
    }

    /// What was called lost never came.
    pub fn check_lost(&self) {
        let both: Vec<_> = self.seen.lost.intersection(&self.seen.commands).collect();
        assert!(both.is_empty(), "called lost, and committed: {both:?}");
    }
}
