//! A millisecond more in one stage of the broker is named by the stage breakdown.

use std::process::Command;

use serde_json::Value;

fn longest(folder: &std::path::Path, delays: &str) -> (String, f64) {
    let out = folder.join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_corelog-bench"))
        .args(["run", "single-durable", "--scale", "0.1", "--floor-seconds", "0.1", "--out"])
        .arg(&out)
        .env("CORELOG_DELAYS", delays)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let sentence =
        printed.lines().find(|line| line.contains("most at the broker is")).unwrap().to_owned();
    let name = sentence.split("most at the broker is ").nth(1).unwrap();
    let result = std::fs::read_to_string(out.join("result.json")).unwrap();
    let result: Value = serde_json::from_str(&result).unwrap();
    let name = name.split(',').next().unwrap().to_owned();
    let stages = result["stages"][0]["stages"].as_array().unwrap();
    let stage = stages.iter().find(|stage| stage["name"] == name.as_str()).unwrap();
    (name, stage["p50"].as_f64().unwrap() / 1e6)
}

#[test]
fn a_millisecond_more_in_a_stage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for stage in ["append", "write", "flush"] {
        let (named, p50_ms) = longest(folder.path(), &format!("{stage}=1000"));
        println!("{stage}: named {named}, {p50_ms:.2} ms");
        assert_eq!(named, stage);
        assert!(p50_ms >= 0.95, "{stage}: {p50_ms} ms");
    }
}
