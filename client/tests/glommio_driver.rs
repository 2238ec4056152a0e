//! The driver inside a glommio executor, against a small broker in memory on real sockets.
#![cfg(feature = "glommio")]

mod peer;

use corelog::engine::{Config, ConsumerConfig, Fetched};
use corelog::glommio::GlommioClient;
use corelog::{Durability, Error, Offset, Position, Record};
use glommio::{LocalExecutorBuilder, Placement};
use peer::Peer;
use std::sync::atomic::Ordering;

fn run<F: Future<Output = ()> + 'static>(make: impl FnOnce() -> F + Send + 'static) {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
    executor.spawn(|| async move { make().await }).expect("an executor").join().expect("it ran");
}

#[test]
fn records_go_out_and_come_back_on_one_executor() {
    let (peer, address) = Peer::start();
    run(move || async move {
        let client = GlommioClient::new(Config::new(vec![address]));
        let mut deliveries = Vec::new();
        for number in 0..500u32 {
            let value = format!("value {number}");
            let record = Record::to("t").partition(number % 2).value(&value);
            let record = record.level(Durability::LeaderDurable);
            deliveries.push((number, client.send(&record).expect("accepted")));
        }
        for (number, delivery) in deliveries {
            let delivered = delivery.await.expect("delivered");
            assert_eq!(delivered.partition, number % 2);
            assert_eq!(delivered.offset, Some(Offset(u64::from(number / 2))));
        }
        let unanswered = Record::to("t").partition(0).value("last").level(Durability::None);
        client.send_and_forget(&unanswered).expect("accepted");
        client.flush().await;

        let consumer = client.consumer(ConsumerConfig::default());
        for partition in 0..2 {
            client.assign(consumer, "t", partition, Position::Offset(Offset(0)));
        }
        let mut next = [0u64; 2];
        while next != [251, 250] {
            let fetched = client.next(consumer).await;
            let Fetched::Batch(batch) = fetched else { panic!("{fetched:?}") };
            for record in batch.records() {
                let at = &mut next[batch.partition as usize];
                assert_eq!(record.offset, Offset(*at));
                let number = *at * 2 + u64::from(batch.partition);
                if *at < 250 {
                    assert_eq!(record.value, Some(format!("value {number}").as_bytes()));
                }
                *at += 1;
            }
        }

        peer.cuts.store(1, Ordering::Relaxed);
        let record = Record::to("t").partition(1).value("cut");
        let again = client.send(&record).expect("accepted").await.expect("sent again");
        assert_eq!(again.offset, Some(Offset(250)));

        // A pause holds back what has come, and ends.
        let consumer = client.consumer(ConsumerConfig::default());
        let assignment = client.assign(consumer, "t", 1, Position::Offset(Offset(250)));
        client.pause(assignment);
        glommio::timer::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(client.position(assignment), Some(Offset(250)));
        client.resume(assignment);
        let Fetched::Batch(batch) = client.next(consumer).await else { panic!("no batch") };
        let values: Vec<_> =
            batch.into_iter().map(|record| record.value().map(<[u8]>::to_vec)).collect();
        assert_eq!(values, [Some(b"cut".to_vec())]);
        assert_eq!(client.position(assignment), Some(Offset(251)));

        let pending = client.send(&record).expect("accepted");
        client.close();
        assert!(pending.await.is_err());
        assert_eq!(client.send_and_forget(&record), Err(Error::Closed));
    });
}
