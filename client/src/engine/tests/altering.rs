//! A topic that is altered through the client that writes to it.

use super::peer::*;
use crate::Durability::QuorumDurable;
use crate::Error;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{PartitionId, ShardId};
use corelog_protocol::message::*;

fn alter(scene: &mut Scene, partitions: u32) -> Vec<Asked> {
    let changes = TopicChanges { partitions: Some(partitions), ..TopicChanges::default() };
    let request = AdminRequest::AlterTopic { name: "t".into(), changes };
    let deadline = scene.now.monotonic.after(5_000_000_000);
    scene.engine.request(scene.now, request, deadline, &mut scene.effects);
    scene.carry_out();
    let asked = scene.asked();
    assert_eq!(asked.len(), 1);
    let sent = TopicAlter::decode(&asked[0].control).unwrap();
    assert_eq!((&*sent.name, sent.changes), ("t", changes));
    asked
}

#[test]
fn who_adds_partitions_sends_to_them_from_then_on() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let error = scene.send("t", Some(1), "too early", QuorumDurable, 1);
    assert_eq!(error, Err(Error::UnknownPartition { topic: "t".into(), partition: 1 }));
    let asked = alter(&mut scene, 2);
    scene.answer(&asked[0], &TopicAlterReply { topic: topic("t", &[0, 0]) });
    assert_eq!(scene.told, [Told::Answered(Ok(AdminReply::Altered(topic("t", &[0, 0]))))]);
    let asked = scene.asked();
    assert_eq!(asked[0].header.kind, FrameKind::TopicDescribe, "the places are asked anew");
    scene.answer(&asked[0], &TopicDescribeReply { topic: topic("t", &[0, 0]) });
    scene.send("t", Some(1), "now", QuorumDurable, 2).unwrap();
    assert_eq!(scene.asked()[0].produce().partition, PartitionId(101));
}

#[test]
fn an_alteration_that_was_cut_off_is_not_sent_again() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let asked = alter(&mut scene, 2);
    scene.event(Event::Closed { link: asked[0].link });
    assert_eq!(scene.told, [Told::Answered(Err(Error::ConnectionLost))]);
    assert!(!Error::ConnectionLost.is_definite());
    scene.sleep(3_000);
    assert!(scene.asked().iter().all(|asked| asked.header.kind != FrameKind::TopicAlter));
}

#[test]
fn refusals_of_an_alteration_reach_the_one_who_asked() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let asked = alter(&mut scene, 2);
    scene.refuse(&asked[0], ErrorCode::InvalidConfig, 0);
    let [Told::Answered(Err(Error::Refused(refusal)))] = &scene.told[..] else {
        panic!("{:?}", scene.told)
    };
    assert_eq!(refusal.code, ErrorCode::InvalidConfig);
    scene.told.clear();
    let asked = alter(&mut scene, 2);
    scene.refuse(&asked[0], ErrorCode::UnknownTopic, 0);
    assert_eq!(scene.told, [Told::Answered(Err(Error::UnknownTopic("t".into())))]);
    assert_eq!(scene.links[&asked[0].link].shard, ShardId(0));
}
