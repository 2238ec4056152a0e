//! A lost answer neither loses nor doubles a record.

use super::peer::*;
use crate::Durability::{LeaderDurable, None as Unanswered, QuorumDurable};
use crate::Error;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::batch::BatchView;
use corelog_protocol::frame::FrameKind;

fn idempotent() -> Config {
    let mut config = config();
    config.producer.is_idempotent = true;
    config.producer.window_batches = 3;
    config.producer.delivery_nanos_max = 2_000_000_000;
    config
}

/// Epoch and sequence under which a produce came.
fn stamp(asked: &Asked) -> (u16, u32) {
    let header = *BatchView::parse(&asked.payload).unwrap().header();
    assert_eq!(header.producer_id.0 != 0, asked.produce().durability != Unanswered);
    (header.producer_epoch, header.base_sequence)
}

fn stamps(asked: &[Asked]) -> Vec<(u16, u32)> {
    asked.iter().map(stamp).collect()
}

/// The topic's first record, which came before a test begins, has sequence 0.
fn scene() -> Scene {
    Scene::with_topic(idempotent(), &[0])
}

fn cut(scene: &mut Scene) {
    for link in scene.open_links() {
        scene.links.get_mut(&link).unwrap().closed = true;
        scene.event(Event::Closed { link });
    }
}

/// What is produced over the next connections.
fn again(scene: &mut Scene) -> Vec<Asked> {
    scene.sleep(20);
    let mut asked = scene.greet();
    asked.retain(|asked| asked.header.kind == FrameKind::Produce);
    asked
}

fn delivered(base: u64, token: u64) -> Told {
    Told::Delivered { partition: 0, base: Some(base), tokens: vec![token] }
}

#[test]
fn what_was_not_answered_is_sent_again_as_it_was_and_in_order() {
    let mut scene = scene();
    for token in 1..=3 {
        scene.produce(&format!("r{token}"), token);
    }
    let first = scene.asked();
    assert_eq!(stamps(&first), [(0, 1), (0, 2), (0, 3)]);
    assert!(!first.iter().any(|asked| asked.produce().sent_before));
    scene.ack(&first[0], 1);
    cut(&mut scene);
    assert_eq!(scene.told(), [delivered(1, 1)], "nothing is known of the others, and nothing told");
    let second = again(&mut scene);
    assert_eq!(stamps(&second), [(0, 2), (0, 3)]);
    assert!(second.iter().all(|asked| asked.produce().sent_before));
    for (before, now) in first[1..].iter().zip(&second) {
        assert_eq!(before.payload, now.payload);
    }
    scene.ack(&second[0], 2);
    scene.ack(&second[1], 3);
    assert_eq!(scene.told(), [delivered(2, 2), delivered(3, 3)]);
    assert_eq!(scene.engine.memory_used(), 0);
}

#[test]
fn a_refusal_and_the_gap_behind_it_are_both_sent_again() {
    let mut scene = scene();
    scene.produce("r1", 1);
    scene.produce("r2", 2);
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::Overloaded, 10);
    scene.refuse(&asked[1], ErrorCode::OutOfOrder, 0);
    scene.sleep(20);
    // After a refusal one at a time. What was refused was not appended.
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(0, 1)]);
    assert!(!asked[0].produce().sent_before);
    scene.ack(&asked[0], 1);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(0, 2)]);
    scene.ack(&asked[0], 2);
    assert_eq!(scene.told(), [delivered(1, 1), delivered(2, 2)]);
}

