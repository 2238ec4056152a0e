//! A comparison of a broker with itself finds no difference, and one with a broker that a planted delay makes a tenth slower
//! finds it: in at least 18 of 20 tries each.
//!
//! Slow: some fifteen minutes. `CORELOG_TRIES=3` makes it three tries, of which all must come out right.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn compare(folder: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_corelog-bench"))
        .args(["compare", "own", "own", "--rounds", "20", "--seconds", "0.3", "--out"])
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.join("compare.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_same_is_the_same_and_a_tenth_is_found() {
    let tries: u32 = std::env::var("CORELOG_TRIES").map_or(20, |tries| tries.parse().unwrap());
    let least = tries - tries / 10;
    let folder = tempfile::tempdir().unwrap();
    let (mut same, mut found) = (0, 0);
    for number in 1..=tries {
        let own = compare(folder.path(), &[]);
        let conclusion = own["conclusion"].as_str().unwrap();
        same += u32::from(conclusion.starts_with("No difference"));
        let ratio = own["lines"][0]["ratio"]["middle"].as_f64().unwrap();
        println!("try {number}, itself: {ratio:.3}, {conclusion}");

        // A tenth of what A takes now, put into B's flushes.
        let micros = (own["lines"][0]["a_value"].as_f64().unwrap() / 1e3 / 10.0).round();
        let delay = format!("CORELOG_DELAYS=flush={micros}");
        let slower = compare(folder.path(), &["--b-env", &delay]);
        let conclusion = slower["conclusion"].as_str().unwrap();
        found += u32::from(conclusion.starts_with("A difference: B is worse"));
        let ratio = slower["lines"][0]["ratio"]["middle"].as_f64().unwrap();
        println!("try {number}, flush {micros} µs longer: {ratio:.3}, {conclusion}");
    }
    println!("the same in {same} of {tries}, found in {found} of {tries}");
    assert!(same >= least && found >= least, "the same in {same}, found in {found} of {tries}");
}
