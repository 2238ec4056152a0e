//! Stories of the engine and a scripted broker.

mod consuming;
mod hostile;
mod peer;
mod producing;
