//! Recorded CPU traces as files.

pub mod wide_csv;
