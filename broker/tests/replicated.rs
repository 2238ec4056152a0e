//! Three brokers in one process, over real sockets and onto real files: what one acknowledges outlives it.
#![cfg(feature = "driver")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelog::{
    BrokerId, Client, ClusterStatusReply, Durability, Error, NoPlan, Obstacle, Operation, Position,
    Record, plan_balance, plan_removal,
};
use corelog_broker::config::Config;
use corelog_broker::driver::LocalCluster;

const PARTITIONS: u32 = 6;
/// A move that was taken back on a busy machine is tried again after half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// `None`, with a line that says why, where there is no direct I/O.
fn start() -> Option<(LocalCluster, tempfile::TempDir)> {
    start_of(3)
}

fn start_of(brokers: usize) -> Option<(LocalCluster, tempfile::TempDir)> {
    let directory = tempfile::tempdir().expect("a directory");
    let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
    if let Some(reason) = facts.direct_io_error {
        println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
        return None;
    }
    let mut settings = Config::embedded(directory.path());
    settings.shards = 1;
    settings.free_bytes_min = 0;
    settings.memory.io_bytes = 1 << 20;
    settings.log.segment_bytes = 4 << 20;
    // On a machine that is busy with other tests a broker may be silent for a while. It would be replaced for that, and what
    // only it had acknowledged be lost: which is as it must be, and not what is looked for here.
    settings.cluster.detect_ms = 3_000;
    // What moves here is what is told to.
    settings.cluster.balance_leaders = false;
    let cluster = LocalCluster::start(directory.path(), brokers, &settings).expect("it starts");
    Some((cluster, directory))
}

fn client(cluster: &LocalCluster) -> Client {
    let mut builder = Client::builder();
    for address in cluster.addresses() {
        builder = builder.address(address);
    }
    let builder = builder.durability(Durability::QuorumDurable);
    builder.connect().expect("a client")
}

