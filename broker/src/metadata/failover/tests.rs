use super::*;
use crate::metadata::BrokerRecord;
use crate::metadata::boot::boot;
use crate::metadata::fence::PREFERRED_WAIT;
use crate::metadata::lag::LAG_PATIENCE;
use crate::metadata::state::Outcome;
use crate::random::Random;
use crate::replica::{Position, Rates};
use corelog_protocol::ids::Lsn;

const DETECT: Nanos = Nanos::from_millis(500);
const ME: BrokerId = BrokerId(1);

fn ms(millis: u64) -> Monotonic {
    Monotonic(0) + Nanos::from_millis(millis)
}

/// Three brokers, each the preferred leader of one lane; 1 leads the metadata.
struct Cluster {
    state: State,
    failover: Failover,
}

impl Cluster {
    fn new() -> Self {
        let mut state = State::default();
        for id in 1..=3 {
            let record = BrokerRecord::of_a_test(BrokerId(id), 1);
            state.apply(&Command::BrokerRegister { record });
        }
        let command = boot(&state.brokers().collect::<Vec<_>>(), 1, 3);
        state.apply(&command);
        let mut failover = Failover::new(FailoverConfig { me: ME, detect: DETECT });
        failover.reset(ms(0), None);
        Self { state, failover }
    }

    /// All lanes are led by who shall lead them.
    fn led() -> Self {
        let mut cluster = Self::new();
        for lane in 1..=3 {
            for broker in 1..=3 {
                cluster.answer(broker, lane, 1, 0, 0);
            }
        }
        assert_eq!(cluster.run(0), 3);
        assert_eq!(cluster.leaders(), [(1, 1), (1, 2), (1, 3)]);
        cluster
    }

    fn answer(&mut self, from: u32, lane: u32, epoch: u64, end: u64, at: u64) {
        let position = Position { epoch: Epoch(u64::from(end > 0)), end: Lsn(end) };
        let (has, perhaps) = (position, position);
        let answer = FenceAnswer { lane: LaneId(lane), epoch: Epoch(epoch), has, perhaps };
        self.failover.on_answer(BrokerId(from), &answer, ms(at));
    }

    /// The leader of a lane says that it serves.
    fn serve(&mut self, lane: u32, at: u64) {
        let record = self.state.lane(LaneId(lane)).expect("it is there");
        let (Some(leader), epoch) = (record.leader_id(), record.epoch) else { return };
        let (lane, end) = (LaneId(lane), Lsn(0));
        let progress = LaneProgress { lane, epoch, end, followers: Vec::new() };
        self.failover.on_progress(leader, progress, ms(at));
    }

    fn hear(&mut self, brokers: &[u32], at: u64) {
        brokers.iter().for_each(|id| self.failover.on_heard(BrokerId(*id), ms(at)));
    }

    fn tick(&mut self, at: u64) -> Vec<Command> {
        self.failover.tick(ms(at), &self.state)
    }

    /// Applies what is proposed, until nothing is. Returns how many commands there were.
    fn run(&mut self, at: u64) -> u32 {
        let mut count = 0;
        loop {
            let commands = self.tick(at);
            if commands.is_empty() {
                return count;
            }
            for command in commands {
                assert_eq!(self.state.apply(&command), Outcome::Noted, "{command:?}");
                count += 1;
            }
        }
    }

    /// Epoch and leader (0: none) of each lane.
    fn leaders(&self) -> Vec<(u64, u32)> {
        let leader = |lane: &LaneRecord| lane.leader_id().map_or(0, |id| id.0);
        self.state.lanes().iter().map(|lane| (lane.epoch.0, leader(lane))).collect()
    }

    fn next(&self) -> Option<u64> {
        self.failover.next_deadline().map(|at| (at - ms(0)).as_millis())
    }
}

