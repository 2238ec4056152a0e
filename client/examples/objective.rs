//! Sends at a steady rate with a goal for its latency, and prints how the client keeps it.
//!
//! ```text
//! cargo run -p corelog --example objective -- 127.0.0.1:7420 greetings 5ms
//! ```

use corelog::{Client, Record};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7420".into());
    let topic = arguments.next().unwrap_or_else(|| "greetings".into());
    let goal = arguments.next().unwrap_or_else(|| "5ms".into());
    let goal = Duration::from_millis(goal.trim_end_matches("ms").parse()?);

    let client = Client::builder()
        .address(&address)
        .objective(goal)
        // Rather than miss it silently.
        .on_objective(|report| eprintln!("{:?}: p99 {:?}", report.state, report.p99))
        .connect()?;
    let producer = client.producer();
    let begin = Instant::now();
    for number in 0..10_000u32 {
        producer.send_and_forget(&Record::to(&topic).value(&number.to_le_bytes()))?;
        if number % 1_000 == 999 {
            println!("{:?}", client.objective());
        }
        // 1,000 a second.
        let next = begin + Duration::from_millis(1) * (number + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    producer.flush();
    Ok(())
}
