//! Which links there shall be, from the configuration and the view.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use corelog_protocol::ids::BrokerId;

use super::{Link, LinkState, Place};
use crate::limits::REDIAL_MS_MIN;
use crate::memory::Memory;
use crate::metadata::view::lane_shard;
use crate::shard::{Cx, Shard, ShardId};
use crate::time::Nanos;

/// Where each link leads, and the addresses to try, one at least.
type Wanted = BTreeMap<Place, Vec<SocketAddr>>;

fn want(wanted: &mut Wanted, place: Place, address: SocketAddr) {
    let addresses = wanted.entry(place).or_default();
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

impl Shard {
    /// Shard 0 speaks to shard 0 of every broker: the metadata is there. Each shard speaks to the shards that have the
    /// other replicas of its lanes.
    ///
    /// Where a broker is, the view says; if it is not there, it has perhaps moved and could not register anew, since
    /// everybody has moved: then it is where it introduced itself from, or where its name in the configuration leads now.
    fn wanted_links(&self) -> Wanted {
        let (shard, shards) = (self.config.shard, self.config.shards);
        let mut wanted = Wanted::new();
        if shard == ShardId(0) {
            for broker in self.view.state().brokers() {
                want(&mut wanted, (broker.id, ShardId(0)), broker.address);
            }
            let introduced = self.peers.introduced.iter();
            for (&id, &address) in introduced.filter(|(id, _)| !self.view.state().is_removed(**id))
            {
                want(&mut wanted, (id, ShardId(0)), address);
            }
            for &(id, address) in &self.config.cluster_brokers {
                if let Some(address) = address {
                    want(&mut wanted, (id, ShardId(0)), address);
                }
            }
        }
        for lane in self.view.lanes_of(shard, shards) {
            for replica in lane.replicas.iter() {
                if let Some(broker) = self.view.broker(replica.broker) {
                    let place = (broker.id, lane_shard(lane.id, broker.shards));
                    want(&mut wanted, place, broker.address);
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
        for (place, addresses) in wanted {
            let Some(&address) = addresses.first() else { continue };
            let new = || Link {
                address,
                addresses: Vec::new(),
                state: LinkState::Waiting { until: cx.now.monotonic },
                backoff: Nanos::from_millis(REDIAL_MS_MIN),
            };
            let link = self.peers.links.entry(place).or_insert_with(new);
            if link.addresses != addresses {
                (link.address, link.addresses) = (address, addresses);
            }
        }
        self.peers.due_at = cx.now.monotonic;
    }

    /// Names of the configuration lead elsewhere now.
    pub(in crate::shard) fn on_located<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        brokers: &[(BrokerId, SocketAddr)],
    ) {
        for (id, address) in &mut self.config.cluster_brokers {
            let found = brokers.iter().find(|(located, _)| located == id);
            *address = found.map(|(_, located)| *located).or(*address);
        }
        self.peers.look_again();
        self.drive_peers(cx);
    }
}