#[test]
fn a_silent_leader_is_replaced_by_one_that_answers() {
    let mut cluster = Cluster::led();
    cluster.hear(&[2, 3], 300);
    assert_eq!((cluster.run(300), cluster.next()), (0, Some(800)));
    cluster.hear(&[3], 700);
    assert_eq!(cluster.run(799), 0);
    assert_eq!(cluster.run(800), 1);
    assert_eq!(cluster.leaders(), [(1, 1), (2, 0), (1, 3)]);
    // Its preferred leader is the silent one: nobody waits for that.
    cluster.answer(1, 2, 2, 5, 801);
    assert_eq!(cluster.run(801), 0);
    cluster.answer(3, 2, 2, 7, 802);
    assert_eq!(cluster.run(802), 1);
    assert_eq!(cluster.leaders(), [(1, 1), (2, 3), (1, 3)]);
}

#[test]
fn who_is_heard_and_does_not_serve_is_replaced_ever_more_slowly() {
    let mut cluster = Cluster::led();
    let wait = SERVE_PATIENCE.as_millis();
    for at in [1_000, 2_000, wait - 1] {
        cluster.hear(&[2, 3], at);
        cluster.serve(1, at);
        cluster.serve(3, at);
        assert_eq!(cluster.run(at), 0);
    }
    // 2 cannot begin: its disk stands still, or the shard that has the lane.
    cluster.hear(&[2, 3], wait);
    assert_eq!(cluster.run(wait), 1);
    assert_eq!(cluster.leaders(), [(1, 1), (2, 0), (1, 3)]);
    for broker in 1..=2 {
        cluster.answer(broker, 2, 2, 0, wait);
    }
    assert_eq!(cluster.run(wait), 1);
    assert_eq!(cluster.leaders()[1], (2, 2), "it is the preferred one, and answers");
    // It is waited for twice as long, since it may be slow.
    let again = wait + 2 * wait;
    for at in (wait..again).step_by(100) {
        cluster.hear(&[2, 3], at);
        cluster.serve(1, at);
        cluster.serve(3, at);
        assert_eq!(cluster.run(at), 0, "at {at}");
    }
    cluster.hear(&[2, 3], again);
    cluster.serve(1, again);
    cluster.serve(3, again);
    assert_eq!(cluster.run(again), 1);
    assert_eq!(cluster.leaders()[1], (3, 0));
    // Whoever serves is not replaced, and forgets how often nobody did.
    for broker in 1..=3 {
        cluster.answer(broker, 2, 3, 0, again);
    }
    cluster.run(again);
    for at in (again..again + 3 * wait).step_by(500) {
        cluster.hear(&[2, 3], at);
        (1..=3).for_each(|lane| cluster.serve(lane, at));
        assert_eq!(cluster.run(at), 0, "at {at}");
    }
}

#[test]
fn who_serves_and_does_not_take_what_is_agreed_on_is_replaced_and_not_named() {
    let mut cluster = Cluster::led();
    for at in (0..4_000).step_by(100) {
        cluster.hear(&[2, 3], at);
        (1..=3).for_each(|lane| cluster.serve(lane, at));
        // 2 stands still at 7, and is owed 10 since 500.
        let agreed = if at < 500 { 7 } else { 10 };
        let others = [(BrokerId(2), 7), (BrokerId(3), agreed)];
        cluster.failover.on_agreed(agreed, others.into_iter(), ms(at));
        let expected = u32::from(at == 500 + LAG_PATIENCE.as_millis());
        assert_eq!(cluster.run(at), expected, "{at}");
    }
    assert_eq!(cluster.leaders(), [(1, 1), (2, 0), (1, 3)]);
    cluster.answer(2, 2, 2, 7, 3_950);
    cluster.answer(1, 2, 2, 7, 3_950);
    assert_eq!(cluster.run(3_950), 1);
    assert_eq!(cluster.leaders()[1], (2, 1), "2 answered, and is the preferred one");
}

