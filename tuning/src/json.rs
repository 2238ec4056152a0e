//! The report for programs: one JSON object.

use std::fmt::Write;

use crate::Report;

pub fn render(report: &Report) -> String {
    let host = &report.host;
    let cores = join(host.cores.iter().map(ToString::to_string));
    let directories = join(report.directories.iter().map(|directory| {
        format!(
            "{{\"path\":{},\"error\":{},\"file_system\":{},\"free_bytes\":{},\
             \"logical_block_bytes\":{},\"physical_block_bytes\":{},\"direct_io_error\":{}}}",
            string(&directory.path.to_string_lossy()),
            optional(&directory.error),
            string(&directory.file_system),
            directory.free_bytes,
            directory.logical_block_bytes,
            directory.physical_block_bytes,
            optional(&directory.direct_io_error),
        )
    }));
    let findings = join(report.findings.iter().map(|finding| {
        format!(
            "{{\"topic\":{},\"refusal\":{},\"sentence\":{}}}",
            string(&format!("{:?}", finding.topic)),
            finding.refusal,
            string(&finding.sentence)
        )
    }));
    format!(
        "{{\"kernel\":{},\"io_uring_error\":{},\"memlock_bytes\":{},\"may_lock_any\":{},\
         \"cores\":[{cores}],\"open_files_max\":{},\"directories\":[{directories}],\
         \"findings\":[{findings}]}}",
        string(&host.kernel),
        optional(&host.io_uring_error),
        host.memlock_bytes,
        host.may_lock_any,
        host.open_files_max,
    )
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

fn optional(text: &Option<String>) -> String {
    text.as_deref().map_or_else(|| "null".into(), string)
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            letter if letter < ' ' => _ = write!(quoted, "\\u{:04x}", letter as u32),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
