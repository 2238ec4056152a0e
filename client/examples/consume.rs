//! Prints a topic from its beginning, then what comes.
//!
//! ```text
//! cargo run -p corelog --example consume -- 127.0.0.1:7420 greetings
//! ```

use corelog::{Client, Position};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7420".into());
    let topic = arguments.next().unwrap_or_else(|| "greetings".into());

    let client = Client::builder().address(&address).connect()?;
    let partitions = client.admin().describe_topic(&topic)?.settings.partitions;
    let mut consumer = client.consumer();
    for partition in 0..partitions {
        consumer.assign(&topic, partition, Position::Beginning);
    }
    for record in consumer {
        let record = record?;
        let value = String::from_utf8_lossy(record.value().unwrap_or_default());
        println!("{}/{}: {value}", record.partition(), record.offset());
    }
    Ok(())
}
