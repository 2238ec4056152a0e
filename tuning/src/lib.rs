//! Inspects a host for what the Corelog broker needs.
