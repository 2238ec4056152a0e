//! A client that keeps to no protocol: garbage, changed frames, frames that never end, replies
//! that it never reads, many connections. Nothing it does may hurt the others.

use corelog::engine::LinkId;
use corelog_protocol::checksum::crc32c;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::ShardId;
use corelog_protocol::preamble::Preamble;

use super::World;
use super::clients::Role;
use crate::sim::plan::Theme;

const RECORDED_BYTES: usize = 16 << 10;

impl World {
    /// Keeps the beginning of what honest clients say, to be said again with changes.
    pub(super) fn record_honest(&mut self, bytes: &[u8]) {
        let room = RECORDED_BYTES.saturating_sub(self.recorded.len());
        self.recorded.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub(super) fn hostile_work(&mut self, client: usize) {
        let Role::Hostile { left, number } = &mut self.clients[client].role else { return };
        if *left == 0 || self.ending.has_begun() {
            return;
        }
        *left -= 1;
        *number += 1;
        let id = LinkId(*number);
        let link = self.open_link(client, id);
        self.links[link].is_hostile = true;
        self.tally.one("hostile connections");
        let is_crowd = self.plan.theme == Theme::Flood;
        let pause = 1 + self.random.below(if is_crowd { 8_000_000 } else { 40_000_000 });
        self.plan_work(client, pause);
        if is_crowd {
            let stay = 200_000_000 + self.random.below(800_000_000);
            self.after(stay, super::Action::HostileEnd { link });
            return;
        }
        // An end, sooner or later; some are left to the broker's own deadlines.
        if self.random.chance(2, 3) {
            let stay = self.random.below(200_000_000);
            self.after(stay, super::Action::HostileEnd { link });
        }
    }

    pub(super) fn hostile_connected(&mut self, link: usize) {
        let wanted = ShardId(self.random.below(4) as u16);
        let mut bytes = Preamble { shard: wanted }.encode().to_vec();
        let start = bytes.len();
        let drawn = if self.plan.theme == Theme::Flood { 10 } else { self.random.below(10) };
        match drawn {
            10 => self.endless_frame(&mut bytes),
            6..=8 => self.unwelcome_frames(&mut bytes),
            // Nothing more, for as long as it is let.
            9 => {}
            0 => bytes.extend((0..200).map(|_| self.random.next_u64() as u8)),
            1 => bytes[..10].fill(0x16),
            // A frame that ends nowhere.
            2 => {
                let most = self.recorded.len().min(400);
                bytes.extend_from_slice(&self.recorded[..most * 2 / 3]);
            }
            _ => {
                bytes.extend_from_slice(&self.recorded);
                let changes = self.random.below(4);
                for _ in 0..changes {
                    let at =
                        start + self.random.below((bytes.len() - start).max(1) as u64) as usize;
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.random.below(8);
                    }
                }
            }
        }
        // Half of them never read what they are told.
        if self.random.chance(1, 2) {
            self.links[link].reads_nothing = true;
        }
        self.client_sends(link, [&bytes, &[]]);
    }

    /// A hello, and most of a frame of the greatest size.
    fn endless_frame(&mut self, bytes: &mut Vec<u8>) {
        self.say_hello(bytes);
        let control = [0; 16];
        let payload = self.plan.frame_bytes - 1024;
        let header = FrameHeader::new(FrameKind::Produce, 100, &control, payload);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&control);
        bytes.resize(bytes.len() + payload / 8 * 7, 0x5a);
    }

    fn say_hello(&self, bytes: &mut Vec<u8>) {
        if let Ok(hello) = FrameHeader::decode(&self.recorded, u32::MAX) {
            let whole = hello.frame_bytes().min(self.recorded.len());
            bytes.extend_from_slice(&self.recorded[..whole]);
        }
    }

    /// Intact headers of frames that no broker takes: of an unknown kind or version, or larger than
    /// allowed, before or after a hello.
    fn unwelcome_frames(&mut self, bytes: &mut Vec<u8>) {
        if self.random.chance(1, 2) {
            self.say_hello(bytes);
        }
        for number in 0..1 + self.random.below(5) {
            let mut header = FrameHeader::new(FrameKind::Status, 100 + number, &[], 0).encode();
            match self.random.below(4) {
                0 => header[5] = 200 + self.random.below(50) as u8,
                1 => header[4] = 9,
                2 => header[12..16].copy_from_slice(&u32::MAX.to_le_bytes()),
                // A payload that is skipped, as far as it comes.
                _ => (header[5], header[12]) = (222, 40),
            }
            let crc = crc32c(&header[..28]);
            header[28..].copy_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&header);
        }
    }

    pub(super) fn hostile_end(&mut self, link: usize) {
        if !self.links[link].client_gone {
            self.client_closes(link);
        }
    }
}
