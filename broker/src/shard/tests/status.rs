//! What the status says of a broker.

use corelog_protocol::Durability;
use corelog_protocol::message::{Status, StatusReply};

use super::world::{World, batch, produce};
use crate::time::Nanos;

#[test]
fn the_status_tells_partitions_and_how_long_commits_took() {
    let mut world = World::new(2);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", 5);
    world.pass(Nanos::from_secs(300));
    let ask = |world: &mut World| {
        world.ask(client, 3, &Status::default());
        StatusReply::decode(&world.take_one(client).control).unwrap()
    };
    let status = ask(&mut world);
    assert_eq!(status.total("partitions"), Some(5));
    assert_eq!(status.total("lanes"), Some(5), "two for each shard, and the metadata's");
    assert_eq!(status.total("commit_write_p99_us"), Some(0), "nothing lately");

    let home = topic.places.iter().find(|place| place.shard.0 == 0).unwrap();
    world.is_disk_held = true;
    world.send(client, &produce(home.partition, Durability::QuorumDurable, 1, &batch("x", 1)));
    world.pass(Nanos::from_millis(5));
    world.release_disk();
    world.take_one(client).ack();
    let status = ask(&mut world);
    let value = |name: &str, shard: usize| {
        let at = status.names.iter().position(|known| known == name).unwrap();
        status.shards[shard].values[at]
    };
    // Told at most an eighth too high.
    assert!((5_000..=5_625).contains(&value("commit_write_p99_us", 0)), "{status:?}");
    assert_eq!(value("commit_write_p99_us", 1), 0);
}
