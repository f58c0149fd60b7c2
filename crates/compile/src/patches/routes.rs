//! What do patches make of a route configuration? Its own merges; for each virtual host its removal, merges and
//! replacement, and then its routes; then the virtual hosts that are added.

use lateen_config::PatchContext;
use lateen_xds::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use lateen_xds::merge::Lists;
use lateen_xds::{Origin, Part, Resource};

use super::listeners::{Pass, Resources};
use super::positions::{Edit, carry_out, plan};
use super::{About, Change, Lookup, Place, Report, Selected, Table, matching, merging, origins};

impl Selected {
    /// A route configuration that was generated for `context`, as the patches leave it.
    pub fn route_configuration(
        &self,
        context: PatchContext,
        resource: &Resource<RouteConfiguration>,
        lookup: &Lookup<'_>,
        report: &mut Report,
    ) -> Resource<RouteConfiguration> {
        patch(&mut Pass { table: &self.table, context, lookup, report }, resource).0
    }

    /// All route configurations of a proxy, grouped by what they were generated for.
    pub fn routes(
        &self,
        groups: Vec<(PatchContext, Resources<RouteConfiguration>)>,
        lookup: &Lookup<'_>,
        report: &mut Report,
    ) -> Resources<RouteConfiguration> {
        let mut all = Resources::new();
        for (context, routes) in groups {
            for (name, resource) in routes {
                let patched = self.route_configuration(context, &resource, lookup, report);
                all.entry(name).or_insert(patched);
            }
        }
        all
    }
}

/// The route configuration as the patches leave it, and the patches that changed it.
pub(super) fn patch<'t>(
    pass: &mut Pass<'t, '_>,
    resource: &Resource<RouteConfiguration>,
) -> (Resource<RouteConfiguration>, Vec<&'t About>) {
    let name = resource.message.name.clone();
    if !may_change(pass, &name) {
        return (resource.clone(), Vec::new());
    }
    let mut draft = Draft::of(resource);
    draft.route_configuration(pass, &name);
    let hosts = std::mem::take(&mut draft.hosts);
    // A host is compared with those before it, as they are now, and those after it, as they were.
    let mut rest: std::collections::VecDeque<Host> = hosts.into();
    while let Some(mut host) = rest.pop_front() {
        if draft.virtual_host(pass, &name, &mut host, &rest) {
            draft.http_routes(pass, &name, &mut host);
            draft.hosts.push(host);
        }
    }
    draft.add_virtual_hosts(pass, &name);
    if draft.applied.is_empty() { (resource.clone(), Vec::new()) } else { draft.finish() }
}

/// A route configuration that is being changed: its parts apart, each with its origins.
struct Draft<'t> {
    /// Without its virtual hosts.
    message: RouteConfiguration,
    whole: Vec<Origin>,
    hosts: Vec<Host>,
    applied: Vec<&'t About>,
}

struct Host {
    /// Without its routes.
    message: VirtualHost,
    origins: Vec<Origin>,
    routes: Vec<(Route, Vec<Origin>)>,
}

fn may_change(pass: &Pass<'_, '_>, name: &str) -> bool {
    let table = pass.table;
    let meant = |about: &About| {
        matching::in_context(about, pass.context)
            && matching::route_configuration(about, pass.context, name, pass.lookup)
    };
    table.route_configurations.iter().any(|patch| meant(&patch.about))
        || table.virtual_hosts.iter().any(|patch| meant(&patch.about))
        || table.http_routes.iter().any(|patch| meant(&patch.about))
}

fn is_for(pass: &Pass<'_, '_>, about: &About, name: &str) -> bool {
    matching::in_context(about, pass.context) && matching::route_configuration(about, pass.context, name, pass.lookup)
}

impl Host {
    fn new(mut message: VirtualHost, origins: Vec<Origin>) -> Host {
        let routes = std::mem::take(&mut message.routes).into_iter().map(|route| (route, Vec::new())).collect();
        Host { message, origins, routes }
    }
}

