//! Delays that are put into a stage on purpose, so that a measurement can be shown to find them. Exists with the feature
//! `delays` only, which no release has.
//!
//! `CORELOG_DELAYS=flush=1000,write=50`: so many microseconds more for each.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// By its name in the stage times of an acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Until the commit is closed.
    Append,
    Write,
    Flush,
}

/// Shorter ones are spun: a timer would add as much again.
const SPUN_MAX: Duration = Duration::from_micros(200);

/// Waits as long as the environment says.
pub async fn at(stage: Stage) {
    let Some(delay) = delay_of(stage) else { return };
    if delay > SPUN_MAX {
        return glommio::timer::sleep(delay).await;
    }
    let begin = Instant::now();
    while begin.elapsed() < delay {
        std::hint::spin_loop();
    }
}

fn delay_of(stage: Stage) -> Option<Duration> {
    static DELAYS: OnceLock<String> = OnceLock::new();
    let text = DELAYS.get_or_init(|| std::env::var("CORELOG_DELAYS").unwrap_or_default());
    parse(text, stage)
}

fn parse(text: &str, stage: Stage) -> Option<Duration> {
    let name = match stage {
        Stage::Append => "append",
        Stage::Write => "write",
        Stage::Flush => "flush",
    };
    let of = |entry: &str| {
        let (known, micros) = entry.split_once('=')?;
        (known.trim() == name).then(|| micros.trim().parse().ok().map(Duration::from_micros))?
    };
    text.split(',').find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_its_own_delay() {
        let text = "flush=1000, write=50";
        assert_eq!(parse(text, Stage::Flush), Some(Duration::from_millis(1)));
        assert_eq!(parse(text, Stage::Write), Some(Duration::from_micros(50)));
        assert_eq!(parse(text, Stage::Append), None);
        assert_eq!(parse("", Stage::Flush), None);
    }
}
