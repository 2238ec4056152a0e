//! All sessions of a shard, by the driver's index, and how many come from each address.

use std::collections::BTreeMap;

use super::{Phase, Role, Session};
use crate::shard::event::{Conn, Peer};

#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    count: u32,
    /// Those of them that are clients, or nobody knows yet.
    clients: u32,
    by_address: BTreeMap<[u8; 16], u32>,
}

impl Sessions {
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Those to which the limits apply: all but other brokers.
    pub fn client_count(&self) -> u32 {
        self.clients
    }

    pub fn count_from(&self, peer: Peer) -> u32 {
        self.by_address.get(&peer.address).copied().unwrap_or(0)
    }

    /// # Panics
    /// If the driver has given the index to two connections at once.
    pub fn insert(&mut self, session: Session) {
        let at = session.conn.index as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        assert!(self.slots[at].is_none(), "{:?} is in use", session.conn);
        self.count += 1;
        if session.role == Role::Client {
            self.clients += 1;
            *self.by_address.entry(session.peer.address).or_insert(0) += 1;
        }
        self.slots[at] = Some(Box::new(session));
    }

    pub fn remove(&mut self, conn: Conn) -> Option<Box<Session>> {
        self.get(conn)?;
        let session = self.slots[conn.index as usize].take()?;
        self.count -= 1;
        if session.role == Role::Client {
            self.forget_client(session.peer);
        }
        Some(session)
    }

    /// The client has turned out to be another broker: the limits do not apply to it.
    pub fn set_role(&mut self, conn: Conn, role: Role) {
        let Some(session) = self.get_mut(conn) else { return };
        let (was, peer) = (std::mem::replace(&mut session.role, role), session.peer);
        if was == Role::Client && role != Role::Client {
            self.forget_client(peer);
        }
    }

    fn forget_client(&mut self, peer: Peer) {
        self.clients -= 1;
        let count = self.by_address.get_mut(&peer.address).expect("counted when it came");
        *count -= 1;
        if *count == 0 {
            self.by_address.remove(&peer.address);
        }
    }

    /// The session of this connection, unless it is gone and another has its index.
    #[inline]
    pub fn get(&self, conn: Conn) -> Option<&Session> {
        let session = self.slots.get(conn.index as usize)?.as_deref()?;
        (session.conn == conn).then_some(session)
    }

    #[inline]
    pub fn get_mut(&mut self, conn: Conn) -> Option<&mut Session> {
        let session = self.slots.get_mut(conn.index as usize)?.as_deref_mut()?;
        (session.conn == conn).then_some(session)
    }

    /// The session, if it may still be answered.
    #[inline]
    pub fn answerable(&mut self, conn: Conn) -> Option<&mut Session> {
        self.get_mut(conn).filter(|session| session.phase != Phase::Closing)
    }

    pub fn conns(&self) -> impl Iterator<Item = Conn> + '_ {
        self.slots.iter().flatten().map(|session| session.conn)
    }
}
