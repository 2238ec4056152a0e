//! What is done to the brokers while the load goes on.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use crate::harness::brokers::Brokers;
use crate::harness::scenario::FaultKind;

/// `topic`: the first one.
pub fn play(shared: &Shared<'_>, brokers: &mut Brokers, topic: &str) -> io::Result<()> {
    for fault in &shared.scenario.faults {
        if !brokers.are_ours() {
            return Err(io::Error::other("`faults` need brokers that this command starts"));
        }
        if !wait_until(shared, fault.at_seconds) {
            return Ok(());
        }
        let length = Duration::from_secs_f64(fault.for_seconds);
        match fault.what {
            FaultKind::Freeze => {
                brokers.freeze(true)?;
                std::thread::sleep(length);
                brokers.freeze(false)?;
            }
            FaultKind::Kill => {
                let victim = brokers.leader(topic)?;
                brokers.kill(victim)?;
                std::thread::sleep(length);
                brokers.start_one(victim)?;
            }
        }
    }
    Ok(())
}

/// False if the run is over before.
fn wait_until(shared: &Shared<'_>, seconds: f64) -> bool {
    let at = (seconds * 1e9) as u64;
    while shared.clock.now() < at {
        if shared.is_over.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(shared.clock.until(at).min(Duration::from_millis(50)));
    }
    true
}
