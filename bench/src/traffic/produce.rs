//! Producers that send when they meant to.

use std::io;
use std::time::{Duration, Instant};

use super::Traffic;
use super::link::Link;
use crate::os;
use crate::verify::content;

/// Sends from all producers in turn, so many records per second in all, each at its intended time
/// and however late it could be sent, until the traffic stops. While it is paused nothing is due.
pub fn produce(traffic: &Traffic, link: &Link, per_second: f64) -> io::Result<()> {
    os::precise_timers();
    let seed = traffic.with_ledger(|ledger| ledger.seed());
    let mut value = Vec::new();
    let mut start = Instant::now();
    let mut count = 0_u64;
    while !traffic.is_stopped() {
        if traffic.is_paused() {
            std::thread::sleep(Duration::from_millis(1));
            start = Instant::now();
            count = 0;
            continue;
        }
        let due = start + Duration::from_secs_f64(count as f64 / per_second);
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let producer = &traffic.producers[(count % traffic.producers.len() as u64) as usize];
        let identity = traffic.on_sent(producer.id, due);
        content::fill(seed, identity, traffic.value_bytes, &mut value);
        let key = producer.keys.map(|keys| content::key(identity, keys));
        let topic = traffic.topics[producer.topic as usize].name;
        let key = key.as_ref().map(|key| &key[..]);
        link.send(identity, topic, key, &value, producer.durability);
        count += 1;
    }
    Ok(())
}
