//! The bare loop: a broker that has nothing but what no durable broker can do without.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};

use corelog_protocol::Durability;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{PartitionId, ShardId};
use futures_lite::AsyncReadExt;
use glommio::net::{TcpListener, TcpStream as GlommioStream};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::commit::{Asked, Commits};
use super::{Mode, Options, Space, disk};
use crate::load::{Spread, Target, wire};
use crate::os;

/// Several frames of the largest shape, and still at home in the second-level cache.
const RECEIVE_BYTES: usize = 256 << 10;

/// The level that the acks tell.
const LEVEL: Durability = Durability::LeaderDurable;

/// An executor with the broker's settings.
pub fn executor(cpu: usize) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name("floor")
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
}

pub struct Server {
    address: SocketAddr,
    thread: ExecutorJoinHandle<io::Result<()>>,
}

impl Server {
    pub fn target(&self) -> Target {
        Target {
            address: self.address,
            shard: ShardId(0),
            partitions: vec![PartitionId(1)],
            spread: Spread::One,
            level: LEVEL,
        }
    }

    /// Waits until all connections are closed.
    pub fn join(self) -> io::Result<()> {
        self.thread.join()?
    }
}

/// Starts the loop on the broker's core. It serves so many connections, and ends with the last.
pub fn start(
    folder: &Path,
    mode: Mode,
    connections: usize,
    options: &Options,
) -> io::Result<Server> {
    if options.space == Space::Written {
        disk::prepare(folder, options.file_bytes)?;
    }
    let folder = folder.to_owned();
    let (space, file_bytes) = (options.space, options.file_bytes);
    let (tell, told) = mpsc::channel();
    let thread = executor(options.cores.broker).spawn(move || async move {
        let file = match space {
            Space::Written => disk::open(&folder).await?,
            Space::Reserved => disk::reserve(&folder, file_bytes).await?,
        };
        let commits = Rc::new(Commits::new(mode, file.clone(), file_bytes));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let _ = tell.send(listener.local_addr()?);
        Loop::new(commits, mode).serve(&listener, connections).await?;
        // An executor that ends leaves its files open, and so their space taken.
        let file = Rc::try_unwrap(file).map_err(|_| io::Error::other("a write is lost"))?;
        Ok(file.close().await?)
    })?;
    let address = match told.recv() {
        Ok(address) => address,
        Err(_) => {
            thread.join()??;
            return Err(io::Error::other("the floor's server ended at its start"));
        }
    };
    Ok(Server { address, thread })
}

/// The sending half of a connection: a descriptor of its own, and acks that are not yet sent.
struct Out {
    socket: TcpStream,
    bytes: Vec<u8>,
}

struct Loop {
    commits: Rc<Commits>,
    mode: Mode,
    outs: RefCell<Vec<Out>>,
    touched: RefCell<Vec<usize>>,
    turn: Cell<bool>,
    turn_waker: Cell<Option<Waker>>,
    offset: Cell<u64>,
}

impl Loop {
    fn new(commits: Rc<Commits>, mode: Mode) -> Rc<Self> {
        Rc::new(Self {
            commits,
            mode,
            outs: RefCell::default(),
            touched: RefCell::default(),
            turn: Cell::new(false),
            turn_waker: Cell::new(None),
            offset: Cell::new(0),
        })
    }

    async fn serve(self: Rc<Self>, listener: &TcpListener, connections: usize) -> io::Result<()> {
        let turns = glommio::spawn_local(self.clone().turns());
        let mut tasks = Vec::new();
        for index in 0..connections {
            let stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            let socket = os::duplicate(stream.as_raw_fd())?;
            self.outs.borrow_mut().push(Out { socket, bytes: Vec::new() });
            tasks.push(glommio::spawn_local(self.clone().connection(index, stream)));
        }
        for task in tasks {
            task.await?;
        }
        while !self.commits.is_idle() {
            glommio::timer::sleep(std::time::Duration::from_millis(1)).await;
        }
        turns.cancel().await;
        Ok(())
    }

    /// Starts commits, after all connections that are ready have been read.
    async fn turns(self: Rc<Self>) {
        let own = self.clone();
        let acknowledge = Rc::new(move |asked: &[Asked]| own.acknowledge(asked));
        loop {
            poll_fn(|context| {
                if self.turn.replace(false) {
                    return Poll::Ready(());
                }
                self.turn_waker.set(Some(context.waker().clone()));
                Poll::Pending
            })
            .await;
            self.commits.start(&acknowledge);
        }
    }

    fn ask_for_a_turn(&self) {
        if !self.turn.replace(true)
            && let Some(waker) = self.turn_waker.take()
        {
            waker.wake();
        }
    }

    async fn connection(self: Rc<Self>, index: usize, mut stream: GlommioStream) -> io::Result<()> {
        let mut bytes = vec![0; RECEIVE_BYTES];
        let mut filled = 0;
        let mut opened = false;
        loop {
            let count = stream.read(&mut bytes[filled..]).await?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
            let mut at = 0;
            if !opened {
                if filled < wire::PREAMBLE_BYTES {
                    continue;
                }
                at = wire::PREAMBLE_BYTES;
                opened = true;
            }
            while let Some(frame) = wire::frame(&bytes[at..filled]).map_err(io::Error::other)? {
                if frame.kind == FrameKind::Hello {
                    wire::hello_reply(&mut self.outs.borrow_mut()[index].bytes);
                    self.send(index);
                } else {
                    self.produce(index, &frame).await?;
                }
                at += frame.bytes;
            }
            bytes.copy_within(at..filled, 0);
            filled -= at;
            if self.mode == Mode::Memory {
                self.send(index);
            } else {
                self.ask_for_a_turn();
            }
        }
    }

    async fn produce(&self, index: usize, frame: &wire::Frame<'_>) -> io::Result<()> {
        if frame.kind != FrameKind::Produce || !wire::batch_is_intact(frame.payload) {
            return Err(io::Error::other("the load sent something broken"));
        }
        while !self.commits.append((index, frame.correlation), frame.payload) {
            self.ask_for_a_turn();
            self.commits.room().await;
        }
        if self.mode == Mode::Memory {
            self.write_ack((index, frame.correlation));
        }
        Ok(())
    }

    fn write_ack(&self, (index, correlation): Asked) {
        let offset = self.offset.replace(self.offset.get() + 1);
        wire::ack(&mut self.outs.borrow_mut()[index].bytes, correlation, LEVEL, offset);
    }

    /// One send per connection for all acks of a commit.
    fn acknowledge(&self, asked: &[Asked]) {
        let mut touched = self.touched.borrow_mut();
        for &asked in asked {
            if self.outs.borrow()[asked.0].bytes.is_empty() {
                touched.push(asked.0);
            }
            self.write_ack(asked);
        }
        for index in touched.drain(..) {
            self.send(index);
        }
    }

    /// The socket takes all of it: a load that does not read its acks would deserve the panic.
    fn send(&self, index: usize) {
        let Out { socket, bytes } = &mut self.outs.borrow_mut()[index];
        if !bytes.is_empty() {
            match socket.write_all(bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the load does not read its acks")
                }
                Err(_) => {} // The load is gone; its connection ends at the next read.
            }
            bytes.clear();
        }
    }
}
