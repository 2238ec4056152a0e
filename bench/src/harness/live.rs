//! The live view: one line that changes in a terminal, and else a line every few seconds.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::run::{Progress, Watcher};
use crate::latency::show;
use crate::report::thousands;

pub struct Live {
    bar: Option<ProgressBar>,
    last: Mutex<Instant>,
}

const PLAIN_EVERY: Duration = Duration::from_secs(5);

impl Live {
    pub fn start(seconds: f64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new((seconds * 1e3) as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent:>3} %  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, last: Mutex::new(Instant::now()) }
    }
}

impl Watcher for Live {
    fn show(&self, now: &Progress) {
        let line = line(now);
        if let Some(bar) = &self.bar {
            bar.set_position((now.at_seconds * 1e3) as u64);
            bar.set_message(line);
            return;
        }
        let Ok(mut last) = self.last.lock() else { return };
        if last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            eprintln!("{:>5.0} of {:.0} s  {line}", now.at_seconds, now.of_seconds);
        }
    }

    fn wants_shards(&self) -> bool {
        true
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(now: &Progress) -> String {
    let mut line = format!("{}/s", thousands(now.per_second));
    if let Some(response) = now.response {
        let [p50, p99, p999] = response.map(show);
        line += &format!("  p50 {p50}  p99 {p99}  p99.9 {p999}");
    }
    for (name, rate) in &now.shards {
        line += &format!("  {name} {}/s", thousands(*rate));
    }
    line + &format!("  errors {}  anomalies {}", now.failed, now.anomalies)
}