#[test]
fn an_answer_of_who_is_silent_counts_but_it_is_not_named() {
    let mut cluster = Cluster::led();
    cluster.hear(&[3], 400);
    assert_eq!(cluster.run(500), 1);
    cluster.answer(2, 2, 2, 9, 510);
    cluster.answer(3, 2, 2, 5, 900);
    assert_eq!(cluster.run(1_010), 0, "only 2 may lead, and it is gone again");
    cluster.hear(&[2], 1_011);
    assert_eq!(cluster.run(1_011), 1);
    assert_eq!(cluster.leaders()[1], (2, 2));
}

#[test]
fn the_leader_of_the_metadata_never_takes_itself_for_gone() {
    let mut cluster = Cluster::led();
    cluster.serve(1, 9_999);
    assert_eq!(cluster.run(10_000), 2);
    assert_eq!(cluster.leaders(), [(1, 1), (2, 0), (2, 0)]);
    let expected = ms(9_999) + SERVE_PATIENCE;
    assert_eq!(cluster.next(), Some((expected - ms(0)).as_millis()), "only if it does not serve");
}

#[test]
fn a_leadership_that_begins_counts_everybody_as_heard() {
    let mut cluster = Cluster::led();
    cluster.failover.reset(ms(9_000), None);
    assert_eq!(cluster.run(9_499), 0);
    assert_eq!(cluster.run(9_500), 2);
}

#[test]
fn the_leader_before_is_not_waited_for_once_more() {
    let mut cluster = Cluster::led();
    cluster.hear(&[2, 3], 8_600);
    cluster.failover.reset(ms(9_000), Some(BrokerId(2)));
    assert_eq!(cluster.run(9_099), 0);
    assert_eq!(cluster.run(9_100), 1);
    assert_eq!(cluster.leaders(), [(1, 1), (2, 0), (1, 3)]);
    assert_eq!(cluster.run(9_500), 1);
}

#[test]
fn who_resigns_is_replaced_and_an_old_word_of_it_means_nothing() {
    let mut cluster = Cluster::led();
    let resign = |cluster: &mut Cluster, from, epoch| {
        cluster.failover.on_resign(BrokerId(from), LaneId(2), Epoch(epoch), ms(10));
        cluster.run(10)
    };
    assert_eq!(resign(&mut cluster, 3, 1), 0, "it does not lead");
    assert_eq!(resign(&mut cluster, 2, 0), 0);
    assert_eq!(resign(&mut cluster, 2, 1), 1);
    assert_eq!(cluster.leaders()[1], (2, 0));
    for broker in 1..=3 {
        cluster.answer(broker, 2, 2, 4, 20);
    }
    assert_eq!(cluster.run(20), 1);
    assert_eq!(cluster.leaders()[1], (2, 2), "it is preferred, and answers");
    assert_eq!(resign(&mut cluster, 2, 1), 0);
}

#[test]
fn one_command_for_a_lane_is_on_its_way_at_a_time() {
    let mut cluster = Cluster::led();
    let first = cluster.tick(500);
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(cluster.tick(600).is_empty());
    let patience = SERVE_PATIENCE.as_millis();
    assert_eq!(cluster.next(), Some(patience), "of the lane that 1 leads");
    // Not proposed: due again.
    cluster.failover.on_dropped(&first[0], ms(601));
    assert_eq!(cluster.next(), Some(601));
    assert_eq!(cluster.tick(601), first[..1]);
    // Somebody else's command came first: what is now is looked at anew.
    let lane = LaneId(2);
    cluster.state.apply(&Command::LaneEnter { lane, epoch: Epoch(7) });
    assert!(cluster.tick(602).is_empty());
    cluster.answer(1, 2, 7, 4, 610);
    cluster.answer(3, 2, 7, 4, 610);
    assert_eq!(cluster.tick(610).len(), 1);
    cluster.answer(1, 2, 7, 3, 611);
    assert!(cluster.tick(611).is_empty(), "a leader of epoch 7 is on its way");
}

