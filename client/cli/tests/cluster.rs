//! The real binary against three brokers: `corelog cluster`, as people type it.

use std::process::Command;
use std::time::{Duration, Instant};

use corelog_broker::config::Config;
use corelog_broker::driver::LocalCluster;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

struct Host {
    cluster: Option<LocalCluster>,
    addresses: String,
    _directory: tempfile::TempDir,
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Host {
    /// `None`, with a line that says why, where there is no direct I/O.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
        if let Some(reason) = facts.direct_io_error {
            println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
            return None;
        }
        let mut settings = Config::embedded(directory.path());
        settings.shards = 1;
        settings.free_bytes_min = 0;
        settings.memory.io_bytes = 1 << 20;
        settings.log.segment_bytes = 2 << 20;
        let cluster = LocalCluster::start(directory.path(), 3, &settings).expect("it starts");
        let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
        Some(Self { cluster: Some(cluster), addresses: addresses.join(","), _directory: directory })
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        let ran = command.args(arguments).env("CORELOG_BROKER", &self.addresses).output();
        let ran = ran.expect("it runs");
        Ran {
            code: ran.status.code(),
            stdout: String::from_utf8(ran.stdout).expect("text"),
            stderr: String::from_utf8(ran.stderr).expect("text"),
        }
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["cluster", "status", "--json"])).expect("JSON")
    }

    /// What must not come about: the command fails like this, and says so.
    fn refused(&self, arguments: &[&str], code: i32, said: &str) {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }

    /// Every lane is led by the one that it prefers, and everybody keeps up.
    fn wait_until_settled(&self) -> Value {
        let limit = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            let lanes = status["lanes"].as_array().expect("lanes").clone();
            let is_settled = |lane: &Value| {
                let replicas = lane["replicas"].as_array().expect("replicas");
                lane["serving"] == true
                    && lane["leader"] == replicas[0]["broker"]
                    && replicas.iter().all(|replica| replica["caught_up"] == true)
            };
            if !lanes.is_empty() && lanes.iter().all(is_settled) {
                return status;
            }
            assert!(Instant::now() < limit, "not in time: {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take() {
            cluster.stop();
        }
    }
}

fn led_by(status: &Value, broker: u64) -> usize {
    let lanes = status["lanes"].as_array().expect("lanes");
    lanes.iter().filter(|lane| lane["leader"] == broker).count()
}

#[test]
fn an_operator_sees_the_cluster_and_changes_who_leads() {
    let Some(mut host) = Host::start() else { return };
    let before = host.wait_until_settled();
    assert_eq!(before["brokers"].as_array().expect("brokers").len(), 3);
    assert_eq!((1..=3).map(|id| led_by(&before, id)).collect::<Vec<_>>(), [2, 2, 2]);
    let table = host.ok(&["cluster", "status"]);
    assert!(table.contains("alive") && table.contains("serving"), "{table}");

    // What leading costs is measured soon: nothing.
    let limit = Instant::now() + PATIENCE;
    let told = loop {
        let status = host.status();
        if status["brokers"].as_array().expect("brokers").iter().all(|it| it["load"].is_object()) {
            break status;
        }
        assert!(Instant::now() < limit, "not in time: {status}");
        std::thread::sleep(Duration::from_millis(100));
    };
    for told in [&told["brokers"][0], &told["lanes"][0]] {
        assert_eq!(told["load"]["bytes_per_second"], 0, "{told}");
        assert_eq!(told["load"]["records_in_per_second"], 0, "{told}");
    }
    let table = host.ok(&["cluster", "status"]);
    assert!(table.contains("LOAD") && table.contains("0 B/s"), "{table}");

    // A dry run says what would change, and changes nothing.
    let lane = before["lanes"][0]["lane"].as_u64().expect("a number").to_string();
    let from = before["lanes"][0]["leader"].as_u64().expect("a number");
    let to = (from % 3 + 1).to_string();
    let transfer = ["cluster", "transfer", "--lane", &lane, "--to", &to];
    let planned = host.ok(&[&transfer[..], &["--dry-run"]].concat());
    let line = format!("lane {lane}: from broker {from} to broker {to}");
    assert!(planned.contains(&line), "{planned}");
    assert_eq!(host.status()["version"], before["version"]);
    let said = host.ok(&transfer);
    assert!(said.contains(&line) && said.contains("leads lane"), "{said}");
    let after = host.status();
    assert_eq!(after["lanes"][0]["leader"], from % 3 + 1);
    assert_eq!(after["lanes"][0]["replicas"][0]["broker"], from % 3 + 1);

    // By a partition in it, and back.
    host.ok(&["topic", "create", "t", "--partitions", "6"]);
    let topic: Value =
        serde_json::from_str(&host.ok(&["topic", "describe", "t", "--json"])).expect("JSON");
    let partitions = topic["places"].as_array().expect("partitions");
    let at = partitions
        .iter()
        .position(|it| it["lane"] == before["lanes"][0]["lane"])
        .expect("one of them");
    let partition = format!("t/{at}");
    let back = from.to_string();
    host.ok(&["cluster", "transfer", "--partition", &partition, "--to", &back]);
    assert_eq!(host.status()["lanes"][0]["leader"], from);

    // What cannot be is refused, by its name.
    host.refused(&["cluster", "transfer", "--lane", "99", "--to", "1"], 4, "no lane 99");
    host.refused(&["cluster", "transfer", "--lane", &lane, "--to", "9"], 4, "no broker 9");
    host.refused(&["cluster", "transfer", "--partition", "t/99", "--to", "1"], 4, "partition 99");
    host.refused(&["cluster", "transfer", "--to", "1"], 2, "--lane");
    let moved = |replicas| ["cluster", "move", "--lane", &lane, "--replicas", replicas];
    host.refused(&moved("1,2"), 1, "needs 3 replicas");
    host.refused(&moved("1,2,2"), 1, "needs 3 replicas");
    host.refused(&moved("3,1,2"), 1, "is on these brokers");
    host.refused(&moved("1,2,7"), 4, "no broker 7");
    host.refused(&["cluster", "drain", "9", "--dry-run"], 4, "no broker 9");

    // Drained, it leads nothing; undrained, it gets back what prefers it.
    let planned = host.ok(&["cluster", "drain", "1", "--dry-run"]);
    assert_eq!(planned.lines().count(), 3, "{planned}");
    assert_eq!(led_by(&host.status(), 1), 2);
    host.ok(&["cluster", "drain", "1"]);
    let drained = host.status();
    assert_eq!(led_by(&drained, 1), 0);
    assert!(drained["metadata_leader"] != 1);
    assert_eq!(drained["brokers"][0]["draining"], true);
    host.ok(&["cluster", "drain", "2"]);
    host.refused(&["cluster", "drain", "3"], 1, "nobody but broker 3 can lead lane");
    host.refused(&["cluster", "transfer", "--lane", &lane, "--to", "1"], 1, "broker 1 drains");
    host.ok(&["cluster", "undrain", "2"]);
    let said = host.ok(&["cluster", "undrain", "1"]);
    assert!(said.contains("gets back lanes"), "{said}");
    host.wait_until_settled();

    // A broker that is gone is told as silent, and gets nothing.
    host.cluster.as_mut().expect("it runs").kill(2);
    let limit = Instant::now() + PATIENCE;
    while host.status()["brokers"][2]["alive"] != false {
        assert!(Instant::now() < limit, "not in time");
    }
    let lead_by_3 = ["cluster", "transfer", "--lane", &lane, "--to", "3", "--patience", "2s"];
    host.refused(&lead_by_3, 1, "nothing is heard of broker 3");
}

