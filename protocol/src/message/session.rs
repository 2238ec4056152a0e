//! Who is there, and what went wrong.

use std::fmt;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::{STRING_BYTES_MAX, TABLES_MAX, check, message, read_root, sealed, shorten, text};
use crate::error_code::ErrorCode;
use crate::generated::session as wire;
use crate::ids::{ClusterId, Incarnation, Offset, PartitionId, ShardId};
use crate::malformed::MalformedError;

/// The oldest version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;

/// The newest version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION_MAX: u16 = 1;

/// Credentials in a [`Hello`].
pub const CREDENTIALS_BYTES_MAX: usize = 2048;

/// The first frame of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version of the protocol that the client speaks.
    pub version_min: u16,
    /// The newest one.
    pub version_max: u16,
    /// Chosen by the user, for limits and logs.
    pub client_name: String,
    /// Name and version of the client library.
    pub client_software: String,
    /// The cluster that the client believes to talk to.
    pub cluster: Option<ClusterId>,
    /// Of the broker that the client met at this address last.
    pub incarnation: Option<Incarnation>,
    /// Reserved for authentication.
    pub mechanism: String,
    /// Reserved for authentication. At most [`CREDENTIALS_BYTES_MAX`].
    pub credentials: Vec<u8>,
}

impl Hello {
    /// From a client that speaks all versions of this crate.
    #[must_use]
    pub fn new(client_name: &str) -> Self {
        Self {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            client_name: client_name.to_owned(),
            client_software: concat!("corelog-rust ", env!("CARGO_PKG_VERSION")).to_owned(),
            cluster: None,
            incarnation: None,
            mechanism: String::new(),
            credentials: Vec::new(),
        }
    }

    /// The newest version that both sides speak.
    #[must_use]
    pub fn version_in_common(&self) -> Option<u16> {
        let version = self.version_max.min(PROTOCOL_VERSION_MAX);
        (version >= self.version_min && version >= PROTOCOL_VERSION_MIN).then_some(version)
    }

    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::Hello>(control, TABLES_MAX)?;
        let credentials = table.credentials().map(|bytes| bytes.bytes()).unwrap_or_default();
        check(credentials.len() <= CREDENTIALS_BYTES_MAX, "hello: length of credentials")?;
        check(table.version_min() > 0, "hello: version 0")?;
        check(table.version_min() <= table.version_max(), "hello: version range")?;
        Ok(Self {
            version_min: table.version_min(),
            version_max: table.version_max(),
            client_name: text(table.client_name(), "hello: length of client name")?,
            client_software: text(table.client_software(), "hello: length of client software")?,
            cluster: table.cluster().map(cluster_from_wire),
            incarnation: table.incarnation().map(Incarnation),
            mechanism: text(table.mechanism(), "hello: length of mechanism")?,
            credentials: credentials.to_vec(),
        })
    }
}

/// Credentials are not for logs.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version_min", &self.version_min)
            .field("version_max", &self.version_max)
            .field("client_name", &self.client_name)
            .field("client_software", &self.client_software)
            .field("cluster", &self.cluster)
            .field("incarnation", &self.incarnation)
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

impl sealed::Table for Hello {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let cluster = self.cluster.map(cluster_to_wire);
        let args = wire::HelloArgs {
            version_min: self.version_min,
            version_max: self.version_max,
            client_name: Some(builder.create_string(&self.client_name)),
            client_software: Some(builder.create_string(&self.client_software)),
            cluster: cluster.as_ref(),
            incarnation: self.incarnation.map(|incarnation| incarnation.0),
            mechanism: Some(builder.create_string(&self.mechanism)),
            credentials: Some(builder.create_vector(&self.credentials)),
        };
        wire::Hello::create(builder, &args).as_union_value()
    }
}

/// The broker's answer to a [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelloReply {
    /// The version of the protocol that is in force from now on.
    pub version: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// Of this broker.
    pub incarnation: Incarnation,
    /// The shard that serves this connection.
    pub shard: ShardId,
    /// How many shards this broker has. At least 1.
    pub shards: u16,
    /// Cap on control and payload of a frame together, from now on, in both directions.
    pub frame_bytes_max: u32,
    /// Name and version of the broker.
    pub software: String,
}