#[test]
fn behind_a_batch_that_was_given_up_a_new_epoch_begins() {
    let mut scene = scene();
    for token in 1..=3 {
        scene.produce(&format!("r{token}"), token);
    }
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::InvalidBatch, 0);
    scene.refuse(&asked[1], ErrorCode::OutOfOrder, 0);
    assert!(scene.asked().is_empty(), "what left under the old epoch must come back first");
    scene.refuse(&asked[2], ErrorCode::OutOfOrder, 0);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(1, 0), (1, 1)]);
    assert_eq!([asked[0].values(), asked[1].values()], [["r2"], ["r3"]]);
    scene.ack(&asked[0], 1);
    scene.ack(&asked[1], 2);
    let told = scene.told();
    assert!(
        matches!(&told[0], Told::Failed { tokens, error } if *tokens == [1] && error.is_definite())
    );
    assert_eq!(told[1..], [delivered(1, 2), delivered(2, 3)]);
    assert_eq!(scene.engine.counters().producer_epochs, 1);
}

#[test]
fn what_may_have_been_appended_under_an_old_stamp_names_it_beside_its_new_one() {
    let mut scene = scene();
    for token in 1..=2 {
        scene.produce(&format!("r{token}"), token);
    }
    assert_eq!(scene.asked().len(), 2);
    cut(&mut scene);
    scene.produce("r3", 3);
    let asked = again(&mut scene);
    assert_eq!(stamps(&asked), [(0, 1), (0, 2), (0, 3)]);
    assert!(asked.iter().all(|asked| asked.produce().former.is_none()));
    // Its first copy may yet come, wherever it is.
    scene.refuse(&asked[0], ErrorCode::InvalidBatch, 0);
    scene.refuse(&asked[1], ErrorCode::OutOfOrder, 0);
    scene.refuse(&asked[2], ErrorCode::OutOfOrder, 0);
    assert!(!Error::ConnectionLost.is_definite());
    assert_eq!(scene.told(), [Told::Failed { error: Error::ConnectionLost, tokens: vec![1] }]);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(1, 0), (1, 1)]);
    let former = asked[0].produce().former.map(|former| (former.epoch, former.sequence));
    assert_eq!((former, asked[0].produce().sent_before), (Some((0, 2)), true));
    assert_eq!(asked[1].produce().former, None, "the third has never left before");
    // The second stood there all the time.
    scene.ack(&asked[0], 2);
    scene.ack(&asked[1], 3);
    assert_eq!(scene.told(), [delivered(2, 2), delivered(3, 3)]);
}

#[test]
fn a_batch_in_doubt_is_renewed_once() {
    let mut scene = scene();
    scene.produce("r1", 1);
    assert_eq!(scene.asked().len(), 1);
    cut(&mut scene);
    let asked = again(&mut scene);
    scene.refuse(&asked[0], ErrorCode::OutOfOrder, 0);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(1, 0)]);
    cut(&mut scene);
    scene.produce("r2", 2);
    let asked = again(&mut scene);
    assert_eq!(stamps(&asked), [(1, 0), (1, 1)]);
    assert!(asked[0].produce().former.is_some(), "it is asked again as it was");
    scene.refuse(&asked[0], ErrorCode::UnknownProducer, 0);
    scene.refuse(&asked[1], ErrorCode::OutOfOrder, 0);
    assert_eq!(scene.told(), [Told::Failed { error: Error::ConnectionLost, tokens: vec![1] }]);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(2, 0)]);
    scene.ack(&asked[0], 1);
    assert_eq!(scene.told(), [delivered(1, 2)]);
}

#[test]
fn a_forgotten_producer_begins_anew() {
    let mut scene = scene();
    scene.produce("r1", 1);
    let asked = scene.asked();
    scene.refuse(&asked[0], ErrorCode::UnknownProducer, 0);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(1, 0)]);
    scene.ack(&asked[0], 1);
    assert_eq!(scene.told(), [delivered(1, 1)]);
}

