//! What leading a lane costs: what its leader takes and serves, as smoothed rates, and one number made of them.
//!
//! ```text
//! bytes taken  × followers    each is sent to every follower; taking and storing them costs a follower as much
//! bytes served × 1            from the leader's memory or disk to a consumer
//! requests     × 4 KiB        what a request costs that carries little: about as much as to move so many bytes
//! ```
//! So the number counts, in bytes a second, what goes to another broker when leadership does, and not what stays.

use corelog_protocol::ids::{Epoch, LaneId};

use crate::limits::{LOAD_KNOWN_AFTER_NS, LOAD_SMOOTHING_NS};
use crate::metadata::codec::{BadBytes, Reader, Writer};
use crate::time::Monotonic;

/// What a request counts for, beside its bytes.
const REQUEST_BYTES: u64 = 4 << 10;

/// Rates are kept in such parts of one, so that small ones are not lost in rounding.
const PARTS: u128 = 1 << 10;
const SECOND_NS: u128 = 1_000_000_000;

/// What a lane has taken from producers and given to consumers here, all in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    pub bytes_in: u64,
    pub records_in: u64,
    pub bytes_out: u64,
    /// Batches taken, and answers to a fetch that have something of the lane, once for each partition.
    pub requests: u64,
}

impl Traffic {
    #[inline]
    pub fn on_taken(&mut self, bytes: u64, records: u64) {
        self.bytes_in += bytes;
        self.records_in += records;
        self.requests += 1;
    }

    #[inline]
    pub fn on_served(&mut self, bytes: u64) {
        self.bytes_out += bytes;
        self.requests += 1;
    }

    fn parts(self) -> [u64; 4] {
        [self.bytes_in, self.records_in, self.bytes_out, self.requests]
    }
}

/// The same in a second, smoothed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    pub bytes_in: u64,
    pub records_in: u64,
    pub bytes_out: u64,
    pub requests: u64,
}

impl Rates {
    /// The load of a leader with so many followers: see the file's page.
    pub fn load(&self, followers: usize) -> u64 {
        let copied = self.bytes_in.saturating_mul(followers as u64);
        let asked = self.requests.saturating_mul(REQUEST_BYTES);
        copied.saturating_add(self.bytes_out).saturating_add(asked)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        for rate in [self.bytes_in, self.records_in, self.bytes_out, self.requests] {
            writer.u64(rate);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(Self {
            bytes_in: reader.u64()?,
            records_in: reader.u64()?,
            bytes_out: reader.u64()?,
            requests: reader.u64()?,
        })
    }
}

/// What a lane costs its leader, by word of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneLoad {
    pub lane: LaneId,
    pub epoch: Epoch,
    pub rates: Rates,
}

impl LaneLoad {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.lane.0);
        writer.u64(self.epoch.0);
        self.rates.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let (lane, epoch) = (LaneId(reader.u32()?), Epoch(reader.u64()?));
        Ok(Self { lane, epoch, rates: Rates::read(reader)? })
    }
}

/// Makes rates of what is counted, looked at now and then. The mean of all since it began, until that is as old as
/// the smoothing; from then on what is older weighs less and less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meter {
    began_at: Monotonic,
    looked_at: Monotonic,
    counted: Traffic,
    /// In parts: see [`PARTS`].
    means: [u128; 4],
}

impl Meter {
    /// Nothing that was counted before is of this time.
    pub fn new(counted: Traffic, now: Monotonic) -> Self {
        Self { began_at: now, looked_at: now, counted, means: [0; 4] }
    }

    /// So much is counted by now.
    pub fn look(&mut self, counted: Traffic, now: Monotonic) {
        let passed = u128::from(now.0.saturating_sub(self.looked_at.0));
        if passed == 0 {
            return;
        }
        let age = self.looked_at.0.saturating_sub(self.began_at.0);
        let weight = u128::from(age.min(LOAD_SMOOTHING_NS));
        let before = self.counted.parts();
        for ((mean, now), before) in self.means.iter_mut().zip(counted.parts()).zip(before) {
            let more = u128::from(now.saturating_sub(before)) * PARTS * SECOND_NS;
            *mean = (*mean * weight + more) / (weight + passed);
        }
        self.looked_at = now;
        self.counted = counted;
    }

