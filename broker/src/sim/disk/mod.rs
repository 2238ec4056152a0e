//! A disk that forgets what was not flushed.
//!
//! Enter at [`SimDisk`]: it takes a shard's orders and gives completions, in two halves, so that the
//! caller chooses when and in what order orders complete. What a file system would keep is modelled
//! in [`files`], one [`step::Step`] at a time; a recorded list of steps is a trace, and each prefix of it can
//! be crashed. What survives a crash is an [`image::Image`], from which a new disk starts.

pub mod files;
pub mod image;
pub mod orders;
pub mod step;

pub use files::{Files, Loose};
pub use image::Image;
pub use orders::{Fault, SimDisk};
pub use step::{Content, InodeId, Step};

/// The unit that a power loss keeps or drops. Devices promise more; none must be believed.
pub const SECTOR_BYTES: usize = 512;
