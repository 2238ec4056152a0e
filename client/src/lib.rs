//! The Corelog client.

pub mod engine;
mod error;
mod partition;
mod record;
#[cfg(feature = "thread")]
mod thread;

pub use corelog_protocol::Durability;
pub use corelog_protocol::ErrorCode;
pub use corelog_protocol::batch::Header;
pub use corelog_protocol::ids::Offset;
pub use corelog_protocol::message::{StatusReply, TopicInfo, TopicSettings, TopicSummary};
pub use corelog_protocol::produce::StageTimes;
pub use engine::{ConsumerConfig, FetchedBatch, FetchedRecord, Position};
pub use error::{Error, Refusal};
pub use partition::{Partitioner, murmur2, partition_of_key};
pub use record::Record;
#[cfg(feature = "thread")]
pub use thread::{
    Admin, Builder, CallbackProducer, Client, ConsumeError, Consumer, Delivery, Producer, Report,
};
