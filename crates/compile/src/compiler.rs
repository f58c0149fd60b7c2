//! How is the configuration of a proxy kept up to date? A [`Compiler`] remembers what it made for the last world, and
//! makes anew only what a change can have touched.
//!
//! What it makes is always what [`compile`](crate::compile) makes, byte for byte: it only skips work whose inputs are the
//! very same values as before.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::Diagnostic;
use lateen_xds::envoy::config::listener::v3::Listener;
use lateen_xds::{Resource, XdsSet};

use crate::auto_passthrough;
use crate::clusters;
use crate::context::Context;
use crate::gateway_ports;
use crate::identity::address;
use crate::listeners::{self, outbound::Plan, outbound::Table};
use crate::patched;
use crate::routes;
use crate::scope::{Role, Scope};
use crate::tracing;
use crate::world::World;
use crate::world::gateways::ServerHost;

/// Compiles the configuration of one proxy, for one world after the other.
#[derive(Debug)]
pub struct Compiler {
    scope: Scope,
    previous: Option<Previous>,
    clusters: clusters::Memory,
    routes: routes::Memory,
    patched: patched::Memory,
}

/// What was made for the world before. It keeps that world, whose addresses tell what is the same.
#[derive(Debug)]
struct Previous {
    world: World,
    visible: Vec<usize>,
    /// Hosts to whose services a gateway passes connections through.
    passed_through: Vec<ServerHost>,
    upstreams: clusters::Compiled,
    listeners: Listeners,
}

/// Listeners, and what was looked at for them beyond the sections of the world.
#[derive(Clone, Debug)]
struct Listeners {
    /// VirtualServices with rules that listeners carry.
    rules: Vec<usize>,
    by_name: BTreeMap<Arc<str>, Resource<Listener>>,
    /// The route configurations that a sidecar's listeners ask for.
    tables: Vec<Table>,
}

impl Compiler {
    /// A compiler that has made nothing yet.
    pub fn new(scope: Scope) -> Compiler {
        Compiler {
            scope,
            previous: None,
            routes: routes::Memory::default(),
            clusters: clusters::Memory::default(),
            patched: patched::Memory::default(),
        }
    }

    /// The proxy that it compiles for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The configuration in a world. Worlds that were made by [`World::update`] of the one before cost only what changed.
    pub fn compile(&mut self, world: &World) -> XdsSet {
        let cx = Context::new(world, &self.scope);
        let visible = cx.visible();
        let mut previous = self.previous.take().filter(|previous| previous.world.shares_settings(world));
        let same_services = previous
            .as_ref()
            .is_some_and(|previous| previous.world.shares_services(world) && previous.visible == visible);
        let same_rules = previous.as_ref().is_some_and(|previous| previous.world.shares_rules(world));
        let same_endpoints = previous.as_ref().is_some_and(|previous| previous.world.shares_endpoints(world));

        let same_gateways = self.scope.role == Role::Sidecar
            || previous.as_ref().is_some_and(|previous| previous.world.shares_gateways(world));

        // Endpoints and clusters first, then the routes that lead to them, then the listeners that use those.
        let passed_through = auto_passthrough::hosts(&cx);
        let upstreams = match &mut previous {
            Some(previous)
                if same_services && same_rules && same_endpoints && previous.passed_through == passed_through =>
            {
                std::mem::take(&mut previous.upstreams)
            }
            _ => {
                if previous.is_none() {
                    self.clusters = clusters::Memory::default();
                }
                let mut upstreams = clusters::compile(&cx, &passed_through, &mut self.clusters);
                upstreams.clusters.extend(tracing::clusters(&cx));
                upstreams
            }
        };
        let ports = match self.scope.role {
            Role::Gateway => gateway_ports::merge(&cx),
            Role::Sidecar => Vec::new(),
        };
        let rules: Vec<usize> = world
            .all_virtual_services()
            .iter()
            .filter(|virtual_service| virtual_service.shapes_listeners())
            .map(|virtual_service| address(&**virtual_service))
            .collect();
        let listeners = match &previous {
            Some(previous)
                if same_services
                    && same_rules
                    && same_endpoints
                    && same_gateways
                    && previous.world.shares_telemetries(world)
                    && previous.listeners.rules == rules =>
            {
                previous.listeners.clone()
            }
            _ => match self.scope.role {
                Role::Gateway => Listeners { rules, by_name: listeners::of_gateway(&cx, &ports), tables: Vec::new() },
                Role::Sidecar => {
                    let plan = Plan::build(&cx);
                    Listeners { rules, by_name: listeners::of_sidecar(&cx, &plan), tables: plan.tables() }
                }
            },
        };
        // Routes look at rules for what is hashed alone.
        let hashes = |world: &World| world.has_consistent_hash();
        let same_hashes =
            same_rules || previous.as_ref().is_some_and(|previous| !hashes(&previous.world) && !hashes(world));
        self.routes.begin(same_services && same_hashes, world);
        let routes = match self.scope.role {
            Role::Gateway => routes::gateway::compile(&cx, &ports, &mut self.routes),
            Role::Sidecar => routes::sidecar::compile(&cx, &listeners.tables, &mut self.routes),
        };
        self.routes.end(|name| routes.contains_key(name));
        let set = XdsSet {
            endpoints: upstreams.endpoints.clone(),
            clusters: upstreams.clusters.clone(),
            routes,
            listeners: listeners.by_name.clone(),
            ..XdsSet::default()
        };
        let set = self.patched.apply(&cx, &ports, set);
        self.previous = Some(Previous { world: world.clone(), visible, passed_through, upstreams, listeners });
        set
    }

    /// What is to be said about the configuration that was made last: patches of EnvoyFilters that match nothing of this
    /// proxy, or that cannot be applied to it. What can be said without a proxy is in [`World::diagnostics`].
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.patched.diagnostics()
    }

    /// What is to be said about two proxies that run as one: a patch that matches something of either matches.
    pub fn joint_diagnostics(&self, other: &Compiler) -> Vec<Diagnostic> {
        self.patched.joint_diagnostics(&other.patched)
    }
}
