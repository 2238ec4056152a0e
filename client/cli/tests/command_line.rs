//! The real binary against a real broker: what people type, what they see, and the exit code.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker of one shard on files of its own.
struct Host {
    broker: Option<Broker>,
    address: String,
    directory: tempfile::TempDir,
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
        let mut config = Config::embedded(directory.path().join("data"));
        config.shards = 1;
        config.free_bytes_min = 0;
        config.memory.io_bytes = 1 << 20;
        config.log.segment_bytes = 2 << 20;
        let broker = Broker::start(config).expect("it starts");
        let address = broker.address().to_string();
        Some(Self { broker: Some(broker), address, directory })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("CORELOG_BROKER", &self.address);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.feed(arguments, b"")
    }

    fn feed(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        feed(self.command(arguments), stdin)
    }

    /// The stdout of a command that must succeed without a word on stderr.
    fn ok(&self, arguments: &[&str], stdin: &str) -> String {
        let ran = self.feed(arguments, stdin.as_bytes());
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{arguments:?}: {}", ran.stdout);
        ran.stdout
    }

    fn json(&self, arguments: &[&str], stdin: &str) -> Value {
        let told = self.ok(arguments, stdin);
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop();
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(arguments).env_remove("CORELOG_BROKER");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn feed(mut command: Command, stdin: &[u8]) -> Ran {
    let mut child = command.spawn().expect("it runs");
    let mut pipe = child.stdin.take().expect("piped");
    let bytes = stdin.to_vec();
    let writer = std::thread::spawn(move || {
        // It may end before it has read everything.
        let _ = pipe.write_all(&bytes);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Until a child has written this many lines to stdout.
fn lines(child: &mut Child, count: usize) -> Vec<String> {
    let stdout = BufReader::new(child.stdout.as_mut().expect("piped"));
    stdout.lines().take(count).map(|line| line.expect("text")).collect()
}

#[test]
fn topics_are_made_listed_described_altered_and_deleted() {
    let Some(host) = Host::start() else { return };
    assert!(host.ok(&["topic", "list"], "").starts_with("there are no topics yet"));
    let told =
        host.ok(&["topic", "create", "orders", "--partitions", "3", "--retention", "7d"], "");
    assert_eq!(told, "made topic orders with 3 partitions, records kept 7days\n");
    let again = ["topic", "create", "orders", "--if-missing"];
    assert!(host.ok(&again, "").starts_with("there was a topic orders already"));
    host.ok(&["topic", "create", "another"], "");
    let listed = host.ok(&["topic", "list"], "");
    let rows: Vec<Vec<&str>> = listed.lines().map(|row| row.split_whitespace().collect()).collect();
    let expected =
        [["TOPIC", "PARTITIONS", "REPLICAS"], ["another", "1", "1"], ["orders", "3", "1"]];
    assert_eq!(rows, expected);
    assert_eq!(host.json(&["topic", "list", "--json"], "")[1]["name"], "orders");

    host.ok(&["produce", "orders", "--partition", "1"], "a\nb\n");
    let told = host.json(&["topic", "describe", "orders", "--json"], "");
    assert_eq!(told["retention_ms"], 604_800_000);
    assert_eq!(told["places"].as_array().map(Vec::len), Some(3));
    assert_eq!(told["places"][1]["committed_end"], 2);
    let table = host.ok(&["topic", "describe", "orders"], "");
    assert_eq!(table.lines().count(), 5, "{table}");

    let alter = ["topic", "alter", "orders", "--retention-bytes", "1GiB", "--partitions", "5"];
    let told = host.json(&[&alter[..], &["--json"]].concat(), "");
    assert_eq!(told["partitions"], 5);
    assert_eq!(
        (&told["retention_ms"], &told["retention_bytes"]),
        (&json!(604_800_000), &json!(1 << 30))
    );
    host.ok(&["produce", "orders", "--partition", "4"], "in the new one\n");
    let told = host.ok(&["topic", "alter", "orders", "--retention", "forever"], "");
    assert!(told.contains("the newest 1.0 GiB of each kept"), "{told}");
    let fewer = host.run(&["topic", "alter", "orders", "--partitions", "2"]);
    assert_eq!(fewer.code, Some(1));
    assert!(fewer.stderr.contains("topic orders: the number of partitions can only grow"));

    let unsure = host.run(&["topic", "delete", "orders"]);
    assert_eq!(unsure.code, Some(2), "nobody is there to ask");
    assert_eq!(host.ok(&["topic", "delete", "orders", "--yes"], ""), "deleted topic orders\n");
    assert_eq!(host.run(&["topic", "describe", "orders"]).code, Some(4));
}

#[test]
fn what_is_produced_comes_out_in_each_format() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t"], "");
    let line = ["produce", "t", "--key-separator", ":", "--header", "from=here", "--json"];
    let told = host.json(&line, "k1:one\nk2:two:2\n:\n");
    let place = json!({ "partition": 0, "records": 3, "first_offset": 0, "last_offset": 2 });
    assert_eq!(told, json!({ "topic": "t", "records": 3, "failed": 0, "partitions": [place] }));
    assert_eq!(host.ok(&["consume", "t"], ""), "one\ntwo:2\n\n");
    let with = ["consume", "t", "--with", "partition,offset,key,headers", "--count", "2"];
    assert_eq!(host.ok(&with, ""), "0\t0\tk1\tfrom=here\tone\n0\t1\tk2\tfrom=here\ttwo:2\n");
    let objects = host.ok(&["consume", "t", "--format", "json"], "");
    let first: Value = serde_json::from_str(objects.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["key"], &first["value"]), (&json!("k1"), &json!("one")));
    assert_eq!(first["headers"], json!([{ "name": "from", "value": "here" }]));
    assert!(first["timestamp_ms"].as_i64() > Some(1_700_000_000_000));
    assert_eq!(objects.lines().count(), 3);

    // Bytes that are no text pass through as they are, and are told as base64 in JSON.
    let ran = host.feed(&["produce", "t"], b"\xff\x00\n");
    assert_eq!(ran.code, Some(0));
    let raw = host.command(&["consume", "t", "--from", "offset:3"]).output().expect("it runs");
    assert_eq!(raw.stdout, b"\xff\x00\n");
    let told = host.json(&["consume", "t", "--from", "3", "--json"], "");
    assert_eq!((told.get("value"), &told["value_base64"]), (None, &json!("/wA=")));
    assert_eq!(told["key"], Value::Null);
}

#[test]
fn what_is_produced_compressed_is_consumed_like_the_rest() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t"], "");
    let lines = |codec: &str| format!("{codec}: apples and pears, apples and pears\n").repeat(500);
    let mut all = String::new();
    for codec in ["lz4", "zstd", "none"] {
        host.ok(&["produce", "t", "--compression", codec], &lines(codec));
        all += &lines(codec);
    }
    assert_eq!(host.ok(&["consume", "t"], ""), all);
    // A goal that no broker meets is told, and the records are stored all the same.
    let many = lines("x").repeat(40);
    let ran = host.feed(&["produce", "t", "--objective", "1ns"], many.as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("20,000 records"), "{}", ran.stdout);
    assert_eq!(host.run(&["produce", "t", "--objective", "0s"]).code, Some(2));
    let ran = host.run(&["produce", "t", "--compression", "gzip"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("expected none, lz4 or zstd"), "{}", ran.stderr);
}

#[test]
fn acks_say_where_each_line_went_and_a_file_is_read_like_stdin() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t"], "");
    let told = host.ok(&["produce", "t", "--acks", "--durability", "leader_memory"], "a\nb\n");
    let rows: Vec<&str> = told.lines().collect();
    let first = ["line 1: partition 0, offset 0", "line 2: partition 0, offset 1"];
    assert_eq!(rows[..2], first);
    assert_eq!(rows[2], "2 records to topic t stored, leader_memory");
    assert_eq!(rows[4].split_whitespace().collect::<Vec<_>>(), ["0", "2", "0", "to", "1"]);

    let path = host.directory.path().join("lines");
    std::fs::write(&path, "x 1\ny 2\nnothing\nz 3\n").expect("written");
    let path = path.to_str().expect("text");
    let ran = host.run(&["produce", "t", "--file", path, "--key-separator", " "]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("line 3 has no \" \" in it"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("2 records to topic t stored"), "{}", ran.stdout);
    let ran = host.run(&["produce", "t", "--file", "/nowhere/at all"]);
    assert_eq!(ran.code, Some(2));
    let none = ["produce", "t", "--durability", "none", "--partition", "0"];
    assert_eq!(
        host.ok(&none, "c\n").lines().next(),
        Some("1 record to topic t sent, without an answer")
    );
}

#[test]
fn a_span_is_read_from_place_to_place() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t", "--partitions", "2"], "");
    host.ok(&["produce", "t", "--partition", "0"], "0\n1\n2\n3\n4\n");
    host.ok(&["produce", "t", "--partition", "1"], "x\n");
    let of = |rest: &[&str]| host.ok(&[&["consume", "t", "--partition", "0"], rest].concat(), "");
    assert_eq!(of(&["--from", "2"]), "2\n3\n4\n");
    assert_eq!(of(&["--from", "offset:1", "--until", "offset:3"]), "1\n2\n");
    assert_eq!(of(&["--until", "offset:100"]), "0\n1\n2\n3\n4\n");
    assert_eq!(of(&["--from", "end"]), "");
    assert_eq!(of(&["--count", "1"]), "0\n");
    assert_eq!(of(&["--from", "time:-1h", "--until", "end"]).lines().count(), 5);
    assert_eq!(of(&["--until", "time:-1h"]), "");
    assert_eq!(host.ok(&["consume", "t"], "").lines().count(), 6, "all partitions");
    let outside = host.run(&["consume", "t", "--partition", "1", "--from", "2"]);
    assert_eq!(outside.code, Some(8));
    assert!(outside.stderr.contains("topic t, partition 1: offset 2 is outside 0..1"));
    assert!(outside.stderr.contains("fix: "), "{}", outside.stderr);
}

#[test]
fn follow_waits_for_what_comes_later_and_ends_where_it_was_told() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t"], "");
    host.ok(&["produce", "t"], "early\n");
    let follow = ["consume", "t", "--follow", "--until", "offset:3"];
    let mut child = host.command(&follow).spawn().expect("it runs");
    assert_eq!(lines(&mut child, 1), ["early"]);
    host.ok(&["produce", "t"], "late\nlater\nnever seen\n");
    let mut rest = String::new();
    child.stdout.as_mut().expect("piped").read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "late\nlater\n");
    assert!(child.wait().expect("it ends").success());
    let counted = host.ok(&["consume", "t", "-f", "--from", "1", "--count", "2"], "");
    assert_eq!(counted, "late\nlater\n");
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t"], "");
    let value = "v".repeat(1_000);
    let many: String = (0..2_000).map(|number| format!("{number} {value}\n")).collect();
    host.ok(&["produce", "t"], &many);
    let mut child = host.command(&["consume", "t"]).spawn().expect("it runs");
    assert!(lines(&mut child, 1)[0].starts_with("0 v"));
    // 2 MB are more than any pipe holds.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[test]
