//! What does the admin interface see of the engine, and how do its orders get there?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use lateen_xds::envoy::config::bootstrap::v3 as bootstrap_v3;
use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::r#type::v3::SemanticVersion;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::{Accepted, AdminSource, Order, State};
use crate::engine::{Event, Status};
use crate::snapshot::Cluster;
use crate::stats::Registry;

/// The engine as the admin interface sees it.
#[derive(Debug)]
pub(crate) struct EngineSource {
    /// What the engine publishes.
    pub(crate) status: Arc<Status>,
    /// The engine's mailbox.
    pub(crate) events: UnboundedSender<Event>,
    /// Who waits for the end of the process.
    pub(crate) stop: Arc<Notify>,
    /// Where the admin interface is.
    pub(crate) admin: SocketAddr,
}

impl AdminSource for EngineSource {
    fn stats(&self) -> &Registry {
        &self.status.stats
    }

    fn state(&self) -> State {
        let current = self.status.current();
        if current.draining || current.failing_health_checks {
            State::Draining
        } else if current.accepted.is_none() {
            State::PreInitializing
        } else {
            State::Live
        }
    }

    fn started(&self) -> Instant {
        self.status.started
    }

    fn bootstrap(&self) -> bootstrap_v3::Bootstrap {
        let mut numbers = env!("CARGO_PKG_VERSION").split('.').map(|number| number.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        let version = SemanticVersion { major_number: number(), minor_number: number(), patch: number() };
        let build = core_v3::BuildVersion { version: Some(version), ..core_v3::BuildVersion::default() };
        let node = core_v3::Node {
            user_agent_name: "lateen".into(),
            user_agent_version_type: Some(core_v3::node::UserAgentVersionType::UserAgentBuildVersion(build)),
            ..core_v3::Node::default()
        };
        let admin = bootstrap_v3::Admin { address: Some(super::clusters::address(self.admin)), ..Default::default() };
        bootstrap_v3::Bootstrap { node: Some(node), admin: Some(admin), ..Default::default() }
    }

    fn config(&self) -> Accepted {
        let current = self.status.current();
        Accepted { set: current.set, updates: current.updates }
    }

    fn clusters(&self) -> Vec<Arc<Cluster>> {
        let snapshot = self.status.current().snapshot;
        snapshot.map(|snapshot| snapshot.clusters.iter().flatten().cloned().collect()).unwrap_or_default()
    }

    fn listeners(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.status.current().listeners.into_iter().collect()
    }

    fn command(&self, order: Order) {
        if order == Order::Quit {
            self.stop.notify_one();
        } else if self.events.send(Event::Order(order)).is_err() {
            tracing::warn!(?order, "the proxy has ended; the order came too late");
        }
    }
}
