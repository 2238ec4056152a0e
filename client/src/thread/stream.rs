//! A consumer as a stream, of any runtime. Streams of a consumer never end: they wait.

use super::consumer::{ConsumeError, Consumer};
use crate::engine::{ConsumedRecord, FetchedBatch};
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Of records, in the order of their partitions. An error of a partition is an item, and the others
/// go on behind it.
impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_record(context).map(Some)
    }
}

/// Batches of a consumer, as a stream: see [`Consumer::batches`].
#[derive(Debug)]
pub struct Batches<'a> {
    pub(super) consumer: &'a mut Consumer,
}

impl Stream for Batches<'_> {
    type Item = Result<FetchedBatch, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().consumer.poll_next_batch(context).map(Some)
    }
}
