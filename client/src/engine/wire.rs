//! Between the protocol's messages and the engine: encoding what is asked, and refusing replies
//! that an honest broker does not send.

use super::links::Wrong;
use crate::Refusal;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{ClusterId, Incarnation};
use corelog_protocol::message::{
    ErrorReply, Hello, HelloReply, OffsetsAnswer, OffsetsReply, PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN, TopicDescribe, TopicDescribeReply, TopicInfo,
};

pub(super) fn hello(
    correlation: u64,
    client_name: &str,
    cluster: Option<ClusterId>,
    incarnation: Option<Incarnation>,
    out: &mut Vec<u8>,
) {
    Hello { cluster, incarnation, ..Hello::new(client_name) }.encode(correlation, out);
}

pub(super) fn hello_reply(kind: FrameKind, control: &[u8]) -> Result<HelloReply, Wrong> {
    if kind != FrameKind::HelloReply {
        return Err("something else than a hello");
    }
    let hello = HelloReply::decode(control).map_err(|_| "a malformed hello")?;
    if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION_MAX).contains(&hello.version) {
        return Err("a version that was not offered");
    }
    Ok(hello)
}

pub(super) fn refusal(control: &[u8]) -> Result<Refusal, Wrong> {
    let error = ErrorReply::decode(control).map_err(|_| "a malformed error")?;
    Ok(Refusal {
        code: error.code,
        retry_after_ms: error.retry_after_ms,
        message: error.message.into_boxed_str(),
    })
}

pub(super) fn describe(correlation: u64, name: &str, out: &mut Vec<u8>) {
    TopicDescribe { name: name.to_owned() }.encode(correlation, out);
}

pub(super) fn describe_reply(kind: FrameKind, control: &[u8]) -> Result<TopicInfo, Wrong> {
    if kind != FrameKind::TopicDescribeReply {
        return Err("an answer of the wrong kind");
    }
    let reply = TopicDescribeReply::decode(control).map_err(|_| "a malformed topic")?;
    Ok(reply.topic)
}

pub(super) fn offsets_reply(kind: FrameKind, control: &[u8]) -> Result<OffsetsAnswer, Wrong> {
    if kind != FrameKind::OffsetsReply {
        return Err("an answer of the wrong kind");
    }
    let reply = OffsetsReply::decode(control).map_err(|_| "malformed offsets")?;
    match <[OffsetsAnswer; 1]>::try_from(reply.partitions) {
        Ok([answer]) if answer.log_start <= answer.committed_end || answer.error.is_some() => {
            Ok(answer)
        }
        _ => Err("offsets of something else"),
    }
}