/// Tries until it works: right after a start nobody leads yet.
fn eventually<T, E: std::fmt::Debug>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) if Instant::now() > limit => panic!("not in time: {error:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[test]
fn three_brokers_serve_and_survive_the_loss_of_any_one() {
    if std::env::var_os("CORELOG_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    }
    let Some((mut cluster, _directory)) = start() else { return };
    let client = client(&cluster);
    eventually(|| client.admin().create_topic("t", PARTITIONS));
    let mut sent = 0;
    for killed in 0..3 {
        produce(&client, &mut sent, 300);
        cluster.kill(killed);
        produce(&client, &mut sent, 300);
        cluster.restart(killed).expect("it starts again");
        produce(&client, &mut sent, 300);
    }
    assert_eq!(consume(&client, sent), sent);
    cluster.stop();
}

/// Each level, a record at a time, until told to stop. Returns the records, all of them acknowledged.
fn produce_steadily(client: &Client, topic: &str, is_over: &AtomicBool) -> u64 {
    let producer = client.producer();
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let handles: Vec<_> = (0..20)
            .map(|_| {
                sent += 1;
                let value = format!("record {sent}").into_bytes();
                let record = Record::to(topic).key(&value).value(&value);
                producer.send(&record).expect("room")
            })
            .collect();
        for handle in handles {
            handle.wait().expect("acknowledged, whatever is restarted");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    sent
}

/// The broker in this place leads the partitions that it is the preferred leader of: it has everything.
fn wait_until_it_leads(client: &Client, topic: &str, at: usize) {
    eventually(|| {
        let info = client.admin().describe_topic(topic).map_err(|error| format!("{error:?}"))?;
        let leads = info.places.iter().any(|place| place.broker.0 == at as u32 + 1);
        if leads { Ok(()) } else { Err(String::from("it leads nothing yet")) }
    });
}

const LEVELS: [Durability; 4] = [
    Durability::LeaderMemory,
    Durability::LeaderDurable,
    Durability::QuorumMemory,
    Durability::QuorumDurable,
];

/// A topic and a producer for each level that acknowledges. What is done meanwhile loses nothing, and no producer hears of it.
fn under_load_at_every_level(
    cluster: &mut LocalCluster,
    act: impl FnOnce(&mut LocalCluster, &Client),
) {
    under_load(cluster, &LEVELS, act);
}

fn under_load(
    cluster: &mut LocalCluster,
    levels: &[Durability],
    act: impl FnOnce(&mut LocalCluster, &Client),
) {
    let client = client(cluster);
    for at in 0..levels.len() {
        eventually(|| client.admin().create_topic(&format!("level-{at}"), PARTITIONS));
    }
    let addresses = cluster.addresses();
    let is_over = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = levels
        .iter()
        .enumerate()
        .map(|(at, &level)| {
            let (addresses, is_over) = (addresses.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let builder = Client::builder().durability(level);
                let builder = addresses.iter().fold(builder, |builder, it| builder.address(*it));
                let client = builder.connect().expect("a client");
                produce_steadily(&client, &format!("level-{at}"), &is_over)
            })
        })
        .collect();
    act(cluster, &client);
    is_over.store(true, Ordering::Relaxed);
    for (at, producer) in producers.into_iter().enumerate() {
        let sent = producer.join().expect("no error");
        let seen = consume_topic(&client, &format!("level-{at}"), sent);
        assert_eq!(seen, sent, "at {:?}", levels[at]);
        println!("{sent} records at {:?}", levels[at]);
    }
}

#[test]
fn a_rolling_restart_loses_nothing_at_any_level_and_no_producer_hears_of_it() {
    let Some((mut cluster, _directory)) = start() else { return };
    under_load_at_every_level(&mut cluster, |cluster, client| {
        for at in 0..3 {
            wait_until_it_leads(client, "level-0", at);
            cluster.stop_one(at);
            std::thread::sleep(Duration::from_millis(300));
            cluster.restart(at).expect("it starts again");
        }
        wait_until_it_leads(client, "level-0", 2);
    });
    cluster.stop();
}

/// Carries out an operation, and says how long that took.
fn carry_out(client: &Client, operation: &Operation) -> ClusterStatusReply {
    let started = Instant::now();
    let status = client.admin().carry_out(operation, PATIENCE, |_, _| {}).expect("it is done");
    println!("{operation:?} in {:?}", started.elapsed());
    status
}

#[test]
fn transfers_and_drains_lose_nothing_at_any_level_and_no_producer_hears_of_them() {
    let Some((mut cluster, _directory)) = start() else { return };
    under_load_at_every_level(&mut cluster, |_, client| {
        (0..3).for_each(|at| wait_until_it_leads(client, "level-0", at));
        for _ in 0..2 {
            for lane in eventually(|| client.admin().cluster()).lanes {
                let others = lane.replicas.iter().map(|replica| replica.broker);
                let to = others.rev().find(|id| lane.leader != Some(*id)).expect("three replicas");
                let status = carry_out(client, &Operation::Transfer { lane: lane.lane, to });
                let told = status.lane(lane.lane).expect("it is there");
                assert_eq!((told.leader, told.preferred()), (Some(to), Some(to)));
                assert!(told.epoch > lane.epoch && told.is_serving);
            }
        }
        for broker in (1..=3).map(BrokerId) {
            let status = carry_out(client, &Operation::Drain { broker });
            assert_eq!(status.led_by(broker).count(), 0);
            assert!(status.metadata_leader != Some(broker));
            // Of three replicas at least one must be able to lead.
            let next = BrokerId(broker.0 % 3 + 1);
            client.admin().check(&Operation::Drain { broker: next }).expect("the third can lead");
            carry_out(client, &Operation::Drain { broker: next });
            let last = Operation::Drain { broker: BrokerId(next.0 % 3 + 1) };
            let refused = client.admin().operate(&last).expect_err("nobody else could lead");
            assert!(
                matches!(refused, Error::Obstructed(Obstacle::NoOtherLeader { .. })),
                "{refused}"
            );
            carry_out(client, &Operation::Undrain { broker });
            carry_out(client, &Operation::Undrain { broker: next });
        }
        // What prefers them comes back.
        (0..3).for_each(|at| wait_until_it_leads(client, "level-0", at));
    });
    cluster.stop();
}

#[test]
fn lanes_go_to_other_brokers_without_loss_at_any_level_and_no_producer_hears_of_it() {
    let Some((mut cluster, _directory)) = start_of(4) else { return };
    under_load_at_every_level(&mut cluster, |cluster, client| {
        (0..4).for_each(|at| wait_until_it_leads(client, "level-0", at));
        let mut changed = Vec::new();
        for lane in eventually(|| client.admin().cluster()).lanes {
            let mut replicas: Vec<_> = lane.replicas.iter().map(|it| it.broker).collect();
            let joins = (1..=4).map(BrokerId).find(|id| !replicas.contains(id)).expect("a fourth");
            let leaves = replicas.iter().rposition(|id| lane.leader != Some(*id));
            replicas[leaves.expect("a follower")] = joins;
            let operation = Operation::Replace { lane: lane.lane, replicas: replicas.clone() };
            let status = carry_out(client, &operation);
            let told = status.lane(lane.lane).expect("it is there");
            let now: Vec<_> = told.replicas.iter().map(|it| it.broker).collect();
            assert_eq!((now, &told.before[..]), (replicas, &[][..]));
            assert!(told.replicas.iter().all(|it| it.is_caught_up), "{told:?}");
            changed.push((lane.lane, joins));
        }
        // Those that came lead, and are killed: what they copied is all there.
        for &(lane, to) in &changed {
            carry_out(client, &Operation::Transfer { lane, to });
        }
        assert!(changed.len() >= 4);
        cluster.stop_one(0);
        std::thread::sleep(Duration::from_millis(300));
        cluster.restart(0).expect("it starts again");
        wait_until_it_leads(client, "level-0", 0);
    });
    cluster.stop();
}

/// A broker has started, and the others know it and have told it everything.
fn wait_until_it_has_joined(client: &Client, broker: BrokerId) {
    eventually(|| {
        let status = client.admin().cluster().map_err(|error| format!("{error:?}"))?;
        let is_there = status.broker(broker).is_some_and(|it| it.is_alive == Some(true));
        if is_there && status.is_member(broker) { Ok(()) } else { Err(format!("{status:?}")) }
    });
}

/// Carries out a plan, and says how long that took.
fn carry_out_plan(
    client: &Client,
    what: &str,
    plan: impl Fn(&ClusterStatusReply) -> Result<Vec<Operation>, NoPlan>,
) -> ClusterStatusReply {
    let started = Instant::now();
    let steps = plan(&eventually(|| client.admin().cluster())).expect("a plan");
    let status = client.admin().carry_out_plan(plan, PATIENCE, |_| {});
    println!("{what}: {} steps in {:?}", steps.len(), started.elapsed());
    status.expect("it is done")
}

fn copies(status: &ClusterStatusReply) -> Vec<usize> {
    let has =
        |id| status.lanes.iter().filter(move |lane| lane.replicas.iter().any(|it| it.broker == id));
    status.brokers.iter().map(|broker| has(broker.id).count()).collect()
}

fn leads(status: &ClusterStatusReply) -> Vec<usize> {
    let leads = |id| status.lanes.iter().filter(move |lane| lane.preferred() == Some(id));
    status.brokers.iter().map(|broker| leads(broker.id).count()).collect()
}

#[test]
fn brokers_come_and_go_without_loss_at_any_level_and_no_producer_hears_of_it() {
    let Some((mut cluster, _directory)) = start() else { return };
    under_load_at_every_level(&mut cluster, |cluster, client| {
        (0..3).for_each(|at| wait_until_it_leads(client, "level-0", at));
        assert_eq!(cluster.join().expect("it starts"), 3);
        let (first, fourth) = (BrokerId(1), BrokerId(4));
        wait_until_it_has_joined(client, fourth);
        let status = carry_out_plan(client, "balance", plan_balance);
        let (copies, leads) = (copies(&status), leads(&status));
        println!("copies {copies:?}, leads {leads:?}");
        let least = copies.iter().min().expect("four");
        assert!(copies.iter().all(|count| count - least <= 1), "{copies:?}");
        // By load, of which there is about as much in each lane.
        assert!(leads.iter().all(|count| (1..=2).contains(count)), "{leads:?}");
        wait_until_it_leads(client, "level-0", 3);
        let refused = client.admin().operate(&Operation::Remove { broker: first });
        let refused = refused.expect_err("it has lanes");
        assert!(matches!(refused, Error::Obstructed(Obstacle::HasReplicas { .. })), "{refused}");
        let status = carry_out_plan(client, "removal", |status| plan_removal(status, first, &[]));
        assert!(status.broker(first).is_none() && !status.is_member(first), "{status:?}");
        assert_eq!(status.brokers.len(), 3);
        // Clients that knew it are sent on while it still runs, and when it comes back, and when it is gone.
        std::thread::sleep(Duration::from_secs(1));
        cluster.stop_one(0);
        cluster.restart(0).expect("it starts again");
        std::thread::sleep(Duration::from_secs(1));
        let status = eventually(|| client.admin().cluster());
        assert_eq!((status.brokers.len(), status.voters.len()), (3, 3), "{status:?}");
        cluster.stop_one(0);
    });
    cluster.stop();
}

#[test]
fn two_busy_lanes_of_one_leader_are_led_by_two_after_a_balance() {
    let Some((cluster, _directory)) = start() else { return };
    let client = client(&cluster);
    eventually(|| client.admin().create_topic("t", PARTITIONS));
    (0..3).for_each(|at| wait_until_it_leads(&client, "t", at));
    let info = eventually(|| client.admin().describe_topic("t"));
    let busy: Vec<u32> = (0..PARTITIONS)
        .filter(|at| info.places[*at as usize].broker == info.places[0].broker)
        .collect();
    let lanes: Vec<_> = busy.iter().map(|at| info.places[*at as usize].lane).collect();
    assert_eq!((lanes.len(), lanes[0] == lanes[1]), (2, false), "{info:?}");
    let is_over = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = busy
        .iter()
        .map(|&partition| {
            let (client, is_over) = (client.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let (producer, mut sent) = (client.producer(), 0);
                while !is_over.load(Ordering::Relaxed) {
                    sent += 1;
                    let value = format!("record {}", 10 * sent + u64::from(partition));
                    let record = Record::to("t").partition(partition).value(value.as_bytes());
                    producer.send(&record).expect("room").wait().expect("acknowledged");
                    std::thread::sleep(Duration::from_millis(2));
                }
                sent
            })
        })
        .collect();
    let loads = |status: &ClusterStatusReply| -> Vec<Option<u64>> {
        lanes.iter().map(|id| status.lane(*id)?.load.map(|load| load.load)).collect()
    };
    // Enough that it is worth it, and measured.
    eventually(|| {
        let status = client.admin().cluster().map_err(|error| format!("{error:?}"))?;
        let told = loads(&status);
        let is_busy = told.iter().all(|load| load.is_some_and(|load| load > 128 << 10));
        if is_busy { Ok(()) } else { Err(format!("{told:?}")) }
    });
    let status = carry_out_plan(&client, "balance", plan_balance);
    println!("{:?}", loads(&status));
    let leaders: BTreeSet<_> =
        lanes.iter().map(|id| status.lane(*id).and_then(|lane| lane.leader)).collect();
    assert_eq!(leaders.len(), 2, "{status:?}");
    // Right after it there is nothing to do.
    assert_eq!(plan_balance(&eventually(|| client.admin().cluster())), Ok(vec![]));
    is_over.store(true, Ordering::Relaxed);
    let sent = producers.into_iter().map(|producer| producer.join().expect("no error")).sum();
    assert_eq!(consume(&client, sent), sent);
    cluster.stop();
}

#[test]
fn a_broker_that_is_lost_for_good_is_replaced_without_loss_of_what_a_quorum_had() {
    let Some((mut cluster, _directory)) = start() else { return };
    let levels = [Durability::QuorumDurable];
    under_load(&mut cluster, &levels, |cluster, client| {
        (0..3).for_each(|at| wait_until_it_leads(client, "level-0", at));
        let (lost, new) = (BrokerId(2), BrokerId(4));
        cluster.kill(1);
        assert_eq!(cluster.join().expect("it starts"), 3);
        wait_until_it_has_joined(client, new);
        let status =
            carry_out_plan(client, "replacement", |status| plan_removal(status, lost, &[new]));
        assert!(status.broker(lost).is_none() && !status.is_member(lost), "{status:?}");
        assert_eq!(status.voters, [1, 3, 4].map(BrokerId));
        // Its number comes back with an empty disk, and is nobody. Then another one of those that are left may die.
        let folder = cluster.config(1).data[0].clone();
        std::fs::remove_dir_all(&folder).expect("its directory");
        cluster.restart(1).expect("it starts");
        std::thread::sleep(Duration::from_secs(2));
        let status = eventually(|| client.admin().cluster());
        assert!(status.broker(lost).is_none() && !status.is_member(lost), "{status:?}");
        cluster.stop_one(1);
        cluster.kill(2);
        std::thread::sleep(Duration::from_secs(1));
        cluster.restart(2).expect("it starts again");
    });
    cluster.stop();
}

fn produce(client: &Client, sent: &mut u64, count: u64) {
    let started = Instant::now();
    let producer = client.producer();
    let handles: Vec<_> = (0..count)
        .map(|_| {
            *sent += 1;
            let value = format!("record {sent}").into_bytes();
            let record = Record::to("t").key(&value).value(&value);
            producer.send(&record).expect("room")
        })
        .collect();
    for handle in handles {
        handle.wait().expect("acknowledged");
    }
    println!("{count} records in {:?}", started.elapsed());
}

fn consume(client: &Client, wanted: u64) -> u64 {
    consume_topic(client, "t", wanted)
}

fn consume_topic(client: &Client, topic: &str, wanted: u64) -> u64 {
    let mut consumer = client.consumer();
    for partition in 0..PARTITIONS {
        consumer.assign(topic, partition, Position::Beginning);
    }
    let mut seen = BTreeSet::new();
    let mut last = [0; PARTITIONS as usize];
    let limit = Instant::now() + PATIENCE;
    while (seen.len() as u64) < wanted && Instant::now() < limit {
        let Some(batch) = consumer.poll(Duration::from_millis(200)).expect("sound data") else {
            continue;
        };
        for record in batch.records() {
            let value = record.value.expect("a value").to_vec();
            let text = std::str::from_utf8(&value).expect("text");
            let number: u64 =
                text.strip_prefix("record ").expect("ours").parse().expect("a number");
            let last = &mut last[batch.partition as usize];
            assert!(number > *last, "{number} behind {last} in partition {}", batch.partition);
            *last = number;
            assert!(seen.insert(value), "a record comes twice");
        }
    }
    seen.len() as u64
}
