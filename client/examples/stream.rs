//! Reads a topic as a stream. Any runtime will do; this one is the standard library.
//!
//! ```text
//! cargo run -p corelog --example stream -- 127.0.0.1:7420 greetings
//! ```

use corelog::{Client, Position};
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

async fn read(address: String, topic: String) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder().address(&address).connect()?;
    let partitions = client.admin().describe_topic(&topic)?.settings.partitions;
    let mut consumer = client.consumer();
    for partition in 0..partitions {
        consumer.assign(&topic, partition, Position::Beginning);
    }
    // With futures-util in scope: `while let Some(record) = consumer.next().await`.
    while let Some(record) = poll_fn(|context| Pin::new(&mut consumer).poll_next(context)).await {
        let record = record?;
        let value = String::from_utf8_lossy(record.value().unwrap_or_default());
        println!("{}/{}: {value}", record.partition(), record.offset());
    }
    Ok(())
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7420".into());
    let topic = arguments.next().unwrap_or_else(|| "greetings".into());

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut reading = pin!(read(address, topic));
    loop {
        match reading.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => std::thread::park(),
        }
    }
}
