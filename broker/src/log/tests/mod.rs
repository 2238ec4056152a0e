//! Stories of a log: the state before, one event, the exact effects after.

mod crash;
mod durability;
mod reading;
mod rig;
mod space;
