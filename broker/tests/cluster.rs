//! Brokers of a cluster in one process, over real sockets and real files.
#![cfg(feature = "driver")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use corelog::Client;
use corelog_broker::config::Config;
use corelog_broker::driver::Broker;

const PATIENCE: Duration = Duration::from_secs(60);

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

/// A port that nobody has now, for a broker that starts soon.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("bound")
}

fn start(directory: &Path, number: u32, addresses: &[SocketAddr]) -> Broker {
    let mut config = Config::embedded(directory);
    config.listen = addresses[number as usize - 1];
    config.shards = 1;
    config.free_bytes_min = 0;
    config.memory.io_bytes = 1 << 20;
    config.log.segment_bytes = 4 << 20;
    config.cluster.id = "0123456789abcdef0123456789abcdef".into();
    config.cluster.broker = number;
    config.cluster.brokers =
        (1..).zip(addresses).map(|(number, address)| format!("{number}@{address}")).collect();
    Broker::start(config).expect("it starts")
}

/// Waits until the broker counts so many links to others.
fn wait_for_links(broker: &Broker, wanted: u64) {
    let client = Client::builder().address(broker.address()).connect().expect("a client");
    let limit = Instant::now() + PATIENCE;
    loop {
        let status = client.admin().status("peer_links_up").expect("answered");
        assert_eq!(status.names, ["peer_links_up"]);
        if status.shards[0].values == [wanted] {
            return;
        }
        assert!(Instant::now() < limit, "{status:?} instead of {wanted}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_brokers_find_each_other_and_find_each_other_again() {
    let Some(first_directory) = real_directory() else { return };
    let Some(second_directory) = real_directory() else { return };
    let addresses = [free_address(), free_address()];
    let first = start(first_directory.path(), 1, &addresses);
    wait_for_links(&first, 0);
    let second = start(second_directory.path(), 2, &addresses);
    wait_for_links(&first, 1);
    wait_for_links(&second, 1);
    second.abort();
    wait_for_links(&first, 0);
    let second = start(second_directory.path(), 2, &addresses);
    wait_for_links(&first, 1);
    wait_for_links(&second, 1);
    second.stop();
    first.stop();
}
