//! Keyed records land where Kafka's default partitioner puts them. The vectors come from the PyPI package
//! kafka-python 3.0.12 (`kafka/vectors.py` beside this file made them), an implementation that shares nothing with ours.

use corelog::partition_of_key;

const VECTORS: &str = include_str!("kafka/vectors.csv");

#[test]
fn a_thousand_keys_land_on_the_same_partitions_as_with_kafka() {
    let mut lines = VECTORS.lines();
    let head = lines.next().expect("a head line");
    let counts: Vec<u32> = head.split(',').skip(1).map(|count| count.parse().unwrap()).collect();
    assert!(counts.len() >= 8);
    let mut keys = 0;
    for line in lines {
        let mut fields = line.split(',');
        let key = unhex(fields.next().unwrap());
        for &count in &counts {
            let expected: u32 = fields.next().unwrap().parse().unwrap();
            assert_eq!(partition_of_key(&key, count), expected, "key {key:02x?} among {count}");
        }
        keys += 1;
    }
    assert!(keys >= 1_000, "only {keys} keys");
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}
