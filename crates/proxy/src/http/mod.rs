//! HTTP: heads, codecs and the walk of a request.

pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod exchange;
pub(crate) mod filters;
pub mod h1;
pub mod head;
pub(crate) mod ingress;
pub mod path;
pub(crate) mod reply;
pub mod router;
pub mod stream_info;
pub(crate) mod transfer;
