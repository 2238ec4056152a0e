//! A round trip of 100 bytes over the loopback, answered from the broker's core: what no request
//! can be faster than.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Instant;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpListener;

use super::Options;
use super::server::executor;
use crate::latency::Latencies;
use crate::os;

const BYTES: usize = 100;

pub fn run(options: &Options) -> io::Result<Latencies> {
    let (tell, told) = mpsc::channel();
    let server = executor(options.cores.broker).spawn(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let _ = tell.send(listener.local_addr()?);
        let mut stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; BYTES];
        loop {
            match stream.read(&mut bytes).await? {
                0 => return io::Result::Ok(()),
                count => stream.write_all(&bytes[..count]).await?,
            }
        }
    })?;
    let address = told.recv().map_err(|_| io::Error::other("the echo did not start"))?;
    let cpu = options.cores.load;
    let span = options.span;
    let load = std::thread::spawn(move || -> io::Result<Latencies> {
        os::pin_to(cpu)?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut bytes = [7; BYTES];
        let mut latencies = Latencies::default();
        let measure_from = Instant::now() + span.warm_up;
        loop {
            let sent = Instant::now();
            if sent >= measure_from + span.measured {
                return Ok(latencies);
            }
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            if sent >= measure_from {
                latencies.record(sent.elapsed());
            }
        }
    });
    let latencies = load.join().map_err(|_| io::Error::other("the echo's load panicked"))??;
    server.join()??;
    Ok(latencies)
}
