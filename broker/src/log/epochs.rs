//! Which epoch began where: what logs are compared by. An epoch that left no entry behind is not in it. Checkpoints
//! and footers carry the list, so that it outlives the segments it tells of.

use corelog_protocol::ids::{Epoch, Lsn};

use super::format::checkpoint::EpochImage;
use crate::replica::Position;

/// Epochs and the LSNs of their first entries, ascending in both.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    list: Vec<(Epoch, Lsn)>,
}

impl Epochs {
    pub fn list(&self) -> &[(Epoch, Lsn)] {
        &self.list
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The epoch of the last entry, 0 if there is none.
    pub fn last(&self) -> Epoch {
        self.list.last().map_or(Epoch(0), |(epoch, _)| *epoch)
    }

    /// An entry was appended, or found.
    pub fn note(&mut self, epoch: Epoch, lsn: Lsn) {
        if epoch > self.last() {
            self.list.push((epoch, lsn));
        }
    }

    /// The position of a log that ends here.
    pub fn position_at(&self, end: Lsn) -> Position {
        let began = self.list.partition_point(|(_, first)| *first < end);
        let epoch = began.checked_sub(1).map_or(Epoch(0), |at| self.list[at].0);
        Position { epoch, end }
    }

    /// The epoch of the entry with this LSN, which there must be.
    pub fn of(&self, lsn: Lsn) -> Option<Epoch> {
        let began = self.list.partition_point(|(_, first)| *first <= lsn);
        Some(self.list.get(began.checked_sub(1)?)?.0)
    }

    /// Entries below this LSN are gone: of their epochs only the last counts.
    pub fn forget_below(&mut self, lsn: Lsn) {
        let began = self.list.partition_point(|(_, first)| *first < lsn);
        self.list.drain(..began.saturating_sub(1));
    }

    pub fn images(&self) -> Vec<EpochImage> {
        let image =
            |(epoch, first): &(Epoch, Lsn)| EpochImage { epoch: epoch.0, first_lsn: first.0 };
        self.list.iter().map(image).collect()
    }

    /// Becomes what a checkpoint or footer holds.
    pub fn load(&mut self, images: &[EpochImage]) {
        self.list.clear();
        self.list.extend(images.iter().map(|image| (Epoch(image.epoch), Lsn(image.first_lsn))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lsn_has_the_epoch_that_began_last_before_it() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.position_at(Lsn(0)), Position::default());
        for (epoch, lsn) in [(1, 0), (1, 3), (4, 5), (6, 6)] {
            epochs.note(Epoch(epoch), Lsn(lsn));
        }
        assert_eq!(epochs.list(), [(Epoch(1), Lsn(0)), (Epoch(4), Lsn(5)), (Epoch(6), Lsn(6))]);
        let of: Vec<u64> = (0..8).map(|lsn| epochs.of(Lsn(lsn)).unwrap().0).collect();
        assert_eq!(of, [1, 1, 1, 1, 1, 4, 6, 6]);
        let at: Vec<u64> = (0..8).map(|end| epochs.position_at(Lsn(end)).epoch.0).collect();
        assert_eq!(at, [0, 1, 1, 1, 1, 1, 4, 6]);
        let mut loaded = Epochs::default();
        loaded.load(&epochs.images());
        loaded.forget_below(Lsn(6));
        assert_eq!(loaded.list(), [(Epoch(4), Lsn(5)), (Epoch(6), Lsn(6))]);
        assert_eq!(loaded.position_at(Lsn(6)).epoch, Epoch(4));
    }
}
