//! Connections to other brokers: connect, send the preamble, and hand the socket to the shard as one of its own.
//!
//! A few at a time, the rest wait in order: a shard that wants many at once must not run the process out of
//! descriptors. One that the shard does not want any more when it is there is closed by the shard.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use corelog_protocol::ids::ShardId;
use corelog_protocol::preamble::{PREAMBLE_BYTES, Preamble};
use glommio::net::TcpStream;
use socket2::SockRef;

use crate::driver::core::{Core, Life, keep_waker};
use crate::shard::event::{DialId, Event};

/// What was sent to another broker and not acknowledged by its kernel for so long ends the connection.
const UNACKNOWLEDGED_TIME_MAX: Duration = Duration::from_secs(2);

/// How long the other side may take to accept.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// Connects of one shard under way at once.
const DIALS_MAX: usize = 64;

/// What a shard has ordered.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    pub dial: DialId,
    pub address: SocketAddr,
    pub shard: ShardId,
}

/// Carries out what the shard orders until it dies.
pub async fn dial_loop(core: Rc<Core>) {
    loop {
        let next = poll_fn(|cx| {
            core.with(|inner| {
                if inner.life == Life::Dead {
                    return Poll::Ready(None);
                }
                let dials = &mut inner.dials;
                if dials.under_way < DIALS_MAX
                    && let Some(dial) = dials.queue.pop_front()
                {
                    dials.under_way += 1;
                    return Poll::Ready(Some(dial));
                }
                keep_waker(&mut dials.waker, cx);
                Poll::Pending
            })
        });
        let Some(dial) = next.await else { return };
        let core = Rc::clone(&core);
        glommio::spawn_local(async move {
            let connected = connect(dial).await;
            core.with(|inner| inner.dials.is_over());
            match connected {
                Ok(stream) => core.open_dialed(stream, dial.dial),
                Err(error) => {
                    tracing::debug!(address = %dial.address, %error, "a broker does not answer");
                    core.deliver(Event::Dialed { dial: dial.dial, conn: None });
                }
            }
        })
        .detach();
    }
}

async fn connect(dial: Dial) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(dial.address, CONNECT_TIME_MAX).await?;
    stream.set_nodelay(true)?;
    let preamble = Preamble { shard: dial.shard }.encode();
    // SAFETY: the stream owns the descriptor and lives until the end of this function.
    let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // The first bytes of a connection: the smallest send buffer takes them.
    let socket = SockRef::from(&descriptor);
    // A way that was cut and is mended: the kernel tries again ever more slowly, a new connection at once.
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIME_MAX))?;
    match socket.send_with_flags(&preamble, flags)? {
        PREAMBLE_BYTES => Ok(stream),
        _ => Err(io::Error::other("the preamble does not fit into the socket")),
    }
}
