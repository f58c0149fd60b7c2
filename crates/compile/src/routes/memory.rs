//! Which routes of an earlier compilation still hold? Those of single VirtualServices and services, and whole tables of
//! which nothing changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lateen_xds::Resource;
use lateen_xds::envoy::config::route::v3::RouteConfiguration;

use super::table::{self, CompiledRoute};
use super::virtual_service::{self, Listener};
use crate::context::Context;
use crate::identity::address;
use crate::names;
use crate::world::World;
use crate::world::services::Service;
use crate::world::virtual_services::VirtualService;

/// What is remembered between compilations for one proxy. Keys are addresses of objects of the last world, which its
/// owner keeps.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    of_virtual_services: HashMap<OnListener, Arc<[CompiledRoute]>>,
    /// By service and port.
    of_services: HashMap<(usize, u32), Arc<[CompiledRoute]>>,
    /// By service and port.
    namings: HashMap<(usize, u32), Naming>,
    /// By name.
    tables: HashMap<Arc<str>, Table>,
}

/// Name and domains of a virtual host.
pub(crate) type Naming = (Arc<str>, Arc<Vec<String>>);

/// A VirtualService on a listener: its address, port, gateway, and whether requests come over TLS.
type OnListener = (usize, u32, Option<Box<str>>, bool);

#[derive(Debug)]
struct Table {
    /// What it was made from.
    key: Vec<usize>,
    current: table::Table,
    /// The form before, whose parts the next one may use again when nobody holds it any more.
    spare: Option<table::Table>,
}

impl Memory {
    /// Begins a compilation. Unless what all routes may depend on is the same as before, nothing is remembered; else all
    /// but what belongs to VirtualServices that are gone.
    pub(crate) fn begin(&mut self, is_same: bool, world: &World) {
        if !is_same {
            *self = Memory::default();
            return;
        }
        let living: HashSet<usize> =
            world.all_virtual_services().iter().map(|virtual_service| address(&**virtual_service)).collect();
        self.of_virtual_services.retain(|(virtual_service, ..), _| living.contains(virtual_service));
    }

    /// The routes of a VirtualService on a listener.
    pub(crate) fn routes(
        &mut self,
        cx: &Context<'_>,
        virtual_service: &VirtualService,
        listener: Listener<'_>,
    ) -> Arc<[CompiledRoute]> {
        let gateway = match listener {
            Listener::Sidecar { .. } => None,
            Listener::Gateway { name, .. } => Some(name.into()),
        };
        let key = (address(virtual_service), listener.port(), gateway, listener.is_tls());
        let make = || virtual_service::compile(cx, virtual_service, listener).into();
        self.of_virtual_services.entry(key).or_insert_with(make).clone()
    }

    /// The routes of a service that no VirtualService names.
    pub(crate) fn default_routes(
        &mut self,
        service: &Service,
        port: u32,
        make: impl FnOnce() -> CompiledRoute,
    ) -> Arc<[CompiledRoute]> {
        self.of_services.entry((address(service), port)).or_insert_with(|| Arc::new([make()])).clone()
    }

    /// Name and domains of the virtual host of a service on a port.
    pub(crate) fn naming(&mut self, service: &Service, port: u32, make: impl FnOnce() -> Vec<String>) -> Naming {
        let make = || (names::virtual_host(&service.host, port).into(), Arc::new(make()));
        self.namings.entry((address(service), port)).or_insert_with(make).clone()
    }

    /// The table with a name: that of the last compilation if it was made from the same, else a new one.
    pub(crate) fn table(
        &mut self,
        name: &Arc<str>,
        key: Vec<usize>,
        make: impl FnOnce(&mut Memory, Option<table::Table>) -> table::Table,
    ) -> Resource<RouteConfiguration> {
        let before = self.tables.remove(name);
        let (spare, before) = match before {
            Some(table) if table.key == key => {
                let resource = table.current.resource.clone();
                self.tables.insert(name.clone(), table);
                return resource;
            }
            Some(table) => (table.spare, Some(table.current)),
            None => (None, None),
        };
        let current = make(self, spare);
        let resource = current.resource.clone();
        self.tables.insert(name.clone(), Table { key, current, spare: before });
        resource
    }

    /// Ends a compilation: tables that nobody asked for are forgotten.
    pub(crate) fn end(&mut self, asked: impl Fn(&str) -> bool) {
        self.tables.retain(|name, _| asked(name));
    }
}
