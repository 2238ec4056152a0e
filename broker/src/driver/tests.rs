//! The driver by itself: real executors, sockets and files around a machine of the test's own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use corelog_protocol::ids::ShardId;
use corelog_protocol::preamble::Preamble;

use crate::config::Config;
use crate::disk::{DirectoryId, DiskDone, DiskError, DiskOrder, FileId, OpId, Place};
use crate::driver::Broker;
use crate::driver::machine::Machine;
use crate::driver::memory::DmaMemory;
use crate::fatal::FatalReason;
use crate::memory::{Memory, Piece, Slot};
use crate::shard::ShardConfig;
use crate::shard::effect::{Effect, Effects};
use crate::shard::event::{Conn, DialId, Event};
use crate::shard::message::ShardMessage;
use crate::time::{Nanos, Now};

/// Answers each line of a connection by its first word:
/// `dial PORT N` connects N times, closes all and says how many stood; `echo` itself; `who` the shard's number; `fill N` N bytes; `tell` asks the next shard and answers when
/// it has; `turn` after a turn; `wait` after 20 ms; `disk` after a tour of all disk orders; `bye`
/// with a last word and the end.
struct TestMachine {
    config: ShardConfig,
    lines: BTreeMap<Conn, Vec<u8>>,
    /// Who waits for what, in order.
    waiting_tell: Vec<Conn>,
    waiting_turn: Vec<Conn>,
    waiting_wake: Vec<Conn>,
    dialing: Option<Dialing>,
    tour: Option<Tour>,
    steps: u64,
    /// Does not stop when it is told to, but when it is asked to `leave`.
    stays: bool,
}

/// Connections that were ordered for one that asked.
struct Dialing {
    asked: Conn,
    left: u64,
    made: Vec<Conn>,
}

/// A tour of the disk orders for one connection.
struct Tour {
    conn: Conn,
    stage: u64,
    slot: Option<Slot>,
}

const FILE: FileId = FileId(7);
const FILE_BYTES: u64 = 4 << 20;
/// More than one IO, and not a multiple of its size.
const WRITE_BYTES: usize = (2 << 20) + 4096;

fn place(path: &str) -> Place {
    Place { directory: DirectoryId(0), path: path.into() }
}

impl TestMachine {
    fn make(config: ShardConfig) -> Box<dyn FnOnce() -> Box<dyn Machine> + Send> {
        Box::new(move || {
            Box::new(TestMachine {
                config,
                lines: BTreeMap::new(),
                waiting_tell: Vec::new(),
                waiting_turn: Vec::new(),
                waiting_wake: Vec::new(),
                dialing: None,
                tour: None,
                steps: 0,
                stays: false,
            })
        })
    }

    fn answer(conn: Conn, text: &[u8], memory: &mut DmaMemory, effects: &mut Effects) {
        let slot = memory.allocate(text.len());
        memory.bytes_mut(slot)[..text.len()].copy_from_slice(text);
        effects.send(conn, [Piece::new(slot, 0, text.len())]);
    }