impl HelloReply {
    /// Reads a control part.
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::HelloReply>(control, TABLES_MAX)?;
        let Some(cluster) = table.cluster().map(cluster_from_wire) else {
            return Err(MalformedError::new("hello reply: no cluster"));
        };
        check(table.version() > 0, "hello reply: version 0")?;
        check(table.shard() < table.shards(), "hello reply: shard")?;
        check(table.frame_bytes_max() > 0, "hello reply: frame bytes")?;
        Ok(Self {
            version: table.version(),
            cluster,
            incarnation: Incarnation(table.incarnation()),
            shard: ShardId(table.shard()),
            shards: table.shards(),
            frame_bytes_max: table.frame_bytes_max(),
            software: text(table.software(), "hello reply: length of software")?,
        })
    }
}

impl sealed::Table for HelloReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let args = wire::HelloReplyArgs {
            version: self.version,
            cluster: Some(&cluster_to_wire(self.cluster)),
            incarnation: self.incarnation.0,
            shard: self.shard.0,
            shards: self.shards,
            frame_bytes_max: self.frame_bytes_max,
            software: Some(builder.create_string(&self.software)),
        };
        wire::HelloReply::create(builder, &args).as_union_value()
    }
}

/// The answer to a request that was not done. The frame's correlation says to which one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorReply {
    /// What is wrong.
    pub code: ErrorCode,
    /// Kind of the frame that this answers, as a number: it may be unknown here.
    pub request_kind: u8,
    /// When to try again. 0: no hint.
    pub retry_after_ms: u32,
    /// With [`ErrorCode::Unsupported`]: the versions of the protocol that are known. Else (0, 0).
    pub versions: (u16, u16),
    /// The topic meant, if one is.
    pub topic: Option<String>,
    /// The partition meant, if one is.
    pub partition: Option<PartitionId>,
    /// The offset meant, if one is.
    pub offset: Option<Offset>,
    /// For people. Longer ones are cut when they are encoded.
    pub message: String,
}

impl ErrorReply {
    /// Says no more than the code, and a sentence for people.
    #[must_use]
    pub fn new(code: ErrorCode, request_kind: u8, message: &str) -> Self {
        Self {
            code,
            request_kind,
            retry_after_ms: 0,
            versions: (0, 0),
            topic: None,
            partition: None,
            offset: None,
            message: message.to_owned(),
        }
    }

    /// Reads a control part. A code that is not known here becomes [`ErrorCode::Unrecognised`].
    pub fn decode(control: &[u8]) -> Result<Self, MalformedError> {
        let table = read_root::<wire::Error>(control, TABLES_MAX)?;
        let Some(code) = ErrorCode::from_wire(table.code()) else {
            return Err(MalformedError::new("error: code 0"));
        };
        let topic = match table.topic() {
            Some(topic) => Some(text(Some(topic), "error: length of topic")?),
            None => None,
        };
        Ok(Self {
            code,
            request_kind: table.request_kind(),
            retry_after_ms: table.retry_after_ms(),
            versions: (table.version_min(), table.version_max()),
            topic,
            partition: table.partition().map(PartitionId),
            offset: table.offset().map(Offset),
            message: text(table.message(), "error: length of message")?,
        })
    }
}

impl sealed::Table for ErrorReply {
    fn build(&self, builder: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let topic = self.topic.as_deref().map(|topic| shorten(topic, STRING_BYTES_MAX));
        let args = wire::ErrorArgs {
            code: self.code.to_wire(),
            request_kind: self.request_kind,
            retry_after_ms: self.retry_after_ms,
            version_min: self.versions.0,
            version_max: self.versions.1,
            topic: topic.map(|topic| builder.create_string(topic)),
            partition: self.partition.map(|partition| partition.0),
            offset: self.offset.map(|offset| offset.0),
            message: Some(builder.create_string(shorten(&self.message, STRING_BYTES_MAX))),
        };
        wire::Error::create(builder, &args).as_union_value()
    }
}

fn cluster_from_wire(id: &wire::Id128) -> ClusterId {
    ClusterId(u128::from(id.low()) | u128::from(id.high()) << 64)
}

fn cluster_to_wire(id: ClusterId) -> wire::Id128 {
    wire::Id128::new(id.0 as u64, (id.0 >> 64) as u64)
}

message!(Hello);
message!(HelloReply);
message!(ErrorReply as Error);
