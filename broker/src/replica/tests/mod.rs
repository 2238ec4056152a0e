//! Replicas on disks that tear and rot, a network that loses, doubles and reorders, and an authority that may act on
//! anything it ever heard.

mod chaos;
mod disk;
mod stories;
mod world;
