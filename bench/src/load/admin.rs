//! Makes the topics that a load writes to, over a connection of its own, one request at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{PartitionId, ShardId};
use corelog_protocol::message::{
    Encoder, HelloReply, Message, Offsets, OffsetsQuery, OffsetsReply, PartitionPlace, Status,
    StatusReply, TopicCreate, TopicCreateReply, TopicDescribe, TopicDescribeReply, TopicInfo,
    TopicSettings,
};

use super::wire;
use crate::os::uninterrupted;

const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that asks one thing at a time.
pub struct Admin {
    socket: TcpStream,
    received: Vec<u8>,
    correlation: u64,
}

impl Admin {
    pub fn connect(address: SocketAddr, shard: ShardId) -> io::Result<Self> {
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(&wire::opening(shard))?;
        let mut received = Vec::new();
        let control = read_frame(&mut socket, &mut received, FrameKind::HelloReply)?;
        HelloReply::decode(&control).map_err(io::Error::other)?;
        Ok(Self { socket, received, correlation: 0 })
    }

    /// `retention_bytes`: of each partition; `None` keeps all.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: u32,
        retention_bytes: Option<u64>,
    ) -> io::Result<Vec<PartitionPlace>> {
        let settings =
            TopicSettings { partitions, replicas: 0, retention_ms: None, retention_bytes };
        let request = TopicCreate { name: name.to_owned(), settings, timeout_ms: 10_000 };
        let control = self.ask(&request, FrameKind::TopicCreateReply)?;
        let reply = TopicCreateReply::decode(&control).map_err(io::Error::other)?;
        Ok(reply.topic.places)
    }

    /// Where a topic's partitions are, and who its brokers.
    pub fn describe_topic(&mut self, name: &str) -> io::Result<TopicInfo> {
        let request = TopicDescribe { name: name.to_owned() };
        let control = self.ask(&request, FrameKind::TopicDescribeReply)?;
        TopicDescribeReply::decode(&control).map(|reply| reply.topic).map_err(io::Error::other)
    }

    /// The sum of this counter over all shards.
    pub fn counter(&mut self, name: &str) -> io::Result<u64> {
        self.status(name)?.total(name).ok_or_else(|| io::Error::other(format!("no counter {name}")))
    }

    /// The counters whose names start so, by shard.
    pub fn status(&mut self, prefix: &str) -> io::Result<StatusReply> {
        let control = self.ask(&Status { prefix: prefix.to_owned() }, FrameKind::StatusReply)?;
        StatusReply::decode(&control).map_err(io::Error::other)
    }

    /// Where these partitions end, summed up.
    pub fn committed_end(&mut self, partitions: &[PartitionId]) -> io::Result<u64> {
        let partitions =
            partitions.iter().map(|&partition| OffsetsQuery { partition, timestamp: None });
        let request = Offsets { partitions: partitions.collect() };
        let control = self.ask(&request, FrameKind::OffsetsReply)?;
        let reply = OffsetsReply::decode(&control).map_err(io::Error::other)?;
        Ok(reply.partitions.iter().map(|answer| answer.committed_end.0).sum())
    }

    fn ask(&mut self, request: &impl Message, expected: FrameKind) -> io::Result<Vec<u8>> {
        self.correlation += 1;
        let mut encoder = Encoder::new();
        self.socket.write_all(encoder.encode(request, self.correlation))?;
        read_frame(&mut self.socket, &mut self.received, expected)
    }
}

/// The control part of the next frame, which must be of this kind.
fn read_frame(
    socket: &mut TcpStream,
    received: &mut Vec<u8>,
    expected: FrameKind,
) -> io::Result<Vec<u8>> {
    loop {
        if let Some(frame) = wire::frame(received).map_err(io::Error::other)? {
            if frame.kind == FrameKind::Error {
                return Err(io::Error::other(wire::error_text(frame.control)));
            }
            if frame.kind != expected {
                return Err(io::Error::other(format!("{expected} expected, got {}", frame.kind)));
            }
            let control = frame.control.to_vec();
            let bytes = frame.bytes;
            received.drain(..bytes);
            return Ok(control);
        }
        let mut bytes = [0; 4096];
        let count = uninterrupted(|| socket.read(&mut bytes))?;
        if count == 0 {
            return Err(io::Error::other("the broker closed the connection"));
        }
        received.extend_from_slice(&bytes[..count]);
    }
}
