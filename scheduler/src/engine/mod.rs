//! From samples to pins.
