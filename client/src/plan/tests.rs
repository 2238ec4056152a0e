//! A status, and the steps that follow from it. The model of the tests carries each step out as a cluster does.

use super::*;
use corelog_protocol::ids::{Epoch, Incarnation};
use corelog_protocol::message::{BrokerStatus, LaneLoad, ReplicaStatus};

/// Lanes as their replicas in order, "123 231": the first leads. Racks in the order of the brokers, "abc", "-" for none.
fn status(lanes: &str, racks: &str) -> ClusterStatusReply {
    let broker = |(id, rack): (u32, char)| BrokerStatus {
        id: BrokerId(id),
        address: ([127, 0, 0, 1], 7420).into(),
        rack: if rack == '-' { String::new() } else { rack.to_string() },
        shards: 1,
        incarnation: Incarnation(1),
        is_alive: Some(true),
        is_draining: false,
    };
    let lane = |(id, text): (u32, &str)| {
        let brokers = text.chars().filter_map(|digit| digit.to_digit(10)).map(BrokerId);
        let replica = |broker| ReplicaStatus { broker, behind: Some(0), is_caught_up: true };
        let replicas: Vec<_> = brokers.map(replica).collect();
        LaneStatus {
            lane: LaneId(id),
            epoch: Epoch(1),
            leader: replicas.first().map(|it| it.broker),
            is_serving: true,
            moving_to: None,
            replicas,
            before: Vec::new(),
            load: None,
        }
    };
    let brokers: Vec<_> = (1..).zip(racks.chars()).map(broker).collect();
    ClusterStatusReply {
        version: 1,
        me: BrokerId(1),
        metadata_leader: Some(BrokerId(1)),
        voters: brokers.iter().take(3).map(|it| it.id).collect(),
        learners: brokers.iter().skip(3).map(|it| it.id).collect(),
        brokers,
        lanes: (1..).zip(lanes.split_whitespace()).map(lane).collect(),
    }
}

fn text(steps: &[Operation]) -> String {
    let step = |step: &Operation| match step {
        Operation::Transfer { lane, to } => format!("{lane}→{to}"),
        Operation::Replace { lane, replicas } => {
            let replicas: String = replicas.iter().map(ToString::to_string).collect();
            format!("{lane}:{replicas}")
        }
        Operation::Drain { broker } => format!("drain {broker}"),
        Operation::Undrain { broker } => format!("undrain {broker}"),
        Operation::Remove { broker } => format!("remove {broker}"),
        Operation::AddLanes { broker, up_to } => format!("{broker} up to {up_to}"),
    };
    steps.iter().map(step).collect::<Vec<_>>().join(", ")
}

/// As the cluster is after this step, and nothing else has happened.
fn carry_out(status: &mut ClusterStatusReply, step: &Operation) {
    match step {
        Operation::Transfer { lane, to } => {
            let lane = status.lanes.iter_mut().find(|it| it.lane == *lane).expect("a lane");
            assert!(lane.replicas.iter().any(|it| it.broker == *to));
            lane.leader = Some(*to);
            lane.replicas.sort_by_key(|it| it.broker != *to);
        }
        Operation::Replace { lane, replicas } => {
            let lane = status.lanes.iter_mut().find(|it| it.lane == *lane).expect("a lane");
            assert!(lane.leader.is_some_and(|leader| replicas.contains(&leader)), "{lane:?}");
            let stay = lane.replicas.iter().filter(|it| replicas.contains(&it.broker)).count();
            assert_eq!(stay + 1, replicas.len(), "one at a time");
            for (replica, broker) in lane.replicas.iter_mut().zip(replicas) {
                replica.broker = *broker;
            }
            // Who is preferred leads when it has everything.
            lane.leader = lane.preferred();
        }
        Operation::Drain { broker } => {
            for lane in &mut status.lanes {
                if lane.leader == Some(*broker) {
                    lane.leader = lane.replicas.iter().map(|it| it.broker).find(|it| it != broker);
                }
            }
            let it = status.brokers.iter_mut().find(|it| it.id == *broker).expect("a broker");
            it.is_draining = true;
            if status.metadata_leader == Some(*broker) {
                status.metadata_leader = Some(BrokerId(broker.0 % 3 + 1));
            }
        }
        Operation::Undrain { .. } => unreachable!("never planned"),
        Operation::Remove { broker } => {
            let is_there = |lane: &LaneStatus| lane.replicas.iter().any(|it| it.broker == *broker);
            assert!(!status.lanes.iter().any(is_there));
            status.brokers.retain(|it| it.id != *broker);
            status.voters.retain(|it| it != broker);
            status.learners.retain(|it| it != broker);
        }
        Operation::AddLanes { broker, up_to } => {
            let others = |lane: u32| {
                let mut others: Vec<_> = status.brokers.iter().map(|it| it.id).collect();
                others.retain(|it| it != broker);
                others.rotate_left(lane as usize % 2);
                others
            };
            let mut new = Vec::new();
            for id in status.lanes.len() as u32 + 1..=up_to.0 {
                let replica =
                    |broker| ReplicaStatus { broker, behind: Some(0), is_caught_up: true };
                let set = [*broker].into_iter().chain(others(id)).take(3);
                new.push(LaneStatus {
                    lane: LaneId(id),
                    leader: Some(*broker),
                    replicas: set.map(replica).collect(),
                    ..status.lanes[0].clone()
                });
            }
            assert!(!new.is_empty(), "they are there");
            status.lanes.extend(new);
        }
    }
    status.version += 1;
}

