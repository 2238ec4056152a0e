//! How a lane is replicated: what one replica promises, answers, takes and acknowledges. Pure. The protocol and its
//! rules are in `model/README.md`.

mod position;

pub use position::{FenceAnswer, Position};
