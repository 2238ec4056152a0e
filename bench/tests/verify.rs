//! `verify` as a user has it: a stored result is run again with its own settings, and each figure gets a sentence. Whether the
//! figures come out alike depends on the machine; that the verdict, the sentences and the exit code agree does not.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str], out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corelog-bench"))
        .args(arguments)
        .args(["--floor-seconds", "0.1", "--out"])
        .arg(out)
        .output()
        .unwrap()
}

fn result(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("result.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Runs, verifies, and checks all that must hold on any machine. Gives the result of the second run.
fn run_and_verify(folder: &Path, arguments: &[&str]) -> Value {
    let (first, second) = (folder.join("first"), folder.join("second"));
    let output = bench(&[&["run"], arguments].concat(), &first);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let output = bench(&["verify", first.to_str().unwrap()], &second);
    check(&output);
    let (before, now) = (result(&first), result(&second));
    // The same scenario, to the moment of its faults.
    assert_eq!(before["scenario"], now["scenario"]);
    assert_eq!(before["fingerprint"], now["fingerprint"]);
    now
}

/// The sentences and the exit code say the same.
fn check(output: &Output) -> bool {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut differ = Vec::new();
    for figure in [
        "Acknowledged per second",
        "Response time p50",
        "Response time p99",
        "Producer to reader p50",
        "Verification",
    ] {
        let came_out = format!("{figure} came out as it did");
        // A machine that was held up for most of a short run leaves too little of it.
        let is_open = |line: &str| {
            line.starts_with(&format!("{figure}: ")) && line.contains("not enough to compare")
        };
        let is = |line: &&str| {
            line.starts_with(&came_out)
                || line.starts_with(&format!("{figure} DIFFERS"))
                || is_open(line)
        };
        let sentences: Vec<&str> = printed.lines().filter(is).collect();
        assert_eq!(sentences.len(), 1, "{figure}: {printed}\n{errors}");
        if !sentences[0].starts_with(&came_out) && !is_open(sentences[0]) {
            differ.push(figure);
        }
    }
    let conclusion = match differ.is_empty() {
        true => "It came out as it did.".to_owned(),
        false => format!("It did not come out as it did: {}.", differ.join(", ")),
    };
    assert!(printed.contains(&conclusion), "{conclusion} {printed}");
    assert_eq!(output.status.success(), differ.is_empty(), "{printed}\n{errors}");
    // Who was disturbed says so.
    let disturbed = printed
        .lines()
        .filter(|line| line.starts_with("Then: DISTURBED") || line.starts_with("Now: DISTURBED"));
    assert!(disturbed.count() == 0 || printed.contains(" DISTURBED"), "{printed}");
    differ.is_empty()
}

#[test]
fn a_run_with_a_frozen_second_is_run_again_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let now =
        run_and_verify(folder.path(), &["single-durable", "--scale", "0.1", "--freeze-at", "1.5"]);
    assert_eq!(now["scenario"]["faults"][0]["what"], "freeze");
    assert!(now["figures"]["response"]["max"].as_f64().unwrap() >= 0.95e9);
}

#[test]
fn a_trace_is_run_again_from_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let now = run_and_verify(folder.path(), &["replayed-trace", "--scale", "0.25"]);
    assert_eq!(now["figures"]["due"], result(&folder.path().join("first"))["figures"]["due"]);
}

#[test]
fn a_result_that_was_much_better_does_not_come_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/stored");
    let copy = folder.path().join("stored");
    std::fs::create_dir(&copy).unwrap();
    let mut better = result(&stored);
    for interval in better["intervals"].as_array_mut().unwrap() {
        for figure in ["p50", "p99", "p999", "max"] {
            interval["response"][figure] = 1_000.into();
        }
    }
    std::fs::write(copy.join("result.json"), better.to_string()).unwrap();
    let scenario = std::fs::read_to_string(stored.join("scenario.toml")).unwrap();
    std::fs::write(copy.join("scenario.toml"), &scenario).unwrap();
    let output = bench(&["verify", copy.to_str().unwrap()], &folder.path().join("second"));
    assert!(!check(&output), "{}", String::from_utf8_lossy(&output.stdout));

    // A scenario that is not the result's is no scenario to verify it by.
    let other = scenario.replace("producers = ", "producers = 1");
    std::fs::write(copy.join("scenario.toml"), other).unwrap();
    let output = bench(&["verify", copy.to_str().unwrap()], &folder.path().join("third"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && errors.contains("not the scenario of the result.json"),
        "{errors}"
    );
}
