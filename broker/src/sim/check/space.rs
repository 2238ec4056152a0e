//! I13: a full disk stops producers with a typed error, and nothing else; when space returns, so do they.

use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct SpaceCheck {
    full: bool,
    refused: u64,
    served: u64,
    pub looked: u64,
    /// Fetches answered with data while the disk was full.
    pub served_while_full: u64,
}

impl SpaceCheck {
    pub fn on_full(&mut self) {
        (self.full, self.refused, self.served) = (true, 0, 0);
    }

    pub fn on_refused(&mut self) {
        self.refused += 1;
    }

    pub fn on_served(&mut self) {
        if self.full && self.refused > 0 {
            self.served += 1;
            self.served_while_full += 1;
        }
    }

    pub fn on_freed(&mut self) {
        if self.full && self.refused > 0 {
            self.looked += 1;
        }
        self.full = false;
    }

    /// At the end, with space for a while: what was produced last must have been accepted.
    pub fn check_recovered(&self, produced: bool) -> Checked {
        if self.looked > 0 && !produced {
            return Err(Violation::new("I13", "space returned, and produce still fails"));
        }
        Ok(())
    }
}