#[test]
fn an_operator_adds_a_broker_and_removes_another() {
    let Some(mut host) = Host::start() else { return };
    host.wait_until_settled();
    host.refused(&["cluster", "remove", "9"], 4, "no broker 9");
    host.refused(&["cluster", "remove", "1"], 1, "no other broker");
    assert!(host.ok(&["cluster", "balance", "--dry-run"]).contains("nothing would change"));

    host.cluster.as_mut().expect("it runs").join().expect("it starts");
    let limit = Instant::now() + PATIENCE;
    let is_there = |status: &Value| status["learners"] == serde_json::json!([4]);
    while !is_there(&host.status()) {
        assert!(Instant::now() < limit, "not in time: {}", host.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    let table = host.ok(&["cluster", "status"]);
    assert!(table.contains("decided by brokers 1, 2, 3, and told to broker 4"), "{table}");
    let before = host.status();
    let planned = host.ok(&["cluster", "balance", "--dry-run"]);
    assert!(planned.contains("broker 4 gets a copy"), "{planned}");
    assert_eq!(host.status()["lanes"], before["lanes"]);
    let ran = host.run(&["cluster", "balance"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("balanced"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("broker 4 gets a copy") && ran.stderr.contains("left)"),
        "{}",
        ran.stderr
    );
    let has = |status: &Value, id: u64| {
        let lanes = status["lanes"].as_array().expect("lanes").clone();
        let has = |lane: &&Value| {
            let replicas = lane["replicas"].as_array().expect("replicas");
            replicas.iter().any(|replica| replica["broker"] == id)
        };
        lanes.iter().filter(has).count()
    };
    let status = host.status();
    assert_eq!((1..=4).map(|id| has(&status, id)).sum::<usize>(), 18);
    assert!((1..=4).all(|id| (4..=5).contains(&has(&status, id))), "{status}");

    host.refused(&["cluster", "remove", "1", "--onto", "9"], 4, "no broker 9");
    let planned = host.ok(&["cluster", "remove", "1", "--dry-run"]);
    assert!(planned.contains("broker 1 is removed for good"), "{planned}");
    assert_eq!(host.status()["brokers"].as_array().expect("brokers").len(), 4);
    let said: Value =
        serde_json::from_str(&host.ok(&["cluster", "remove", "1", "--json"])).expect("JSON");
    assert_eq!(said["done"], true);
    let last = said["steps"].as_array().expect("steps").last().expect("a step").clone();
    assert_eq!(last, serde_json::json!({ "operation": "remove", "broker": 1 }));
    let status = host.status();
    let ids: Vec<_> =
        status["brokers"].as_array().expect("brokers").iter().map(|it| it["id"].clone()).collect();
    assert_eq!(ids, [2, 3, 4]);
    assert_eq!(status["voters"], serde_json::json!([2, 3, 4]));
    assert_eq!((2..=4).map(|id| has(&status, id)).collect::<Vec<_>>(), [6, 6, 6]);
    // It is gone: that is said, and nothing else happens.
    host.refused(&["cluster", "remove", "1"], 4, "no broker 1");
}
