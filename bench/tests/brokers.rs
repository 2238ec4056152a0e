//! Runs against brokers that are not the bench's own: another program that it starts, one that runs already, a cluster that
//! does; and whose time it is after a failover.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_corelog-bench");

/// Brokers that run until this is dropped: what `corelogd` does, as a program of the bench.
struct Running {
    child: Child,
    addresses: Vec<String>,
}

impl Running {
    fn start(folder: &Path, cluster: Option<usize>) -> Self {
        let config = folder.join("corelogd.toml");
        let data = folder.join("data");
        let text = format!(
            "listen = '127.0.0.1:0'\ndata = ['{}']\nshards = 1\nfree_bytes_min = 0\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(BENCH);
        command.args(["broker", "--config"]).arg(&config).stdout(Stdio::piped());
        if let Some(count) = cluster {
            command.args(["--local-cluster", &count.to_string()]);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = lines
            .take(cluster.unwrap_or(1))
            .map(|line| {
                let line = line.unwrap();
                let address = line.split("listens on ").nth(1).expect(&line);
                address.trim_end_matches('.').to_owned()
            })
            .collect();
        Self { child, addresses }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scenario of three seconds.
fn scenario(folder: &Path, more: &str) -> String {
    let path = folder.join("short.toml");
    let text = format!(
        "title = 'short'\nseconds = 3\n[schedule]\nkind = 'constant'\nper_second = 500\n[messages]\nproducers = 4\nkeys = 10\n{more}"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn run(arguments: &[&str], out: &Path) -> Output {
    Command::new(BENCH)
        .arg("run")
        .args(arguments)
        .args(["--floor-seconds", "0.1", "--out"])
        .arg(out)
        .output()
        .unwrap()
}

/// Of a run that was verified.
fn result(output: &Output, out: &Path) -> Value {
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    let text = std::fs::read_to_string(out.join("result.json")).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["verdict"]["acknowledged"], result["verdict"]["read"], "{printed}");
    result
}

fn cores(result: &Value) -> BTreeSet<String> {
    let stages = result["stages"].as_array().unwrap().iter();
    stages.map(|of| of["core"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn another_program_is_started_and_told_apart_by_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("corelogd");
    std::fs::write(&binary, format!("#!/bin/sh\nexec {BENCH} broker \"$@\"\n")).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = binary.display().to_string();
    let out = folder.path().join("out");
    let output = run(&[&scenario(folder.path(), ""), "--binary", &binary], &out);
    let result = result(&output, &out);
    let brokers = result["brokers"].as_str().unwrap();
    assert!(brokers.starts_with("corelogd, checksum "), "{brokers}");
    assert_eq!(result["origin"], "binary");
    assert!(result["conditions"]["others_percent"].is_number());

    let output = run(&[&scenario(folder.path(), ""), "--binary", "/nowhere/corelogd"], &out);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("there is no broker at /nowhere/corelogd"), "{errors}");
}

#[test]
fn a_broker_that_runs_already_is_measured_and_left_running() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Running::start(folder.path(), None);
    let out = folder.path().join("out");
    let scenario = scenario(folder.path(), "");
    // Twice: the topics of the first are still there.
    for _ in 0..2 {
        let output = run(&[&scenario, "--broker", &broker.addresses[0]], &out);
        let result = result(&output, &out);
        assert_eq!(result["origin"], "given");
        assert_eq!(cores(&result), BTreeSet::from(["shard 0".to_owned()]));
        assert!(result["conditions"]["others_percent"].is_null(), "nobody knows of its processors");
    }
    let output = run(&[&scenario, "--broker", &broker.addresses[0], "--freeze-at", "1"], &out);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("`faults` need brokers that"), "{errors}");
    // Whose address it was is in no result, so it has to be said again.
    let output = Command::new(BENCH).arg("verify").arg(&out).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("name them with --broker HOST:PORT"), "{errors}");
}

#[test]
fn of_a_cluster_that_runs_already_one_address_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Running::start(folder.path(), Some(3));
    let scenario = scenario(folder.path(), "[topics]\npartitions = 12\n");
    for addresses in [cluster.addresses[1].clone(), cluster.addresses.join(",")] {
        let out = folder.path().join("out");
        let output = run(&[&scenario, "--broker", &addresses], &out);
        let result = result(&output, &out);
        let ack = result["about"]["ack"].as_str().unwrap();
        assert!(ack.contains("a majority of 3 brokers"), "{ack}");
        let all: BTreeSet<String> =
            (1..=3).map(|broker| format!("broker {broker} shard 0")).collect();
        assert_eq!(cores(&result), all, "with {addresses}");
        let shards = result["shards"].as_array().unwrap().iter();
        let names: BTreeSet<String> =
            shards.map(|shard| shard["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, all, "with {addresses}");
    }
}

#[test]
fn after_a_failover_the_time_is_that_of_the_new_leader() {
    let folder = tempfile::tempdir().unwrap();
    let more = "[broker]\ncount = 3\n[[faults]]\nwhat = 'kill'\nat_seconds = 1\nfor_seconds = 3\n";
    let scenario = scenario(folder.path(), more);
    let out = folder.path().join("out");
    let result = result(&run(&[&scenario], &out), &out);
    // There is one partition, and it had two leaders.
    let cores = cores(&result);
    assert!(cores.len() >= 2, "{cores:?}");
    let messages = |of: &Value| of["messages"].as_u64().unwrap();
    let told: u64 = result["stages"].as_array().unwrap().iter().map(messages).sum();
    assert!(told > 0 && told <= result["verdict"]["acknowledged"].as_u64().unwrap());
}

#[test]
fn what_a_build_or_a_command_cannot_do_is_said() {
    let said = |arguments: &[&str]| {
        let output = Command::new(BENCH).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for driver in ["nats", "redis"] {
        let text = said(&["compare", "own", "own", "--driver", driver]);
        assert!(text.contains("Corelog only") && text.contains("use `run`"), "{text}");
    }
    if !cfg!(feature = "nats") {
        let text = said(&["run", "single-durable", "--driver", "nats", "--broker", "127.0.0.1:1"]);
        assert!(text.contains("built without it; build it with --features nats"), "{text}");
    }
}
