//! A place in a partition, as `--from` and `--until` name it.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use corelog::{Offset, Position};

use crate::units::span;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Beginning,
    End,
    Offset(u64),
    /// Milliseconds since 1970.
    Time(i64),
}

impl Place {
    pub fn position(self) -> Position {
        match self {
            Self::Beginning => Position::Beginning,
            Self::End => Position::End,
            Self::Offset(offset) => Position::Offset(Offset(offset)),
            Self::Time(ms) => Position::Time(ms),
        }
    }
}

/// Milliseconds since 1970.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Some(offset) = text.strip_prefix("offset:") {
            let offset = offset.parse().map_err(|_| "an offset is a number from 0")?;
            return Ok(Self::Offset(offset));
        }
        if let Some(time) = text.strip_prefix("time:") {
            return time_of(time).map(Self::Time);
        }
        // A bare number is an offset: what people write first.
        match text.parse() {
            Ok(offset) => Ok(Self::Offset(offset)),
            Err(_) => Err("write beginning, end, offset:42, time:2026-01-31T12:00:00Z or \
                           time:-10m (ten minutes ago)"
                .into()),
        }
    }
}

fn time_of(text: &str) -> Result<i64, String> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago = i64::try_from(span(ago)?.as_millis()).unwrap_or(i64::MAX);
        return Ok(wall_ms().saturating_sub(ago).max(0));
    }
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| {
        format!("{error}: write 2026-01-31T12:00:00Z, -10m for ten minutes ago, or ms since 1970")
    })?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        for (text, place) in [
            ("beginning", Place::Beginning),
            ("end", Place::End),
            ("42", Place::Offset(42)),
            ("offset:42", Place::Offset(42)),
            ("time:1700000000000", Place::Time(1_700_000_000_000)),
            ("time:2023-11-14T22:13:20Z", Place::Time(1_700_000_000_000)),
            ("time:2023-11-14 22:13:20.5", Place::Time(1_700_000_000_500)),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        let ago = wall_ms() - 600_000;
        let Ok(Place::Time(ms)) = "time:-10m".parse() else { panic!("no time") };
        assert!((ago..=ago + 60_000).contains(&ms));
        for text in ["", "offset:", "offset:-1", "time:", "time:noon", "-5", "start"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
