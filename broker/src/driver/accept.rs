//! New connections: accept, read exactly the preamble, hand the socket to the shard that it names.
//! Nothing is read beyond the preamble, so what follows belongs to the shard that serves it.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use corelog_protocol::preamble::{PREAMBLE_BYTES, PREAMBLE_MAGIC, Preamble, PreambleError};
use futures_io::AsyncRead;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::{Timer, sleep};

use crate::driver::core::{Core, Life, Mail};

/// After an accept failed, most likely for want of descriptors: long enough to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the accept loop needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    pub shard: usize,
    pub shards: usize,
    pub preambles_per_address_max: u32,
    pub preamble_time_max: Duration,
}

/// Accepts until the shard dies.
pub async fn accept_loop(core: Rc<Core>, listener: std::net::TcpListener, door: Door) {
    match listener.try_clone() {
        Ok(clone) => core.with(|inner| inner.listener = Some(clone)),
        Err(error) => tracing::error!(%error, "the port will stay open until the process ends"),
    }
    // SAFETY: a listening socket that was just given up by its owner.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    let mut accepted_before: u64 = 0;
    loop {
        let accepted = listener.accept().await;
        if core.with(|inner| inner.listener.is_none() || inner.life != Life::Ready) {
            return;
        }
        let outcome = accepted.and_then(|stream| {
            let peer = stream.peer_addr()?;
            Ok((stream, peer))
        });
        match outcome {
            Ok((stream, peer)) => {
                if !enter(&core, peer.ip(), door.preambles_per_address_max) {
                    refuse(&core, peer, "too many connections without a preamble");
                    continue;
                }
                let core = Rc::clone(&core);
                let ticket = accepted_before;
                accepted_before += 1;
                glommio::spawn_local(async move {
                    let preamble =
                        read_preamble(&core, ticket, stream, door.preamble_time_max).await;
                    leave(&core, ticket, peer.ip());
                    match preamble {
                        Ok((preamble, socket)) => route(&core, preamble, socket, peer, door),
                        Err(Turned::Silent) => tracing::debug!(%peer, "a connection said nothing"),
                        Err(Turned::Refused(reason)) => refuse(&core, peer, &reason),
                    }
                })
                .detach();
            }
            // A peer that is gone again is no trouble; others may be, so do not spin.
            Err(error) => {
                if let Some(left_out) = core.with(|inner| inner.preamble_log.pass()) {
                    tracing::warn!(%error, left_out, "a connection could not be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Takes a socket that another shard accepted, or this one.
pub fn adopt(core: &Rc<Core>, socket: OwnedFd, peer: SocketAddr) {
    // SAFETY: the descriptor is a connected socket and has no other owner.
    let stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
    core.open(stream, peer);
}

fn route(core: &Rc<Core>, preamble: Preamble, socket: OwnedFd, peer: SocketAddr, door: Door) {
    let wanted = usize::from(preamble.shard.0);
    // "Any", and a number from a time with more shards, mean this one.
    if wanted == door.shard || wanted >= door.shards {
        return adopt(core, socket, peer);
    }
    core.with(|inner| {
        inner.counters.sockets_handed_over += 1;
        inner.mail(wanted, Mail::Socket { descriptor: socket, peer });
    });
}

/// Why a connection is not handed on.
enum Turned {
    /// It closed before its first byte: someone looked whether anybody listens.
    Silent,
    Refused(String),
}

impl From<String> for Turned {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

/// Reads 16 bytes and no more. The socket that comes back is close-on-exec, which accepting does
/// not make it here.
async fn read_preamble(
    core: &Core,
    ticket: u64,
    mut stream: TcpStream,
    time_max: Duration,
) -> Result<(Preamble, OwnedFd), Turned> {
    let mut bytes = [0; PREAMBLE_BYTES];
    let mut have = 0;
    let mut deadline = Timer::new(time_max);
    poll_fn(|cx| {
        let dead = core.with(|inner| {
            inner.preamble_wakers.insert(ticket, cx.waker().clone());
            inner.life == Life::Dead
        });
        if dead {
            return Poll::Ready(Err("the broker ends".to_owned().into()));
        }
        while have < PREAMBLE_BYTES {
            match Pin::new(&mut stream).poll_read(cx, &mut bytes[have..]) {
                Poll::Ready(Ok(0)) if have == 0 => return Poll::Ready(Err(Turned::Silent)),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err("it closed again".to_owned().into()));
                }
                Poll::Ready(Ok(count)) => have += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string().into())),
                Poll::Pending => {
                    return Pin::new(&mut deadline)
                        .poll(cx)
                        .map(|_| Err("its preamble did not come in time".to_owned().into()));
                }
            }
            // Another protocol is told by its first bytes; it may never send 16.
            if !PREAMBLE_MAGIC.starts_with(&bytes[..have.min(PREAMBLE_MAGIC.len())]) {
                break;
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    let preamble = match Preamble::decode(&bytes[..have]) {
        Ok(preamble) => preamble,
        Err(PreambleError::Incomplete { .. }) => {
            return Err(PreambleError::Magic.to_string().into());
        }
        Err(error) => return Err(error.to_string().into()),
    };
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    // SAFETY: the stream owns the descriptor and lives until the end of this function.
    let borrowed = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    let socket = borrowed.try_clone_to_owned().map_err(|error| error.to_string())?;
    Ok((preamble, socket))
}

fn enter(core: &Core, address: IpAddr, most: u32) -> bool {
    core.with(|inner| {
        let count = inner.preambles.entry(address).or_default();
        *count += 1;
        let welcome = *count <= most;
        if !welcome {
            *count -= 1;
        }
        welcome
    })
}

fn leave(core: &Core, ticket: u64, address: IpAddr) {
    core.with(|inner| {
        inner.preamble_wakers.remove(&ticket);
        if let Some(count) = inner.preambles.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                inner.preambles.remove(&address);
            }
        }
    });
}

fn refuse(core: &Core, peer: SocketAddr, reason: &str) {
    let pass = core.with(|inner| {
        inner.counters.preambles_refused += 1;
        inner.preamble_log.pass()
    });
    if let Some(left_out) = pass {
        tracing::warn!(%peer, reason, left_out, "a connection is refused");
    }
}