fn counts(status: &ClusterStatusReply, of: impl Fn(&LaneStatus, BrokerId) -> bool) -> Vec<usize> {
    let count = |id| status.lanes.iter().filter(|lane| of(lane, id)).count();
    status.brokers.iter().map(|it| count(it.id)).collect()
}

fn has(lane: &LaneStatus, id: BrokerId) -> bool {
    lane.replicas.iter().any(|it| it.broker == id)
}

#[test]
fn a_broker_that_is_alive_is_drained_emptied_and_removed() {
    let mut status = status("123 231 312 124 134", "----");
    let steps = plan_removal(&status, BrokerId(2), &[]).expect("a plan");
    assert_eq!(text(&steps), "drain 2, 1:143, 2:431, 3:314, 4:134, remove 2");
    for (done, step) in steps.iter().enumerate() {
        let left = plan_removal(&status, BrokerId(2), &[]).expect("a plan");
        assert_eq!(left, steps[done..]);
        carry_out(&mut status, step);
    }
    assert_eq!(counts(&status, has), [5, 5, 5]);
    // It drains, and has not handed everything over.
    status.brokers[0].is_draining = true;
    let steps = plan_removal(&status, BrokerId(1), &[]);
    assert_eq!(steps, Err(NoPlan::NoPlace { lane: LaneId(1), broker: BrokerId(1) }));
}

#[test]
fn a_broker_with_a_core_that_leads_nothing_gets_new_lanes() {
    let mut status = status("123 231 312", "----");
    status.brokers[3].shards = 2;
    let mut steps = 0;
    loop {
        let left = plan_balance(&status).expect("a plan");
        let Some(step) = left.first() else { break };
        if let Operation::AddLanes { broker, up_to } = step {
            assert_eq!((*broker, *up_to), (BrokerId(4), LaneId(5)), "one for each of its cores");
            let could_lead = counts(&status, |lane, id| lane.preferred() == Some(id));
            assert_eq!(could_lead, [1, 1, 1, 0], "the others are levelled first");
        }
        carry_out(&mut status, step);
        steps += 1;
        assert!(steps < 20, "{}", text(&left));
    }
    assert_eq!(status.lanes.len(), 5);
    let leads = counts(&status, |lane, id| lane.preferred() == Some(id));
    assert!(leads[3] >= 1 && leads.iter().all(|&count| count >= 1), "{leads:?}");
    // Lanes with one copy stay as they are: a new one could not be moved either.
    let alone = self::status("1 2", "---");
    assert_eq!(text(&plan_balance(&alone).expect("a plan")), "");
}