fn each_failure_has_its_exit_code_and_says_what_to_do() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t"], "");
    let table: [(&[&str], i32, &str); 9] = [
        (&["topic", "create", "t"], 5, "there is a topic t already"),
        (&["topic", "create", "a/b"], 1, "topic a/b: 1 to 249 of"),
        (&["topic", "create", "u", "--partitions", "0"], 1, "topic u: a setting is out of"),
        (&["topic", "alter", "t"], 2, "nothing to change was given"),
        (&["topic", "alter", "nope", "--retention", "1h"], 4, "there is no topic nope"),
        (&["consume", "nope"], 4, "there is no topic nope"),
        (&["consume", "t", "--partition", "7"], 4, "topic t has no partition 7"),
        (&["produce", "t", "--partition", "7"], 4, "topic t has no partition 7"),
        (&["consume", "t", "--from", "noon"], 2, "write beginning, end, offset:42"),
    ];
    for (arguments, code, part) in table {
        let ran = host.run(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
    let ran = host.run(&["consume", "nope", "--json"]);
    let told: Value = serde_json::from_str(&ran.stderr).expect("JSON");
    assert_eq!(told["error"]["exit"], 4);
    assert!(told["error"]["fix"].as_str().is_some_and(|fix| fix.contains("topic create nope")));

    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let begun = Instant::now();
    let ran = feed(command(&["topic", "list", "--broker", &address]), b"");
    assert_eq!(ran.code, Some(3));
    assert!(ran.stderr.contains(&format!("no broker answers at {address}")), "{}", ran.stderr);
    assert!(ran.stderr.contains("CORELOG_BROKER"), "{}", ran.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "a person does not wait for a deadline");
}

#[test]
fn something_that_is_no_broker_is_given_up_at_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let ran = feed(command(&["topic", "list", "--broker", &address, "--timeout", "300ms"]), b"");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
}

