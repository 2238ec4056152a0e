//! Sends lines from standard input to a topic, and says where each went.
//!
//! ```text
//! printf 'one\ntwo\n' | cargo run -p corelog --example produce -- 127.0.0.1:7420 greetings
//! ```

use corelog::{Client, Durability, Error, ErrorCode, Record};
use std::io::BufRead;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7420".into());
    let topic = arguments.next().unwrap_or_else(|| "greetings".into());

    let client = Client::builder().address(&address).connect()?;
    match client.admin().create_topic(&topic, 4) {
        Ok(_) => println!("made the topic {topic}"),
        Err(Error::Refused(refusal)) if refusal.code == ErrorCode::TopicExists => {}
        Err(error) => return Err(error.into()),
    }

    let producer = client.producer();
    let mut deliveries = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let record = Record::to(&topic).value(&line).level(Durability::QuorumDurable);
        deliveries.push((line.clone(), producer.send(&record)?));
    }
    for (line, delivery) in deliveries {
        match delivery.wait() {
            Ok(report) => {
                let offset = report.offset.unwrap_or_default();
                println!("{line}: partition {}, offset {offset}", report.partition);
            }
            Err(error) if error.is_definite() => println!("{line}: not stored: {error}"),
            Err(error) => println!("{line}: perhaps stored: {error}"),
        }
    }
    Ok(())
}
