//! A broker that stands still for a second under a fixed rate: every open-loop scenario shows that second in its p99.9 and
//! its maximum. A closed loop does not, and its report says why that is no latency.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const SECOND: f64 = 1e9;

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_corelog-bench"))
}

/// Messages on their way at any time in the shipped closed loop.
const IN_FLIGHT: f64 = 64.0;

/// Runs a shipped scenario over some three seconds, with the broker frozen for the second one of them. Gives the result and
/// what was printed.
fn frozen(name: &str, folder: &Path) -> (Value, String) {
    let text = bench().args(["scenarios", name]).output().unwrap().stdout;
    let scenario: toml::Table = toml::from_str(&String::from_utf8(text).unwrap()).unwrap();
    let seconds = scenario["seconds"].as_integer().unwrap() as f64;
    let scale = (3.0 / seconds).to_string();
    let out = folder.join(name);
    let output = bench()
        .args(["run", name, "--scale", &scale, "--floor-seconds", "0.05", "--freeze-at", "0.8"])
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {printed}\n{errors}");
    let result = std::fs::read_to_string(out.join("result.json")).unwrap();
    (serde_json::from_str(&result).unwrap(), printed)
}

/// How many messages there were, and how many of them took at least half a second, by the curve of their times.
fn slow(spread: &Value) -> (f64, f64) {
    let count = spread["count"].as_f64().unwrap();
    let points = spread["curve"].as_array().unwrap().iter();
    let quick = points
        .map(|point| (point[0].as_f64().unwrap(), point[1].as_f64().unwrap()))
        .filter(|(_, nanos)| *nanos < 0.5 * SECOND)
        .map(|(quantile, _)| quantile);
    (count, count * (1.0 - quick.fold(0.0, f64::max)))
}

#[test]
fn a_second_of_standstill_is_in_every_open_loop_and_in_no_closed_one() {
    let folder = tempfile::tempdir().unwrap();
    let names = String::from_utf8(bench().arg("scenarios").output().unwrap().stdout).unwrap();
    let (mut open, mut closed) = (0, 0);
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        let (result, printed) = frozen(name, folder.path());
        let figures = &result["figures"];
        if result["is_open_loop"] == true {
            open += 1;
            let response = |at: &str| figures["response"][at].as_f64().unwrap() / SECOND;
            println!("{name}: p99.9 {:.2} s, max {:.2} s", response("p999"), response("max"));
            // What it takes to catch up with what was due meanwhile, and to agree on leaders, is on top: on a machine that
            // cannot keep up with the schedule, up to the whole run and its end. So only the least is a promise.
            assert!(response("p999") >= 0.9, "{name}: p99.9 {}", response("p999"));
            assert!(response("max") >= 0.95, "{name}: max {}", response("max"));
            assert!(response("p999") <= response("max"), "{name}");
        } else {
            closed += 1;
            assert!(figures["response"].is_null(), "{name} tells a response time");
            // Only those that were on their way knew of it, however many there were. The curve has ten points to each nine: it
            // tells up to a quarter more.
            let (count, slow) = slow(&figures["service"]);
            println!("{name}: {slow:.0} of {count:.0} messages took half a second");
            assert!(
                slow <= 2.0 * IN_FLIGHT,
                "{name}: {slow} of {count} messages took half a second"
            );
            assert!(
                printed.contains("CLOSED LOOP") && printed.contains("is no latency"),
                "{printed}"
            );
            let page = folder.path().join(name).join("report.html");
            let page = std::fs::read_to_string(page).unwrap();
            assert!(page.contains("closed loop") && page.contains("is no latency"));
        }
    }
    assert!(open >= 9 && closed >= 1, "{open} open and {closed} closed loops");
}
