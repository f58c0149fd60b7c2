//! The router: from a request to a route, and from a route to what is sent.

pub mod redirect;
pub mod rewrite;
pub mod select;
