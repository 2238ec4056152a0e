//! Events and effects of steps, as a trace and its hash name them.

use crate::disk::DiskDone;
use crate::shard::effect::Effect;
use crate::shard::event::Event;

/// What a step was, in one number: two runs of a seed have the same.
pub fn event_number(event: &Event) -> u64 {
    match event {
        Event::Start => 1,
        Event::Opened { conn, .. } => 2 + (u64::from(conn.index) << 8),
        Event::Received { conn, piece } => {
            3 + (u64::from(conn.index) << 8) + (u64::from(piece.len) << 32)
        }
        Event::Sent { conn } => 4 + (u64::from(conn.index) << 8),
        Event::Closed { conn } => 5 + (u64::from(conn.index) << 8),
        Event::Disk { op, .. } => 6 + (op.0 << 8),
        Event::Told { from, .. } => 7 + (u64::from(from.0) << 8),
        Event::Turn => 8,
        Event::Woken => 9,
        Event::Stop => 10,
        Event::Dialed { dial, conn } => 11 + (dial.0 << 8) + (u64::from(conn.is_some()) << 63),
        Event::Located { brokers } => 12 + ((brokers.len() as u64) << 8),
    }
}

/// The same of what it ordered.
pub fn effect_number(effect: &Effect) -> u64 {
    match effect {
        Effect::Receive { conn, .. } => 21 + (u64::from(conn.index) << 8),
        Effect::Pause { conn } => 22 + (u64::from(conn.index) << 8),
        Effect::Send { conn, pieces } => {
            23 + (u64::from(conn.index) << 8) + (u64::from(pieces.end - pieces.start) << 32)
        }
        Effect::Close { conn, .. } => 24 + (u64::from(conn.index) << 8),
        Effect::Disk { op, .. } => 25 + (op.0 << 8),
        Effect::Tell { to, .. } => 26 + (u64::from(to.0) << 8),
        Effect::Turn => 27,
        Effect::Wake { at } => 28 + (at.0 << 8),
        Effect::Ready => 29,
        Effect::Stopped => 30,
        Effect::Dial { dial, shard, .. } => 31 + (dial.0 << 8) + (u64::from(shard.0) << 48),
    }
}

/// For people, without the long lists.
pub fn brief(event: &Event) -> String {
    match event {
        Event::Disk { op, done: DiskDone::Listed { files } } => {
            format!("Disk {op:?} {} files", files.len())
        }
        event => format!("{event:?}"),
    }
}
