//! One core's whole broker: everything composed behind one `step`.

pub mod config;
pub mod counters;
pub mod effect;
pub mod event;
pub mod message;

pub use config::ShardConfig;
pub use counters::ShardCounters;

use crate::memory::Memory;
use crate::random::Random;
use crate::time::Now;
use effect::{Effect, Effects};
use event::Event;

/// Everything that one core owns.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    random: Random,
    counters: ShardCounters,
}

impl Shard {
    /// # Panics
    /// If `config.check()` fails.
    pub fn new(config: ShardConfig, random: Random) -> Self {
        if let Err(reason) = config.check() {
            panic!("{reason}");
        }
        Self { config, random, counters: ShardCounters::default() }
    }

    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// Takes one event and adds what must be done to `effects`. Touches at most 64 KiB, or asks
    /// for a turn to go on.
    pub fn step<M: Memory>(
        &mut self,
        _now: Now,
        event: Event,
        _memory: &mut M,
        effects: &mut Effects,
    ) {
        self.counters.steps += 1;
        match event {
            Event::Start => effects.push(Effect::Ready),
            Event::Stop => effects.push(Effect::Stopped),
            Event::Opened { .. } => _ = self.random.next_u64(),
            _ => {}
        }
    }
}