impl<'t> Draft<'t> {
    fn of(resource: &Resource<RouteConfiguration>) -> Draft<'t> {
        let mut message = (*resource.message).clone();
        let hosts = std::mem::take(&mut message.virtual_hosts)
            .into_iter()
            .enumerate()
            .map(|(virtual_host, host)| {
                let mut host = Host::new(host, origins::of(resource, Part::VirtualHost(virtual_host)));
                for (route, (_, own)) in host.routes.iter_mut().enumerate() {
                    *own = origins::of(resource, Part::Route { virtual_host, route });
                }
                host
            })
            .collect();
        Draft { message, whole: origins::of(resource, Part::Whole), hosts, applied: Vec::new() }
    }

    fn finish(mut self) -> (Resource<RouteConfiguration>, Vec<&'t About>) {
        let mut all: Vec<(Part, Origin)> = origins::at(Part::Whole, self.whole).collect();
        for (virtual_host, mut host) in self.hosts.into_iter().enumerate() {
            all.extend(origins::at(Part::VirtualHost(virtual_host), host.origins));
            for (route, (message, own)) in host.routes.into_iter().enumerate() {
                host.message.routes.push(message);
                all.extend(origins::at(Part::Route { virtual_host, route }, own));
            }
            self.message.virtual_hosts.push(host.message);
        }
        (Resource::new(self.message, all), self.applied)
    }

    /// The whole resource is changed by a patch.
    fn note(&mut self, about: &'t About) {
        origins::add(&mut self.whole, &[], about);
        self.applied.push(about);
    }

    fn route_configuration(&mut self, pass: &mut Pass<'t, '_>, name: &str) {
        let table: &'t Table = pass.table;
        for patch in &table.route_configurations {
            let about = &patch.about;
            let Change::Merge(value, lists) = &patch.change else {
                continue;
            };
            if !is_for(pass, about, name) {
                continue;
            }
            pass.report.matched(about);
            let resource = format!("route configuration `{name}`");
            let mut merged = match merging::message(&self.message, value, *lists) {
                Ok(merged) => merged,
                Err(error) => {
                    pass.report.refused(about, &resource, &error);
                    continue;
                }
            };
            if merged.name != name {
                pass.report.refused(about, &resource, "a patch cannot give it another name");
                continue;
            }
            let replaces = *lists == Lists::Replace && !value.message.virtual_hosts.is_empty();
            let new = std::mem::take(&mut merged.virtual_hosts);
            let own = if replaces { [].as_slice() } else { self.hosts.as_slice() };
            let taken = new.iter().enumerate().find_map(|(index, host)| {
                let others = own.iter().map(|host| &host.message).chain(&new[..index]);
                shared_domain(host, others)
            });
            if let Some(why) = taken {
                pass.report.refused(about, &resource, &why);
                continue;
            }
            if replaces {
                self.hosts.clear();
            }
            self.hosts.extend(new.into_iter().map(|host| Host::new(host, vec![about.origin.clone()])));
            self.message = merged;
            self.note(about);
        }
    }

    /// False when a patch removes the host.
    fn virtual_host(
        &mut self,
        pass: &mut Pass<'t, '_>,
        name: &str,
        host: &mut Host,
        after: &std::collections::VecDeque<Host>,
    ) -> bool {
        let table: &'t Table = pass.table;
        for patch in &table.virtual_hosts {
            let about = &patch.about;
            if matches!(patch.change, Change::Insert(..))
                || !is_for(pass, about, name)
                || !matching::virtual_host(about, &host.message)
            {
                continue;
            }
            pass.report.matched(about);
            let resource = format!("virtual host `{}` of route configuration `{name}`", host.message.name);
            let next = match &patch.change {
                Change::Remove => {
                    self.note(about);
                    return false;
                }
                Change::Merge(value, lists) => merging::message(&host.message, value, *lists),
                Change::Replace(value) | Change::Insert(value, _) => Ok(value.clone()),
            };
            let next = match next {
                Ok(next) => next,
                Err(error) => {
                    pass.report.refused(about, &resource, &error);
                    continue;
                }
            };
            let others = self.hosts.iter().chain(after).map(|host| &host.message);
            if let Some(why) = shared_domain(&next, others) {
                pass.report.refused(about, &resource, &why);
                continue;
            }
            let mut next = Host::new(next, std::mem::take(&mut host.origins));
            for (_, own) in &mut next.routes {
                own.push(about.origin.clone());
            }
            let keeps = match &patch.change {
                Change::Merge(value, Lists::Replace) => value.message.routes.is_empty(),
                change => matches!(change, Change::Merge(..)),
            };
            if keeps {
                let mut routes = std::mem::take(&mut host.routes);
                routes.append(&mut next.routes);
                next.routes = routes;
            }
            origins::add(&mut next.origins, &self.whole, about);
            *host = next;
            self.applied.push(about);
        }
        true
    }

    fn http_routes(&mut self, pass: &mut Pass<'t, '_>, name: &str, host: &mut Host) {
        let table: &'t Table = pass.table;
        let patches: Vec<_> = table
            .http_routes
            .iter()
            .filter(|patch| is_for(pass, &patch.about, name) && matching::virtual_host(&patch.about, &host.message))
            .collect();
        if patches.is_empty() {
            return;
        }
        let around = if host.origins.is_empty() { self.whole.clone() } else { host.origins.clone() };
        let resource = format!("virtual host `{}` of route configuration `{name}`", host.message.name);
        let mut kept = Vec::with_capacity(host.routes.len());
        'routes: for (mut route, mut own) in std::mem::take(&mut host.routes) {
            for patch in &patches {
                let about = &patch.about;
                let meant = matching::route(about).is_none_or(|is_meant| is_meant(&route));
                match &patch.change {
                    Change::Remove if meant => {
                        pass.report.matched(about);
                        origins::add(&mut host.origins, &self.whole, about);
                        self.applied.push(about);
                        continue 'routes;
                    }
                    Change::Merge(value, lists) if meant => {
                        pass.report.matched(about);
                        match merging::message(&route, value, *lists) {
                            Ok(merged) => {
                                route = merged;
                                origins::add(&mut own, &around, about);
                                self.applied.push(about);
                            }
                            Err(error) => pass.report.refused(about, &resource, &error),
                        }
                    }
                    _ => {}
                }
            }
            kept.push((route, own));
        }
        host.routes = kept;
        for patch in patches {
            let Change::Insert(value, place) = &patch.change else {
                continue;
            };
            let is_meant = matching::route(&patch.about);
            let chosen = is_meant.as_ref().map(|is_meant| move |(route, _): &(Route, Vec<Origin>)| is_meant(route));
            // The first place is for a patch whose route is there, too.
            if let (Place::First, Some(chosen)) = (place, &chosen)
                && !host.routes.iter().any(chosen)
            {
                continue;
            }
            let chosen = chosen.as_ref().map(|chosen| chosen as &dyn Fn(&(Route, Vec<Origin>)) -> bool);
            let Some(edit @ Edit::Insert(_)) = plan(&host.routes, &patch.change, chosen) else {
                continue;
            };
            pass.report.matched(&patch.about);
            carry_out(&mut host.routes, edit, || Some((value.clone(), vec![patch.about.origin.clone()])));
            self.applied.push(&patch.about);
        }
    }

    fn add_virtual_hosts(&mut self, pass: &mut Pass<'t, '_>, name: &str) {
        let table: &'t Table = pass.table;
        for patch in &table.virtual_hosts {
            let Change::Insert(value, _) = &patch.change else {
                continue;
            };
            if !is_for(pass, &patch.about, name) {
                continue;
            }
            pass.report.matched(&patch.about);
            if let Some(why) = shared_domain(value, self.hosts.iter().map(|host| &host.message)) {
                pass.report.refused(&patch.about, &format!("route configuration `{name}`"), &why);
                continue;
            }
            self.hosts.push(Host::new(value.clone(), vec![patch.about.origin.clone()]));
            self.applied.push(&patch.about);
        }
    }
}

/// Envoy refuses a route configuration in which a domain is there twice, in whatever case.
fn shared_domain<'h>(host: &VirtualHost, mut others: impl Iterator<Item = &'h VirtualHost>) -> Option<String> {
    others.find_map(|other| {
        let domain =
            host.domains.iter().find(|domain| other.domains.iter().any(|taken| taken.eq_ignore_ascii_case(domain)))?;
        Some(format!("its virtual host `{}` has the domain `{domain}` as well", other.name))
    })
}
