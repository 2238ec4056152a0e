//! The read-only picture of the metadata that every shard holds.

/// Versions only grow; two views of one version are equal.
#[derive(Debug, Default)]
pub struct View {
    pub version: u64,
}
