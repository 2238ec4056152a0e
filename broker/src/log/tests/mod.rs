//! Stories of a log: the state before, one event, the exact effects after.

mod anew;
mod chaos;
mod copies;
mod crash;
mod damage;
mod durability;
mod producers;
mod reading;
mod recycling;
mod replica;
mod replicas;
mod rig;
mod scrub;
mod space;
