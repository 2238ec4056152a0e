//! The report for people: facts first, then what to do.

use std::fmt::Write;

use crate::Report;
use crate::facts::core_list;

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        // Writing into a string cannot fail.
        _ = writeln!(text, "{name:<22} {value}");
    };
    let host = &report.host;
    row("kernel", host.kernel.clone());
    row("io_uring", host.io_uring_error.clone().unwrap_or_else(|| "works".into()));
    let memlock = match (host.memlock_bytes, host.may_lock_any) {
        (u64::MAX, _) => "unlimited".into(),
        (bytes, true) => format!("{} KiB (not binding: CAP_IPC_LOCK)", bytes >> 10),
        (bytes, false) => format!("{} KiB", bytes >> 10),
    };
    row("locked memory", memlock);
    row("cores", format!("{} ({})", host.cores.len(), core_list(&host.cores)));
    row("open files", host.open_files_max.to_string());
    for directory in &report.directories {
        row("directory", directory.path.display().to_string());
        if let Some(error) = &directory.error {
            row("  error", error.clone());
            continue;
        }
        row("  file system", directory.file_system.clone());
        row("  free", format!("{} MiB", directory.free_bytes >> 20));
        row(
            "  blocks",
            format!(
                "{} B logical, {} B physical",
                directory.logical_block_bytes, directory.physical_block_bytes
            ),
        );
        let direct = directory.direct_io_error.clone().unwrap_or_else(|| "works".into());
        row("  direct I/O", direct);
    }
    if report.findings.is_empty() {
        text.push_str("\nThe broker can run here.\n");
    } else {
        text.push('\n');
        for finding in &report.findings {
            let kind = if finding.refusal { "refusal" } else { "advice " };
            _ = writeln!(text, "{kind}  {}", finding.sentence);
        }
    }
    text
}
