//! Times, sizes and texts as people write them.

use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// How long something is kept. 0 ms: for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Age {
    pub ms: u64,
}

/// How much of something is kept. 0: all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes {
    pub bytes: u64,
}

/// A text in which `\t` stands for a tab and `\\` for a backslash. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text(pub Vec<u8>);

/// A length of time: `500ms`, `10s`, `1h 30m`, `7d`.
pub fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}: write a number with a unit, such as 500ms, 10s or 7d"))
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self { ms: 0 });
        }
        let ms = span(text)?.as_millis();
        match u64::try_from(ms) {
            Ok(0) | Err(_) => Err("choose 1ms or more, or \"forever\"".into()),
            Ok(ms) => Ok(Self { ms }),
        }
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self { bytes: 0 });
        }
        match text.parse::<ByteSize>() {
            Ok(ByteSize(0)) => Err("choose 1 byte or more, or \"unlimited\"".into()),
            Ok(ByteSize(bytes)) => Ok(Self { bytes }),
            Err(_) => Err("write a number of bytes, such as 1048576, 500MiB or 10GiB".into()),
        }
    }
}

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'\\' => match rest.next() {
                    Some(b't') => b'\t',
                    Some(b'\\') => b'\\',
                    _ => return Err(r"after a backslash comes t or another backslash".into()),
                },
                byte => byte,
            });
        }
        if bytes.is_empty() { Err("it is empty".into()) } else { Ok(Self(bytes)) }
    }
}

/// A length of time that is not zero.
pub fn objective(text: &str) -> Result<Duration, String> {
    match span(text) {
        Ok(time) if time.is_zero() => Err("no record is stored in no time".into()),
        other => other,
    }
}

/// `NAME=VALUE`.
pub fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if name.len() > 255 => Err("a name has at most 255 bytes".into()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write NAME=VALUE".into()),
    }
}

/// `TOPIC/NUMBER`.
pub fn partition(text: &str) -> Result<(String, u32), String> {
    let parts = text.rsplit_once('/').filter(|(topic, _)| !topic.is_empty());
    let parts = parts.and_then(|(topic, number)| Some((topic.to_owned(), number.parse().ok()?)));
    parts.ok_or_else(|| "write TOPIC/NUMBER, such as orders/0".into())
}

/// `7days`, or "for ever".
pub fn age(ms: Option<u64>) -> String {
    match ms {
        None => "for ever".into(),
        Some(ms) => humantime::format_duration(Duration::from_millis(ms)).to_string(),
    }
}

/// `10.0 GiB`, or "without bound".
pub fn bytes(bytes: Option<u64>) -> String {
    match bytes {
        None => "without bound".into(),
        Some(bytes) => ByteSize(bytes).display().iec().to_string(),
    }
}

/// `1.5 MiB/s`.
pub fn rate(bytes: u64) -> String {
    format!("{}/s", ByteSize(bytes).display().iec())
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        assert_eq!("7d".parse(), Ok(Age { ms: 7 * 86_400_000 }));
        assert_eq!("forever".parse(), Ok(Age { ms: 0 }));
        assert!("0s".parse::<Age>().is_err());
        assert!("7".parse::<Age>().is_err());
        assert_eq!("10GiB".parse(), Ok(Bytes { bytes: 10 << 30 }));
        assert_eq!("1024".parse(), Ok(Bytes { bytes: 1024 }));
        assert_eq!("unlimited".parse(), Ok(Bytes { bytes: 0 }));
        assert!("0".parse::<Bytes>().is_err());
        assert!("many".parse::<Bytes>().is_err());
        assert_eq!(r"\t".parse(), Ok(Text(b"\t".to_vec())));
        assert_eq!(r"\\:".parse(), Ok(Text(b"\\:".to_vec())));
        assert!(r"\n".parse::<Text>().is_err());
        assert!("".parse::<Text>().is_err());
        assert_eq!(header("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(header("a").is_err());
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(rate(0), "0 B/s");
        assert_eq!(rate(3 << 19), "1.5 MiB/s");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }
}
