//! Loads of lanes, and what is transferred because of them.

use super::*;
use crate::disk::DirectoryId;
use crate::metadata::failover::FailoverConfig;
use crate::metadata::state::Outcome;
use crate::metadata::{BrokerRecord, LaneReplica};
use crate::random::Random;
use crate::replica::{FollowerProgress, LaneLoad, LaneProgress, Position, Rates};
use corelog_protocol::ids::{Epoch, Lsn};

const EVERY: Nanos = Nanos::from_secs(60);
const NOISE: u64 = 1_000;

/// Brokers that are all heard, and lanes whose leaders tell what they cost.
struct Town {
    state: State,
    failover: Failover,
    balancer: Balancer,
    now: Monotonic,
    /// By lane, what its leader tells. Of batches served alone, so that it is the load.
    loads: Vec<u64>,
    /// A follower that does not keep up, in no lane.
    lags: Option<BrokerId>,
    silent: Option<BrokerId>,
}

impl Town {
    /// Lanes as their replicas and their load: "123 60" is led by 1.
    fn new(brokers: u32, lanes: &[(&str, u64)]) -> Self {
        let mut state = State::default();
        for id in 1..=brokers {
            let record = BrokerRecord::of_a_test(BrokerId(id), 1);
            state.apply(&Command::BrokerRegister { record });
        }
        let set = |(replicas, _): &(&str, u64)| {
            let ids = replicas.chars().filter_map(|digit| digit.to_digit(10)).map(BrokerId);
            ids.map(|broker| LaneReplica { broker, directory: DirectoryId(0) }).collect()
        };
        state.apply(&Command::Boot { lanes: lanes.iter().map(set).collect() });
        let config = FailoverConfig { me: BrokerId(1), detect: Nanos::from_millis(500) };
        let now = Monotonic(0) + Nanos::from_secs(100);
        let mut failover = Failover::new(config);
        failover.reset(now, None);
        let mut balancer = Balancer::new(BalanceConfig { every: EVERY, noise: NOISE });
        balancer.reset(now);
        let loads = lanes.iter().map(|(_, load)| *load).collect();
        let mut town = Self { state, failover, balancer, now, loads, lags: None, silent: None };
        let ids: Vec<LaneId> = town.state.lanes().iter().map(|lane| lane.id).collect();
        ids.into_iter().for_each(|id| town.name_leader(id));
        _ = town.failover.tick(now, &town.state);
        town
    }

    /// The favored one leads the lane.
    fn name_leader(&mut self, id: LaneId) {
        let lane = self.state.lane(id).expect("it is there");
        let (lane, epoch, broker) = (lane.id, lane.epoch, lane.favored());
        let position = Position::default();
        let command = Command::LaneLeader { lane, epoch, broker, position };
        assert_eq!(self.state.apply(&command), Outcome::Noted);
    }

    /// Everybody tells what there is to tell.
    fn tell(&mut self) {
        let brokers: Vec<BrokerId> = self.state.brokers().map(|broker| broker.id).collect();
        for id in brokers.into_iter().filter(|id| Some(*id) != self.silent) {
            self.failover.on_heard(id, self.now);
        }
        for (lane, load) in self.state.lanes().iter().zip(&self.loads) {
            let Some(leader) = lane.leader_id() else { continue };
            let others = lane.replicas.iter().map(|it| it.broker).filter(|id| *id != leader);
            let follower = |broker| FollowerProgress {
                broker,
                durable: Lsn(9),
                is_caught_up: self.lags != Some(broker) && self.silent != Some(broker),
            };
            let (id, epoch, end) = (lane.id, lane.epoch, Lsn(9));
            let followers = others.map(follower).collect();
            let progress = LaneProgress { lane: id, epoch, end, followers };
            self.failover.on_progress(leader, progress, self.now);
            let rates = Rates { bytes_out: *load, ..Rates::default() };
            self.failover.on_load(leader, LaneLoad { lane: id, epoch, rates }, self.now);
        }
    }