#[test]
fn a_dead_broker_is_replaced_by_the_one_that_is_named() {
    let mut status = status("123 231 312", "----");
    status.brokers[1].is_alive = Some(false);
    status.lanes[1].leader = Some(BrokerId(3));
    let steps = plan_removal(&status, BrokerId(2), &[BrokerId(4)]).expect("a plan");
    assert_eq!(text(&steps), "1:143, 2:431, 3:314, remove 2");
    // From wherever it was interrupted it goes on with what is left.
    for (done, step) in steps.iter().enumerate() {
        let left = plan_removal(&status, BrokerId(2), &[BrokerId(4)]).expect("a plan");
        assert_eq!(left, steps[done..]);
        carry_out(&mut status, step);
    }
    let gone = Err(NoPlan::UnknownBroker { broker: BrokerId(2) });
    assert_eq!(plan_removal(&status, BrokerId(2), &[]), gone);
}

#[test]
fn what_is_not_over_is_waited_for() {
    let mut status = status("123 231", "----");
    status.brokers[1].is_alive = Some(false);
    // The last change put 4 in its place, and 2 still counts.
    status.lanes[0].replicas[1].broker = BrokerId(4);
    status.lanes[0].before = [1, 2, 3].map(BrokerId).to_vec();
    status.lanes[1].leader = Some(BrokerId(3));
    let plan = |status: &ClusterStatusReply| {
        text(&plan_removal(status, BrokerId(2), &[]).expect("a plan"))
    };
    assert_eq!(plan(&status), "1:143, 2:431, remove 2");
    status.lanes[1].moving_to = Some(BrokerId(3));
    assert_eq!(plan(&status), "1:143, 2:231, 2:431, remove 2");
    // It is removed, and still a voter.
    status.brokers.remove(1);
    status.lanes.clear();
    assert_eq!(plan(&status), "remove 2");
    status.voters.remove(1);
    assert!(plan_removal(&status, BrokerId(2), &[]).is_err());
}

#[test]
fn why_a_broker_cannot_go_is_said() {
    let three = status("123", "---");
    let (lane, broker) = (LaneId(1), BrokerId(3));
    assert_eq!(plan_removal(&three, broker, &[]), Err(NoPlan::NoPlace { lane, broker }));
    let four = status("123", "----");
    let nobody = Err(NoPlan::UnknownBroker { broker: BrokerId(9) });
    assert_eq!(plan_removal(&four, broker, &[BrokerId(9)]), nobody);
    assert_eq!(plan_removal(&four, BrokerId(9), &[]), nobody);
    let refused = plan_removal(&four, broker, &[BrokerId(1)]);
    assert_eq!(refused, Err(NoPlan::NoPlace { lane, broker }), "it has a copy");
    let mut drains = status("123", "----");
    drains.brokers[3].is_draining = true;
    assert_eq!(plan_removal(&drains, broker, &[]), Err(NoPlan::NoPlace { lane, broker }));
    let single = status("3", "----");
    assert_eq!(plan_removal(&single, broker, &[]), Err(NoPlan::OnlyCopy { lane, broker }));
    let mut unknown = status("123", "----");
    unknown.brokers.iter_mut().for_each(|it| it.is_alive = None);
    assert_eq!(plan_removal(&unknown, broker, &[]), Err(NoPlan::NobodyKnows));
    assert_eq!(plan_balance(&unknown), Err(NoPlan::NobodyKnows));
}

#[test]
fn copies_go_where_the_fewest_are_and_no_other_copy_is_in_the_rack() {
    // 5 has the most copies; but 4 stands with 2.
    let racks = status("123 143 125 145 152", "abcbc");
    let steps = plan_removal(&racks, BrokerId(3), &[]).expect("a plan");
    assert_eq!(text(&steps), "drain 3, 1:125, 2:145, remove 3");
    // Without racks the one with the fewest gets the first, and then both have as many.
    let anywhere = status("123 123 145 125 125", "-----");
    let steps = plan_removal(&anywhere, BrokerId(3), &[]).expect("a plan");
    assert_eq!(text(&steps), "drain 3, 1:124, 2:124, remove 3");
}

#[test]
fn a_broker_that_came_gets_its_share_of_copies_and_of_lanes_to_lead() {
    let mut status = status("123 123 132 132 231 231 213 213 312 312 321 321", "----");
    let steps = plan_balance(&status).expect("a plan");
    assert!(steps.iter().all(|step| !matches!(step, Operation::Drain { .. })));
    for _ in 0..100 {
        let steps = plan_balance(&status).expect("a plan");
        let Some(step) = steps.first() else { break };
        carry_out(&mut status, step);
    }
    assert_eq!(plan_balance(&status), Ok(vec![]));
    assert_eq!(counts(&status, has), [9, 9, 9, 9]);
    let preferred = |lane: &LaneStatus, id| lane.preferred() == Some(id);
    assert_eq!(counts(&status, preferred), [3, 3, 3, 3]);
    assert!(steps.len() <= 9 + 9, "{}", text(&steps));
}

