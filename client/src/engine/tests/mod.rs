//! Stories of the engine and a scripted broker.

mod consuming;
mod peer;
mod producing;
