//! The built-in policies and their registry.
