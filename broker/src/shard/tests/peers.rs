//! Stories of links between brokers.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{BrokerId, ClusterId, Incarnation, ShardId};
use corelog_protocol::message::{Hello, Status, StatusReply};
use corelog_protocol::peer::{PEER_VERSION, PeerHello, PeerHelloReply, PeerIdentity};

use super::world::{CLUSTER, Client, World, codes};
use crate::limits::{FRAME_BYTES_HARD, PEER_SEND_BYTES_MAX, REDIAL_MS_MAX, TICK_MS};
use crate::memory::{Memory, Piece};
use crate::sim::cluster::{Cluster, Said, address, number};
use crate::time::Nanos;

/// Says something of a lane, with a payload in a slot of its own.
fn say(cluster: &mut Cluster, from: usize, to: usize, control: &[u8], payload: &[u8]) -> bool {
    cluster.world(from).act(0, |shard, cx| {
        let slot = cx.memory.allocate(payload.len().max(1));
        cx.memory.bytes_mut(slot)[..payload.len()].copy_from_slice(payload);
        let half = payload.len() / 2;
        let pieces = [Piece::new(slot, 0, half), Piece::new(slot, half, payload.len() - half)];
        let pieces = if payload.is_empty() { &[] } else { &pieces[..] };
        let kind = FrameKind::PeerLane;
        let is_sent = shard.send_peer(cx, number(to), ShardId(0), kind, control, pieces);
        cx.memory.release(slot);
        is_sent
    })
}

fn links(cluster: &Cluster) -> Vec<u64> {
    (0..cluster.brokers.len()).map(|at| cluster.links_up(at, 0)).collect()
}

fn soon() -> Nanos {
    Nanos::from_millis(2 * REDIAL_MS_MAX)
}

#[test]
fn three_brokers_have_links_to_each_other_and_a_dead_one_is_found_again() {
    let mut cluster = Cluster::new(3);
    cluster.pass(soon());
    assert_eq!(links(&cluster), [2, 2, 2]);

    cluster.kill(2);
    assert_eq!((cluster.links_up(0, 0), cluster.links_up(1, 0)), (1, 1));
    assert_eq!(cluster.counter(0, 0, "peer_links_lost"), 1);
    assert!(!say(&mut cluster, 0, 2, b"x", b""), "there is nobody");
    cluster.pass(Nanos::from_secs(60));
    let dials = cluster.counter(0, 0, "peer_dials");
    assert!((30..200).contains(&dials), "{dials} dials in a minute");

    cluster.restart(2);
    cluster.pass(soon());
    assert_eq!(links(&cluster), [2, 2, 2]);
}

#[test]
fn a_broker_whose_name_has_no_address_is_found_when_it_has_one() {
    let mut cluster = Cluster::with(&[1, 1], |shard| {
        let me = shard.broker;
        let others = shard.cluster_brokers.iter_mut().filter(|(id, _)| *id != me);
        others.for_each(|(_, address)| *address = None);
    });
    cluster.pass(Nanos::from_secs(10));
    assert_eq!(links(&cluster), [0, 0]);
    assert_eq!(cluster.counter(0, 0, "peer_dials"), 0, "there is nothing to dial");
    cluster.world(0).act(0, |shard, cx| shard.on_located(cx, &[(number(1), address(1))]));
    cluster.pass(soon());
    assert_eq!(links(&cluster), [1, 0]);
    cluster.world(1).act(0, |shard, cx| shard.on_located(cx, &[(number(0), address(0))]));
    cluster.pass(soon());
    assert_eq!(links(&cluster), [1, 1]);
}

#[test]
fn a_broker_that_is_not_where_it_registered_is_looked_for_where_its_name_leads() {
    let mut cluster = Cluster::with(&[1, 1], |shard| {
        if shard.broker == number(1) {
            shard.advertise = address(9);
        }
    });
    cluster.pass(Nanos::from_secs(3));
    let view = cluster.brokers[0].world.nodes[0].shard.view();
    assert_eq!(view.broker(number(1)).map(|record| record.address), Some(address(9)));
    for _ in 0..3 {
        cluster.kill(1);
        cluster.pass(Nanos::from_secs(1));
        assert_eq!(cluster.links_up(0, 0), 0);
        cluster.restart(1);
        cluster.pass(Nanos(3 * soon().0));
        assert_eq!(links(&cluster), [1, 1]);
    }
}

#[test]
fn links_that_are_reset_come_back_and_a_cut_one_when_the_way_is_mended() {
    let mut cluster = Cluster::new(2);
    cluster.pass(soon());
    cluster.reset(0, 1);
    assert_eq!(links(&cluster), [0, 0]);
    cluster.pass(soon());
    assert_eq!(links(&cluster), [1, 1]);

    // Nobody hears of a cable that is pulled, until what is sent does not get through.
    cluster.cut(0, 1);
    cluster.pass(soon());
    assert_eq!(links(&cluster), [1, 1]);
    cluster.reset(0, 1);
    cluster.pass(soon());
    assert_eq!(links(&cluster), [0, 0]);
    cluster.mend(0, 1);
    cluster.pass(soon());
    assert_eq!(links(&cluster), [1, 1]);
}

