//! Group commit at its barest: batches gather in an aligned buffer while a commit is under way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use glommio::io::{DmaBuffer, DmaFile};

/// What an acknowledgment of the bare loop means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The batch was copied.
    Memory,
    /// The write is complete; nothing was flushed.
    Unflushed,
    /// A flush that was issued after the write's completion is complete.
    Durable,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "in memory",
            Self::Unflushed => "O_DIRECT, no flush",
            Self::Durable => "durable",
        }
    }
}

const BLOCK: usize = 4096;
/// A commit stops growing here. Room for one more frame lies behind it.
const TARGET_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = TARGET_BYTES + (128 << 10);
const IN_FLIGHT_MAX: usize = 4;
/// While a commit is under way, the next one starts when so much has gathered.
const PIPELINE_BYTES: usize = 64 << 10;
/// As large as the broker's headers of a commit and of an entry.
const HEADER_BYTES: usize = 64;

/// Who is to be told: connection and correlation.
pub type Asked = (usize, u64);

struct Gathering {
    buffer: DmaBuffer,
    filled: usize,
    asked: Vec<Asked>,
}

struct UnderWay {
    number: u64,
    asked: Vec<Asked>,
    complete: bool,
}

/// The log of the bare loop. Shared by the tasks of one core, and never borrowed across an await.
pub struct Commits {
    mode: Mode,
    file: Rc<DmaFile>,
    file_bytes: u64,
    position: Cell<u64>,
    gathering: RefCell<Option<Gathering>>,
    under_way: RefCell<VecDeque<UnderWay>>,
    number: Cell<u64>,
    waiting_for_room: RefCell<Vec<Waker>>,
    lists: RefCell<Vec<Vec<Asked>>>,
}

impl Commits {
    pub fn new(mode: Mode, file: Rc<DmaFile>, file_bytes: u64) -> Self {
        Self {
            mode,
            file,
            file_bytes,
            position: Cell::new(0),
            gathering: RefCell::default(),
            under_way: RefCell::default(),
            number: Cell::new(0),
            waiting_for_room: RefCell::default(),
            lists: RefCell::default(),
        }
    }

    /// Copies a batch into the commit under construction. False if it is full: see [`Self::room`].
    pub fn append(&self, asked: Asked, batch: &[u8]) -> bool {
        let mut slot = self.gathering.borrow_mut();
        let gathering = slot.get_or_insert_with(|| Gathering {
            buffer: self.file.alloc_dma_buffer(BUFFER_BYTES),
            filled: HEADER_BYTES,
            asked: self.lists.borrow_mut().pop().unwrap_or_default(),
        });
        let start = gathering.filled + HEADER_BYTES;
        let end = (start + batch.len()).next_multiple_of(8);
        if end > BUFFER_BYTES || (gathering.filled >= TARGET_BYTES) {
            return false;
        }
        let bytes = gathering.buffer.as_bytes_mut();
        bytes[gathering.filled..start].fill(1);
        bytes[start..start + batch.len()].copy_from_slice(batch);
        gathering.filled = end;
        gathering.asked.push(asked);
        if self.mode == Mode::Memory {
            // Nothing is written: the buffer starts over.
            gathering.asked.clear();
            if gathering.filled >= TARGET_BYTES {
                gathering.filled = HEADER_BYTES;
            }
        }
        true
    }

    /// Waits until a full commit has left.
    pub async fn room(&self) {
        let mut asked_once = false;
        poll_fn(|context| {
            if std::mem::replace(&mut asked_once, true) {
                return Poll::Ready(());
            }
            self.waiting_for_room.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Starts a commit if that is due: at once when none is under way, else when enough gathered.
    pub fn start(self: &Rc<Self>, acknowledge: &Rc<impl Fn(&[Asked]) + 'static>) {
        let mut under_way = self.under_way.borrow_mut();
        let mut slot = self.gathering.borrow_mut();
        let Some(gathering) = &*slot else { return };
        let pipelined = under_way.len() < IN_FLIGHT_MAX && gathering.filled >= PIPELINE_BYTES;
        if self.mode == Mode::Memory || !(under_way.is_empty() || pipelined) {
            return;
        }
        let Some(mut gathering) = slot.take() else { return };
        let bytes = gathering.filled.next_multiple_of(BLOCK);
        gathering.buffer.as_bytes_mut()[gathering.filled..bytes].fill(0);
        gathering.buffer.trim_to_size(bytes);
        let mut position = self.position.get();
        if position + bytes as u64 > self.file_bytes {
            position = 0;
        }
        self.position.set(position + bytes as u64);
        let number = self.number.replace(self.number.get() + 1);
        under_way.push_back(UnderWay { number, asked: gathering.asked, complete: false });
        self.waiting_for_room.borrow_mut().drain(..).for_each(Waker::wake);
        let (commits, acknowledge) = (self.clone(), acknowledge.clone());
        let buffer = Rc::new(gathering.buffer);
        glommio::spawn_local(async move {
            if let Err(error) = commits.write(buffer, position).await {
                panic!("the floor's disk failed: {error}");
            }
            commits.finish(number, &*acknowledge);
            commits.start(&acknowledge);
        })
        .detach();
    }

    async fn write(&self, buffer: Rc<DmaBuffer>, position: u64) -> io::Result<()> {
        let bytes = buffer.len();
        let written = self.file.write_rc_at(buffer, position).await?;
        if written != bytes {
            return Err(io::Error::other("a short write"));
        }
        if self.mode == Mode::Durable {
            self.file.fdatasync().await?;
        }
        Ok(())
    }

    /// Acknowledges in order: a commit that is complete waits for those before it.
    fn finish(&self, number: u64, acknowledge: &impl Fn(&[Asked])) {
        let mut under_way = self.under_way.borrow_mut();
        if let Some(commit) = under_way.iter_mut().find(|commit| commit.number == number) {
            commit.complete = true;
        }
        while under_way.front().is_some_and(|commit| commit.complete) {
            if let Some(mut commit) = under_way.pop_front() {
                acknowledge(&commit.asked);
                commit.asked.clear();
                self.lists.borrow_mut().push(commit.asked);
            }
        }
    }

    /// Whether nothing gathers and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.borrow().is_empty()
            && (self.mode == Mode::Memory || self.gathering.borrow().is_none())
    }
}
