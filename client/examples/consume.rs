//! Prints a topic from its beginning, then what comes.
//!
//! ```text
//! cargo run -p corelog --example consume -- 127.0.0.1:7420 greetings
//! ```

use corelog::{Client, Position};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7420".into());
    let topic = arguments.next().unwrap_or_else(|| "greetings".into());

    let client = Client::builder().address(&address).connect()?;
    let partitions = client.admin().describe_topic(&topic)?.places.len();
    let mut consumer = client.consumer();
    for partition in 0..partitions as u32 {
        consumer.assign(&topic, partition, Position::Beginning);
    }
    loop {
        let Some(batch) = consumer.poll(Duration::from_secs(1))? else { continue };
        for record in batch.records() {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            println!("{}/{}: {value}", batch.partition, record.offset);
        }
    }
}
