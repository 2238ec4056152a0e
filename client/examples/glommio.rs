//! Sends and reads inside a glommio executor: engine, sockets and users on one core, without a lock.
//!
//! ```text
//! cargo run -p corelog --features glommio --example glommio -- 127.0.0.1:7420 greetings
//! ```

use corelog::engine::{Config, ConsumerConfig, Fetched};
use corelog::glommio::GlommioClient;
use corelog::{Position, Record};
use glommio::LocalExecutor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7420".into()).parse()?;
    let topic = arguments.next().unwrap_or_else(|| "greetings".into());

    LocalExecutor::default().run(async move {
        let client = GlommioClient::new(Config::new(vec![address]));
        let sent = client.send(&Record::to(&topic).partition(0).value("from one core"))?.await?;
        println!("stored at offset {}", sent.offset.unwrap_or_default());

        let consumer = client.consumer(ConsumerConfig::default());
        let position = sent.offset.map_or(Position::Beginning, Position::Offset);
        client.assign(consumer, &topic, 0, position);
        match client.next(consumer).await {
            Fetched::Batch(batch) => {
                for record in batch.records() {
                    let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                    println!("{}: {value}", record.offset);
                }
            }
            Fetched::Error { error, .. } => return Err(error.into()),
        }
        Ok(())
    })
}