#[test]
fn a_retention_that_is_altered_frees_the_disk_of_a_running_broker() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t"], "");
    let value = "v".repeat(10_000);
    let many = format!("{value}\n").repeat(1_000);
    host.ok(&["produce", "t"], &many);
    let start =
        || host.json(&["topic", "describe", "t", "--json"], "")["places"][0]["log_start"].clone();
    assert_eq!(start(), 0);
    host.ok(&["topic", "alter", "t", "--retention-bytes", "1MiB"], "");
    let begun = Instant::now();
    // Until nothing more is dropped: a reader would lose its place to that.
    let (mut before, mut since) = (start(), Instant::now());
    while before == 0 || since.elapsed() < Duration::from_secs(2) {
        assert!(begun.elapsed() < PATIENCE, "10 MB stay where 1 MiB was asked for");
        std::thread::sleep(Duration::from_millis(100));
        let now = start();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
    let left = host.ok(&["consume", "t"], "").lines().count();
    assert!((104..1_000).contains(&left), "1 MiB of it stays at least: {left} records");
}

#[test]
fn the_status_is_there_for_people_and_for_programs() {
    let Some(host) = Host::start() else { return };
    host.ok(&["topic", "create", "t", "--partitions", "4"], "");
    host.ok(&["produce", "t"], "a\nb\nc\n");
    let told = host.json(&["status", "--json"], "");
    let counters = &told["shards"][0]["counters"];
    assert_eq!(counters["partitions"], 4);
    assert_eq!(counters["records_in"], 3);
    assert_eq!(counters["requests_forwarded"], 0);
    assert!(counters["commit_flush_p99_us"].as_u64() > Some(0), "{counters}");
    assert!(counters["memory_used_bytes"].as_u64() < counters["memory_budget_bytes"].as_u64());
    let text = host.ok(&["status"], "");
    assert!(text.starts_with(&format!("broker {}, up ", host.address)), "{text}");
    assert!(text.contains("partitions 4, records in 3, requests forwarded 0"), "{text}");
    let some = host.ok(&["status", "--counters", "log_commits"], "");
    assert!(some.lines().any(|row| row.starts_with("log_commits ")), "{some}");
    assert!(!some.contains("records_in"));
    assert_eq!(host.run(&["status", "--counters", "nothing"]).code, Some(4));
}

