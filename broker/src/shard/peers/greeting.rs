//! Who is there? Said on both sides of a link before anything else.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameHeader;
use corelog_protocol::ids::{BrokerId, Incarnation};
use corelog_protocol::peer::{PEER_VERSION, PeerHello, PeerHelloReply, PeerIdentity};

use super::LinkState;
use crate::limits::{PEERS_MET_MAX, REDIAL_MS_MAX, REDIAL_MS_MIN};
use crate::memory::Memory;
use crate::session::{Phase, Role};
use crate::shard::event::Conn;
use crate::shard::message::Refusal;
use crate::shard::receive::Flow;
use crate::shard::{Cx, Shard};
use crate::time::Nanos;

impl Shard {
    fn identity(&self) -> PeerIdentity {
        PeerIdentity {
            cluster: self.config.cluster,
            broker: self.config.broker,
            incarnation: self.config.incarnation,
            life: self.config.life,
            shard: self.config.shard,
            shards: self.config.shards,
        }
    }

    /// The first word to a broker that was dialed.
    pub(super) fn say_hello<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn) {
        let hello = PeerHello { version: PEER_VERSION, from: self.identity() };
        self.send_bytes(cx, conn, &hello.encode_frame());
    }

    /// A stranger says that it is a broker of this cluster.
    pub(in crate::shard) fn on_peer_hello<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        hello: &PeerHello,
    ) -> Flow {
        let from = hello.from;
        if let Err(reason) = self.meet(&from) {
            self.counters.peer_hellos_refused += 1;
            let refusal = Refusal::new(ErrorCode::WrongCluster, reason);
            self.refuse_conn(cx, conn, header.correlation, header.kind.to_wire(), refusal);
            self.close(cx, conn, true);
            return Flow::Done;
        }
        // The links to the process that it was before lead nowhere, whatever the network says.
        self.end_links_of_other_life(cx, from.broker, from.life);
        let place = (from.broker, from.shard);
        if let Some(older) = self.peers.incoming.insert(place, conn) {
            // What is still under way there must not arrive after what comes here.
            self.close(cx, older, false);
        }
        self.sessions.set_role(conn, Role::Peer { broker: from.broker, shard: from.shard });
        if let Some(session) = self.sessions.answerable(conn) {
            session.phase = Phase::Open;
        }
        let version = hello.version.min(PEER_VERSION);
        let reply = PeerHelloReply { version, from: self.identity() };
        self.send_bytes(cx, conn, &reply.encode_frame());
        Flow::Done
    }

    /// The broker that was dialed says who it is.
    pub(super) fn on_peer_hello_reply<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        place: super::Place,
        reply: &PeerHelloReply,
    ) {
        let from = reply.from;
        let is_wanted = (from.broker, from.shard) == place && reply.version <= PEER_VERSION;
        if !is_wanted || self.meet(&from).is_err() {
            self.counters.peer_hellos_refused += 1;
            return self.close_refused(cx, conn, place);
        }
        let Some(link) = self.peers.links.get_mut(&place) else { return };
        if link.state != (LinkState::Greeting { conn }) {
            return;
        }
        link.state = LinkState::Up { conn, other: from };
        link.backoff = Nanos::from_millis(REDIAL_MS_MIN);
        if let Some(session) = self.sessions.answerable(conn) {
            session.phase = Phase::Open;
        }
        self.on_peer_up(cx, place.0, place.1);
    }

    /// It is not the one that was wanted, or does not want us: no use in asking often.
    pub(super) fn close_refused<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        place: super::Place,
    ) {
        if let Some(link) = self.peers.links.get_mut(&place) {
            link.backoff = Nanos::from_millis(REDIAL_MS_MAX);
        }
        self.close(cx, conn, false);
    }

    /// Whether it is who it says, as far as that is known here. Remembers it if it is.
    fn meet(&mut self, from: &PeerIdentity) -> Result<(), &'static str> {
        if !self.config.is_clustered() {
            return Err("this broker is alone");
        }
        if from.cluster != self.config.cluster {
            return Err("a broker of another cluster");
        }
        if from.broker == self.config.broker {
            return Err("this broker's own number");
        }
        if self.known_incarnation(from.broker).is_some_and(|known| known != from.incarnation) {
            return Err("this broker number is of another incarnation");
        }
        if self.peers.met.len() >= PEERS_MET_MAX && !self.peers.met.contains_key(&from.broker) {
            return Err("too many brokers");
        }
        self.peers.met.insert(from.broker, from.incarnation);
        Ok(())
    }

    /// As the metadata says, or else from the first meeting in this life.
    fn known_incarnation(&self, broker: BrokerId) -> Option<Incarnation> {
        if let Some(record) = self.view.broker(broker) {
            return Some(record.incarnation);
        }
        self.peers.met.get(&broker).copied()
    }
}
