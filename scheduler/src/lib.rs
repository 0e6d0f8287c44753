//! The daemon: everything of `vcpu-scheduler` that touches the world.
//!
//! [`config`] is what the operator lays down, [`host`] reads counters and pins, [`engine`] turns the one into the other
//! tick by tick, [`evaluate`] runs policies where nothing can be harmed, [`plugin`] takes them from shared objects,
//! [`operate`] talks to a daemon that runs, and [`cli`] is what the user talks to. Whatever of it waits gives way to [`stop`].

pub mod cli;
pub mod config;
pub mod engine;
pub mod evaluate;
pub mod host;
pub mod operate;
pub mod plugin;
pub mod stop;
pub mod trace;
