//! x
pub mod engine;
pub mod host;
