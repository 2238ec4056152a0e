//! The driver with an IO thread, on real sockets, against a small broker in memory that does what
//! each test tells it to.
#![cfg(feature = "thread")]

mod peer;

use corelog::{Client, Durability, Error, Offset, Position, Record};
use peer::Peer;
use std::future::Future;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Blocks on a future with nothing but the standard library.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn record(partition: u32, value: &str) -> Record<'_> {
    Record::to("t").partition(partition).value(value).level(Durability::LeaderDurable)
}

#[test]
fn records_go_to_their_shards_and_come_back_in_order() {
    let (peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let producer = client.producer();
    let mut deliveries = Vec::new();
    for number in 0..2000u32 {
        let value = format!("value {number}");
        deliveries.push((number, producer.send(&record(number % 2, &value)).unwrap()));
    }
    for (number, delivery) in deliveries {
        let report = delivery.wait().unwrap();
        assert_eq!(report.partition, number % 2);
        assert_eq!(report.offset, Some(Offset(u64::from(number / 2))));
        assert_eq!(report.level, Durability::LeaderDurable);
    }
    let mut consumer = client.consumer();
    for partition in 0..2 {
        consumer.assign("t", partition, Position::Offset(Offset(0)));
    }
    let mut next = [0u32, 1];
    while next != [2000, 2001] {
        let batch = consumer.poll(PATIENCE).unwrap().expect("there is more");
        let at = &mut next[batch.partition as usize];
        for record in batch.records() {
            assert_eq!(record.value, Some(format!("value {at}").as_bytes()));
            assert_eq!(record.offset, Offset(u64::from(*at / 2)));
            *at += 2;
        }
    }
    let mut shards = peer.shards_seen.lock().unwrap().clone();
    shards.sort_unstable();
    assert_eq!(shards, [0, 1]);
    assert_eq!(client.counters().protocol_errors, 0);
}

#[test]
fn a_delivery_and_a_consumer_are_futures_of_any_runtime() {
    let (_peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let producer = client.producer();
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::Offset(Offset(0)));
    block_on(async {
        let report = producer.send(&record(0, "a")).unwrap().await.unwrap();
        assert_eq!(report.offset, Some(Offset(0)));
        let batch = consumer.next_batch().await.unwrap();
        assert_eq!(batch.records().next().unwrap().value, Some(&b"a"[..]));
        // Waits in the broker before the record is there.
        let sending = producer.clone();
        let sender = std::thread::spawn(move || sending.send(&record(0, "b")).unwrap().wait());
        let batch = consumer.next_batch().await.unwrap();
        assert_eq!(batch.first_offset, Offset(1));
        sender.join().unwrap().unwrap();
    });
}

#[test]
fn callbacks_come_in_order_within_a_level_and_flush_waits_for_all_records() {
    let (_peer, address) = Peer::start();
    let client =
        Client::builder().address(address).linger(Duration::from_millis(5)).connect().unwrap();
    let (told, tellings) = std::sync::mpsc::channel();
    let producer = client.producer().on_delivery(move |tag, outcome| {
        told.send((tag, outcome.map(|report| report.offset).map_err(Clone::clone))).unwrap();
    });
    for tag in 0..1000 {
        let level = if tag < 500 { Durability::LeaderMemory } else { Durability::None };
        producer.send(&record(0, "v").level(level), tag).unwrap();
    }
    producer.flush();
    // Level none is done when it is sent, so it may be told of before what was sent earlier at
    // another level; within a level the order is that of the sends.
    let mut next = [0, 500];
    for _ in 0..1000 {
        let (tag, outcome) = tellings.recv_timeout(PATIENCE).unwrap();
        let unanswered = tag >= 500;
        assert_eq!(tag, next[usize::from(unanswered)]);
        assert_eq!(outcome, Ok((!unanswered).then_some(Offset(tag))));
        next[usize::from(unanswered)] += 1;
    }
    assert_eq!(next, [500, 1000]);
}

#[test]
fn a_callback_may_send_the_next_record() {
    let (_peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let (told, tellings) = std::sync::mpsc::channel();
    let next: Arc<Mutex<Option<corelog::CallbackProducer>>> = Arc::default();
    let sender = Arc::clone(&next);
    let producer = client.producer().on_delivery(move |tag, outcome| {
        outcome.unwrap();
        if tag < 200 {
            // Level none is done at once, and must not call back from inside the callback.
            let level = if tag % 2 == 0 { Durability::None } else { Durability::LeaderMemory };
            let guard = sender.lock().unwrap();
            guard.as_ref().unwrap().try_send(&record(0, "v").level(level), tag + 1).unwrap();
        } else {
            told.send(tag).unwrap();
        }
    });
    *next.lock().unwrap() = Some(producer.clone());
    producer.send(&record(0, "v"), 0).unwrap();
    assert_eq!(tellings.recv_timeout(PATIENCE), Ok(200));
    // The callback holds the client: let it go.
    next.lock().unwrap().take();
}

#[test]
fn a_batch_whose_connection_was_cut_is_sent_again() {
    let (peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let producer = client.producer();
    producer.send(&record(0, "a")).unwrap().wait().unwrap();
    peer.cuts.store(1, Ordering::Relaxed);
    let report = producer.send(&record(0, "b")).unwrap().wait().unwrap();
    assert_eq!(report.offset, Some(Offset(1)));
    assert_eq!(client.counters().batches_retried, 1);
}

#[test]
fn without_idempotence_a_cut_after_the_send_is_indefinite_and_the_next_record_passes() {
    let (peer, address) = Peer::start();
    let client = Client::builder().address(address).idempotent(false).connect().unwrap();
    let producer = client.producer();
    producer.send(&record(0, "a")).unwrap().wait().unwrap();
    peer.cuts.store(1, Ordering::Relaxed);
    let error = producer.send(&record(0, "b")).unwrap().wait().unwrap_err();
    assert_eq!(error, Error::ConnectionLost);
    let report = producer.send(&record(0, "c")).unwrap().wait().unwrap();
    assert_eq!(report.offset, Some(Offset(1)));
}

#[test]
fn a_full_budget_blocks_send_and_refuses_try_send() {
    let (_peer, address) = Peer::start();
    let client = Client::builder().address(address).memory_max(20_000).connect().unwrap();
    let producer = client.producer();
    let value = "v".repeat(5000);
    for _ in 0..200 {
        producer.send_and_forget(&record(0, &value)).unwrap();
    }
    let mut refused = 0;
    for _ in 0..2000 {
        match producer.try_send(&record(0, &value)) {
            Ok(delivery) => drop(delivery),
            Err(error) => {
                assert_eq!(error, Error::Full);
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    producer.flush();
    assert_eq!(client.counters().records_failed, 0);
}

#[test]
fn an_address_where_nobody_listens_fails_at_the_deadline_and_dropping_the_client_does_not_hang() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let timeout = Duration::from_millis(100);
    let client = Client::builder().address(address).delivery_timeout(timeout).connect().unwrap();
    let error = client.producer().send(&record(0, "a")).unwrap().wait().unwrap_err();
    assert_eq!(error, Error::Unreachable);
    let client = Client::builder().address(address).connect().unwrap();
    let delivery = client.producer().send(&record(0, "a")).unwrap();
    drop(client);
    assert_eq!(delivery.wait().unwrap_err(), Error::Closed);
}