    fn on_line(
        &mut self,
        conn: Conn,
        line: &str,
        now: Now,
        memory: &mut DmaMemory,
        effects: &mut Effects,
    ) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "stay" => {
                self.stays = true;
                Self::answer(conn, b"staying\n", memory, effects);
            }
            "leave" => effects.push(Effect::Stopped),
            "echo" => Self::answer(conn, format!("{line}\n").as_bytes(), memory, effects),
            "who" => {
                let text = format!("{}\n", self.config.shard);
                Self::answer(conn, text.as_bytes(), memory, effects);
            }
            "fill" => {
                let bytes: usize = rest.parse().expect("a number");
                let slot = memory.allocate(bytes);
                memory.bytes_mut(slot)[..bytes].fill(b'x');
                // Many pieces of one slot: more than one system call takes.
                let pieces: Vec<Piece> = (0..bytes.div_ceil(1000))
                    .map(|i| Piece::new(slot, i * 1000, (bytes - i * 1000).min(1000)))
                    .collect();
                for _ in 1..pieces.len() {
                    memory.retain(slot);
                }
                effects.send(conn, pieces);
            }
            "tell" => {
                self.waiting_tell.push(conn);
                let to = ShardId((self.config.shard.0 + 1) % self.config.shards);
                let message = Box::new(ShardMessage::ViewApplied { version: 1 });
                effects.push(Effect::Tell { to, message });
            }
            "turn" => {
                self.waiting_turn.push(conn);
                effects.push(Effect::Turn);
            }
            "wait" => {
                self.waiting_wake.push(conn);
                // A later deadline is replaced by an earlier one.
                effects.push(Effect::Wake { at: now.monotonic + Nanos::from_secs(3600) });
                effects.push(Effect::Wake { at: now.monotonic + Nanos::from_millis(20) });
            }
            "disk" => {
                self.tour = Some(Tour { conn, stage: 0, slot: None });
                self.tour_on(DiskDone::Done, memory, effects);
            }
            "dial" => {
                let (port, count) = rest.split_once(' ').expect("two numbers");
                let port: u16 = port.parse().expect("a port");
                let left: u64 = count.parse().expect("a number");
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                self.dialing = Some(Dialing { asked: conn, left, made: Vec::new() });
                for dial in (0..left).map(DialId) {
                    effects.push(Effect::Dial { dial, address, shard: ShardId(3) });
                }
            }
            "bye" => {
                Self::answer(conn, b"bye\n", memory, effects);
                effects.push(Effect::Close { conn, after_sends: true });
            }
            other => panic!("unknown word {other}"),
        }
    }

    /// The next order of the tour, given how the last one ended.
    fn tour_on(&mut self, done: DiskDone, memory: &mut DmaMemory, effects: &mut Effects) {
        let tour = self.tour.as_mut().expect("a tour is on");
        let path = "lanes/1/a.seg";
        let whole = WRITE_BYTES as u32;
        let order = match tour.stage {
            0 => DiskOrder::MakeFolder { place: place("lanes/1") },
            1 => {
                assert_eq!(done, DiskDone::Done);
                DiskOrder::Open { file: FILE, place: place("lanes/1/none") }
            }
            2 => {
                assert_eq!(done, DiskDone::Failed(DiskError::Missing));
                DiskOrder::Create { file: FILE, place: place(path), bytes: FILE_BYTES }
            }
            3 => {
                assert_eq!(done, DiskDone::Done);
                DiskOrder::Create { file: FileId(8), place: place(path), bytes: FILE_BYTES }
            }
            4 => {
                assert_eq!(done, DiskDone::Failed(DiskError::Exists));
                let bytes = 1 << 60;
                DiskOrder::Create { file: FileId(9), place: place("lanes/1/huge"), bytes }
            }
            5 => {
                // ext4 says EFBIG beyond 16 TiB; a full disk says ENOSPC.
                let DiskDone::Failed(_) = done else { panic!("{done:?}") };
                DiskOrder::Zero { file: FILE, position: 0, len: FILE_BYTES as u32 }
            }
            6 => {
                assert_eq!(done, DiskDone::Done);
                let slot = memory.allocate(WRITE_BYTES);
                for (index, word) in memory.bytes_mut(slot).chunks_exact_mut(8).enumerate() {
                    word.copy_from_slice(&(index as u64).to_le_bytes());
                }
                // The write owns one reference, the tour the other.
                memory.retain(slot);
                tour.slot = Some(slot);
                DiskOrder::Write { file: FILE, position: 4096, slot, len: whole }
            }
            7 => {
                assert_eq!(done, DiskDone::Done);
                memory.bytes_mut(tour.slot.expect("written")).fill(0xee);
                DiskOrder::Flush { file: FILE }
            }
            8 => {
                assert_eq!(done, DiskDone::Done);
                let slot = tour.slot.expect("written");
                DiskOrder::Read { file: FILE, position: 4096, slot, len: whole }
            }
            9 => {
                assert_eq!(done, DiskDone::Done);
                let slot = tour.slot.expect("read");
                for (index, word) in memory.bytes(slot)[..WRITE_BYTES].chunks_exact(8).enumerate() {
                    assert_eq!(word, (index as u64).to_le_bytes());
                }
                // Beyond the end: fewer bytes than asked for.
                DiskOrder::Read { file: FILE, position: FILE_BYTES - 4096, slot, len: 8192 }
            }
            10 => {
                assert_eq!(done, DiskDone::Failed(DiskError::Io));
                memory.release(tour.slot.take().expect("read"));
                DiskOrder::Rename { file: FILE, to: place("lanes/1/b.seg") }
            }
            11 => {
                assert_eq!(done, DiskDone::Done);
                DiskOrder::SyncFolder { place: place("lanes/1") }
            }
            12 => {
                assert_eq!(done, DiskDone::Done);
                DiskOrder::List { place: place("lanes/1") }
            }
            13 => {
                let DiskDone::Listed { files } = done else { panic!("{done:?}") };
                let names: Vec<_> = files.iter().map(|file| (&*file.name, file.bytes)).collect();
                assert_eq!(names, [("b.seg", FILE_BYTES)]);
                DiskOrder::List { place: place("no/such/folder") }
            }
            14 => {
                assert_eq!(done, DiskDone::Listed { files: Vec::new() });
                DiskOrder::Close { file: FILE }
            }
            15 => {
                assert_eq!(done, DiskDone::Done);
                DiskOrder::Open { file: FILE, place: place("lanes/1/b.seg") }
            }
            16 => {
                assert_eq!(done, DiskDone::Opened { bytes: FILE_BYTES });
                DiskOrder::Close { file: FILE }
            }
            17 => {
                assert_eq!(done, DiskDone::Done);
                DiskOrder::Remove { place: place("lanes/1/b.seg") }
            }
            18 => {
                assert_eq!(done, DiskDone::Done);
                DiskOrder::Remove { place: place("lanes/1/b.seg") }
            }
            19 => {
                assert_eq!(done, DiskDone::Done, "removing what is not there is no error");
                DiskOrder::Space { directory: DirectoryId(0) }
            }
            20 => {
                let DiskDone::Space { free_bytes } = done else { panic!("{done:?}") };
                assert!(free_bytes > 0);
                let conn = tour.conn;
                self.tour = None;
                Self::answer(conn, b"toured\n", memory, effects);
                return;
            }
            _ => unreachable!("the tour is over"),
        };
        tour.stage += 1;
        effects.push(Effect::Disk { op: OpId(tour.stage), order });
    }
}

