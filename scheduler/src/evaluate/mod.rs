//! What a policy is worth: running it where nothing can be harmed, and saying what came of it.

pub mod bound;
pub mod simulation;