#[test]
fn the_preferred_leader_is_waited_for_until_it_answers_or_falls_silent() {
    let mut cluster = Cluster::led();
    cluster.state.apply(&Command::LaneEnter { lane: LaneId(2), epoch: Epoch(2) });
    cluster.hear(&[2], 450);
    cluster.answer(1, 2, 2, 5, 460);
    cluster.answer(3, 2, 2, 5, 460);
    assert_eq!((cluster.run(460), cluster.next()), (0, Some(560)));
    let mut answered = Cluster { state: cluster.state.clone(), failover: cluster.failover.clone() };
    answered.answer(2, 2, 2, 5, 500);
    assert_eq!((answered.run(500), answered.leaders()[1]), (1, (2, 2)));
    assert_eq!(cluster.run(560), 1);
    assert_eq!(cluster.leaders()[1], (2, 3), "next in line");
    assert_eq!(PREFERRED_WAIT.as_millis(), 100);
}

#[test]
fn a_fence_that_leads_nowhere_is_given_up_ever_more_slowly() {
    let mut cluster = Cluster::led();
    let lane = LaneId(2);
    cluster.state.apply(&Command::LaneEnter { lane, epoch: Epoch(2) });
    let mut now = 0;
    for (epoch, wait) in (2..).zip([1_000, 2_000, 4_000, 8_000, 16_000, 16_000]) {
        for from in [2, 3] {
            let has = Position { epoch: Epoch(1), end: Lsn(4) };
            let perhaps = Position { epoch: Epoch(1), end: Lsn(9) };
            let answer = FenceAnswer { lane, epoch: Epoch(epoch), has, perhaps };
            cluster.failover.on_answer(BrokerId(from), &answer, ms(now));
        }
        cluster.run(now);
        assert_eq!(cluster.leaders()[1], (epoch, 0));
        cluster.hear(&[2, 3], now + wait);
        cluster.run(now + wait - 1);
        assert_eq!(cluster.leaders()[1], (epoch, 0));
        now += wait;
        cluster.run(now);
        assert_eq!(cluster.leaders()[1], (epoch + 1, 0), "after {wait} ms");
    }
}

#[test]
fn what_is_said_of_lanes_that_there_are_not_is_forgotten() {
    let mut cluster = Cluster::led();
    for lane in 4..1_000 {
        cluster.answer(2, lane, 1, 0, 1);
        cluster.failover.on_resign(BrokerId(2), LaneId(lane), Epoch(1), ms(1));
    }
    cluster.run(1);
    assert_eq!(cluster.failover.lanes.len(), 3);
}

#[test]
fn a_lane_is_moved_to_who_is_offered_and_the_next_epoch_entered_when_it_is_handed_over() {
    let mut cluster = Cluster::led();
    let lane = LaneId(2);
    let of = (lane, Epoch(1));
    let moving = |cluster: &Cluster| cluster.state.lane(lane).unwrap().moving;
    cluster.failover.on_offer(BrokerId(3), of, vec![ME], false, ms(10));
    assert_eq!(cluster.run(10), 0, "it does not lead");
    cluster.failover.on_offer(BrokerId(2), of, vec![BrokerId(3), ME], true, ms(11));
    assert_eq!(cluster.run(11), 1);
    let first = moving(&cluster).expect("it moves");
    assert_eq!(first.to, BrokerId(3));
    cluster.failover.on_handed_over(BrokerId(2), of, first.number + 1, ms(12));
    cluster.failover.on_handed_over(BrokerId(3), of, first.number, ms(12));
    assert_eq!(cluster.run(12), 0);
    cluster.failover.on_handed_over(BrokerId(2), of, first.number, ms(13));
    assert_eq!(cluster.run(13), 1);
    assert_eq!(cluster.leaders()[1], (2, 0));
    // The preferred one answers as well.
    for broker in [2, 3] {
        cluster.answer(broker, 2, 2, 4, 20);
    }
    assert_eq!(cluster.run(20), 1);
    assert_eq!((cluster.leaders()[1], moving(&cluster)), ((2, 3), None));
}

