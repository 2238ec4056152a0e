//! A millisecond more in one stage of the broker is named by the stage breakdown: each stage that a report can name.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// With the brokers that it takes. `replicate` and `quorum` are passed only where there are others.
const STAGES: [(&str, u32); 8] = [
    ("socket", 1),
    ("queue", 1),
    ("append", 1),
    ("write", 1),
    ("flush", 1),
    ("reply", 1),
    ("replicate", 3),
    ("quorum", 3),
];

/// What a run with a delay says.
struct Told {
    /// By the sentence of the report.
    named: String,
    /// Of the stage that was delayed, ms.
    p50_ms: f64,
}

/// One message at a time, so far apart that none waits for another one's delay.
fn run(folder: &Path, stage: &str, brokers: u32, delay_ms: u32) -> Told {
    let scenario = folder.join("one-at-a-time.toml");
    let text = format!(
        "title = 'one at a time'\nseconds = 2.5\nwarm_up_seconds = 0.5\n[schedule]\nkind = 'constant'\nper_second = {}\n\
         [broker]\ncount = {brokers}\n",
        (200 / delay_ms).max(4)
    );
    std::fs::write(&scenario, text).unwrap();
    let out = folder.join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_corelog-bench"))
        .arg("run")
        .arg(&scenario)
        .args(["--floor-seconds", "0.1", "--out"])
        .arg(&out)
        .env("CORELOG_DELAYS", format!("{stage}={}", delay_ms * 1000))
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let sentence = printed.lines().find(|line| line.contains("most at the broker is")).unwrap();
    let named = sentence.split("most at the broker is ").nth(1).unwrap();
    let result = std::fs::read_to_string(out.join("result.json")).unwrap();
    let result: Value = serde_json::from_str(&result).unwrap();
    let stages = result["stages"][0]["stages"].as_array().unwrap();
    let of = stages.iter().find(|known| known["name"] == stage).unwrap();
    Told {
        named: named.split(',').next().unwrap().to_owned(),
        p50_ms: of["p50"].as_f64().unwrap() / 1e6,
    }
}

#[test]
fn a_millisecond_more_in_a_stage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (stage, brokers) in STAGES {
        // A machine whose disk takes longer than a millisecond for a flush hides one. What it cannot hide is more.
        let is_named = [1, 10, 100].into_iter().any(|delay_ms| {
            let told = run(folder.path(), stage, brokers, delay_ms);
            println!("{stage}, {delay_ms} ms more: named {}, {:.2} ms", told.named, told.p50_ms);
            // The leader writes and flushes while entries wait to leave for the others: what is left is the stage.
            let is_all_of_it = stage != "replicate";
            let least = if is_all_of_it { 0.95 * f64::from(delay_ms) } else { 0.0 };
            assert!(told.p50_ms >= least, "{stage}: {} ms of {delay_ms}", told.p50_ms);
            told.named == stage
        });
        assert!(is_named, "{stage}");
    }
}
