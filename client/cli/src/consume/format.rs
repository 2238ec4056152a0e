//! How a record is printed.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use corelog::{FetchedBatch, FetchedRecord};
use serde_json::{Map, Value, json};

use crate::arguments::Field;
use crate::failure::Failure;
use crate::output::Output;

pub struct Printer<'a> {
    is_json: bool,
    with: &'a [Field],
}

impl<'a> Printer<'a> {
    pub fn new(is_json: bool, with: &'a [Field]) -> Self {
        Self { is_json, with }
    }

    pub fn print(
        &self,
        output: &mut Output,
        batch: &FetchedBatch,
        record: &FetchedRecord<'_>,
    ) -> Result<(), Failure> {
        if self.is_json {
            return output.json(&object(batch, record));
        }
        let mut line = Vec::new();
        for field in self.with {
            match field {
                Field::Partition => line.extend(batch.partition.to_string().bytes()),
                Field::Offset => line.extend(record.offset.0.to_string().bytes()),
                Field::Timestamp => line.extend(time(record.timestamp_ms).bytes()),
                Field::Key => line.extend(record.key.unwrap_or_default()),
                Field::Headers => {
                    for (at, header) in record.headers.enumerate() {
                        line.extend((at > 0).then_some(b','));
                        line.extend(header.name.bytes());
                        line.push(b'=');
                        line.extend(header.value.unwrap_or_default());
                    }
                }
            }
            line.push(b'\t');
        }
        line.extend(record.value.unwrap_or_default());
        line.push(b'\n');
        output.bytes(&line)
    }
}

fn object(batch: &FetchedBatch, record: &FetchedRecord<'_>) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), json!(*batch.topic));
    object.insert("partition".into(), json!(batch.partition));
    object.insert("offset".into(), json!(record.offset.0));
    object.insert("timestamp_ms".into(), json!(record.timestamp_ms));
    object.insert("append_time_ms".into(), json!(batch.append_time_ms));
    insert(&mut object, "key", record.key);
    insert(&mut object, "value", record.value);
    let header = |header: corelog::Header<'_>| {
        let mut object = Map::new();
        object.insert("name".into(), json!(header.name));
        insert(&mut object, "value", header.value);
        Value::Object(object)
    };
    object.insert("headers".into(), record.headers.map(header).collect());
    Value::Object(object)
}

/// As text if it is text; otherwise as base64, under another name, so that neither is taken for the
/// other.
fn insert(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => object.insert(name.into(), Value::Null),
        Some(Ok(text)) => object.insert(name.into(), json!(text)),
        Some(Err(_)) => {
            let text = BASE64_STANDARD.encode(bytes.unwrap_or_default());
            object.insert(format!("{name}_base64"), json!(text))
        }
    };
}

/// `2026-01-31T12:00:00.000Z`; before 1970, milliseconds.
fn time(ms: i64) -> String {
    let at =
        u64::try_from(ms).ok().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    // The year 9999 is the last one that has a name of this form.
    match at.filter(|_| ms < 253_402_300_800_000) {
        Some(at) => humantime::format_rfc3339_millis(at).to_string(),
        None => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_told_apart() {
        let mut object = Map::new();
        insert(&mut object, "a", Some(b"text"));
        insert(&mut object, "b", Some(&[0xff, 0]));
        insert(&mut object, "c", None);
        insert(&mut object, "d", Some(b""));
        let expected = json!({ "a": "text", "b_base64": "/wA=", "c": null, "d": "" });
        assert_eq!(Value::Object(object), expected);
    }

    #[test]
    fn times_are_printed_whatever_a_producer_set() {
        assert_eq!(time(1_700_000_000_001), "2023-11-14T22:13:20.001Z");
        assert_eq!(time(-1), "-1");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
        assert_eq!(time(i64::MIN), i64::MIN.to_string());
    }
}
