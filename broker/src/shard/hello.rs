//! The first frame of a connection.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameHeader;
use corelog_protocol::message::{Hello, HelloReply};

use super::event::Conn;
use super::message::Refusal;
use super::metadata_keeper::REMOVED;
use super::receive::Flow;
use super::{Cx, Shard};
use crate::memory::Memory;
use crate::session::Phase;

const SOFTWARE: &str = concat!("corelogd ", env!("CARGO_PKG_VERSION"));

impl Shard {
    pub(super) fn on_hello<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        hello: &Hello,
    ) -> Flow {
        let kind = header.kind.to_wire();
        let Some(version) = hello.version_in_common() else {
            self.counters.frames_unsupported += 1;
            self.refuse_unsupported(cx, conn, header.correlation, kind);
            self.close(cx, conn, true);
            return Flow::Done;
        };
        if self.view.is_out() {
            self.refuse_conn(cx, conn, header.correlation, kind, REMOVED);
            self.close(cx, conn, true);
            return Flow::Done;
        }
        // A client that met another incarnation of this broker may hold offsets that were never
        // given out here: it must look again before it goes on.
        let is_stranger = hello.cluster.is_some_and(|cluster| cluster != self.config.cluster)
            || hello.incarnation.is_some_and(|incarnation| incarnation != self.config.incarnation);
        if is_stranger {
            let refusal = Refusal::new(ErrorCode::WrongCluster, "another cluster or incarnation");
            self.refuse_conn(cx, conn, header.correlation, kind, refusal);
            self.close(cx, conn, true);
            return Flow::Done;
        }
        let Some(peer) = self.sessions.answerable(conn).map(|session| session.peer) else {
            return Flow::Done;
        };
        // It is counted itself. Above the limit it came in only because it could have been a broker.
        if self.is_full_of_clients(peer, 1) {
            self.counters.connections_refused += 1;
            self.refuse_conn(cx, conn, header.correlation, kind, super::replies::OVERLOADED);
            self.close(cx, conn, true);
            return Flow::Done;
        }
        if let Some(session) = self.sessions.answerable(conn) {
            session.phase = Phase::Open;
        }
        let reply = HelloReply {
            version,
            cluster: self.config.cluster,
            incarnation: self.config.incarnation,
            shard: self.config.shard,
            shards: self.config.shards,
            frame_bytes_max: self.config.frame_bytes_max as u32,
            software: SOFTWARE.to_owned(),
        };
        self.send_message(cx, conn, header.correlation, &reply);
        Flow::Done
    }
}
