//! Policies in shared objects: built by the compilers that authors use, loaded as the daemon loads them.

mod broken;
mod compiling;
mod harness;
mod headroom;
mod older_header;
mod rust;