#[test]
fn what_is_balanced_stays_and_who_drains_or_is_silent_is_left_alone() {
    let balanced = status("123 231 312", "---");
    assert_eq!(plan_balance(&balanced), Ok(vec![]));
    let mut fourth = status("123 231 312", "----");
    fourth.brokers[3].is_draining = true;
    assert_eq!(plan_balance(&fourth), Ok(vec![]));
    fourth.brokers[3].is_draining = false;
    fourth.brokers[3].is_alive = Some(false);
    assert_eq!(plan_balance(&fourth), Ok(vec![]));
}

#[test]
fn racks_come_before_balance() {
    // No lane comes to have more copies in one rack than it had.
    let mut status = status("123 124 153 154 123 124", "abcca");
    for _ in 0..100 {
        let steps = plan_balance(&status).expect("a plan");
        let Some(step) = steps.first() else { break };
        carry_out(&mut status, step);
        for lane in &status.lanes {
            let rack = |id: BrokerId| status.broker(id).expect("a broker").rack.clone();
            let mut racks: Vec<_> = lane.replicas.iter().map(|it| rack(it.broker)).collect();
            racks.sort();
            racks.dedup();
            assert!(racks.len() >= 2, "{lane:?}");
        }
    }
    assert_eq!(plan_balance(&status), Ok(vec![]));
}

const UNIT: u64 = 100 << 10;

/// Lanes as before, with what they cost their leaders, in units of 100 KiB a second.
fn loaded(lanes: &str, loads: &[u64]) -> ClusterStatusReply {
    let mut status = status(lanes, "----");
    for (lane, load) in status.lanes.iter_mut().zip(loads) {
        lane.load = Some(LaneLoad { load: load * UNIT, ..LaneLoad::default() });
    }
    status
}

fn load_of(status: &ClusterStatusReply, id: BrokerId) -> u64 {
    let of_it = status.lanes.iter().filter(|lane| lane.preferred() == Some(id));
    of_it.filter_map(|lane| lane.load).map(|load| load.load / UNIT).sum()
}

fn loads(status: &ClusterStatusReply) -> Vec<u64> {
    status.brokers.iter().map(|broker| load_of(status, broker.id)).collect()
}

/// Carries out a plan, which is made anew after each step, to its end.
fn balance(status: &mut ClusterStatusReply) -> Vec<Operation> {
    let mut done = Vec::new();
    while let Some(step) = plan_balance(status).expect("a plan").into_iter().next() {
        carry_out(status, &step);
        done.push(step);
        assert!(done.len() < 100, "{}", text(&done));
    }
    done
}

#[test]
fn what_costs_much_is_led_by_different_brokers_whatever_the_numbers_are() {
    // Two lanes each; but both of the first are busy.
    let mut status = loaded("1234 1324 2341 2413 3412 3124 4123 4231", &[50, 40, 0, 5, 0, 5, 0, 5]);
    assert_eq!(loads(&status), [90, 5, 5, 5]);
    assert_eq!(text(&plan_balance(&status).expect("a plan")), "2→2");
    balance(&mut status);
    assert_eq!(loads(&status), [50, 45, 5, 5]);
    // One that is busy beside many that are not stays alone.
    let mut status = loaded("1234 1324 1432 2341", &[90, 10, 10, 0]);
    balance(&mut status);
    assert_eq!(loads(&status), [20, 90, 0, 0]);
}

#[test]
fn two_that_have_the_most_give_one_lane_each() {
    let mut status = loaded("1234 1234 2143 2143 3412", &[30, 30, 30, 30, 0]);
    assert_eq!(balance(&mut status).len(), 2);
    assert_eq!(loads(&status), [30, 30, 30, 30]);
}

