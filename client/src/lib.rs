//! The Corelog client.
