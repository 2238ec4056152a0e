//! What bad input gets over real sockets: the rows that concern the driver, beside a client that is served
//! all the while. The rows that concern the shard alone are tests of the shard.
#![cfg(feature = "driver")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use corelog::{Client, Record};
use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::ShardId;
use corelog_protocol::message::{ErrorReply, Hello};
use corelog_protocol::preamble::Preamble;

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker of one shard on a real file system, or `None` with a line that says why the test is skipped.
fn start(change: impl Fn(&mut Config)) -> Option<(tempfile::TempDir, Broker)> {
    let directory = tempfile::tempdir().expect("a directory");
    let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
    if let Some(reason) = facts.direct_io_error {
        println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
        return None;
    }
    let mut config = Config::embedded(directory.path());
    config.shards = 1;
    config.free_bytes_min = 0;
    config.memory.io_bytes = 1 << 20;
    config.log.segment_bytes = 4 << 20;
    change(&mut config);
    Some((directory, Broker::start(config).expect("it starts")))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

fn preamble() -> Vec<u8> {
    Preamble { shard: ShardId::ANY }.encode().to_vec()
}

/// Past the preamble and the hello.
fn greet(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    let mut bytes = preamble();
    Hello::new("stranger").encode(1, &mut bytes);
    stream.write_all(&bytes).expect("sent");
    let reply = read_frame(&mut stream).expect("an answer");
    assert_eq!(reply.0.kind, FrameKind::HelloReply);
    stream
}

/// One frame, or `None` if the connection ends. A reset counts as the end.
fn read_frame(stream: &mut TcpStream) -> Option<(FrameHeader, Vec<u8>)> {
    let mut bytes = vec![0; 32];
    stream.read_exact(&mut bytes).ok()?;
    let header = FrameHeader::decode(&bytes, 1 << 20).expect("a sound frame");
    bytes.resize(header.frame_bytes(), 0);
    stream.read_exact(&mut bytes[32..]).ok()?;
    let control = header.control(&bytes).expect("a sound frame").to_vec();
    Some((header, control))
}

fn is_ended(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_))
}

#[test]
fn strangers_are_closed_within_a_moment_and_a_client_beside_them_is_served() {
    let Some((_directory, broker)) = start(|_| {}) else { return };
    let address = broker.address();
    let client = Client::builder().address(address).connect().expect("a client");
    client.admin().create_topic("orders", 1).expect("created");
    let producer = client.producer();
    let header = |payload: usize| FrameHeader::new(FrameKind::Status, 7, &[], payload).encode();
    let mut flipped = header(0);
    flipped[20] ^= 1;
    let http = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 200]].concat();
    // What is sent, and the code that is answered, if there is an answer.
    let table: [(&str, Vec<u8>, Option<ErrorCode>); 8] = [
        ("HTTP instead of a preamble", http.to_vec(), None),
        ("TLS instead of a preamble", tls.clone(), None),
        ("zeros", vec![0; 16], None),
        ("HTTP behind a preamble", [&preamble()[..], http].concat(), None),
        ("TLS behind a preamble", [preamble(), tls].concat(), None),
        ("a header with a flipped bit", [&preamble()[..], &flipped].concat(), None),
        (
            "a frame of 4 GiB",
            [&preamble()[..], &header(u32::MAX as usize)].concat(),
            Some(ErrorCode::FrameTooLarge),
        ),
        (
            "a request before hello",
            [&preamble()[..], &header(0)].concat(),
            Some(ErrorCode::HelloRequired),
        ),
    ];
    for (what, bytes, code) in table {
        let begin = Instant::now();
        let mut stream = connect(address);
        stream.write_all(&bytes).expect("sent");
        let answer = read_frame(&mut stream);
        let answered = answer.map(|(_, control)| ErrorReply::decode(&control).expect("an error"));
        assert_eq!(answered.map(|error| error.code), code, "{what}");
        assert!(is_ended(&mut stream), "{what}");
        assert!(begin.elapsed() < Duration::from_secs(4), "{what}: before any deadline");
        let record = Record::to("orders").value(what);
        let delivery = producer.send(&record).expect("accepted");
        delivery.wait().expect("served");
    }
    drop((producer, client));
    broker.stop();
}

#[test]
fn connections_of_one_address_are_limited_and_the_place_of_one_that_goes_is_free() {
    let Some((_directory, broker)) = start(|config| config.network.connections_per_address_max = 3)
    else {
        return;
    };
    let address = broker.address();
    let mut welcome: Vec<TcpStream> = (0..3).map(|_| greet(address)).collect();
    for _ in 0..5 {
        let mut one_more = connect(address);
        one_more.write_all(&preamble()).expect("sent");
        assert!(is_ended(&mut one_more));
    }
    assert_eq!(broker.counters().total("connections_refused"), 5);
    drop(welcome.pop());
    let given_up = Instant::now() + PATIENCE;
    while broker.counters().total("connections_closed") < 1 && Instant::now() < given_up {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(greet(address));
    broker.stop();
}

#[test]
fn connections_without_a_preamble_are_limited_and_closed_at_their_deadline() {
    let Some((_directory, broker)) = start(|config| {
        config.network.preambles_per_address_max = 4;
        config.network.preamble_ms_max = 1_000;
    }) else {
        return;
    };
    let address = broker.address();
    let mut silent: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    // Five are one too many, and the fifth has to hear so before the first has used up its time.
    let begin = Instant::now();
    assert!(is_ended(&mut connect(address)));
    let fifth = begin.elapsed();
    silent.iter_mut().for_each(|stream| assert!(is_ended(stream)));
    assert!(begin.elapsed() >= fifth && begin.elapsed() > Duration::from_millis(500));
    assert!(broker.counters().total("driver_preambles_refused") >= 5);
    drop(greet(address));
    broker.stop();
}

#[test]
fn a_stranger_who_never_says_hello_is_closed_after_five_seconds_also_over_tcp() {
    let Some((_directory, broker)) = start(|_| {}) else { return };
    let mut stream = connect(broker.address());
    stream.write_all(&preamble()).expect("sent");
    let begin = Instant::now();
    assert!(is_ended(&mut stream));
    let waited = begin.elapsed();
    assert!((4..15).contains(&waited.as_secs()), "{waited:?}");
    broker.stop();
}
