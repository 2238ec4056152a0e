//! Three replicas and what is around them, and what must hold after every step.

use std::collections::BTreeMap;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId, Lsn};

use super::disk::{Disk, Entry};
use crate::planted::{Bug, is_planted};
use crate::random::Random;
use crate::replica::{FenceAnswer, LaneLog, LaneMessage, LaneView, Order, Position, Replica};
use crate::time::Monotonic;

pub const LANE: LaneId = LaneId(1);

pub struct Node {
    /// `None`: down.
    pub replica: Option<Replica>,
    pub disk: Disk,
    pub is_committed: Lsn,
}

pub struct Sent {
    pub from: BrokerId,
    pub to: BrokerId,
    pub epoch: Epoch,
    pub message: LaneMessage,
    pub entries: Vec<Entry>,
}

#[derive(Default, Debug)]
pub struct Totals {
    pub committed: u64,
    pub epochs: u64,
    pub crashes: u64,
    pub reopened: u64,
    pub rotten: u64,
    pub cut_entries: u64,
}

pub struct World {
    pub random: Random,
    pub now: Monotonic,
    pub nodes: BTreeMap<BrokerId, Node>,
    /// Any of it may be delivered, at any time, more than once.
    pub net: Vec<Sent>,
    pub view: LaneView,
    /// All answers that were ever given in this epoch.
    pub answers: Vec<(BrokerId, FenceAnswer)>,
    pub totals: Totals,
    /// What was committed at each LSN, and by the leader of which epoch first.
    committed: Vec<(Entry, Epoch)>,
    leaders: BTreeMap<Epoch, (BrokerId, u64)>,
    /// The log of each epoch's leader.
    led: BTreeMap<Epoch, Vec<Entry>>,
    next_unique: u64,
    pub tears: bool,
    /// Entries in a message.
    pub batch_max: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let members: Vec<BrokerId> = (1..=3).map(BrokerId).collect();
        let node = |_| Node { replica: None, disk: Disk::default(), is_committed: Lsn(0) };
        let nodes = members.iter().map(|id| (*id, node(id))).collect();
        let mut world = Self {
            random: Random::new(seed),
            now: Monotonic(1),
            nodes,
            net: Vec::new(),
            view: LaneView {
                epoch: Epoch(1),
                leader: None,
                members,
                is_changing: false,
                moving: None,
            },
            answers: Vec::new(),
            totals: Totals::default(),
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            led: BTreeMap::new(),
            next_unique: 0,
            tears: false,
            batch_max: 3,
        };
        for id in world.ids() {
            world.crash(id);
            world.start(id);
        }
        world
    }

    pub fn ids(&self) -> Vec<BrokerId> {
        self.nodes.keys().copied().collect()
    }

    pub fn any(&mut self) -> BrokerId {
        BrokerId(1 + self.random.below(self.nodes.len() as u64) as u32)
    }

    fn unique(&mut self) -> u64 {
        self.next_unique += 1;
        self.next_unique
    }

    pub fn node(&mut self, id: BrokerId) -> &mut Node {
        self.nodes.get_mut(&id).expect("one of three")
    }

    pub fn is_up(&self, id: BrokerId) -> bool {
        self.nodes[&id].replica.is_some()
    }

    pub fn crash(&mut self, id: BrokerId) {
        self.totals.crashes += 1;
        let tears = self.tears;
        let node = self.nodes.get_mut(&id).expect("one of three");
        node.replica = None;
        node.disk.crash(&mut self.random, tears);
    }

    pub fn start(&mut self, id: BrokerId) {
        let vote = self.node(id).disk.vote;
        self.node(id).replica = Some(Replica::new(LANE, id, vote));
        self.with(id, |replica, disk, now| replica.on_log_open(disk, now));
        for peer in self.ids() {
            if peer != id && self.is_up(peer) {
                self.with(peer, |replica, disk, now| replica.on_peer_up(id, disk, now));
            }
        }
    }

    /// Lets something happen to a replica, and carries out what it orders.
    pub fn with(&mut self, id: BrokerId, act: impl FnOnce(&mut Replica, &Disk, Monotonic)) {
        let now = self.now;
        let node = self.node(id);
        let Some(replica) = &mut node.replica else { return };
        act(replica, &node.disk, now);
        self.settle(id);
    }

    fn settle(&mut self, id: BrokerId) {
        let now = self.now;
        loop {
            let node = self.node(id);
            let Some(replica) = &mut node.replica else { return };
            let Some(order) = replica.poll() else { break };
            match order {
                Order::Store(vote) => {
                    node.disk.storing = Some(vote);
                    if is_planted(Bug::PromiseNotDurable) {
                        replica.on_stored(&node.disk, now);
                    }
                }
                Order::Resume(resume) | Order::Reopen(resume) => {
                    node.disk.opening = Some(resume);
                    self.totals.reopened += 1;
                    self.check_truncation(id, resume.at);
                }
                Order::Rebuild(_) => unreachable!("nothing is dropped here"),
                Order::Begin(epoch) => {
                    let life = self.unique();
                    self.check_leader(id, epoch, life);
                    let node = self.node(id);
                    let start = node.disk.next_lsn();
                    self.append(id, epoch);
                    let node = self.node(id);
                    if let Some(replica) = &mut node.replica {
                        replica.on_begun(start, &node.disk, now);
                    }
                }
                Order::Send { to, epoch, message } => {
                    if let LaneMessage::Follow { durable, .. } = message {
                        self.check_ack(id, epoch, durable);
                    }
                    self.net.push(Sent { from: id, to, epoch, message, entries: Vec::new() });
                }
                Order::Answer(answer) => self.answers.push((id, answer)),
                Order::Resign(epoch) => {
                    if epoch == self.view.epoch && self.random.chance(1, 4) {
                        self.enter();
                    }
                }
                Order::Commit(end) => self.commit(id, end),
                Order::Settled(_)
                | Order::Offer { .. }
                | Order::HandedOver { .. }
                | Order::Serve(_)
                | Order::Progress(_)
                | Order::Yield => {}
            }
        }
        let node = self.node(id);
        let Some(replica) = &mut node.replica else { return };
        if let Some((to, epoch, message)) = replica.ack(&node.disk) {
            if let LaneMessage::Ack { durable, .. } = message {
                self.check_ack(id, epoch, durable);
            }
            self.net.push(Sent { from: id, to, epoch, message, entries: Vec::new() });
        }
        self.send(id);
    }

    /// The leader sends what its followers lack.
    fn send(&mut self, id: BrokerId) {
        for to in self.ids() {
            let count = 1 + self.random.below(self.batch_max);
            let now = self.now;
            let node = self.node(id);
            let end = node.disk.next_lsn();
            let Some(replica) = &mut node.replica else { return };
            let Some(leader) = replica.leading_mut() else { return };
            let committed = leader.committed;
            let Some(follower) = leader.follower(to) else { continue };
            if follower.room() == 0 || follower.sent >= end && follower.told >= committed {
                continue;
            }
            let first = follower.sent;
            let Some((epoch, message)) = replica.append_to(to, first, now) else { continue };
            let last = Lsn(end.0.min(first.0 + count));
            let entries =
                (first.0..last.0).filter_map(|lsn| node.disk.entry(Lsn(lsn))).collect::<Vec<_>>();
            if let Some(follower) = replica.leading_mut().and_then(|leader| leader.follower(to)) {
                follower.on_sent(last, 1, now);
            }
            self.net.push(Sent { from: id, to, epoch, message, entries });
        }
    }

    pub fn append(&mut self, id: BrokerId, epoch: Epoch) {
        let unique = self.unique();
        let entry = Entry { epoch, unique };
        self.node(id).disk.append(entry);
        let log: Vec<Entry> = self.nodes[&id].disk.entries().collect();
        self.led.insert(epoch, log);
    }

    pub fn deliver(&mut self, at: usize, keeps: bool) {
        if at >= self.net.len() {
            return;
        }
        let sent = match keeps {
            true => {
                let Sent { from, to, epoch, ref message, ref entries } = self.net[at];
                Sent { from, to, epoch, message: message.clone(), entries: entries.clone() }
            }
            false => self.net.remove(at),
        };
        let Sent { from, to, epoch, message, entries } = sent;
        let LaneMessage::Append { first, committed, wants_received } = message else {
            return self.with(to, |replica, disk, now| {
                replica.on_message(from, epoch, message, disk, now);
            });
        };
        let now = self.now;
        let node = self.node(to);
        let Some(replica) = &mut node.replica else { return };
        if node.disk.opening.is_none()
            && replica.takes(from, epoch, first, (committed, wants_received), &node.disk, now)
        {
            for entry in entries {
                node.disk.append(entry);
            }
            replica.on_copied();
        }
        self.settle(to);
    }

    pub fn flush(&mut self, id: BrokerId) {
        let node = self.nodes.get_mut(&id).expect("one of three");
        if node.replica.is_some()
            && node.disk.opening.is_none()
            && node.disk.flush(&mut self.random)
        {
            self.with(id, |replica, disk, now| replica.on_durable(disk, now));
        }
    }

    /// What a disk was ordered completes.
    pub fn complete(&mut self, id: BrokerId) {
        let node = self.node(id);
        if node.replica.is_none() {
            return;
        }
        if node.disk.opening.is_some() {
            node.disk.finish_open();
            self.with(id, |replica, disk, now| replica.on_log_open(disk, now));
        } else if node.disk.storing.is_some() {
            node.disk.finish_store();
            self.with(id, |replica, disk, now| replica.on_stored(disk, now));
        }
    }

    pub fn see(&mut self, id: BrokerId) {
        let view = self.view.clone();
        self.with(id, |replica, disk, now| replica.on_view(view, disk, now));
    }

    /// Metadata enters another epoch.
    pub fn enter(&mut self) {
        self.view.epoch = self.view.epoch.next();
        self.view.leader = None;
        self.answers.clear();
        self.totals.epochs += 1;
    }

    /// Metadata names a leader, if rule 6 allows one.
    pub fn name(&mut self) {
        if self.view.leader.is_some() || self.answers.is_empty() {
            return;
        }
        let at = self.random.below(self.answers.len() as u64) as usize;
        let (broker, FenceAnswer { has, epoch, .. }) = self.answers[at];
        if epoch == self.view.epoch && self.covers(has) {
            self.view.leader = Some((broker, has));
        }
    }

    fn covers(&self, position: Position) -> bool {
        let answered = |id: &BrokerId, holds: &dyn Fn(&FenceAnswer) -> bool| {
            self.answers.iter().any(|(from, answer)| {
                from == id && answer.epoch == self.view.epoch && holds(answer)
            })
        };
        let decided = self.nodes.keys();
        let decided = decided.filter(|id| answered(id, &|answer| answer.perhaps <= position));
        decided.count() > self.nodes.len() / 2
            || self.nodes.keys().all(|id| answered(id, &|answer| answer.has <= position))
    }

    // What must hold.

    /// I7: one leader in an epoch, and one life of it. I1: it has what was committed before.
    fn check_leader(&mut self, id: BrokerId, epoch: Epoch, life: u64) {
        let before = self.leaders.insert(epoch, (id, life));
        assert!(before.is_none(), "I7: epoch {epoch} is begun twice: {before:?}, {id}");
        let log: Vec<Entry> = self.nodes[&id].disk.entries().collect();
        for (lsn, (entry, by)) in self.committed.iter().enumerate() {
            assert!(
                *by >= epoch || log.get(lsn) == Some(entry),
                "I1: {id} leads {epoch} without what {by} committed at {lsn}"
            );
        }
    }

    /// I7: acknowledged means equal to the leader's log, and durable.
    fn check_ack(&self, id: BrokerId, epoch: Epoch, durable: Lsn) {
        let disk = &self.nodes[&id].disk;
        let led = self.led.get(&epoch).map_or(&[][..], |log| log);
        for lsn in 0..durable.0.min(led.len() as u64) {
            assert!(disk.is_durable(Lsn(lsn)), "I2: {id} acknowledges {lsn}, not durable");
            let ours = disk.entry(Lsn(lsn));
            assert_eq!(ours, Some(led[lsn as usize]), "I7: {id} acknowledges {lsn} in {epoch}");
        }
    }

    /// I8: a truncation takes nothing that was committed by an epoch up to the one that the replica obeys, unless the
    /// replica keeps a mark of it.
    fn check_truncation(&mut self, id: BrokerId, at: Lsn) {
        let node = &self.nodes[&id];
        let obeyed = node.disk.opening.map_or(Epoch(0), |resume| resume.accepted);
        let marked = node.disk.opening.and_then(|resume| resume.bad_end).unwrap_or(Lsn(0));
        for (lsn, (entry, by)) in self.committed.iter().enumerate().skip(at.0 as usize) {
            let had = node.disk.entry(Lsn(lsn as u64)) == Some(*entry);
            assert!(
                !had || *by > obeyed || marked.0 > lsn as u64,
                "I8: {id} truncates {lsn}, committed by {by}"
            );
            self.totals.cut_entries += 1;
        }
    }

    /// I1, I3: nothing committed ever changes.
    fn commit(&mut self, id: BrokerId, end: Lsn) {
        let node = self.nodes.get_mut(&id).expect("one of three");
        node.is_committed = end;
        let epoch = node.replica.as_ref().and_then(|replica| replica.leading()).map(|l| l.epoch);
        let epoch = epoch.unwrap_or(Epoch(u64::MAX));
        let log: Vec<Entry> = node.disk.entries().take(end.0 as usize).collect();
        assert_eq!(log.len() as u64, end.0, "a leader commits what it cannot read");
        for (lsn, entry) in log.into_iter().enumerate() {
            match self.committed.get_mut(lsn) {
                Some((before, by)) => {
                    assert_eq!(*before, entry, "I1: {lsn} was committed as another entry");
                    *by = (*by).min(epoch);
                }
                None => self.committed.push((entry, epoch)),
            }
        }
        self.totals.committed = self.committed.len() as u64;
        for (later, log) in self.led.range(epoch.next()..) {
            for (lsn, (entry, by)) in self.committed.iter().enumerate() {
                assert!(
                    by >= later || log.get(lsn) == Some(entry),
                    "I1: {epoch} commits {lsn}, which the leader of {later} does not have"
                );
            }
        }
    }

    pub fn committed(&self) -> usize {
        self.committed.len()
    }

    /// Entries of which a copy may rot: only a minority of all its copies ever may.
    pub fn rot(&mut self, id: BrokerId) {
        let count = self.nodes[&id].disk.has().end.0;
        if count == 0 || self.totals.rotten > 0 {
            return;
        }
        let lsn = Lsn(self.random.below(count));
        if self.node(id).disk.rot(lsn) {
            self.totals.rotten += 1;
        }
    }
}
