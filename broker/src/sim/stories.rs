//! Small named scenarios that say what should happen and notice when it does not: for bugs whose occasion a whole
//! simulated world meets too rarely. Each returns what is wrong.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::produce::{FormerStamp, Produce};
use corelog_protocol::{Durability, ErrorCode};

use super::scene::{Client, World, batch_of, produce_with};
use crate::planted::{self, Bug};

const DURABLE: Durability = Durability::QuorumDurable;

/// One client of a broker that has one topic.
struct Story {
    world: World,
    client: Client,
    partition: PartitionId,
}

impl Story {
    fn begin() -> Self {
        let mut world = World::with(1, |config| config.segment_bytes = 64 << 10);
        let client = world.client(0);
        let topic = world.create_topic(client, "orders", 1);
        Self { world, client, partition: topic.places[0].partition }
    }

    /// `before`: it was sent before; under the former stamp, if one is given.
    fn send(
        &mut self,
        correlation: u64,
        producer: (u64, u16, u32),
        text: &str,
        before: Option<Option<FormerStamp>>,
    ) {
        let batch = batch_of(producer, text, 1);
        let partition = self.partition;
        let head = Produce {
            partition,
            timeout_ms: 0,
            durability: DURABLE,
            want_stages: false,
            sent_before: before.is_some(),
            former: before.flatten(),
        };
        self.world.send(self.client, &produce_with(head, correlation, &batch));
    }

    /// Sends a batch and compares what is answered: an offset or a refusal.
    fn expect(
        &mut self,
        producer: (u64, u16, u32),
        text: &str,
        expected: Result<u64, ErrorCode>,
    ) -> Result<(), String> {
        self.send(7, producer, text, None);
        self.expect_answer(producer, expected)
    }

    /// The same of one that was sent before.
    fn expect_again(
        &mut self,
        producer: (u64, u16, u32),
        text: &str,
        expected: Result<u64, ErrorCode>,
    ) -> Result<(), String> {
        self.send(7, producer, text, Some(None));
        self.expect_answer(producer, expected)
    }

    /// The same of one that was sent before under a stamp of the epoch before.
    fn expect_renewed(
        &mut self,
        producer: (u64, u16, u32),
        sequence: u32,
        text: &str,
        expected: Result<u64, ErrorCode>,
    ) -> Result<(), String> {
        let former = FormerStamp { epoch: producer.1 - 1, sequence };
        self.send(7, producer, text, Some(Some(former)));
        self.expect_answer(producer, expected)
    }

    fn expect_answer(
        &mut self,
        producer: (u64, u16, u32),
        expected: Result<u64, ErrorCode>,
    ) -> Result<(), String> {
        let answers = self.world.take(self.client);
        let told: Vec<_> = answers
            .iter()
            .map(|frame| match frame.kind {
                FrameKind::Error => Err(frame.error().code),
                _ => Ok(frame.ack().base_offset.0),
            })
            .collect();
        if told == [expected] {
            return Ok(());
        }
        Err(format!("I6: a batch of {producer:?} is answered {told:?}, not {expected:?}"))
    }
}

/// Retries, gaps, epochs, and a retry before its first copy is durable; then all of it after a restart.
pub fn retries() -> Result<(), String> {
    let mut story = Story::begin();
    story.expect((1, 0, 0), "a", Ok(0))?;
    story.expect((1, 0, 1), "b", Ok(1))?;
    story.expect((1, 0, 0), "a", Ok(0))?;
    story.expect((1, 0, 3), "d", Err(ErrorCode::OutOfOrder))?;
    story.expect((1, 1, 0), "e", Ok(2))?;
    story.expect((1, 0, 2), "c", Err(ErrorCode::ProducerFenced))?;
    story.world.is_disk_held = true;
    story.send(1, (1, 1, 1), "f", None);
    story.send(2, (1, 1, 1), "f", Some(None));
    if !story.world.take(story.client).is_empty() {
        return Err("I2: a retry was acknowledged before its first copy was durable".into());
    }
    story.world.release_disk();
    let acks = story.world.take(story.client);
    if acks.len() != 2 || acks.iter().any(|frame| frame.ack().base_offset != Offset(3)) {
        return Err(format!("I6: a batch and its retry are answered {acks:?}"));
    }
    story.world.crash_and_restart(1);
    story.client = story.world.client(0);
    story.expect((1, 1, 1), "f", Ok(3))?;
    story.expect((1, 1, 3), "h", Err(ErrorCode::OutOfOrder))?;
    story.expect((1, 1, 2), "g", Ok(4))?;
    // A producer that met a gap goes on in the next epoch, with what is there already and what is not.
    story.expect_renewed((1, 2, 0), 2, "g", Ok(4))?;
    story.expect_again((1, 1, 4), "j", Err(ErrorCode::OutOfOrder))?;
    story.expect_renewed((1, 2, 0), 4, "j", Ok(5))?;
    story.expect_renewed((1, 2, 0), 4, "j", Ok(5))?;
    story.expect_renewed((1, 2, 1), 5, "k", Ok(6))?;
    story.expect_again((1, 1, 3), "i", Err(ErrorCode::ProducerFenced))
}

/// A retry of a producer's first batch, after so many others that nobody can know whether it was appended.
pub fn forgotten() -> Result<(), String> {
    /// More than a segment of 64 KiB has room for in its checkpoint.
    const OTHERS: u64 = 64;
    let mut story = Story::begin();
    story.expect_again((1, 0, 0), "a", Ok(0))?;
    story.expect_again((1, 0, 0), "a", Ok(0))?;
    for other in 1..=OTHERS {
        story.expect((1 + other, 0, 0), "b", Ok(other))?;
    }
    story.expect_again((1, 0, 0), "a", Err(ErrorCode::UnknownProducer))?;
    story.world.crash_and_restart(1);
    story.client = story.world.client(0);
    story.expect_again((1, 0, 0), "a", Err(ErrorCode::UnknownProducer))?;
    // Who has not sent before is new, and who goes on in a new epoch.
    story.expect((100, 0, 0), "c", Ok(1 + OTHERS))?;
    story.expect((1, 1, 0), "d", Ok(2 + OTHERS))?;
    story.expect_again((1, 1, 1), "e", Ok(3 + OTHERS))
}

/// All that is wrong in them with a bug planted.
pub fn told_with(bug: Bug) -> Result<(), String> {
    planted::with(bug, || retries().and_then(|()| forgotten()))
}
