//! Little-endian bytes in and out, for commands and images on disk. Reading never panics and never
//! allocates from a length that it read: a list grows as its elements are found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes that say nothing of ours, or are too short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadBytes;

/// Builds a body: four bytes for the checksum, then what is put.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new(format: u8, tag: u8) -> Self {
        Self { bytes: vec![0, 0, 0, 0, format, tag, 0, 0] }
    }
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    /// 0 stands for `None`: no setting that may be absent may be 0.
    pub fn optional(&mut self, value: Option<u64>) {
        self.u64(value.unwrap_or(0));
    }
    pub fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("names are short"));
        self.bytes.extend_from_slice(text.as_bytes());
    }
    /// Up to 4 GiB, their number in front.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("far less than 4 GiB"));
        self.bytes.extend_from_slice(bytes);
    }
    /// 4 or 6, then an IPv4 address and the port, or an IPv6 address, the port, flow and scope.
    pub fn address(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(address) => {
                self.u8(4);
                self.bytes.extend_from_slice(&address.ip().octets());
                self.u16(address.port());
            }
            SocketAddr::V6(address) => {
                self.u8(6);
                self.bytes.extend_from_slice(&address.ip().octets());
                self.u16(address.port());
                self.u32(address.flowinfo());
                self.u32(address.scope_id());
            }
        }
    }
    /// The body, its CRC32C in the first four bytes.
    pub fn finish(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.bytes[4..]);
        self.bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// Reads a body.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks checksum and format; returns the tag and a reader of what follows.
    pub fn new(body: &'a [u8], format: u8) -> Result<(u8, Self), BadBytes> {
        let (crc, rest) = body.split_first_chunk::<4>().ok_or(BadBytes)?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return Err(BadBytes);
        }
        let ([found, tag, 0, 0], rest) = rest.split_first_chunk::<4>().ok_or(BadBytes)? else {
            return Err(BadBytes);
        };
        if *found != format {
            return Err(BadBytes);
        }
        Ok((*tag, Self { rest }))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadBytes> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(BadBytes)?;
        self.rest = rest;
        Ok(*head)
    }
    pub fn u8(&mut self) -> Result<u8, BadBytes> {
        self.take().map(u8::from_le_bytes)
    }
    pub fn u16(&mut self) -> Result<u16, BadBytes> {
        self.take().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, BadBytes> {
        self.take().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, BadBytes> {
        self.take().map(u64::from_le_bytes)
    }
    pub fn optional(&mut self) -> Result<Option<u64>, BadBytes> {
        Ok(Some(self.u64()?).filter(|&value| value != 0))
    }
    pub fn text(&mut self) -> Result<&'a str, BadBytes> {
        let len = usize::from(self.u16()?);
        let (text, rest) = self.rest.split_at_checked(len).ok_or(BadBytes)?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| BadBytes)
    }
    /// Bytes whose number was written as u32.
    pub fn bytes(&mut self) -> Result<&'a [u8], BadBytes> {
        let len = self.u32()? as usize;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(BadBytes)?;
        self.rest = rest;
        Ok(bytes)
    }
    pub fn address(&mut self) -> Result<SocketAddr, BadBytes> {
        match self.u8()? {
            4 => {
                let ip = IpAddr::V4(Ipv4Addr::from(self.take::<4>()?));
                Ok(SocketAddr::new(ip, self.u16()?))
            }
            6 => {
                let ip = Ipv6Addr::from(self.take::<16>()?);
                let (port, flow, scope) = (self.u16()?, self.u32()?, self.u32()?);
                Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
            }
            _ => Err(BadBytes),
        }
    }
    /// A list whose length was written as u32.
    pub fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, BadBytes>,
    ) -> Result<Vec<T>, BadBytes> {
        let count = self.u32()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }
    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }
    /// Nothing may be left.
    pub fn finish(self) -> Result<(), BadBytes> {
        if self.is_over() { Ok(()) } else { Err(BadBytes) }
    }
}
