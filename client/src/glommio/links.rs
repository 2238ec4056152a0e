//! The tasks of a client: one per connection that reads and writes, and one that keeps time.

use super::{Core, step};
use crate::engine::{Event, LinkId, Outgoing};
use ::glommio::net::TcpStream;
use ::glommio::timer::Timer;
use futures_io::{AsyncRead, AsyncWrite};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// One read or one write takes at most this much.
const IO_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Link {
    pub id: LinkId,
    address: SocketAddr,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    outgoing: VecDeque<Outgoing>,
    is_closed: bool,
    waker: Option<Waker>,
}

/// What a connection's task wakes for.
enum Woken {
    Read(usize),
    Sent(usize),
    Ended,
    /// The engine closed it.
    Closed,
}

impl Link {
    pub(super) fn new(id: LinkId, address: SocketAddr) -> Self {
        Self { id, address, state: RefCell::default() }
    }

    pub(super) fn push(&self, bytes: Outgoing) {
        self.state.borrow_mut().outgoing.push_back(bytes);
        self.wake();
    }

    pub(super) fn close(&self) {
        self.state.borrow_mut().is_closed = true;
        self.wake();
    }

    fn wake(&self) {
        let waker = self.state.borrow_mut().waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn is_closed(&self) -> bool {
        self.state.borrow().is_closed
    }

    /// Moves what is to be sent into one buffer: a write then takes many small frames at once. What
    /// is in `staged` stays there until it is written.
    fn stage(&self, staged: &mut Vec<u8>) {
        let mut state = self.state.borrow_mut();
        while staged.len() < IO_BYTES
            && let Some(outgoing) = state.outgoing.pop_front()
        {
            outgoing.pieces().into_iter().for_each(|piece| staged.extend_from_slice(piece));
        }
    }

    fn poll(
        &self,
        context: &mut Context<'_>,
        stream: &mut TcpStream,
        staged: &mut Vec<u8>,
        written: &mut usize,
        buffer: &mut [u8],
    ) -> Poll<Woken> {
        if self.is_closed() {
            return Poll::Ready(Woken::Closed);
        }
        if *written == staged.len() {
            staged.clear();
            *written = 0;
            self.stage(staged);
        }
        let rest = staged.get(*written..).unwrap_or_default();
        if !rest.is_empty() {
            match Pin::new(&mut *stream).poll_write(context, rest) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    *written += bytes;
                    return Poll::Ready(Woken::Sent(bytes));
                }
                Poll::Ready(_) => return Poll::Ready(Woken::Ended),
                Poll::Pending => {}
            }
        }
        match Pin::new(stream).poll_read(context, buffer) {
            Poll::Ready(Ok(bytes)) if bytes > 0 => Poll::Ready(Woken::Read(bytes)),
            Poll::Ready(_) => Poll::Ready(Woken::Ended),
            Poll::Pending => {
                self.state.borrow_mut().waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Opens a connection and serves it until it ends.
pub(super) async fn serve(core: Rc<RefCell<Core>>, link: Rc<Link>) {
    let id = link.id;
    if let Ok(mut stream) = TcpStream::connect(link.address).await {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let mut buffer = vec![0; IO_BYTES];
        let (mut staged, mut written) = (Vec::new(), 0);
        tell(&core, Event::Connected { link: id });
        loop {
            let woken = poll_fn(|context| {
                link.poll(context, &mut stream, &mut staged, &mut written, &mut buffer)
            });
            match woken.await {
                Woken::Sent(bytes) => tell(&core, Event::Sent { link: id, bytes: bytes as u64 }),
                Woken::Read(bytes) => {
                    let bytes = buffer.get(..bytes).unwrap_or_default();
                    tell(&core, Event::Received { link: id, bytes });
                }
                Woken::Ended => break,
                Woken::Closed => return,
            }
        }
    }
    core.borrow_mut().links.remove(&id);
    tell(&core, Event::Closed { link: id });
}

fn tell(core: &Rc<RefCell<Core>>, event: Event<'_>) {
    step(core, |core, now| core.engine.on_event(now, event, &mut core.effects));
}

/// Tells the engine when its time has come, until the client is closed.
pub(super) async fn keep_time(core: Rc<RefCell<Core>>) {
    loop {
        let (is_closed, wake, now) = {
            let core = core.borrow();
            (core.is_closed, core.engine.next_wake(), core.now())
        };
        if is_closed {
            return;
        }
        let sleep = wake.map_or(Duration::from_secs(3600), |wake| {
            Duration::from_nanos(wake.since(now.monotonic))
        });
        if sleep.is_zero() {
            tell(&core, Event::Timer);
        }
        // Woken early if an earlier time is wanted.
        let mut timer = pin!(Timer::new(sleep));
        let mut is_first = true;
        poll_fn(|context| {
            if timer.as_mut().poll(context).is_ready() || !std::mem::take(&mut is_first) {
                return Poll::Ready(());
            }
            core.borrow_mut().timer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