impl Machine for TestMachine {
    fn step(&mut self, now: Now, event: Event, memory: &mut DmaMemory, effects: &mut Effects) {
        self.steps += 1;
        match event {
            Event::Start => effects.push(Effect::Ready),
            Event::Stop if self.stays => {}
            Event::Stop => effects.push(Effect::Stopped),
            Event::Opened { conn, .. } => {
                self.lines.insert(conn, Vec::new());
                effects.push(Effect::Receive { conn, target: None });
            }
            Event::Dialed { conn, .. } => {
                let dialing = self.dialing.as_mut().expect("somebody asked");
                dialing.left -= 1;
                dialing.made.extend(conn);
                if dialing.left == 0 {
                    for &conn in &dialing.made {
                        effects.push(Effect::Close { conn, after_sends: false });
                    }
                    let text = format!("{} stood\n", dialing.made.len());
                    Self::answer(dialing.asked, text.as_bytes(), memory, effects);
                }
            }
            Event::Received { conn, piece } => {
                let mut text = self.lines.remove(&conn).expect("open");
                text.extend_from_slice(memory.piece(piece));
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line = String::from_utf8_lossy(&text[..end]).into_owned();
                    text.drain(..=end);
                    self.on_line(conn, &line, now, memory, effects);
                }
                self.lines.insert(conn, text);
            }
            Event::Closed { conn } => _ = self.lines.remove(&conn),
            Event::Disk { op, done } => {
                let stage = self.tour.as_ref().map(|tour| tour.stage);
                assert_eq!(Some(op.0), stage);
                self.tour_on(done, memory, effects);
            }
            Event::Told { from, message } => match *message {
                ShardMessage::ViewApplied { version: 1 } => {
                    let message = Box::new(ShardMessage::ViewApplied { version: 2 });
                    effects.push(Effect::Tell { to: from, message });
                }
                _ => {
                    let conn = self.waiting_tell.remove(0);
                    Self::answer(conn, b"told\n", memory, effects);
                }
            },
            Event::Turn => {
                for conn in self.waiting_turn.drain(..) {
                    Self::answer(conn, b"turned\n", memory, effects);
                }
            }
            Event::Woken => {
                for conn in self.waiting_wake.drain(..) {
                    Self::answer(conn, b"woken\n", memory, effects);
                }
            }
            Event::Sent { .. } | Event::Located { .. } => {}
        }
    }

    fn each_counter(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("steps", self.steps);
    }
}

/// A directory on a real file system, or `None` with a line that says why the test is skipped.
fn real_directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
    if let Some(reason) = facts.direct_io_error {
        println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
        return None;
    }
    Some(directory)
}