    /// None until it has measured long enough to mean something.
    pub fn rates(&self) -> Option<Rates> {
        let age = self.looked_at.0.saturating_sub(self.began_at.0);
        if age < LOAD_KNOWN_AFTER_NS {
            return None;
        }
        // Rounded to the nearest.
        let rate = |mean: u128| u64::try_from((mean + PARTS / 2) / PARTS).unwrap_or(u64::MAX);
        let [bytes_in, records_in, bytes_out, requests] = self.means.map(rate);
        Some(Rates { bytes_in, records_in, bytes_out, requests })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Nanos;

    const BEGAN: Monotonic = Monotonic(77);

    /// Looks each second, so many times, while so much comes in a second. Returns what is counted then.
    fn measure(meter: &mut Meter, mut counted: Traffic, seconds: u64, bytes: u64) -> Traffic {
        for _ in 0..seconds {
            counted.on_taken(bytes, 3);
            let now = meter.looked_at + Nanos::from_secs(1);
            meter.look(counted, now);
        }
        counted
    }

    #[test]
    fn a_steady_rate_is_told_as_it_is_from_the_first_moment_on() {
        let before = Traffic { bytes_in: 9_999, records_in: 4, bytes_out: 7, requests: 8 };
        let mut meter = Meter::new(before, BEGAN);
        let counted = measure(&mut meter, before, 2, 1_000);
        assert_eq!(meter.rates(), None, "two seconds tell nothing");
        let steady = Rates { bytes_in: 1_000, records_in: 3, bytes_out: 0, requests: 1 };
        let counted = measure(&mut meter, counted, 1, 1_000);
        assert_eq!(meter.rates(), Some(steady));
        measure(&mut meter, counted, 200, 1_000);
        assert_eq!(meter.rates(), Some(steady));
        let now = meter.looked_at;
        meter.look(Traffic::default(), now);
        assert_eq!(meter.rates(), Some(steady), "no time has passed");
    }

    #[test]
    fn what_ended_is_forgotten_by_half_in_the_time_of_the_smoothing() {
        let mut meter = Meter::new(Traffic::default(), BEGAN);
        let counted = measure(&mut meter, Traffic::default(), 60, 900_000);
        let idle = |meter: &mut Meter, seconds: u64| {
            let now = meter.looked_at + Nanos::from_secs(seconds);
            meter.look(counted, now);
            meter.rates().expect("measured").bytes_in
        };
        // 30 s of nothing after a mean that weighs 30 s.
        assert_eq!(idle(&mut meter, 30), 450_000);
        let mut left = 450_000;
        for _ in 0..600 {
            let now = idle(&mut meter, 1);
            assert!(now <= left);
            left = now;
        }
        assert_eq!(left, 0);
        assert_eq!(meter.rates(), Some(Rates::default()));
    }

    #[test]
    fn a_peak_of_a_second_moves_a_steady_rate_by_a_thirtieth() {
        let mut meter = Meter::new(Traffic::default(), BEGAN);
        let counted = measure(&mut meter, Traffic::default(), 100, 1_000);
        measure(&mut meter, counted, 1, 32_000);
        assert_eq!(meter.rates().map(|rates| rates.bytes_in), Some(2_000));
    }

    #[test]
    fn the_load_counts_what_moves_with_the_leader_and_nothing_overflows() {
        let rates = Rates { bytes_in: 1_000, records_in: 50, bytes_out: 300, requests: 2 };
        assert_eq!(rates.load(2), 2_000 + 300 + 2 * 4_096);
        assert_eq!(rates.load(0), 300 + 2 * 4_096);
        let all = Traffic {
            bytes_in: u64::MAX,
            records_in: u64::MAX,
            bytes_out: u64::MAX,
            requests: u64::MAX,
        };
        let mut meter = Meter::new(Traffic::default(), Monotonic(0));
        meter.look(all, Monotonic(1));
        meter.look(all, Monotonic(LOAD_KNOWN_AFTER_NS));
        assert!(meter.rates().expect("measured").load(6) == u64::MAX);
        // Whatever is told as counted: less than before is nothing more.
        meter.look(Traffic::default(), Monotonic(u64::MAX));
        assert!(meter.rates().is_some());
    }
}
