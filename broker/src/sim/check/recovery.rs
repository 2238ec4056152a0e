//! I9: recovery ends. That it keeps what was acknowledged is seen by [`super::history`].

use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct RecoveryCheck {
    began: Option<u64>,
    pub looked: u64,
}

impl RecoveryCheck {
    pub fn on_start(&mut self, now: u64) {
        self.began = Some(now);
    }

    pub fn on_crash(&mut self) {
        self.began = None;
    }

    pub fn on_ready(&mut self) {
        if self.began.take().is_some() {
            self.looked += 1;
        }
    }

    /// With a sound disk, a recovery must not take longer than `patience`.
    pub fn check_patience(&self, now: u64, patience: u64) -> Checked {
        match self.began {
            Some(began) if now - began > patience => {
                let text = format!("not ready after {} ms", (now - began) / 1_000_000);
                Err(Violation::new("I9", text))
            }
            _ => Ok(()),
        }
    }
}
