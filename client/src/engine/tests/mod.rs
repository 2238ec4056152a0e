//! Stories of the engine and a scripted broker.

mod altering;
mod consuming;
mod hostile;
mod peer;
mod producing;
