//! Where do the generated messages live? Here, apart from hand-written code, so that its lints do not judge them.

#![allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
