//! HTTP: heads, codecs and the walk of a request.

pub mod head;
pub mod h1;
pub mod path;
pub mod router;
pub mod stream_info;
