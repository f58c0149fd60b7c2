//! The router: from a request to a route, and from a route to what is sent.

pub(crate) mod forward;
pub mod hash;
pub(crate) mod mirror;
pub mod redirect;
pub(crate) mod retry;
pub mod rewrite;
pub mod select;
pub(crate) mod timeouts;
pub(crate) mod upgrade;