fn config(directory: &Path, shards: usize) -> Config {
    let mut config = Config::embedded(directory);
    config.shards = shards;
    config.free_bytes_min = 0;
    config.memory.io_bytes = 1 << 20;
    config
}

fn start(directory: &Path, shards: usize) -> Broker {
    Broker::start_with(config(directory, shards), TestMachine::make).expect("it starts")
}

/// Whole cores are scarce on small hosts: two shards need two.
fn two_cores() -> bool {
    let enough = corelog_tuning::allowed_cores().len() >= 2;
    if !enough {
        println!("skipped: two shards need two cores");
    }
    enough
}

fn connect(broker: &Broker, shard: ShardId) -> TcpStream {
    connect_to(broker.address(), shard)
}

fn connect_to(address: SocketAddr, shard: ShardId) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream.write_all(&Preamble { shard }.encode()).expect("a preamble");
    stream
}

fn ask(stream: &mut TcpStream, line: &str) -> String {
    stream.write_all(format!("{line}\n").as_bytes()).expect("asked");
    read_line(stream)
}

/// A signal that a neighbour's test sends to this process ends a read that has a time limit.
fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn read_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match read(stream, &mut byte).expect("answered") {
            1 if byte[0] != b'\n' => line.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8(line).expect("text")
}

#[test]
fn a_connection_is_served_and_closed_after_its_last_send() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    let mut stream = connect(&broker, ShardId::ANY);
    assert_eq!(ask(&mut stream, "echo hello"), "echo hello");
    assert_eq!(ask(&mut stream, "turn"), "turned");
    assert_eq!(ask(&mut stream, "wait"), "woken");
    assert_eq!(ask(&mut stream, "bye"), "bye");
    assert_eq!(read(&mut stream, &mut [0]).expect("the end"), 0);
    assert!(broker.counters().total("steps") > 0);
    broker.stop();
}

#[test]
fn a_burst_of_dials_says_its_preambles_and_leaves_no_connection_behind() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    let mut stream = connect(&broker, ShardId::ANY);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    // More than are begun at once.
    let count = 100;
    stream.write_all(format!("dial {port} {count}\n").as_bytes()).expect("asked");
    for _ in 0..count {
        let (mut dialed, _) = listener.accept().expect("dialed");
        dialed.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let mut all = Vec::new();
        dialed.read_to_end(&mut all).expect("closed");
        assert_eq!(all, Preamble { shard: ShardId(3) }.encode());
    }
    assert_eq!(read_line(&mut stream), format!("{count} stood"));
    drop(listener);
    assert_eq!(ask(&mut stream, &format!("dial {port} 3")), "0 stood", "nobody listens there");
    broker.stop();
}

#[test]
fn last_words_arrive_although_the_peer_had_more_to_say() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    for _ in 0..20 {
        let mut stream = connect(&broker, ShardId::ANY);
        let mut text = b"bye\n".to_vec();
        // More than one read takes, so that some of it is unread when the connection ends.
        text.resize(256 << 10, b'x');
        stream.write_all(&text).expect("sent");
        assert_eq!(read_line(&mut stream), "bye");
        assert_eq!(read(&mut stream, &mut [0]).expect("a good end"), 0);
    }
    broker.stop();
}

#[test]
fn a_send_larger_than_the_socket_takes_arrives_whole() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    let mut stream = connect(&broker, ShardId::ANY);
    let bytes = 24 << 20;
    stream.write_all(format!("fill {bytes}\necho after\n").as_bytes()).expect("asked");
    // Nobody reads for a while: the socket's buffer fills.
    std::thread::sleep(Duration::from_millis(50));
    let mut filled = vec![0; bytes];
    stream.read_exact(&mut filled).expect("answered");
    assert!(filled.iter().all(|byte| *byte == b'x'));
    assert_eq!(read_line(&mut stream), "echo after");
    let counters = broker.counters();
    assert!(counters.total("driver_sends_blocked") > 0, "{counters:?}");
    broker.stop();
}

#[test]
fn the_preamble_takes_a_connection_to_the_shard_that_it_names() {
    let Some(directory) = real_directory() else { return };
    if !two_cores() {
        return;
    }
    let broker = start(directory.path(), 2);
    for _ in 0..8 {
        for shard in 0..2 {
            let mut stream = connect(&broker, ShardId(shard));
            assert_eq!(ask(&mut stream, "who"), shard.to_string());
        }
    }
    // A number from a time with more shards means "any".
    let mut stream = connect(&broker, ShardId(77));
    assert!(["0", "1"].contains(&ask(&mut stream, "who").as_str()));
    assert_eq!(ask(&mut stream, "tell"), "told");
    broker.stop();
}

