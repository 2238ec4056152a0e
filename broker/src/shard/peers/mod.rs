//! Links to the other brokers of a cluster.
//!
//! ```text
//! wanted ─▶ waiting ─▶ dialing ─▶ greeting ─▶ up ─▶ (lost) ─▶ waiting …
//! ```
//! One link for each (broker, shard) that this shard has something to say to: [`wanted`]. It goes one way, and the
//! other broker dials its own for the answers: [`greeting`]. A message is lost with its link, or when there is none
//! ([`send`]); those of one link arrive in order, and never behind those of a later link of the same shard.
//! What others say is handed on by its kind: [`incoming`].

mod dialing;
mod greeting;
mod incoming;
mod send;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use corelog_protocol::ids::{BrokerId, Incarnation, ShardId};
use corelog_protocol::peer::PeerIdentity;

use super::event::{Conn, DialId};
use super::{Cx, Shard};
use crate::memory::Memory;
use crate::metadata::BROKERS_MAX;
use crate::time::{Monotonic, Nanos};

/// A shard of another broker.
type Place = (BrokerId, ShardId);

#[derive(Debug)]
pub(super) struct Peers {
    /// By where they lead.
    links: BTreeMap<Place, Link>,
    /// Accepted from others, by who speaks there: the newest of each.
    incoming: BTreeMap<Place, Conn>,
    /// Who was met in this life, and under which incarnation.
    met: BTreeMap<BrokerId, Incarnation>,
    /// The links are those that this version of the view wants.
    version: Option<u64>,
    /// When the next link is to be dialed.
    pub due_at: Monotonic,
    next_dial: u64,
    /// The control part of the frame that is being handed on.
    control: Vec<u8>,
    /// Where others are that are neither in the configuration nor in the view: a broker that joins has none, and one that was
    /// down has an old one.
    introduced: BTreeMap<BrokerId, SocketAddr>,
    /// What others say why they want nothing of this broker: each reason is logged once.
    refusals: BTreeSet<String>,
}

#[derive(Debug)]
struct Link {
    /// Where it is dialed next, or was dialed.
    address: SocketAddr,
    /// All that is known, the likely ones first: a broker that has moved is not where the view says.
    addresses: Vec<SocketAddr>,
    state: LinkState,
    /// The longest that the next wait may be.
    backoff: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LinkState {
    Waiting {
        until: Monotonic,
    },
    Dialing {
        dial: DialId,
    },
    /// Connected; the other has not said who it is.
    Greeting {
        conn: Conn,
    },
    Up {
        conn: Conn,
        other: PeerIdentity,
    },
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            links: BTreeMap::new(),
            incoming: BTreeMap::new(),
            met: BTreeMap::new(),
            version: None,
            due_at: Monotonic(u64::MAX),
            next_dial: 0,
            control: Vec::new(),
            introduced: BTreeMap::new(),
            refusals: BTreeSet::new(),
        }
    }
}

impl Link {
    /// Nobody is there, or somebody else: the next try goes to the next address.
    fn turn(&mut self) {
        let at = self.addresses.iter().position(|address| *address == self.address);
        let next = at.map_or(0, |at| at + 1);
        let next = self.addresses.get(next).or(self.addresses.first());
        self.address = next.copied().unwrap_or(self.address);
    }
}

impl Peers {
    /// Which links there shall be is to be looked at again, whatever the version of the view.
    pub fn look_again(&mut self) {
        self.version = None;
    }

    /// Somebody has told where a broker is, which the view does not say yet.
    pub fn introduce(&mut self, broker: BrokerId, address: SocketAddr) {
        let is_new = self.introduced.insert(broker, address) != Some(address);
        if self.introduced.len() > BROKERS_MAX {
            self.introduced.pop_last();
        }
        if is_new {
            self.look_again();
        }
    }

    /// Links over which something can be sent.
    pub fn links_up(&self) -> u64 {
        self.links.values().filter(|link| matches!(link.state, LinkState::Up { .. })).count() as u64
    }

    /// The link that leads there, if it is up.
    fn conn_to(&self, place: Place) -> Option<Conn> {
        match self.links.get(&place)?.state {
            LinkState::Up { conn, .. } => Some(conn),
            _ => None,
        }
    }
}

impl Shard {
    /// A link is up: what was said over the one before may be lost.
    pub(super) fn on_peer_up<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        broker: BrokerId,
        shard: ShardId,
    ) {
        self.counters.peer_links_made += 1;
        self.on_lanes_peer_up(cx, broker, shard);
        if shard == ShardId(0) {
            self.introduce_self(cx, broker);
        }
    }

    /// A link that was up is gone, and dialed again soon.
    pub(super) fn on_peer_down<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        broker: BrokerId,
        shard: ShardId,
    ) {
        self.counters.peer_links_lost += 1;
        self.on_lanes_peer_down(cx, broker, shard);
        if shard == ShardId(0) {
            self.on_metadata_peer_down(cx, broker);
        }
    }
}
