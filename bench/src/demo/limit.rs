//! A limit for everything: what hangs must not hang whoever watches.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use indicatif::ProgressBar;

/// Ends the process with a sentence if it is not ended before.
pub struct TimeLimit {
    end: Sender<()>,
}

impl TimeLimit {
    /// `folder` is removed as well as it can be when the time is up.
    pub fn start(time: Duration, folder: &Path, bar: &ProgressBar) -> Self {
        let (end, ended) = channel();
        let (folder, bar) = (folder.to_owned(), bar.clone());
        std::thread::spawn(move || {
            if ended.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let doing = bar.message();
            bar.finish_and_clear();
            println!("FAILED: not done after {} s, while: {doing}.", time.as_secs());
            _ = std::fs::remove_dir_all(folder);
            std::process::exit(1);
        });
        Self { end }
    }

    /// All is done.
    pub fn end(self) {
        _ = self.end.send(());
    }
}