    /// The time of a look has come.
    fn look(&mut self) -> Option<(u32, u32)> {
        self.now = self.balancer.next_look();
        self.tell();
        match self.balancer.look(self.now, &self.state, &self.failover)? {
            Command::LaneTransfer { lane, epoch, to } => {
                assert_eq!(self.state.lane(lane).map(|lane| lane.epoch), Some(epoch));
                Some((lane.0, to.0))
            }
            command => panic!("{command:?}"),
        }
    }

    /// A lane is handed over to another one, which is preferred from then on.
    fn transfer(&mut self, (lane, to): (u32, u32)) {
        let (lane, to) = (LaneId(lane), BrokerId(to));
        let epoch = self.state.lane(lane).expect("it is there").epoch;
        self.state.apply(&Command::LaneTransfer { lane, epoch, to });
        let number = self.state.lane(lane).and_then(|lane| lane.moving).expect("it moves").number;
        self.state.apply(&Command::LaneHandOver { lane, epoch, number });
        self.name_leader(lane);
    }

    fn totals(&self) -> Vec<u64> {
        let led_by = |id| {
            let lanes = self.state.lanes().iter().zip(&self.loads);
            lanes.filter(|(lane, _)| lane.leader_id() == Some(id)).map(|(_, load)| load).sum()
        };
        self.state.brokers().map(|broker| led_by(broker.id)).collect()
    }
}

fn skewed() -> Town {
    Town::new(3, &[("123", 60_000), ("132", 40_000), ("231", 10_000), ("312", 10_000)])
}

#[test]
fn one_lane_goes_after_two_looks_that_saw_the_same_and_then_all_stays() {
    let mut town = skewed();
    assert_eq!(town.look(), None, "seen once");
    assert_eq!(town.look(), Some((2, 2)));
    town.transfer((2, 2));
    assert_eq!(town.totals(), [60_000, 50_000, 10_000]);
    for _ in 0..100 {
        assert_eq!(town.look(), None);
    }
}

#[test]
fn what_is_not_proposed_is_said_again_at_the_next_looks() {
    let mut town = skewed();
    assert_eq!((town.look(), town.look()), (None, Some((2, 2))));
    assert_eq!((town.look(), town.look()), (None, Some((2, 2))));
}

#[test]
fn noise_moves_nothing() {
    let lanes = [("123", 50_000), ("231", 50_000), ("312", 50_000), ("132", 2_000)];
    let mut town = Town::new(3, &lanes);
    let mut random = Random::new(5);
    for _ in 0..1_000 {
        town.loads = lanes.iter().map(|(_, load)| load * (95 + random.below(11)) / 100).collect();
        assert_eq!(town.look(), None, "{:?}", town.loads);
    }
    // A cluster that is hardly used, however unequal that is.
    let mut idle = Town::new(3, &[("123", 600), ("123", 400), ("231", 0)]);
    for _ in 0..10 {
        assert_eq!(idle.look(), None);
    }
}

#[test]
fn a_peak_that_is_gone_or_elsewhere_at_the_next_look_moves_nothing() {
    let mut town = skewed();
    let peak = town.loads.clone();
    for _ in 0..20 {
        town.loads.clone_from(&peak);
        assert_eq!(town.look(), None);
        town.loads = vec![30_000, 0, 30_000, 30_000];
        assert_eq!(town.look(), None);
        town.loads = vec![10_000, 10_000, 90_000, 10_000];
        assert_eq!(town.look(), None);
    }
}

#[test]
fn a_pair_that_cannot_be_levelled_is_left_alone() {
    // Wherever the busy one is, there is as much.
    let mut town = Town::new(3, &[("123", 90_000), ("231", 20_000), ("312", 0)]);
    for _ in 0..10 {
        assert_eq!(town.look(), None);
    }
    // 95 instead of 100 is not worth it.
    let mut town = Town::new(2, &[("12", 95_000), ("12", 5_000), ("21", 60_000)]);
    for _ in 0..10 {
        assert_eq!(town.look(), None);
    }
}

