//! Disk orders on glommio: a queue, and a set of worker tasks that is reused, so that a commit
//! spawns nothing. Reads and writes are direct and at most 1 MiB each.
//!
//! What has no operation of its own in the ring (folders, listings, removals) runs on the blocking
//! pool. An order begun is always awaited, also in an abort: memory lent to the kernel must outlive
//! the write.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use glommio::GlommioError;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use crate::disk::{DirectoryId, DiskDone, DiskError, DiskOrder, FileId, ListedFile, OpId, Place};
use crate::driver::core::Core;
use crate::limits::BLOCK_BYTES;
use crate::memory::{Memory, Slot};

/// Longest single read or write; longer ones are split.
const IO_BYTES_MAX: usize = 1 << 20;

/// Orders carried out at the same time. More wait: a device is busy long before.
pub const WORKERS_MAX: usize = 64;

/// A file as the shard opened it.
pub struct OpenFile {
    dma: DmaFile,
    path: PathBuf,
}

/// The queue of orders, and the open files.
pub struct Disks {
    directories: Vec<PathBuf>,
    files: BTreeMap<FileId, Rc<OpenFile>>,
    queue: VecDeque<(OpId, DiskOrder)>,
    idle: Vec<Waker>,
    in_flight: usize,
    /// Zeros to write, made when first needed.
    zeros: Option<Rc<DmaBuffer>>,
}

