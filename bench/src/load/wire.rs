//! The frames that the load sends and understands, and the little of them that the floor's bare
//! server needs. A frame: 32 bytes of header, a control part, a payload.

pub const HEADER_BYTES: usize = 32;
const MAGIC: u32 = 0x4752_4c43;
const HELLO: u8 = 1;
const HELLO_REPLY: u8 = 2;
const PRODUCE: u8 = 4;
const PRODUCE_ACK: u8 = 5;
const PRODUCE_CONTROL: usize = 16;
const ACK_CONTROL: usize = 72;
pub const PREAMBLE_BYTES: usize = 16;

#[derive(Debug)]
pub enum Reply {
    Hello,
    Ack { correlation: u64, level: u8 },
    Other(u8),
}

fn header(out: &mut [u8], kind: u8, control: &[u8], payload: usize, correlation: u64) {
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[4] = 1;
    out[5] = kind;
    out[8..12].copy_from_slice(&(control.len() as u32).to_le_bytes());
    out[12..16].copy_from_slice(&(payload as u32).to_le_bytes());
    out[16..24].copy_from_slice(&correlation.to_le_bytes());
    out[24..28].copy_from_slice(&crc32c::crc32c(control).to_le_bytes());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..32].copy_from_slice(&crc.to_le_bytes());
}

pub fn opening(shard: u16) -> Vec<u8> {
    let mut out = vec![0; PREAMBLE_BYTES];
    out[..4].copy_from_slice(b"CRLG");
    out[6..8].copy_from_slice(&shard.to_le_bytes());
    let mut head = [0; HEADER_BYTES];
    let control = [0; 40];
    header(&mut head, HELLO, &control, 0, 0);
    out.extend_from_slice(&head);
    out.extend_from_slice(&control);
    out
}

pub fn batch(records: usize, bytes: usize) -> Vec<u8> {
    let mut out = vec![7; 48 + records * (bytes + 8)];
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

pub fn produce(partition: u32, level: u8, batch: &[u8]) -> Vec<u8> {
    let mut control = [0; PRODUCE_CONTROL];
    control[..4].copy_from_slice(&partition.to_le_bytes());
    control[4] = level;
    let mut head = [0; HEADER_BYTES];
    header(&mut head, PRODUCE, &control, batch.len(), 0);
    [&head, &control[..], batch].concat()
}

pub fn set_correlation(frame: &mut [u8], correlation: u64) {
    frame[16..24].copy_from_slice(&correlation.to_le_bytes());
    let crc = crc32c::crc32c(&frame[..28]);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
}

pub fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(request) = frame(bytes)? else { return Ok(None) };
    let reply = match request.kind {
        HELLO_REPLY => Reply::Hello,
        PRODUCE_ACK => Reply::Ack { correlation: request.correlation, level: request.control[12] },
        other => Reply::Other(other),
    };
    Ok(Some((reply, request.bytes)))
}

pub struct Frame<'a> {
    kind: u8,
    pub correlation: u64,
    pub control: &'a [u8],
    pub payload: &'a [u8],
    pub bytes: usize,
}

impl Frame<'_> {
    pub fn is_hello(&self) -> bool {
        self.kind == HELLO
    }
    pub fn is_produce(&self) -> bool {
        self.kind == PRODUCE
    }
}

pub fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if u32_at(28) != crc32c::crc32c(&head[..28]) {
        return Err("header crc".into());
    }
    let (control, payload) = (u32_at(8) as usize, u32_at(12) as usize);
    let len = HEADER_BYTES + control + payload;
    if bytes.len() < len {
        return Ok(None);
    }
    Ok(Some(Frame {
        kind: head[5],
        correlation: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
        control: &bytes[HEADER_BYTES..HEADER_BYTES + control],
        payload: &bytes[HEADER_BYTES + control..len],
        bytes: len,
    }))
}

pub fn hello_reply(out: &mut Vec<u8>) {
    let control = [0; 64];
    let mut head = [0; HEADER_BYTES];
    header(&mut head, HELLO_REPLY, &control, 0, 0);
    out.extend_from_slice(&head);
    out.extend_from_slice(&control);
}

pub fn ack(out: &mut Vec<u8>, correlation: u64, level: u8, _offset: u64) {
    let mut control = [0; ACK_CONTROL];
    control[12] = level;
    let mut head = [0; HEADER_BYTES];
    header(&mut head, PRODUCE_ACK, &control, 0, correlation);
    out.extend_from_slice(&head);
    out.extend_from_slice(&control);
}

/// Whether the batch's checksum fits its bytes.
pub fn batch_is_intact(payload: &[u8]) -> bool {
    payload
        .split_first_chunk::<4>()
        .is_some_and(|(crc, rest)| u32::from_le_bytes(*crc) == crc32c::crc32c(rest))
}
