//! Sends records with keys: those of one key go to one partition, the same as with a Kafka client, and
//! keep their order.
//!
//! ```text
//! cargo run -p corelog --example keyed -- 127.0.0.1:7420 orders
//! ```

use corelog::{Client, Compression, Error, ErrorCode, Header, Record, partition_of_key};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7420".into());
    let topic = arguments.next().unwrap_or_else(|| "orders".into());

    let client = Client::builder().address(&address).compression(Compression::Lz4).connect()?;
    match client.admin().create_topic(&topic, 4) {
        Ok(_) => {}
        Err(Error::Refused(refusal)) if refusal.code == ErrorCode::TopicExists => {}
        Err(error) => return Err(error.into()),
    }
    let partitions = client.admin().describe_topic(&topic)?.settings.partitions;
    let producer = client.producer();
    for customer in ["ada", "grace", "barbara"] {
        for step in ["ordered", "paid", "sent"] {
            let headers = [Header { name: "unit", value: Some(b"apple") }];
            let record = Record::to(&topic).key(customer).value(step).headers(&headers);
            let report = producer.send(&record)?.wait()?;
            assert_eq!(report.partition, partition_of_key(customer.as_bytes(), partitions));
            println!("{customer} {step}: partition {}", report.partition);
        }
    }
    Ok(())
}
