use super::*;
use crate::disk::DirectoryId;
use crate::random::Random;
use corelog_protocol::ids::{LaneId, Lsn};
use std::sync::Arc;

const LANE: LaneId = LaneId(5);
const START: Monotonic = Monotonic(1_000);

fn at(epoch: u64, end: u64) -> Position {
    Position { epoch: Epoch(epoch), end: Lsn(end) }
}

fn set(brokers: &[u32]) -> Arc<[LaneReplica]> {
    let replica = |&id: &u32| LaneReplica { broker: BrokerId(id), directory: DirectoryId(0) };
    brokers.iter().map(replica).collect()
}

/// Fenced at epoch 9.
fn lane(brokers: &[u32]) -> LaneRecord {
    LaneRecord { epoch: Epoch(9), ..LaneRecord::new(LANE, set(brokers)) }
}

fn answer(has: Position, perhaps: Position) -> FenceAnswer {
    FenceAnswer { lane: LANE, epoch: Epoch(9), has, perhaps }
}

/// The answers of each broker, in order.
fn fence(answers: &[(u32, Position, Position)]) -> Fence {
    let mut fence = Fence::new(Epoch(9), START);
    for (broker, has, perhaps) in answers {
        fence.on_answer(BrokerId(*broker), &answer(*has, *perhaps), START);
    }
    fence
}

/// Who is named when everybody is alive and the wait for the preferred one is over.
fn named(fence: &Fence, lane: &LaneRecord) -> Option<(u32, Position)> {
    let mut fence = fence.clone();
    _ = fence.decide(lane, START, |_| true, |_| false);
    named_at(&mut fence, lane, START + PREFERRED_WAIT, |_| true)
}

