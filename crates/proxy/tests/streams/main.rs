//! What happens to single streams: faults, mirrors, upgrades and times, on a whole data plane on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod cors;
mod faults;
mod mirrors;
mod replies;
mod support;
mod times;
mod upgrades;
