//! A client that keeps to no protocol: garbage, changed frames, frames that never end, replies
//! that it never reads, many connections. Nothing it does may hurt the others.

use corelog::engine::LinkId;
use corelog_protocol::ids::ShardId;
use corelog_protocol::preamble::Preamble;

use super::World;
use super::clients::Role;

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
        let pause = 1 + self.random.below(40_000_000);
        self.plan_work(client, pause);
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
        match self.random.below(6) {
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

    pub(super) fn hostile_end(&mut self, link: usize) {
        if !self.links[link].client_gone {
            self.client_closes(link);
        }
    }
}
