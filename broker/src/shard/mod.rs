//! One core's whole broker: everything composed behind one `step`.

pub mod effect;
pub mod event;
pub mod message;
