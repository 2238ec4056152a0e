//! `WIRE.md` says what the code does: its tables of kinds and codes, and its example.

mod support;

use corelog_protocol::batch::{BatchBuilder, NewRecord};
use corelog_protocol::entry::EntryKind;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::PartitionId;
use corelog_protocol::produce::Produce;
use corelog_protocol::{Durability, ErrorCode};

const PAGE: &str = include_str!("../WIRE.md");

fn section(title: &str) -> &'static str {
    let start = PAGE.find(&format!("\n## {title}")).unwrap_or_else(|| panic!("no section {title}"));
    let rest = &PAGE[start + 4..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// The cells of the rows that start with a number.
fn numbered_rows(section: &'static str) -> Vec<(u16, Vec<&'static str>)> {
    let cells = |line: &'static str| line.split('|').map(str::trim).skip(1).collect::<Vec<_>>();
    let rows = section.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter_map(|cells| Some((cells[0].parse().ok()?, cells))).collect()
}

#[test]
fn the_table_of_kinds_is_complete() {
    let rows = numbered_rows(section("Kinds"));
    let listed: Vec<_> = rows.iter().map(|(number, cells)| (*number, cells[1])).collect();
    let known: Vec<_> =
        FrameKind::ALL.iter().map(|kind| (kind.to_wire().into(), kind.name())).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_table_of_error_codes_is_complete() {
    let rows = numbered_rows(section("Error codes"));
    let yes_no = |value: bool| if value { "yes" } else { "no" };
    let listed: Vec<_> =
        rows.iter().map(|(number, cells)| (*number, cells[1], cells[2], cells[3])).collect();
    let known: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|code| {
            (code.to_wire(), code.name(), yes_no(code.is_definite()), yes_no(code.may_retry()))
        })
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn durability_levels_and_entry_kinds_are_listed() {
    let rows = numbered_rows(section("Produce"));
    for level in Durability::ALL {
        let number = u16::from(level.to_wire());
        assert!(rows.iter().any(|(at, cells)| *at == number && cells[1] == level.name()));
    }
    let entry = section("Entry").replace('\n', " ");
    for kind in EntryKind::ALL {
        assert!(entry.contains(&format!("{} {kind:?}", kind.to_wire())), "{kind:?}");
    }
}

#[test]
fn the_example_is_what_the_code_sends() {
    let mut builder = BatchBuilder::new(1000, 1);
    let record = NewRecord {
        timestamp: 1_800_000_000_000,
        key: Some(b"k"),
        value: Some(b"hello"),
        headers: &[],
    };
    builder.push(&record).unwrap();
    let batch = builder.finish();
    let produce = Produce {
        partition: PartitionId(7),
        timeout_ms: 0,
        durability: Durability::QuorumDurable,
        want_stages: false,
        sent_before: false,
        former: None,
    };
    let mut frame = produce.encode_head(1, batch.len()).to_vec();
    frame.extend_from_slice(batch);
    let page = section("Example").split("```").nth(1).unwrap().trim_start();
    assert_eq!(page, support::to_hex(&frame));
}