#[test]
fn an_idle_link_stays() {
    let mut cluster = Cluster::new(2);
    cluster.pass(soon());
    cluster.pass(Nanos::from_millis(300 * TICK_MS));
    assert_eq!(links(&cluster), [1, 1]);
    assert_eq!(cluster.counter(0, 0, "peer_links_made"), 1);
}

#[test]
fn what_is_said_arrives_in_order_byte_for_byte_and_leaves_no_slot_behind() {
    let mut cluster = Cluster::new(2);
    cluster.pass(soon());
    let used =
        |cluster: &mut Cluster| [0, 1].map(|at| cluster.world(at).nodes[0].memory.used_bytes());
    let before = used(&mut cluster);
    let mut expected = Vec::new();
    for (round, bytes) in
        [0, 1, 7, 4_096, 100_000, FRAME_BYTES_HARD - 64, 3].into_iter().enumerate()
    {
        let payload: Vec<u8> = (0..bytes).map(|at| (at * 7 + round) as u8).collect();
        let control = vec![round as u8; round + 1];
        assert!(say(&mut cluster, 0, 1, &control, &payload));
        cluster.run();
        expected.push(Said { from: 0, to: 1, kind: FrameKind::PeerLane, control, payload });
    }
    // The metadata's group speaks as well.
    cluster.said.retain(|said| said.kind == FrameKind::PeerLane);
    assert!(cluster.said == expected);
    assert_eq!(used(&mut cluster), before);
    assert_eq!(links(&cluster), [1, 1]);
}

#[test]
fn a_link_on_which_too_much_waits_refuses_more() {
    let mut cluster = Cluster::new(2);
    cluster.pass(soon());
    // The only link that broker 0 dialed: it takes nothing any more.
    let dialed = (0..cluster.world(0).nodes[0].links.len())
        .map(|link| Client { shard: 0, link })
        .filter(|client| !cluster.brokers[0].world.nodes[0].links[client.link].is_closed);
    for client in dialed.collect::<Vec<_>>() {
        cluster.world(0).link(client).is_stalled = true;
    }
    let payload = vec![9; 1 << 20];
    let taken = (0..20).take_while(|_| say(&mut cluster, 0, 1, b"c", &payload)).count();
    assert_eq!(taken, PEER_SEND_BYTES_MAX / payload.len(), "the next one is above the bound");
    assert!(cluster.counter(0, 0, "peer_frames_lost") > 0);
    // A peer that takes nothing for long is not waited for, and nothing is left of it.
    cluster.pass(Nanos::from_millis(40 * TICK_MS));
    assert!(cluster.counter(0, 0, "connections_stalled") > 0);
    assert!(say(&mut cluster, 0, 1, b"c", &payload), "over a new link");
}

#[test]
fn a_broker_of_another_cluster_or_with_another_disk_stays_out() {
    for wiped in [false, true] {
        let mut cluster = Cluster::with(&[1, 1], move |shard| {
            if shard.broker == BrokerId(2) && !wiped {
                shard.cluster = ClusterId(0xbad);
            }
            // From its second life on.
            if shard.broker == BrokerId(2) && wiped && shard.life > 2_001 {
                shard.incarnation = Incarnation(999);
            }
        });
        cluster.pass(soon());
        if wiped {
            assert_eq!(links(&cluster), [1, 1]);
            cluster.kill(1);
            cluster.restart(1);
        }
        cluster.pass(Nanos::from_secs(20));
        assert_eq!(links(&cluster), [0, 0], "wiped: {wiped}");
        assert!(cluster.counter(0, 0, "peer_hellos_refused") > 0);
        let dials = cluster.counter(0, 0, "peer_dials");
        assert!(dials < 60, "{dials} dials in 20 s: no use in asking often");
    }
}

fn clustered(shard: &mut crate::shard::ShardConfig) {
    shard.cluster_brokers = vec![(number(0), Some(address(0))), (number(1), Some(address(1)))];
    shard.connections_per_address_max = 4;
}

fn hello(broker: u32) -> PeerHello {
    let from = PeerIdentity {
        cluster: CLUSTER,
        broker: BrokerId(broker),
        incarnation: Incarnation(50),
        life: 1,
        shard: ShardId(0),
        shards: 1,
    };
    PeerHello { version: PEER_VERSION, from }
}

fn frame(kind: FrameKind, control: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(kind, 5, control, payload.len());
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(control);
    bytes.resize(header.payload_range().start, 0);
    bytes.extend_from_slice(payload);
    bytes
}

fn lone_member() -> World {
    let mut world = World::unstarted(1, clustered);
    world.start();
    world
}

