//! Policies in shared objects: built by the compilers that authors use, loaded as the daemon loads them.

mod book;
mod broken;
mod harness;
mod headroom;
mod isolated;
mod older_header;
mod rust;
mod strides;