fn named_at(
    fence: &mut Fence,
    lane: &LaneRecord,
    now: Monotonic,
    is_alive: impl Fn(BrokerId) -> bool,
) -> Option<(u32, Position)> {
    match fence.decide(lane, now, is_alive, |_| false)? {
        Command::LaneLeader { lane: LANE, epoch: Epoch(9), broker, position } => {
            Some((broker.0, position))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_example_of_the_head_of_the_file() {
    let (a, b, c) =
        ((1, at(2, 40), at(2, 40)), (2, at(2, 31), at(2, 35)), (3, at(1, 90), at(1, 90)));
    let lane = lane(&[2, 3, 1]);
    assert_eq!(named(&fence(&[a, b, c]), &lane), Some((1, at(2, 40))));
    assert_eq!(named(&fence(&[a, b]), &lane), Some((1, at(2, 40))));
    assert_eq!(named(&fence(&[a, c]), &lane), Some((1, at(2, 40))));
    assert_eq!(named(&fence(&[b, c]), &lane), None, "B may have acknowledged up to (2, 35)");
    assert_eq!(named(&fence(&[a]), &lane), None);
}

#[test]
fn an_empty_lane_is_led_by_its_preferred_leader() {
    let empty = Position::default();
    let lane = lane(&[3, 1, 2]);
    let mut fence = fence(&[(1, empty, empty), (3, empty, empty)]);
    assert_eq!(named_at(&mut fence, &lane, START, |_| true), Some((3, empty)));
}

#[test]
fn when_all_tails_are_torn_the_longest_that_can_be_read_leads_once_all_have_answered() {
    let torn = |broker, end| (broker, at(1, end), at(1, 8));
    let lane = lane(&[1, 2, 3]);
    assert_eq!(named(&fence(&[torn(1, 5), torn(2, 6)]), &lane), None);
    assert_eq!(named(&fence(&[torn(1, 5), torn(2, 6), torn(3, 4)]), &lane), Some((2, at(1, 6))));
}

#[test]
fn a_hole_of_unknown_extent_is_decided_by_the_others_only() {
    let hole = (1, at(1, 5), at(4, u64::MAX));
    let lane = lane(&[1, 2, 3]);
    let whole = |broker, end| (broker, at(3, end), at(3, end));
    assert_eq!(named(&fence(&[hole, whole(2, 9)]), &lane), None);
    assert_eq!(named(&fence(&[hole, whole(2, 9), whole(3, 9)]), &lane), Some((2, at(3, 9))));
}

#[test]
fn the_set_before_is_asked_until_it_is_settled() {
    let mut lane = lane(&[2, 3, 4]);
    lane.before = Some(set(&[1, 2, 3]));
    let long = at(2, 50);
    let short = at(2, 40);
    // A quorum of the new set alone; broker 1 and 2 may have committed more.
    let fence = |answers: &[(u32, Position)]| {
        let both = |&(broker, has): &(u32, Position)| (broker, has, has);
        super::tests::fence(&answers.iter().map(both).collect::<Vec<_>>())
    };
    assert_eq!(named(&fence(&[(3, short), (4, short)]), &lane), None);
    assert_eq!(named(&fence(&[(3, short), (4, short), (1, long)]), &lane), None, "1 has left");
    let all = fence(&[(3, short), (4, short), (2, long)]);
    assert_eq!(named(&all, &lane), Some((2, long)));
    lane.before = None;
    assert_eq!(named(&fence(&[(3, short), (4, short)]), &lane), Some((3, short)));
}

#[test]
fn the_preferred_one_is_waited_for_while_it_lives_and_no_longer_than_that() {
    let lane = lane(&[1, 2, 3]);
    let answers = [(2, at(2, 7), at(2, 7)), (3, at(2, 5), at(2, 5))];
    let mut open = fence(&answers);
    assert_eq!(named_at(&mut open.clone(), &lane, START, |id| id.0 != 1), Some((2, at(2, 7))));
    assert_eq!(named_at(&mut open, &lane, START, |_| true), None);
    assert_eq!(open.waits_until(), Some(START + PREFERRED_WAIT));
    // It may lead at once, whoever has more.
    let mut with_it = open.clone();
    with_it.on_answer(BrokerId(1), &answer(at(2, 6), at(2, 6)), START);
    assert_eq!(named_at(&mut with_it, &lane, START, |_| true), Some((1, at(2, 6))));
    // It answers, and may not lead before it has taken what it lacks.
    let mut behind = open.clone();
    behind.on_answer(BrokerId(1), &answer(at(2, 4), at(2, 4)), START);
    assert_eq!(named_at(&mut behind, &lane, START, |_| true), None);
    behind.on_answer(BrokerId(1), &answer(at(2, 7), at(2, 7)), START);
    assert_eq!(named_at(&mut behind, &lane, START, |_| true), Some((1, at(2, 7))));
    let late = START + PREFERRED_WAIT;
    assert_eq!(named_at(&mut open, &lane, late, |_| true), Some((2, at(2, 7))));
    assert_eq!(named_at(&mut open, &lane, late, |id| id.0 == 1), None, "who may lead is gone");
}

#[test]
fn an_answer_stays_valid_when_its_replica_knows_less_later() {
    let lane = lane(&[1, 2, 3]);
    let mut fence = fence(&[(1, at(2, 9), at(2, 9)), (2, at(2, 5), at(2, 5))]);
    // Rot at broker 2: it can read less, and now says "perhaps" of what it had said not to have.
    fence.on_answer(BrokerId(2), &answer(at(2, 3), at(2, u64::MAX)), START);
    assert_eq!(named(&fence, &lane), Some((1, at(2, 9))));
    // Rot at broker 1: it cannot be named for what it read before.
    fence.on_answer(BrokerId(1), &answer(at(2, 4), at(2, 9)), START);
    assert_eq!(named(&fence, &lane), None);
}

#[test]
fn answers_of_other_epochs_say_nothing_and_only_news_is_news() {
    let lane = lane(&[1, 2, 3]);
    let mut fence = fence(&[(1, at(2, 9), at(2, 9))]);
    let later = START + Nanos::from_secs(1);
    let old = FenceAnswer { epoch: Epoch(8), ..answer(at(1, 1), at(1, 1)) };
    fence.on_answer(BrokerId(2), &old, later);
    fence.on_answer(BrokerId(1), &answer(at(2, 9), at(2, 9)), later);
    assert_eq!((fence.news_at(), fence.has_quorum(&lane)), (START, false));
    fence.on_answer(BrokerId(2), &answer(at(1, 1), at(1, 1)), later);
    assert_eq!((fence.news_at(), fence.has_quorum(&lane)), (later, true));
    let other_epoch = LaneRecord { epoch: Epoch(10), ..lane.clone() };
    assert_eq!(named(&fence, &other_epoch), None);
    let leader = crate::metadata::LaneLeader { broker: BrokerId(1), position: at(2, 9) };
    assert_eq!(named(&fence, &LaneRecord { leader: Some(leader), ..lane }), None);
}

/// What rule 6 is for, said as it is meant: whether an entry of epoch and LSN that end at `above` can have been
/// committed on this set, as far as these answers tell. Each of a quorum acknowledged it, and somebody's copy can
/// be read: rot hits a minority.
fn may_be_committed(
    set: &[LaneReplica],
    answers: &[(u32, Position, Position)],
    above: Position,
) -> bool {
    let of = |broker: BrokerId| answers.iter().filter(move |(from, ..)| *from == broker.0);
    (0..1u32 << set.len()).any(|subset| {
        let chosen = |at: &usize| subset >> at & 1 == 1;
        let quorum: Vec<BrokerId> =
            (0..set.len()).filter(chosen).map(|at| set[at].broker).collect();
        quorum.len() > set.len() / 2
            && quorum.iter().all(|&id| of(id).all(|(_, _, perhaps)| *perhaps >= above))
            && quorum.iter().any(|&id| of(id).all(|(_, has, _)| *has >= above))
    })
}

/// Tries many sets of answers against the statement above. Returns the first that contradicts it.
fn contradiction(seed: u64, rounds: u32) -> Option<String> {
    let mut random = Random::new(seed);
    let (mut allowed, mut refused) = (0, 0);
    let universe: Vec<Position> =
        (1..4).flat_map(|epoch| (1..5).map(move |end| at(epoch, end))).collect();
    for _ in 0..rounds {
        let size = 3 + random.below(3) as u32;
        let members: Vec<u32> = (1..=size).collect();
        let mut lane = lane(&members);
        if random.chance(1, 2) {
            let others: Vec<u32> = (0..3).map(|n| n + random.below(3) as u32 * 2 + 1).collect();
            if crate::metadata::lane::is_set(&set(&others)) {
                lane.before = Some(set(&others));
            }
        }
        let mut answers = Vec::new();
        for _ in 0..random.below(u64::from(size) + 3) {
            let has = universe[random.below(universe.len() as u64) as usize];
            let other = universe[random.below(universe.len() as u64) as usize];
            let perhaps = if random.chance(1, 2) { has } else { has.max(other) };
            answers.push((1 + random.below(u64::from(size) + 2) as u32, has, perhaps));
        }
        let mut fence = fence(&answers);
        let is_odd = sets_of(&lane).all(|set| set.len() % 2 == 1);
        for &position in &universe {
            let lost =
                universe.iter().copied().filter(|above| *above > position).find(|above| {
                    sets_of(&lane).any(|set| may_be_committed(set, &answers, *above))
                });
            let covers = fence.covers_all(&lane, position);
            *(if covers { &mut allowed } else { &mut refused }) += 1;
            if covers && lost.is_some() {
                return Some(format!("{lane:?} {answers:?}: {position:?} loses {lost:?}"));
            }
            // And it refuses nothing without need. (The last position has none above it to be lost.)
            let is_last = Some(&position) == universe.last();
            if !covers && lost.is_none() && is_odd && !is_last {
                return Some(format!("{lane:?} {answers:?}: {position:?} would lose nothing"));
            }
        }
        let ready = lane.replicas.iter().any(|one| {
            let newest = answers.iter().rev().find(|(from, ..)| *from == one.broker.0);
            newest.is_some_and(|(_, has, _)| fence.covers_all(&lane, *has))
        });
        let chosen = named(&fence, &lane);
        assert_eq!(chosen.is_some(), ready, "{lane:?} {answers:?}");
        if let Some((broker, position)) = chosen {
            let newest = answers.iter().rev().find(|(from, ..)| *from == broker).unwrap();
            assert_eq!(newest.1, position, "named for what it has");
            assert!(lane.replica(BrokerId(broker)).is_some(), "of the present set");
            assert!(fence.covers_all(&lane, position));
            assert!(fence.decide(&lane, START, |_| false, |_| false).is_none(), "nobody is alive");
        }
    }
    assert!(2 * allowed > rounds && refused > rounds, "{allowed} and {refused}: little was tried");
    None
}

fn sets_of(lane: &LaneRecord) -> impl Iterator<Item = &[LaneReplica]> {
    std::iter::once(&lane.replicas[..]).chain(lane.before.as_deref())
}

#[test]
fn nobody_is_named_above_whom_something_could_have_been_committed_and_else_somebody_is() {
    for seed in 1..5 {
        println!("seed {seed}");
        assert_eq!(contradiction(seed, 3_000), None);
    }
}

#[cfg(feature = "planted")]
#[test]
fn the_statement_finds_what_a_fence_can_do_wrong() {
    for &bug in Bug::LEADERS {
        let found = crate::planted::with(bug, || contradiction(1, 3_000));
        assert!(found.is_some(), "{bug:?} was not noticed");
    }
}