fn peer(world: &mut World, broker: u32) -> Client {
    let client = world.connect(0);
    world.send(client, &hello(broker).encode_frame());
    let reply = world.take_one(client);
    assert_eq!(reply.kind, FrameKind::PeerHelloReply);
    let reply = PeerHelloReply::decode(&reply.control).expect("a reply");
    assert_eq!((reply.version, reply.from.broker), (PEER_VERSION, BrokerId(1)));
    client
}

#[test]
fn strangers_are_refused() {
    let bad = |change: fn(&mut PeerHello)| {
        let mut hello = hello(2);
        change(&mut hello);
        hello.encode_frame().to_vec()
    };
    let mut world = lone_member();
    let used = world.nodes[0].memory.used_bytes();
    let first = peer(&mut world, 2);
    for (bytes, code) in [
        (bad(|hello| hello.from.cluster = ClusterId(1)), ErrorCode::WrongCluster),
        (bad(|hello| hello.from.incarnation = Incarnation(51)), ErrorCode::WrongCluster),
        (bad(|hello| hello.from.broker = BrokerId(1)), ErrorCode::WrongCluster),
        (frame(FrameKind::PeerHello, b"garbage", b""), ErrorCode::Malformed),
        (frame(FrameKind::PeerHello, &[0; 48], b""), ErrorCode::Malformed),
        (frame(FrameKind::PeerHello, &hello(2).encode(), b"more"), ErrorCode::HelloRequired),
        (frame(FrameKind::PeerHelloReply, &hello(2).encode(), b""), ErrorCode::HelloRequired),
        (frame(FrameKind::PeerLane, b"c", b"entries"), ErrorCode::HelloRequired),
        (frame(FrameKind::PeerMetadata, b"c", b""), ErrorCode::HelloRequired),
    ] {
        let stranger = world.connect(0);
        world.send(stranger, &bytes);
        let frames = world.take(stranger);
        assert_eq!(codes(&frames).first().map(|(_, code)| *code), Some(code));
        assert!(world.is_closed(stranger), "{code:?}");
    }
    assert!(!world.is_closed(first), "none of them was it");
    world.hang_up(first);
    assert_eq!(world.nodes[0].memory.used_bytes(), used);
    assert_eq!(world.counter(0, "peer_frames_in"), 0);

    let mut alone = World::new(1);
    let stranger = alone.connect(0);
    alone.send(stranger, &hello(2).encode_frame());
    assert_eq!(codes(&alone.take(stranger)), [(0, ErrorCode::WrongCluster)]);
    assert!(alone.is_closed(stranger));
}

#[test]
fn brokers_ask_nothing_and_clients_do_not_speak_as_brokers() {
    let mut world = lone_member();
    let broker = peer(&mut world, 2);
    for kind in [FrameKind::PeerMetadata, FrameKind::PeerFence, FrameKind::PeerChange] {
        world.send(broker, &frame(kind, b"control", b""));
    }
    assert_eq!(world.counter(0, "peer_frames_in"), 3);
    assert!(world.take_bytes(broker).is_empty());
    world.ask(broker, 7, &Status { prefix: String::new() });
    assert_eq!(codes(&world.take(broker)), [(7, ErrorCode::Malformed)]);
    assert!(world.is_closed(broker));

    let client = world.client(0);
    for kind in [FrameKind::PeerHello, FrameKind::PeerLane, FrameKind::PeerChangeReply] {
        world.send(client, &frame(kind, &hello(2).encode(), b"payload"));
        assert_eq!(codes(&world.take(client)), [(5, ErrorCode::Unsupported)], "{kind}");
    }
    assert!(!world.is_closed(client));
    assert_eq!(world.counter(0, "peer_frames_in"), 3);
}

#[test]
fn a_second_connection_of_the_same_shard_takes_the_place_of_the_first() {
    let mut world = lone_member();
    let first = peer(&mut world, 2);
    let second = peer(&mut world, 2);
    assert!(world.is_closed(first), "nothing of it may come behind what the second says");
    assert!(!world.is_closed(second));
}

#[test]
fn brokers_do_not_count_as_clients() {
    let mut world = lone_member();
    let brokers: Vec<Client> = (2..12).map(|broker| peer(&mut world, broker)).collect();
    // Four from one address.
    let clients: Vec<Client> = (0..4).map(|_| world.client(0)).collect();
    let fifth = world.connect(0);
    assert!(world.is_closed(fifth));
    for client in brokers.into_iter().chain(clients) {
        assert!(!world.is_closed(client));
        world.hang_up(client);
    }
    let again = world.client(0);
    world.ask(again, 1, &Status { prefix: "peer_links_up".into() });
    let status = StatusReply::decode(&world.take_one(again).control).expect("a reply");
    assert_eq!((status.names.len(), &status.shards[0].values[..]), (1, &[0][..]));
    world.ask(again, 2, &Hello::new("twice"));
    assert_eq!(codes(&world.take(again)), [(2, ErrorCode::Malformed)]);
}
