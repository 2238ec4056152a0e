//! A link from the wish to the connection, and from its loss to the next try.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::BrokerId;
use std::net::{IpAddr, SocketAddr};

use super::{LinkState, Place};
use crate::limits::{REDIAL_MS_MAX, REDIAL_MS_MIN};
use crate::memory::Memory;
use crate::session::{Role, Session};
use crate::shard::effect::Effect;
use crate::shard::event::{Conn, DialId, Peer};
use crate::shard::{Cx, Shard};
use crate::time::{Monotonic, Nanos};

impl Shard {
    /// Dials what is due. For a broker that is alone there is nothing to do.
    pub(in crate::shard) fn drive_peers<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if !self.config.is_clustered() || !self.is_ready || self.stopping.is_some() {
            return;
        }
        let version = self.view.version();
        if self.peers.version != Some(version) {
            self.peers.version = Some(version);
            self.refresh_links(cx);
        }
        if cx.now.monotonic < self.peers.due_at {
            return;
        }
        let mut due_at = Monotonic(u64::MAX);
        for (&(_, shard), link) in &mut self.peers.links {
            let LinkState::Waiting { until } = link.state else { continue };
            if cx.now.monotonic < until {
                due_at = due_at.min(until);
                continue;
            }
            let dial = DialId(self.peers.next_dial);
            self.peers.next_dial += 1;
            link.state = LinkState::Dialing { dial };
            self.counters.peer_dials += 1;
            cx.effects.push(Effect::Dial { dial, address: link.address, shard });
        }
        self.peers.due_at = due_at;
    }

    /// A connection to another broker, or none.
    pub(in crate::shard) fn on_dialed<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        dial: DialId,
        conn: Option<Conn>,
    ) {
        let mut links = self.peers.links.iter_mut();
        let found = links.find(|(_, link)| link.state == LinkState::Dialing { dial });
        let Some((&place, link)) = found.filter(|_| self.stopping.is_none()) else {
            if let Some(conn) = conn {
                // Nobody wants it any more.
                cx.effects.push(Effect::Close { conn, after_sends: false });
            }
            return;
        };
        let Some(conn) = conn else {
            link.turn();
            return self.redial(cx, place);
        };
        link.state = LinkState::Greeting { conn };
        let (broker, shard) = place;
        let mut session = Session::new(conn, peer_of(link.address));
        session.role = Role::Dialed { broker, shard };
        self.sessions.insert(session);
        self.say_hello(cx, conn);
        self.order_receive(cx, conn, None);
        self.watch(conn);
    }

    /// The link waits for a while, each time about twice as long, and then dials again.
    pub(super) fn redial<M: Memory>(&mut self, cx: &mut Cx<'_, M>, place: Place) {
        let Some(link) = self.peers.links.get_mut(&place) else { return };
        let half = link.backoff.0 / 2;
        let wait = Nanos(half + self.random.below(half.max(1)));
        let until = cx.now.monotonic + wait;
        link.backoff = Nanos((2 * link.backoff.0).min(Nanos::from_millis(REDIAL_MS_MAX).0));
        link.state = LinkState::Waiting { until };
        self.peers.due_at = self.peers.due_at.min(until);
    }

    /// A connection that was dialed here, or came from another broker, is gone.
    pub(in crate::shard) fn on_peer_closed<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        role: Role,
    ) {
        match role {
            Role::Client => {}
            Role::Peer { broker, shard } => {
                let place = (broker, shard);
                if self.peers.incoming.get(&place) == Some(&conn) {
                    self.peers.incoming.remove(&place);
                }
            }
            Role::Dialed { broker, shard } => {
                let place = (broker, shard);
                let Some(link) = self.peers.links.get_mut(&place) else { return };
                match link.state {
                    LinkState::Greeting { conn: own } if own == conn => {
                        link.turn();
                        self.redial(cx, place);
                    }
                    LinkState::Up { conn: own, .. } if own == conn => {
                        // It was good: no need to be slow at first.
                        link.backoff = Nanos::from_millis(REDIAL_MS_MIN);
                        self.redial(cx, place);
                        self.on_peer_down(cx, broker, shard);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether a broker that is known is at this address, or something else on its host.
    pub(in crate::shard) fn is_host_of_broker(&self, peer: Peer) -> bool {
        let is_there = |address: &SocketAddr| peer_of(*address).address == peer.address;
        self.config.cluster_brokers.iter().filter_map(|(_, address)| address.as_ref()).any(is_there)
            || self.peers.links.values().any(|link| link.addresses.iter().any(is_there))
    }

    /// Ends the links to a broker that is not the one that was greeted.
    pub(super) fn end_links_of_other_life<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        broker: BrokerId,
        life: u64,
    ) {
        let stale: Vec<Conn> = self
            .peers
            .links
            .values()
            .filter_map(|link| match link.state {
                LinkState::Up { conn, other } if other.broker == broker && other.life != life => {
                    Some(conn)
                }
                _ => None,
            })
            .collect();
        for conn in stale {
            self.close(cx, conn, false);
        }
    }
}

/// What a broker does not say to one that dialed it.
pub(super) const fn is_answer(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::PeerHelloReply | FrameKind::Error)
}

fn peer_of(address: SocketAddr) -> Peer {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    Peer { address: octets, port: address.port() }
}