/// What is done to a town.
type Disturb = fn(&mut Town);

#[test]
fn nothing_is_begun_while_anything_moves_is_about_to_or_is_not_known() {
    let disturbances: [(&str, Disturb); 6] = [
        ("it moves", |town| {
            let (lane, epoch, to) = (LaneId(4), Epoch(1), BrokerId(1));
            town.state.apply(&Command::LaneTransfer { lane, epoch, to });
        }),
        ("it has no leader", |town| {
            town.state.apply(&Command::LaneEnter { lane: LaneId(4), epoch: Epoch(2) });
        }),
        ("a broker drains", |town| {
            town.state.apply(&Command::BrokerDrain { id: BrokerId(3), is_draining: true });
        }),
        ("another one than the preferred leads", |town| {
            let (lane, epoch, broker) = (LaneId(4), Epoch(2), BrokerId(2));
            town.state.apply(&Command::LaneEnter { lane, epoch });
            let position = Position::default();
            town.state.apply(&Command::LaneLeader { lane, epoch, broker, position });
        }),
        ("its replicas do not keep up", |town| town.lags = Some(BrokerId(3))),
        ("a broker is silent", |town| town.silent = Some(BrokerId(2))),
    ];
    for (why, disturb) in disturbances {
        let mut town = skewed();
        assert_eq!(town.look(), None);
        disturb(&mut town);
        for _ in 0..5 {
            assert_eq!(town.look(), None, "{why}");
        }
    }
    // The load is of the epoch before: of this one nobody knows yet.
    let mut town = skewed();
    assert_eq!(town.look(), None);
    town.state.apply(&Command::LaneEnter { lane: LaneId(4), epoch: Epoch(2) });
    town.name_leader(LaneId(4));
    let (lane, epoch, end) = (LaneId(4), Epoch(2), Lsn(9));
    let progress = LaneProgress { lane, epoch, end, followers: Vec::new() };
    town.failover.on_progress(BrokerId(3), progress, town.now);
    assert_eq!(town.balancer.look(town.now, &town.state, &town.failover), None);
    assert_eq!((town.look(), town.look()), (None, Some((2, 2))), "it is told again");
}

#[test]
fn what_was_seen_by_another_leader_of_the_metadata_does_not_count() {
    let mut town = skewed();
    assert_eq!(town.look(), None);
    town.balancer.reset(town.now);
    assert_eq!(town.look(), None);
    assert_eq!(town.look(), Some((2, 2)));
}

#[test]
fn from_any_state_it_comes_to_rest_and_the_greatest_load_never_grows() {
    let sets = ["123", "124", "134", "234", "231", "412", "321", "432", "14", "41"];
    let mut moves = 0;
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let count = 1 + random.below(12) as usize;
        let lanes: Vec<(&str, u64)> = (0..count)
            .map(|_| {
                let set = sets[random.below(sets.len() as u64) as usize];
                let bits = random.below(20);
                (set, random.below(1 << bits))
            })
            .collect();
        let mut town = Town::new(4, &lanes);
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 4 {
            rounds += 1;
            assert!(rounds < 200, "seed {seed} does not come to rest: {lanes:?}");
            let before = town.totals();
            let Some(next) = town.look() else {
                quiet += 1;
                continue;
            };
            (quiet, moves) = (0, moves + 1);
            town.transfer(next);
            let after = town.totals();
            let sorted = |mut totals: Vec<u64>| {
                totals.sort_unstable_by(|one, other| other.cmp(one));
                totals
            };
            let (before, after) = (sorted(before), sorted(after));
            assert!(after < before, "seed {seed}: {before:?} became {after:?}");
        }
    }
    assert!(moves > 100, "{moves}");
}
