//! Connections that are only there: idle ones, and ones that send a byte a second.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corelog_protocol::Durability;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{PartitionId, ShardId};
use socket2::{Domain, Socket, Type};

use crate::load::wire;

/// Below the broker's limit of connections from one address, 256.
const PER_ADDRESS: usize = 200;

/// The `number`-th loopback address, none of which is 127.0.0.1.
pub fn source(number: usize) -> Ipv4Addr {
    let number = number % (250 * 250);
    Ipv4Addr::new(127, 1, (number / 250) as u8, (1 + number % 250) as u8)
}

/// A connection from that address.
pub fn connect(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // A port whose last connection has just ended may be taken again.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&address.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// A connection that has said hello.
fn greet(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(source, address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&wire::opening(ShardId::ANY))?;
    let mut bytes = vec![0; 32];
    stream.read_exact(&mut bytes)?;
    let header = FrameHeader::decode(&bytes, wire::FRAME_BYTES_MAX).map_err(io::Error::other)?;
    if header.kind != FrameKind::HelloReply {
        return Err(io::Error::other(format!("no hello but {}", header.kind)));
    }
    bytes.resize(header.frame_bytes(), 0);
    stream.read_exact(&mut bytes[32..])?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// All of them.
pub struct Crowd {
    address: SocketAddr,
    idle: Vec<TcpStream>,
    count: usize,
    slow: Option<JoinHandle<io::Result<usize>>>,
    is_over: Arc<AtomicBool>,
    slow_since: Instant,
}

impl Crowd {
    pub fn new(address: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        Self {
            address,
            idle: Vec::new(),
            count: 0,
            slow: None,
            is_over,
            slow_since: Instant::now(),
        }
    }

    fn greet(&mut self) -> io::Result<TcpStream> {
        let stream = greet(source(self.count / PER_ADDRESS), self.address).map_err(|error| {
            io::Error::other(format!("connection {} of the crowd: {error}", self.count + 1))
        })?;
        self.count += 1;
        Ok(stream)
    }

    pub fn add_idle(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let stream = self.greet()?;
            self.idle.push(stream);
        }
        Ok(())
    }

    /// Begins a frame on each of them; from then on a thread adds a byte a second.
    pub fn add_slow(&mut self, count: usize) -> io::Result<()> {
        let batch = wire::batch(64, 1024);
        let frame = wire::produce(PartitionId(1), Durability::QuorumDurable, &batch);
        let mut slow = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = self.greet()?;
            stream.write_all(&frame[..1])?;
            slow.push(stream);
        }
        self.slow_since = Instant::now();
        let is_over = Arc::clone(&self.is_over);
        self.slow = Some(std::thread::spawn(move || trickle(slow, &frame, &is_over)));
        // Each has got its buffer when a few bytes are there.
        std::thread::sleep(Duration::from_millis(2_500));
        Ok(())
    }

    /// How many idle ones have been closed.
    pub fn lost_idle(&self) -> usize {
        self.idle.iter().filter(|stream| is_closed(stream)).count()
    }

    /// Waits until the broker has cut off the slow ones, at most so long since they began. Gives how many it has
    /// not.
    pub fn wait_for_slow(&mut self, time_max: Duration) -> io::Result<usize> {
        let Some(slow) = self.slow.take() else { return Ok(0) };
        while !slow.is_finished() && self.slow_since.elapsed() < time_max {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.is_over.store(true, Ordering::SeqCst);
        slow.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))
    }

    /// Hangs up, and gives the broker a moment to notice.
    pub fn leave(self) {
        drop(self.idle);
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Gives how many were still open at the end.
fn trickle(mut slow: Vec<TcpStream>, frame: &[u8], is_over: &AtomicBool) -> io::Result<usize> {
    let start = Instant::now();
    for (second, byte) in (1..).zip(&frame[1..]) {
        while start.elapsed() < Duration::from_secs(second) {
            if is_over.load(Ordering::SeqCst) {
                return Ok(slow.len());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        slow.retain_mut(|stream| !is_closed(stream) && stream.write_all(&[*byte]).is_ok());
        if slow.is_empty() {
            break;
        }
    }
    Ok(slow.len())
}