#[test]
fn of_several_addresses_those_that_answer_are_used() {
    let Some(host) = Host::start() else { return };
    // Nobody listens where somebody has just stopped.
    let silent = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let both = format!("{silent}, {}", host.address);
    host.ok(&["--broker", &both, "topic", "create", "t"], "");
    host.ok(&["--broker", &both, "produce", "t"], "a\n");
    let told = host.ok(&["--broker", &both, "topic", "describe", "t"], "");
    let columns: Vec<&str> = told.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns, ["PARTITION", "SHARD", "LANE", "START", "END", "RECORDS"], "it is alone");
    let nobody = host.run(&["--broker", &format!("{silent},{silent}"), "topic", "list"]);
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    let wrong = host.run(&["--broker", "nonsense,also", "topic", "list"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
}

#[test]
fn shells_get_their_completion_and_help_tells_the_exit_codes() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = feed(command(&["completion", shell]), b"");
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("corelog") && ran.stdout.contains("consume"), "{shell}");
    }
    let help = feed(command(&["--help"]), b"").stdout;
    assert!(help.contains("Exit codes:"), "{help}");
    let readme = include_str!("../README.md");
    let codes = help.lines().skip_while(|line| !line.starts_with("Exit codes:")).skip(1);
    let mut seen = 0;
    for (code, line) in codes.take_while(|line| !line.is_empty()).enumerate() {
        let meaning = line.trim().split_once("  ").expect("a code and its meaning").1;
        assert!(readme.contains(&format!("| {code} | {meaning} |")), "the README lacks: {line}");
        seen += 1;
    }
    assert_eq!(seen, 9);
}