#[test]
fn a_move_is_taken_back_when_it_takes_too_long_or_its_target_is_gone() {
    for (is_gone, at) in [(false, 2_010), (true, 510)] {
        let mut cluster = Cluster::led();
        cluster.failover.on_offer(
            BrokerId(2),
            (LaneId(2), Epoch(1)),
            vec![BrokerId(3)],
            true,
            ms(10),
        );
        assert_eq!(cluster.run(10), 1);
        let first = cluster.state.lane(LaneId(2)).unwrap().moving.expect("it moves");
        cluster.hear(&[3], 10);
        for now in (20..at).step_by(10) {
            cluster.hear(if is_gone { &[2] } else { &[2, 3] }, now);
            cluster.run(now);
        }
        assert!(cluster.state.lane(LaneId(2)).unwrap().moving.is_some());
        cluster.hear(if is_gone { &[2] } else { &[2, 3] }, at);
        cluster.run(at);
        assert_eq!(cluster.state.lane(LaneId(2)).unwrap().moving, None, "{is_gone}");
        assert_eq!(cluster.leaders()[1], (1, 2), "it leads on");
        let of = (LaneId(2), Epoch(1));
        cluster.failover.on_handed_over(BrokerId(2), of, first.number, ms(at + 1));
        assert_eq!(cluster.run(at + 1), 0);
        assert_eq!(cluster.leaders()[1], (1, 2));
    }
}

#[test]
fn a_broker_that_only_gives_back_lanes_has_one_move_at_a_time() {
    let mut cluster = Cluster::led();
    cluster.hear(&[2, 3], 10);
    let offer = |cluster: &mut Cluster, from: u32, lane: u32, to: u32, is_leaving| {
        let (from, to) = (BrokerId(from), vec![BrokerId(to)]);
        cluster.failover.on_offer(from, (LaneId(lane), Epoch(1)), to, is_leaving, ms(10));
        cluster.run(10)
    };
    assert_eq!(offer(&mut cluster, 2, 2, 3, false), 1);
    assert_eq!(offer(&mut cluster, 3, 3, 1, false), 0, "it is given one already");
    assert_eq!(offer(&mut cluster, 1, 1, 2, false), 0, "it gives one already");
    assert_eq!(offer(&mut cluster, 1, 1, 2, true), 1, "it leaves");
    assert_eq!(offer(&mut cluster, 3, 3, 1, true), 0, "nobody gets a lane of it who leaves");
    let drain = Command::BrokerDrain { id: BrokerId(2), is_draining: true };
    cluster.state.apply(&drain);
    assert_eq!(offer(&mut cluster, 3, 3, 2, true), 0, "nor who drains");
}

