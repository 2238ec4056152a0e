//! Who is there? Said on both sides of a link before anything else.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameHeader;
use corelog_protocol::ids::{BrokerId, Incarnation};
use corelog_protocol::message::ErrorReply;
use corelog_protocol::peer::{PEER_VERSION, PeerHello, PeerHelloReply, PeerIdentity};

use super::LinkState;
use crate::limits::{PEERS_MET_MAX, REDIAL_MS_MAX, REDIAL_MS_MIN};
use crate::memory::Memory;
use crate::session::{Phase, Role};
use crate::shard::event::Conn;
use crate::shard::message::Refusal;
use crate::shard::metadata_keeper::REMOVED;
use crate::shard::receive::Flow;
use crate::shard::{Cx, Shard};
use crate::time::Nanos;

/// Reasons that are logged in one life.
const REFUSALS_LOGGED_MAX: usize = 16;

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
        if let Err(refusal) = self.meet(&from) {
            self.counters.peer_hellos_refused += 1;
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
    fn meet(&mut self, from: &PeerIdentity) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal::new(ErrorCode::WrongCluster, reason));
        if !self.config.is_clustered() {
            return refuse("this broker is alone");
        }
        if from.cluster != self.config.cluster {
            return refuse("a broker of another cluster");
        }
        if from.broker == self.config.broker {
            return refuse("this broker's own number");
        }
        if self.is_gone(from.broker) {
            return Err(REMOVED);
        }
        if self.known_incarnation(from.broker).is_some_and(|known| known != from.incarnation) {
            return refuse(
                "this broker number is of another incarnation: its disk is not the one that it had",
            );
        }
        if self.peers.met.len() >= PEERS_MET_MAX && !self.peers.met.contains_key(&from.broker) {
            return refuse("too many brokers");
        }
        self.peers.met.insert(from.broker, from.incarnation);
        Ok(())
    }

    /// As the metadata says. Of one that is listed and not registered yet, from the first meeting in this life: it may
    /// have voted. Who joins and is not registered has promised nothing, so its disk may be another one by now.
    fn known_incarnation(&self, broker: BrokerId) -> Option<Incarnation> {
        if let Some(record) = self.view.broker(broker) {
            return Some(record.incarnation);
        }
        let mut listed = self.config.cluster_brokers.iter();
        let is_listed = listed.any(|(id, _)| *id == broker);
        self.peers.met.get(&broker).copied().filter(|_| is_listed)
    }

    /// The broker that was dialed wants nothing of this one.
    pub(super) fn on_hello_refused<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        by: BrokerId,
        error: &ErrorReply,
    ) {
        // Of shards that are not the first nothing is known that shard 0 does not hear as well.
        if self.keeper.is_none() {
            return;
        }
        if error.code == ErrorCode::BrokerRemoved {
            return self.leave_cluster(cx);
        }
        let refusals = &mut self.peers.refusals;
        if refusals.len() < REFUSALS_LOGGED_MAX && refusals.insert(error.message.clone()) {
            let reason = &error.message;
            tracing::error!(%by, %reason, "another broker refuses this one, which takes no part with it");
        }
    }
}