#[test]
fn what_a_broker_may_have_forgotten_ends_indefinitely() {
    let mut scene = scene();
    scene.produce("r1", 1);
    assert_eq!(scene.asked().len(), 1);
    cut(&mut scene);
    let asked = again(&mut scene);
    assert!(asked[0].produce().sent_before);
    scene.refuse(&asked[0], ErrorCode::UnknownProducer, 0);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(1, 0)]);
    scene.refuse(&asked[0], ErrorCode::UnknownProducer, 0);
    assert_eq!(scene.told(), [Told::Failed { error: Error::ConnectionLost, tokens: vec![1] }]);
    assert!(scene.asked().is_empty(), "it is not sent a fourth time");
    scene.produce("r2", 2);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(2, 0)]);
    assert!(!asked[0].produce().sent_before);
    scene.ack(&asked[0], 1);
    assert_eq!(scene.told(), [delivered(1, 2)]);
}

#[test]
fn a_deadline_without_an_answer_is_indefinite_and_the_line_goes_on() {
    let mut scene = scene();
    scene.produce("r1", 1);
    assert_eq!(scene.asked().len(), 1);
    scene.sleep(2_100);
    let error = Error::DeadlineExceeded { sent: true };
    assert_eq!(scene.told(), [Told::Failed { error, tokens: vec![1] }]);
    cut(&mut scene);
    scene.produce("r2", 2);
    let asked = again(&mut scene);
    assert_eq!(stamps(&asked), [(0, 2)], "the broker says whether the first has come");
    scene.refuse(&asked[0], ErrorCode::OutOfOrder, 0);
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(1, 0)]);
    scene.ack(&asked[0], 1);
    assert_eq!(scene.told(), [delivered(1, 2)]);
}

#[test]
fn unsure_batches_that_wait_until_their_deadline_fail_indefinitely() {
    let mut scene = scene();
    scene.produce("r1", 1);
    assert_eq!(scene.asked().len(), 1);
    cut(&mut scene);
    scene.sleep(2_100);
    let error = Error::DeadlineExceeded { sent: true };
    assert_eq!(scene.told(), [Told::Failed { error, tokens: vec![1] }]);
    assert_eq!(scene.engine.memory_used(), 0);
}

#[test]
fn what_asks_for_no_answer_has_no_stamp_and_takes_none() {
    let mut scene = scene();
    scene.send("t", Some(0), "r1", Unanswered, 1).unwrap();
    scene.send("t", Some(0), "r2", LeaderDurable, 2).unwrap();
    let asked = scene.asked();
    assert_eq!(stamps(&asked), [(0, 0), (0, 1)]);
}

#[test]
fn no_more_are_in_flight_than_a_broker_remembers() {
    let mut config = idempotent();
    config.producer.window_batches = 100;
    config.producer.batch_bytes_max = 4 << 10;
    let mut scene = Scene::with_topic(config, &[0]);
    let value = "x".repeat(3_000);
    for token in 1..=20 {
        scene.produce(&value, token);
    }
    assert_eq!(scene.asked().len(), 5);
}

#[test]
fn a_broker_still_remembers_what_waits_longest_for_its_answer() {
    let mut config = idempotent();
    config.producer.window_batches = 5;
    let mut scene = Scene::with_topic(config, &[0]);
    // The first one waits for a quorum, those behind it for the leader alone.
    let mut answered = 0;
    for token in 1..=10 {
        let level = if token == 1 { QuorumDurable } else { LeaderDurable };
        scene.send("t", Some(0), &format!("r{token}"), level, token).unwrap();
        for asked in scene.asked().iter().filter(|asked| stamp(asked).1 > 1) {
            scene.ack(asked, u64::from(stamp(asked).1));
            answered += 1;
        }
    }
    assert_eq!(answered, 4, "with a sixth the first would be forgotten");
    cut(&mut scene);
    let asked = again(&mut scene);
    assert_eq!(stamps(&asked), [(0, 1)]);
    scene.ack(&asked[0], 1);
    let told = scene.told();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(told[4], delivered(1, 1));
    let asked = scene.asked();
    assert_eq!(asked.iter().map(|asked| asked.values().len()).sum::<usize>(), 5);
}
