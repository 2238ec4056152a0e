//! Nothing at all, at the other end of a real socket: a thread that sends back what it gets. What a run against it shows
//! is the harness itself.
//!
//! ```text
//! stream of messages:  length u32 │ value      and the same comes back: it is the acknowledgment, and what a reader reads
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::{
    About, Driver, Failure, Message, Outbox, Placed, Producer, Reader, Record, Settled, TopicPlan,
};
use socket2::SockRef;

use crate::harness::mailbox::Mailbox;
use crate::os::{self, Epoll};
use crate::verify::content::{HEAD_BYTES, Identity};

const BUFFER_BYTES: usize = 256 << 10;

/// A wait of at least this long is a read that blocks, one call where a look at what is ready would take two.
const PATIENCE: Duration = Duration::from_millis(20);

/// Sends back what comes, on one core, for each connection until it is closed.
pub fn serve(cpu: usize) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            std::thread::spawn(move || echo(socket, cpu));
        }
    });
    Ok(address)
}

fn echo(mut socket: TcpStream, cpu: usize) -> io::Result<()> {
    os::pin_to(cpu)?;
    socket.set_nodelay(true)?;
    let mut bytes = vec![0; BUFFER_BYTES];
    loop {
        let count = os::uninterrupted(|| socket.read(&mut bytes))?;
        if count == 0 {
            return Ok(());
        }
        socket.write_all(&bytes[..count])?;
    }
}

pub struct Null {
    address: SocketAddr,
    /// What came back, for the reader.
    returned: Arc<Mailbox<Vec<u8>>>,
}

impl Null {
    pub fn connect(address: SocketAddr) -> Self {
        Self { address, returned: Arc::default() }
    }
}

impl Driver for Null {
    fn about(&self) -> About {
        About {
            name: "null".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ack: "none: the bytes came back from another thread".into(),
        }
    }

    fn make_topics(&self, _: &TopicPlan) -> io::Result<()> {
        Ok(())
    }

    fn producer(&self, outbox: Arc<Outbox>) -> io::Result<Box<dyn Producer>> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let epoll = Epoll::new()?;
        epoll.add(&socket, 0)?;
        Ok(Box::new(Line {
            socket,
            epoll,
            outbox,
            returned: Arc::clone(&self.returned),
            waiting: Vec::new(),
            written: 0,
            wants_write: false,
            incoming: vec![0; BUFFER_BYTES],
            received: Vec::new(),
            offset: 0,
        }))
    }

    fn reader(&self) -> io::Result<Box<dyn Reader>> {
        Ok(Box::new(Returned { returned: Arc::clone(&self.returned), offset: 0 }))
    }
}

struct Line {
    socket: TcpStream,
    epoll: Epoll,
    outbox: Arc<Outbox>,
    returned: Arc<Mailbox<Vec<u8>>>,
    /// Messages to be sent, from `written` on.
    waiting: Vec<u8>,
    written: usize,
    wants_write: bool,
    /// Room for one read.
    incoming: Vec<u8>,
    /// What has come back and is not yet whole.
    received: Vec<u8>,
    offset: u64,
}

impl Producer for Line {
    fn send(&mut self, message: &Message<'_>) -> Result<(), Failure> {
        self.waiting.extend_from_slice(&(message.value.len() as u32).to_le_bytes());
        self.waiting.extend_from_slice(message.value);
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> io::Result<()> {
        self.flush()?;
        if time >= PATIENCE && !self.wants_write {
            return self.receive();
        }
        let mut ready = self.epoll.wait(Some(time))?;
        if ready.any(|event| event.readable) {
            drop(ready);
            self.receive()?;
        }
        Ok(())
    }

    fn must_be_waited_for(&self) -> bool {
        true
    }
}

impl Line {
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.waiting.len() {
            match os::uninterrupted(|| {
                let socket = SockRef::from(&self.socket);
                socket.send_with_flags(&self.waiting[self.written..], libc::MSG_DONTWAIT)
            }) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let left = self.written < self.waiting.len();
        if !left {
            self.waiting.clear();
            self.written = 0;
        }
        if left != self.wants_write {
            self.wants_write = left;
            self.epoll.want_write(&self.socket, 0, left)?;
        }
        Ok(())
    }

    /// Reads once, and tells of the messages that came whole, those of one stream in a row together.
    fn receive(&mut self) -> io::Result<()> {
        let count = match os::uninterrupted(|| self.socket.read(&mut self.incoming)) {
            Ok(0) => return Err(io::Error::other("the null server closed the connection")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let at = self.outbox.clock.now();
        self.received.extend_from_slice(&self.incoming[..count]);
        let mut end = 0;
        let mut row: Option<Settled> = None;
        while let Some((value, rest)) = next_value(&self.received[end..]) {
            let Some(identity) = head(value) else {
                return Err(io::Error::other("the null server sent back what is no message"));
            };
            match &mut row {
                Some(row)
                    if row.first.producer == identity.producer
                        && row.first.number + u64::from(row.count) == identity.number =>
                {
                    row.count += 1;
                }
                _ => {
                    let placed =
                        Placed { partition: 0, offset: Some(self.offset), core: 0, stages: None };
                    let new = Settled { first: identity, count: 1, at, result: Ok(placed) };
                    if let Some(row) = row.replace(new) {
                        self.outbox.settle(row);
                    }
                }
            }
            self.offset += 1;
            end = self.received.len() - rest;
        }
        if let Some(row) = row {
            self.outbox.settle(row);
        }
        let left = self.received.split_off(end);
        self.returned.push(std::mem::replace(&mut self.received, left));
        Ok(())
    }
}

/// The first value, and how much follows it.
fn next_value(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((value, rest.len()))
}

/// Whose it says it is; the reader looks at every byte.
fn head(value: &[u8]) -> Option<Identity> {
    let head = value.first_chunk::<HEAD_BYTES>()?;
    let producer = u32::from_le_bytes(*head[8..].first_chunk()?);
    Some(Identity { producer, number: u64::from_le_bytes(*head[16..].first_chunk()?) })
}

struct Returned {
    returned: Arc<Mailbox<Vec<u8>>>,
    offset: u64,
}

impl Reader for Returned {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Record<'_>)) -> io::Result<()> {
        let mut lists = Vec::new();
        self.returned.take(&mut lists);
        if lists.is_empty() {
            std::thread::sleep(timeout.min(Duration::from_millis(5)));
        }
        for bytes in &lists {
            let mut at = 0;
            while let Some((value, rest)) = next_value(&bytes[at..]) {
                let (topic, partition) = (0, 0);
                take(Record {
                    topic,
                    partition,
                    offset: self.offset,
                    key: None,
                    value: Some(value),
                });
                self.offset += 1;
                at = bytes.len() - rest;
            }
        }
        Ok(())
    }
}