#[test]
fn what_is_not_worth_it_stays() {
    // 95 instead of 100.
    let small = loaded("1234 1234 2341 3412 4123", &[95, 5, 60, 60, 60]);
    assert_eq!(plan_balance(&small), Ok(vec![]));
    // It would only be elsewhere.
    let single = loaded("1234 2341 3412 4123", &[90, 0, 0, 0]);
    assert_eq!(plan_balance(&single), Ok(vec![]));
}

#[test]
fn without_load_the_numbers_count_and_with_a_load_that_is_not_known_nothing_moves() {
    let mut idle = loaded("1234 1234 1234 1234", &[0, 0, 0, 0]);
    balance(&mut idle);
    assert_eq!(counts(&idle, |lane, id| lane.preferred() == Some(id)), [1, 1, 1, 1]);
    let mut unknown = loaded("1234 1234 1234 1234", &[90, 50, 0, 0]);
    unknown.lanes[3].load = None;
    assert_eq!(plan_balance(&unknown), Err(NoPlan::LoadNotKnown { lane: LaneId(4) }));
    // Nobody leads it, so there is none.
    unknown.lanes[3].leader = None;
    assert_eq!(text(&plan_balance(&unknown).expect("a plan")), "1→2");
}

#[test]
fn load_goes_to_nobody_who_is_silent_or_drains_and_what_they_should_lead_stays_theirs() {
    let mut status = loaded("1234 1234 2341 3412", &[50, 50, 60, 0]);
    status.brokers[2].is_draining = true;
    status.brokers[3].is_alive = Some(false);
    // 2 leads the lane of 3 meanwhile.
    status.lanes[3].leader = Some(BrokerId(2));
    status.lanes[3].load = Some(LaneLoad { load: 45 * UNIT, ..LaneLoad::default() });
    assert_eq!(plan_balance(&status), Ok(vec![]));
    status.lanes[3].load = Some(LaneLoad::default());
    status.lanes[2].load = Some(LaneLoad::default());
    assert_eq!(text(&plan_balance(&status).expect("a plan")), "1→2");
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn below(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % bound
}

#[test]
fn any_balance_comes_to_an_end_is_not_worse_and_asks_for_nothing_that_cannot_be() {
    let mut transfers = 0;
    for seed in 0..500 {
        let mut state = seed;
        let count = 3 + below(&mut state, 10);
        let lane = |state: &mut u64| {
            let first = below(state, 4);
            let others = [1, 2, 3].map(|step| (first + step) % 4 + 1);
            let left_out = below(state, 3) as usize;
            let others: String =
                (0..3).filter(|at| *at != left_out).map(|at| others[at].to_string()).collect();
            format!("{}{others}", first + 1)
        };
        let lanes: Vec<String> = (0..count).map(|_| lane(&mut state)).collect();
        let figures: Vec<u64> = (0..count)
            .map(|_| {
                let bits = below(&mut state, 10);
                below(&mut state, 1 << bits)
            })
            .collect();
        let mut status = loaded(&lanes.join(" "), &figures);
        if below(&mut state, 4) == 0 {
            status.brokers[below(&mut state, 4) as usize].is_draining = true;
        }
        let places: Vec<BrokerId> =
            status.brokers.iter().filter(|it| !it.is_draining).map(|it| it.id).collect();
        // Copies first: they take the leads with them.
        let steps = balance(&mut status);
        assert_eq!(plan_balance(&status), Ok(vec![]), "seed {seed}");
        for step in &steps {
            if let Operation::Transfer { lane, to } = step {
                transfers += 1;
                assert!(places.contains(to), "seed {seed}: {lane} to {to}");
            }
        }
        // From here on only leads move, whatever the load is.
        for lane in &mut status.lanes {
            let load = below(&mut state, 1_000) * UNIT;
            lane.load = Some(LaneLoad { load, ..LaneLoad::default() });
        }
        let most = |status: &ClusterStatusReply| {
            places.iter().map(|id| load_of(status, *id)).max().expect("some")
        };
        let mut before = most(&status);
        for step in plan_balance(&status).expect("a plan") {
            assert!(matches!(step, Operation::Transfer { .. }), "seed {seed}: {step:?}");
            carry_out(&mut status, &step);
            let after = most(&status);
            assert!(after <= before, "seed {seed}: {before} became {after}");
            before = after;
        }
        assert_eq!(plan_balance(&status), Ok(vec![]), "seed {seed}");
    }
    assert!(transfers > 100, "{transfers}");
}
