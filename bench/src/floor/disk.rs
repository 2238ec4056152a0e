//! The device alone, through the same runtime: a small commit at a time, and sequential bandwidth.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use glommio::io::{DmaFile, OpenOptions};

use super::Options;
use super::server::executor;
use crate::latency::Latencies;
use crate::place;

/// Writes in flight when the bandwidth is measured.
pub const DEPTH: usize = 4;

const SIZES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
const BLOCK: usize = 4096;

#[derive(Clone, Default)]
pub struct Device {
    /// One block, written and flushed, one at a time.
    pub commit: Latencies,
    /// Bytes of a write, and bytes per second with [`DEPTH`] of them in flight.
    pub bandwidth: Vec<(usize, f64)>,
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("floor.data")
}

/// Makes the data file if it is not there: zeros written, flushed, its directory entry durable.
/// Every later write only overwrites, as in a segment prepared ahead.
pub fn prepare(folder: &Path, bytes: u64) -> io::Result<()> {
    let path = file_in(folder);
    if fs::metadata(&path).is_ok_and(|facts| facts.len() == bytes) {
        return Ok(());
    }
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(zeros.len() as u64);
        file.write_all(&zeros[..count as usize])?;
        left -= count;
    }
    file.sync_all()?;
    fs::File::open(folder)?.sync_all()?;
    // Reads one block directly, so that no page cache lingers in the way of direct writes.
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path)?;
    Ok(())
}

/// Opens the file that [`prepare`] made.
pub async fn open(folder: &Path) -> io::Result<Rc<DmaFile>> {
    probe(folder).await?;
    Ok(Rc::new(OpenOptions::new().read(true).write(true).dma_open(file_in(folder)).await?))
}

/// A file whose space is reserved, and nothing of it written.
pub async fn reserve(folder: &Path, bytes: u64) -> io::Result<Rc<DmaFile>> {
    probe(folder).await?;
    let path = folder.join("floor.reserved");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).dma_open(path).await?;
    file.pre_allocate(bytes, false).await?;
    file.fdatasync().await?;
    fs::File::open(folder)?.sync_all()?;
    Ok(Rc::new(file))
}

/// A device's first file decides how it is driven: see [`place::probe_file`].
async fn probe(folder: &Path) -> io::Result<()> {
    DmaFile::open(place::probe_file(folder)?).await?.close().await?;
    Ok(())
}

pub fn run(folder: &Path, options: &Options) -> io::Result<Device> {
    prepare(folder, options.file_bytes)?;
    let folder = folder.to_owned();
    let options = options.clone();
    executor(options.cores.broker)
        .spawn(move || async move {
            let file = open(&folder).await?;
            let commit = commits(&file, &options).await?;
            let mut bandwidth = Vec::new();
            for bytes in SIZES {
                bandwidth.push((bytes, sequential(&file, bytes, &options).await?));
            }
            let file = Rc::try_unwrap(file).map_err(|_| io::Error::other("a write is lost"))?;
            file.close().await?;
            io::Result::Ok(Device { commit, bandwidth })
        })?
        .join()?
}

async fn commits(file: &DmaFile, options: &Options) -> io::Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut buffer = file.alloc_dma_buffer(BLOCK);
    buffer.as_bytes_mut().fill(7);
    let buffer = Rc::new(buffer);
    let measure_from = Instant::now() + options.span.warm_up;
    let mut position = 0;
    loop {
        let start = Instant::now();
        if start >= measure_from + options.span.measured {
            return Ok(latencies);
        }
        file.write_rc_at(buffer.clone(), position).await?;
        file.fdatasync().await?;
        if start >= measure_from {
            latencies.record(start.elapsed());
        }
        position = (position + BLOCK as u64) % options.file_bytes;
    }
}

async fn sequential(file: &Rc<DmaFile>, bytes: usize, options: &Options) -> io::Result<f64> {
    let mut buffer = file.alloc_dma_buffer(bytes);
    buffer.as_bytes_mut().fill(7);
    let buffer = Rc::new(buffer);
    let mut in_flight = VecDeque::new();
    let mut position = 0;
    let mut written = 0;
    let start = Instant::now();
    while start.elapsed() < options.span.measured {
        while in_flight.len() < DEPTH {
            let (file, buffer) = (file.clone(), buffer.clone());
            let write = async move { file.write_rc_at(buffer, position).await };
            in_flight.push_back(glommio::spawn_local(write));
            position = (position + bytes as u64) % options.file_bytes;
        }
        if let Some(oldest) = in_flight.pop_front() {
            written += oldest.await?;
        }
    }
    let elapsed = start.elapsed();
    for write in in_flight {
        write.await?;
    }
    file.fdatasync().await?;
    Ok(written as f64 / elapsed.as_secs_f64())
}
