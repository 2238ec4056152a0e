//! Messages whose times are known by heart.

use super::*;
use crate::harness::drivers::{Failure, Placed};

const MS: u64 = 1_000_000;

fn books() -> Books {
    Books::new(&Frame {
        seed: 1,
        producers: 2,
        topics: 1,
        keys: 0,
        bytes: 100,
        warm_up: 0,
        interval: 1000 * MS,
    })
}

fn settled(stream: u32, number: u64, at: u64, offset: u64) -> Settled {
    let placed = Placed { partition: 0, offset: Some(offset), core: 0, stages: None };
    Settled { first: Identity { producer: stream, number }, count: 1, at, result: Ok(placed) }
}

fn seen(stream: u32, number: u64, at: u64, offset: u64) -> Seen {
    let identity = Some(Identity { producer: stream, number });
    Seen { spot: Spot { partition: (0, 0), offset }, key: None, identity, at }
}

fn is_about(nanos: u64, expected_ms: u64) -> bool {
    nanos.abs_diff(expected_ms * MS) <= expected_ms * MS / 500
}

#[test]
fn response_counts_from_the_intended_time_and_service_from_the_send() {
    let mut books = books();
    books.on_sent(Sent { stream: 0, due: 10 * MS, at: 15 * MS });
    books.on_settled(&settled(0, 0, 17 * MS, 0));
    books.on_seen(&seen(0, 0, 20 * MS, 0));
    let (verdict, series, totals, _) = books.finish();
    assert!(verdict.is_clean());
    assert!(is_about(totals.response.summary().max, 7));
    assert!(is_about(totals.service.summary().max, 2));
    assert!(is_about(totals.end_to_end.summary().max, 10));
    assert!(is_about(totals.lag.summary().max, 5));
    let interval = series.intervals().next().unwrap();
    assert_eq!((interval.due, interval.acknowledged), (1, 1));
}

#[test]
fn what_never_left_is_in_the_response_time_and_not_in_the_service_time() {
    let mut books = books();
    books.on_unsent(100 * MS, 5_100 * MS);
    let (_, _, totals, _) = books.finish();
    assert_eq!((totals.unsent, totals.due, totals.acknowledged), (1, 1, 0));
    assert!(is_about(totals.response.summary().max, 5_000));
    assert_eq!(totals.service.count(), 0);
}

#[test]
fn a_failure_is_counted_told_and_in_the_response_time() {
    let mut books = books();
    books.on_sent(Sent { stream: 1, due: 0, at: 0 });
    let failure = Failure { definite: true, text: "no room".into() };
    let first = Identity { producer: 1, number: 0 };
    books.on_settled(&Settled { first, count: 1, at: 30 * MS, result: Err(failure) });
    let (verdict, _, totals, _) = books.finish();
    assert_eq!((verdict.refused, totals.failed), (1, 1));
    assert_eq!(totals.first_failure.as_deref(), Some("no room"));
    assert!(is_about(totals.response.summary().max, 30));
}

#[test]
fn a_warm_up_is_verified_and_in_no_figure() {
    let mut books = books();
    books.warm_up = 100 * MS;
    books.on_sent(Sent { stream: 0, due: 0, at: 0 });
    books.on_settled(&settled(0, 0, 2 * MS, 0));
    let (verdict, _, totals, _) = books.finish();
    assert_eq!(verdict.anomalies_found, 1, "it is lost");
    assert_eq!((totals.due, totals.response.count()), (0, 0));
}

#[test]
fn many_messages_leave_nothing_behind_once_they_are_read() {
    let mut books = books();
    for number in 0..1000 {
        books.on_sent(Sent { stream: 0, due: number, at: number });
    }
    let mut range = settled(0, 0, 5000, 0);
    range.count = 1000;
    books.on_settled(&range);
    (0..1000).for_each(|number| books.on_seen(&seen(0, number, 6000, number)));
    assert_eq!((books.times[0].remembered(), books.unread()), (0, 0));
    assert!(books.finish().0.is_clean());
}
