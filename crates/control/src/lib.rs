//! The control plane process: where configuration comes from, and what is in force now. Knows no proxy.

mod controller;
mod files;
mod store;
mod watch;

pub use controller::{Controller, Settings, Update, mesh};
pub use files::{Files, Stamp, Stamps, Unreadable};
pub use store::Changes;
pub use watch::Watch;