#[test]
fn what_is_no_preamble_is_closed_without_an_answer() {
    let Some(directory) = real_directory() else { return };
    let mut config = config(directory.path(), 1);
    config.network.preamble_ms_max = 200;
    let broker = Broker::start_with(config, TestMachine::make).expect("it starts");
    let mut damaged = Preamble { shard: ShardId(0) }.encode();
    damaged[15] ^= 1;
    let cases: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"G", &damaged, b"CRLG"];
    // Who only looks whether anybody listens is refused nothing, and is not counted below.
    drop(TcpStream::connect(broker.address()).expect("it listens"));
    for bytes in cases {
        let mut stream = TcpStream::connect(broker.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.write_all(bytes).expect("sent");
        // A reset counts as closed: the broker did not read all that was sent.
        let answered = read(&mut stream, &mut [0; 16]).unwrap_or(0);
        assert_eq!(answered, 0, "{bytes:?}");
    }
    // The peer may hear of the end a little before the counters do.
    let refused = || broker.counters().total("driver_preambles_refused");
    let given_up = std::time::Instant::now() + Duration::from_secs(20);
    while refused() < cases.len() as u64 && std::time::Instant::now() < given_up {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(refused(), cases.len() as u64);
    let mut stream = connect(&broker, ShardId(0));
    assert_eq!(ask(&mut stream, "echo still here"), "echo still here");
    broker.stop();
}

#[test]
fn every_disk_order_does_what_it_says() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    let mut stream = connect(&broker, ShardId::ANY);
    assert_eq!(ask(&mut stream, "disk"), "toured");
    assert_eq!(ask(&mut stream, "disk"), "toured");
    broker.stop();
}

#[test]
fn a_directory_can_be_opened_again_after_a_stop_and_after_an_abort() {
    let Some(directory) = real_directory() else { return };
    let cluster = {
        let broker = start(directory.path(), 1);
        let cluster = broker.cluster();
        broker.stop();
        cluster
    };
    let most = if two_cores() { 2 } else { 1 };
    for shards in [most, 1, most] {
        let broker = start(directory.path(), shards);
        assert_eq!((broker.cluster(), broker.shards()), (cluster, shards));
        let mut stream = connect(&broker, ShardId::ANY);
        assert_eq!(ask(&mut stream, "echo again"), "echo again");
        broker.abort();
        // The peer hears of the end at once.
        assert_eq!(read(&mut stream, &mut [0]).unwrap_or(0), 0);
    }
}

#[test]
fn a_shard_that_stops_takes_connections_until_it_has() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    let mut first = connect(&broker, ShardId::ANY);
    assert_eq!(ask(&mut first, "stay"), "staying");
    let address = broker.address();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(move || broker.stop());
        for _ in 0..20 {
            let mut other = connect_to(address, ShardId::ANY);
            assert_eq!(ask(&mut other, "echo here"), "echo here");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!stopping.is_finished());
        first.write_all(b"leave\n").expect("asked");
    });
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_aborted_broker_lets_go_of_its_port_and_of_peers_without_a_preamble() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    let address = broker.address();
    let mut stream = connect(&broker, ShardId::ANY);
    assert_eq!(ask(&mut stream, "echo hello"), "echo hello");
    let mut silent = TcpStream::connect(address).expect("it listens");
    silent.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    // The silent one was accepted once a later one is served.
    assert_eq!(ask(&mut connect(&broker, ShardId::ANY), "echo later"), "echo later");
    broker.abort();
    assert_eq!(read(&mut silent, &mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_directory_or_port_in_use_is_refused() {
    let Some(directory) = real_directory() else { return };
    let broker = start(directory.path(), 1);
    let again = config(directory.path(), 1);
    let error = Broker::start_with(again, TestMachine::make).expect_err("in use");
    assert_eq!(error.reason(), FatalReason::DirectoryInUse, "{error}");

    let other = tempfile::tempdir().expect("a directory");
    let mut same_port = config(other.path(), 1);
    same_port.listen = broker.address();
    let error = Broker::start_with(same_port, TestMachine::make).expect_err("taken");
    assert_eq!(error.reason(), FatalReason::Listen, "{error}");
    broker.stop();
}
