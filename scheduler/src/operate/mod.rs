//! Talking to a daemon that runs.
//!
//! [`control`] is the socket beside the journal on which the daemon takes orders.

pub mod control;
