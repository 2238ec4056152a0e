//! Which links there shall be, from the configuration and the view.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Link, LinkState, Place};
use crate::limits::REDIAL_MS_MIN;
use crate::memory::Memory;
use crate::metadata::view::lane_shard;
use crate::shard::{Cx, Shard, ShardId};
use crate::time::Nanos;

impl Shard {
    /// Shard 0 speaks to shard 0 of every broker: the metadata is there. Each shard speaks to the shards that have the
    /// other replicas of its lanes.
    fn wanted_links(&self) -> BTreeMap<Place, SocketAddr> {
        let (shard, shards) = (self.config.shard, self.config.shards);
        let mut wanted = BTreeMap::new();
        if shard == ShardId(0) {
            for &(id, address) in &self.config.cluster_brokers {
                wanted.insert((id, ShardId(0)), address);
            }
            let introduced = self.peers.introduced.iter();
            let introduced = introduced.filter(|(id, _)| !self.view.state().is_removed(**id));
            wanted.extend(introduced.map(|(&id, &address)| ((id, ShardId(0)), address)));
            for broker in self.view.state().brokers() {
                wanted.insert((broker.id, ShardId(0)), broker.address);
            }
        }
        for lane in self.view.lanes_of(shard, shards) {
            for replica in lane.replicas.iter() {
                if let Some(broker) = self.view.broker(replica.broker) {
                    let place = (broker.id, lane_shard(lane.id, broker.shards));
                    wanted.insert(place, broker.address);
                }
            }
        }
        // A broker that was removed speaks to nobody, and nobody to it, once its word is not needed any more.
        let is_out = self.has_left();
        wanted.retain(|(id, _), _| *id != self.config.broker && !is_out && !self.is_gone(*id));
        wanted
    }

    /// Links that the view does not want any more end, and new ones begin.
    pub(super) fn refresh_links<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let wanted = self.wanted_links();
        let gone: Vec<Place> =
            self.peers.links.keys().filter(|place| !wanted.contains_key(place)).copied().collect();
        for place in gone {
            let Some(link) = self.peers.links.remove(&place) else { continue };
            match link.state {
                LinkState::Greeting { conn } => self.close(cx, conn, true),
                LinkState::Up { conn, .. } => {
                    self.close(cx, conn, true);
                    self.on_peer_down(cx, place.0, place.1);
                }
                // Closed when it comes: nobody knows it any more.
                LinkState::Waiting { .. } | LinkState::Dialing { .. } => {}
            }
        }
        let incoming = self.peers.incoming.iter();
        let strangers: Vec<_> =
            incoming.filter(|((id, _), _)| self.is_gone(*id)).map(|(_, conn)| *conn).collect();
        for conn in strangers {
            self.close(cx, conn, false);
        }
        for (place, address) in wanted {
            let new = || Link {
                address,
                state: LinkState::Waiting { until: cx.now.monotonic },
                backoff: Nanos::from_millis(REDIAL_MS_MIN),
            };
            self.peers.links.entry(place).or_insert_with(new).address = address;
        }
        self.peers.due_at = cx.now.monotonic;
    }
}