/// Brokers come and go, answers are late, commands are lost: whatever happens, an epoch has one leader, and when
/// two brokers stay, all lanes are led again by one of them.
#[test]
fn lanes_are_led_again_whatever_happened_before() {
    for seed in 1..30 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut cluster = Cluster::led();
        let mut leaders: BTreeMap<(LaneId, Epoch), BrokerId> = BTreeMap::new();
        let mut is_up = [true; 3];
        let mut waiting: Vec<Command> = Vec::new();
        let mut entered = 0;
        for step in 0..400 {
            let now = step * 50;
            let is_calm = step >= 340;
            if is_calm {
                is_up = [true, seed % 2 == 0, seed % 2 == 1];
            } else if random.chance(1, 6) {
                // 1 leads the metadata, and has to be there.
                let at = 1 + random.below(2) as usize;
                is_up[at] = !is_up[at];
            }
            for (id, is_up) in (1..).zip(is_up) {
                if !is_up {
                    continue;
                }
                cluster.hear(&[id], now);
                for lane in 1..=3 {
                    let record = cluster.state.lane(LaneId(lane)).unwrap();
                    let (epoch, leads) = (record.epoch.0, record.leader_id());
                    if leads.is_none() && (is_calm || random.chance(1, 2)) {
                        cluster.answer(id, lane, epoch, random.below(5), now);
                    } else if leads == Some(BrokerId(id)) && !is_calm && random.chance(1, 40) {
                        let (from, lane) = (BrokerId(id), LaneId(lane));
                        cluster.failover.on_resign(from, lane, Epoch(epoch), ms(now));
                    } else if leads == Some(BrokerId(id)) && (is_calm || random.chance(1, 30)) {
                        cluster.serve(lane, now);
                    }
                }
            }
            waiting.extend(cluster.tick(now));
            for command in std::mem::take(&mut waiting) {
                match random.below(4) {
                    0 if !is_calm => waiting.push(command),
                    1 if !is_calm => cluster.failover.on_dropped(&command, ms(now)),
                    _ => {
                        cluster.state.apply(&command);
                        entered += u32::from(matches!(command, Command::LaneEnter { .. }));
                    }
                }
            }
            for lane in cluster.state.lanes() {
                if let Some(leader) = lane.leader_id() {
                    let known = *leaders.entry((lane.id, lane.epoch)).or_insert(leader);
                    assert_eq!(known, leader, "two leaders of {:?} in {:?}", lane.id, lane.epoch);
                }
            }
        }
        let up = |leader: u32| leader > 0 && is_up[leader as usize - 1];
        assert!(cluster.leaders().iter().all(|(_, leader)| up(*leader)), "{:?}", cluster.leaders());
        assert!(entered > 5, "little has happened");
    }
}

#[test]
fn what_a_lane_costs_stands_until_its_next_leader_has_measured() {
    let mut cluster = Cluster::led();
    let lane = LaneId(2);
    let load = |epoch, bytes_in| {
        let rates = Rates { bytes_in, ..Rates::default() };
        LaneLoad { lane, epoch: Epoch(epoch), rates }
    };
    assert_eq!(cluster.failover.load(lane), None);
    cluster.failover.on_load(BrokerId(2), load(1, 500), ms(10));
    cluster.serve(2, 10);
    assert_eq!(cluster.failover.survey(&cluster.state, ms(10)).loads, [load(1, 500)]);
    cluster.failover.on_resign(BrokerId(2), lane, Epoch(1), ms(20));
    assert_eq!(cluster.run(20), 1);
    cluster.answer(1, 2, 2, 5, 30);
    cluster.answer(2, 2, 2, 5, 30);
    cluster.answer(3, 2, 2, 5, 30);
    assert_eq!(cluster.run(30), 1);
    // Nobody has said that it serves.
    assert_eq!(cluster.failover.survey(&cluster.state, ms(30)).loads, []);
    cluster.serve(2, 40);
    let survey = cluster.failover.survey(&cluster.state, ms(40));
    assert_eq!(survey.rates(lane), Some(load(1, 500).rates));
    cluster.failover.on_load(BrokerId(2), load(2, 700), ms(50));
    // What is left of the one before comes late.
    cluster.failover.on_load(BrokerId(2), load(1, 900), ms(60));
    assert_eq!(cluster.failover.load(lane), Some(load(2, 700)));
    // Of a lane that there is not, nothing is kept; nor by who leads the metadata anew.
    let nowhere = LaneLoad { lane: LaneId(99), ..load(9, 1) };
    cluster.failover.on_load(BrokerId(2), nowhere, ms(60));
    assert_eq!(cluster.failover.load(LaneId(99)), None);
    cluster.failover.reset(ms(70), None);
    assert_eq!(cluster.failover.load(lane), None);
}