impl Disks {
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            files: BTreeMap::new(),
            queue: VecDeque::new(),
            idle: Vec::new(),
            in_flight: 0,
            zeros: None,
        }
    }

    pub fn push(&mut self, op: OpId, order: DiskOrder) {
        self.queue.push_back((op, order));
        if let Some(waker) = self.idle.pop() {
            waker.wake();
        }
    }

    pub fn poll_order(&mut self, cx: &Context<'_>) -> Poll<Option<(OpId, DiskOrder)>> {
        match self.queue.pop_front() {
            Some(order) => {
                self.in_flight += 1;
                Poll::Ready(Some(order))
            }
            None => {
                if !self.idle.iter().any(|waker| waker.will_wake(cx.waker())) {
                    self.idle.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    pub fn finished(&mut self) {
        self.in_flight -= 1;
    }

    /// Orders begun and not complete.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Drops what was not begun and sends the workers home.
    pub fn forget_queue(&mut self) {
        self.queue.clear();
        for waker in self.idle.drain(..) {
            waker.wake();
        }
    }

    pub fn file(&self, file: FileId) -> Option<Rc<OpenFile>> {
        self.files.get(&file).cloned()
    }

    pub fn take_files(&mut self) -> Vec<Rc<OpenFile>> {
        std::mem::take(&mut self.files).into_values().collect()
    }

    fn directory(&self, id: DirectoryId) -> PathBuf {
        self.directories[usize::from(id.0)].clone()
    }

    fn path(&self, place: &Place) -> PathBuf {
        self.directories[usize::from(place.directory.0)].join(&*place.path)
    }
}

/// One worker: takes orders until the shard dies.
pub async fn work(core: Rc<Core>) {
    while let Some((op, order)) =
        std::future::poll_fn(|cx| core.with(|inner| inner.poll_order(cx))).await
    {
        let done = match carry_out(&core, order).await {
            Ok(done) => done,
            Err(error) => DiskDone::Failed(error),
        };
        core.with(|inner| inner.on_order_done(op, done));
    }
}

async fn carry_out(core: &Core, order: DiskOrder) -> Result<DiskDone, DiskError> {
    match order {
        // The three of the commit path first.
        DiskOrder::Write { file, position, slot, len } => {
            let written = write(core, file, position, slot, len as usize).await;
            #[cfg(feature = "delays")]
            super::delays::at(super::delays::Stage::Write).await;
            core.with(|inner| inner.memory.release(slot));
            written
        }
        DiskOrder::Flush { file } => {
            let file = file_of(core, file)?;
            file.dma.fdatasync().await.map_err(kind)?;
            #[cfg(feature = "delays")]
            super::delays::at(super::delays::Stage::Flush).await;
            Ok(DiskDone::Done)
        }
        DiskOrder::Read { file, position, slot, len } => {
            read(core, file, position, slot, len as usize).await
        }
        DiskOrder::Zero { file, position, len } => zero(core, file, position, len as usize).await,
        DiskOrder::Open { file, place } => {
            let path = core.with(|inner| inner.disks.path(&place));
            let dma =
                OpenOptions::new().read(true).write(true).dma_open(&path).await.map_err(kind)?;
            let bytes = dma.file_size().await.map_err(kind)?;
            keep(core, file, OpenFile { dma, path });
            Ok(DiskDone::Opened { bytes })
        }
        DiskOrder::Create { file, place, bytes } => {
            let path = core.with(|inner| inner.disks.path(&place));
            let dma = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .dma_open(&path)
                .await
                .map_err(kind)?;
            if let Err(error) = dma.pre_allocate(bytes, false).await {
                let error = kind(error);
                _ = dma.close().await;
                blocking(move || std::fs::remove_file(path)).await?;
                return Err(error);
            }
            keep(core, file, OpenFile { dma, path });
            Ok(DiskDone::Done)
        }
        DiskOrder::Rename { file, to } => {
            let from = file_of(core, file)?.path.clone();
            let path = core.with(|inner| inner.disks.path(&to));
            let target = path.clone();
            blocking(move || std::fs::rename(from, target)).await?;
            rename_open(core, file, path)?;
            Ok(DiskDone::Done)
        }
        DiskOrder::Close { file } => {
            let open = core.with(|inner| inner.disks.files.remove(&file));
            let open = open.ok_or(DiskError::Missing)?;
            // The table held the only reference: no order for the file is in flight.
            let open = Rc::into_inner(open).ok_or(DiskError::Io)?;
            open.dma.close().await.map_err(kind)?;
            Ok(DiskDone::Done)
        }
        DiskOrder::Remove { place } => {
            let path = core.with(|inner| inner.disks.path(&place));
            blocking(move || match std::fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            })
            .await?;
            Ok(DiskDone::Done)
        }
        DiskOrder::MakeFolder { place } => {
            let root = core.with(|inner| inner.disks.directory(place.directory));
            blocking(move || make_folder(&root, &place.path)).await?;
            Ok(DiskDone::Done)
        }
        DiskOrder::SyncFolder { place } => {
            let path = core.with(|inner| inner.disks.path(&place));
            blocking(move || std::fs::File::open(path)?.sync_all()).await?;
            Ok(DiskDone::Done)
        }
        DiskOrder::List { place } => {
            let path = core.with(|inner| inner.disks.path(&place));
            Ok(DiskDone::Listed { files: blocking(move || list(&path)).await? })
        }
        DiskOrder::Space { directory } => {
            let path = core.with(|inner| inner.disks.directory(directory));
            let free_bytes = blocking(move || corelog_tuning::free_bytes(&path)).await?;
            Ok(DiskDone::Space { free_bytes })
        }
    }
}

async fn write(
    core: &Core,
    file: FileId,
    position: u64,
    slot: Slot,
    len: usize,
) -> Result<DiskDone, DiskError> {
    check_aligned(position, len)?;
    let file = file_of(core, file)?;
    let first_len = len.min(IO_BYTES_MAX);
    let loan = Loan::new(core, slot);
    let buffer = core.with(|inner| inner.memory.prefix(slot, first_len));
    let written = file.dma.write_rc_at(buffer, position).await.map_err(kind)?;
    exactly(written, first_len)?;
    let mut done = first_len;
    while done < len {
        // Only an entry above 1 MiB comes here: it pays a copy for each further piece.
        let part = (len - done).min(IO_BYTES_MAX);
        let mut buffer = glommio::allocate_dma_buffer(part);
        core.with(|inner| {
            buffer.as_bytes_mut().copy_from_slice(&inner.memory.bytes(slot)[done..done + part]);
        });
        let written = file.dma.write_at(buffer, position + done as u64).await.map_err(kind)?;
        exactly(written, part)?;
        done += part;
    }
    drop(loan);
    Ok(DiskDone::Done)
}

async fn read(
    core: &Core,
    file: FileId,
    position: u64,
    slot: Slot,
    len: usize,
) -> Result<DiskDone, DiskError> {
    check_aligned(position, len)?;
    let file = file_of(core, file)?;
    let mut done = 0;
    while done < len {
        let part = (len - done).min(IO_BYTES_MAX);
        let result = file.dma.read_at_aligned(position + done as u64, part).await.map_err(kind)?;
        // The count is the kernel's for an aligned read. Fewer bytes than asked for means that
        // the file ends before.
        exactly(result.len(), part)?;
        core.with(|inner| {
            inner.memory.bytes_mut(slot)[done..done + part].copy_from_slice(&result);
        });
        done += part;
    }
    Ok(DiskDone::Done)
}

async fn zero(core: &Core, file: FileId, position: u64, len: usize) -> Result<DiskDone, DiskError> {
    check_aligned(position, len)?;
    let file = file_of(core, file)?;
    let mut done = 0;
    while done < len {
        let part = (len - done).min(IO_BYTES_MAX);
        let zeros = zeros(core, part);
        let written = file.dma.write_rc_at(zeros, position + done as u64).await.map_err(kind)?;
        exactly(written, part)?;
        done += part;
    }
    Ok(DiskDone::Done)
}

/// A buffer of zeros, kept for the next time: steps are all of one length but the last.
fn zeros(core: &Core, len: usize) -> Rc<DmaBuffer> {
    core.with(|inner| match &inner.disks.zeros {
        Some(zeros) if zeros.len() == len => Rc::clone(zeros),
        _ => {
            // From the heap: registered memory is for commits.
            let mut zeros = glommio::allocate_dma_buffer_global(len);
            zeros.as_bytes_mut().fill(0);
            let zeros = Rc::new(zeros);
            inner.disks.zeros = Some(Rc::clone(&zeros));
            zeros
        }
    })
}

/// Keeps a slot unchanged while the kernel reads it.
struct Loan<'a> {
    core: &'a Core,
    slot: Slot,
}

impl<'a> Loan<'a> {
    fn new(core: &'a Core, slot: Slot) -> Self {
        core.with(|inner| inner.memory.lend(slot));
        Self { core, slot }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.core.with(|inner| inner.memory.give_back(self.slot));
    }
}

fn keep(core: &Core, file: FileId, open: OpenFile) {
    let before = core.with(|inner| inner.disks.files.insert(file, Rc::new(open)));
    assert!(before.is_none(), "a file number is used twice");
}

fn rename_open(core: &Core, file: FileId, path: PathBuf) -> Result<(), DiskError> {
    core.with(|inner| {
        let open = inner.disks.files.get_mut(&file).ok_or(DiskError::Missing)?;
        match Rc::get_mut(open) {
            Some(open) => open.path = path,
            // Another order for the file is in flight; it has its own path to look at.
            None => {
                let dma = open.dma.dup().map_err(kind)?;
                *open = Rc::new(OpenFile { dma, path });
            }
        }
        Ok(())
    })
}

fn file_of(core: &Core, file: FileId) -> Result<Rc<OpenFile>, DiskError> {
    core.with(|inner| inner.file(file)).ok_or(DiskError::Missing)
}

fn check_aligned(position: u64, len: usize) -> Result<(), DiskError> {
    let block = BLOCK_BYTES as u64;
    assert!(position.is_multiple_of(block) && len.is_multiple_of(BLOCK_BYTES) && len > 0);
    Ok(())
}

fn exactly(count: usize, expected: usize) -> Result<(), DiskError> {
    if count == expected { Ok(()) } else { Err(DiskError::Io) }
}

fn kind<T>(error: GlommioError<T>) -> DiskError {
    kind_of_code(error.raw_os_error())
}

fn kind_of_code(code: Option<i32>) -> DiskError {
    match code {
        Some(libc::ENOSPC | libc::EDQUOT) => DiskError::Full,
        Some(libc::ENOENT) => DiskError::Missing,
        Some(libc::EEXIST) => DiskError::Exists,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => DiskError::Resources,
        _ => DiskError::Io,
    }
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DiskError> {
    let result = glommio::executor().spawn_blocking(act).await;
    result.map_err(|error| kind_of_code(error.raw_os_error()))
}

/// Makes a folder below `root`, and every directory entry on the way durable.
fn make_folder(root: &Path, path: &str) -> io::Result<()> {
    let full = root.join(path);
    std::fs::create_dir_all(&full)?;
    for folder in full.ancestors() {
        std::fs::File::open(folder)?.sync_all()?;
        if folder == root {
            break;
        }
    }
    Ok(())
}

fn list(path: &Path) -> io::Result<Vec<ListedFile>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned().into_boxed_str();
            files.push(ListedFile { name, bytes: metadata.len() });
        }
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(files)
}

/// Closes what is still open, at the end of a shard.
pub async fn close_all(core: &Core) {
    for file in core.with(|inner| inner.disks.take_files()) {
        if let Some(file) = Rc::into_inner(file) {
            _ = file.dma.close().await;
        }
    }
}

/// Shows the executor each data device with a file that is not empty: it decides at the first file
/// whether a device can be polled, and an empty one makes it decide wrongly.
pub async fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join("corelog.meta");
    let file = DmaFile::open(&path).await.map_err(io::Error::from)?;
    let block = file.read_at_aligned(0, BLOCK_BYTES).await.map_err(io::Error::from)?;
    if block.len() != BLOCK_BYTES {
        return Err(io::Error::other("the probe file is shorter than a block"));
    }
    file.close().await.map_err(io::Error::from)
}

/// Spawns the workers of a shard.
pub fn spawn_workers(core: &Rc<Core>) {
    for _ in 0..WORKERS_MAX {
        glommio::spawn_local(work(Rc::clone(core))).detach();
    }
}
