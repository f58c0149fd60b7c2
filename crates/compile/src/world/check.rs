//! What is questionable about the objects together? References that lead nowhere, and what is asked for but not
//! compiled yet.

mod telemetry;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use lateen_config::{Destination, HttpRoute, Sidecar, VirtualService};
use lateen_config::{DestinationRule, LoadBalancerPolicy, LoadBalancerSettings, SimpleLb, TrafficPolicy};
use lateen_config::{Diagnostic, Object, Spec};

use super::World;
use super::destination_rules::Client;
use super::inputs::{Inputs, Section};
use super::objects::{Objects, Typed};
use super::services::NETWORK;
use crate::host;
use crate::identity::address;
use crate::routes::is_claim;

/// A reference to something that does not exist: the code of Istio's analysis.
const NOT_FOUND: &str = "IST0101";

/// Something that Istio knows and that is not compiled.
const NOT_COMPILED: &str = "LTN0101";

/// A rule of which no destination can be chosen.
const NO_WEIGHT: &str = "LTN0103";

/// A setting of the mesh that cannot be used.
const MESH_SETTING: &str = "LTN0102";

/// What was found, and in which objects. Objects whose references cannot have changed are not looked at again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    virtual_services: Arc<ByObject>,
    destination_rules: Arc<ByObject>,
    rest: Arc<[Diagnostic]>,
}

/// The objects of a kind in order, each with what was found in it.
type ByObject = Vec<(Arc<Object>, Arc<[Diagnostic]>)>;

impl Findings {
    /// Looks at everything. The findings are in the order of kinds and, within one, of age.
    pub(crate) fn collect(world: &World, previous: Option<&World>) -> (Findings, Vec<Diagnostic>) {
        let gateways = world.gateways.iter().map(|gateway| gateway.full_name()).collect();
        let mut check = Check { world, gateways, findings: Vec::new() };
        for setting in &world.mesh.not_carried_out {
            check.mesh_setting(setting);
        }
        check.mesh_telemetry();
        let mut found = std::mem::take(&mut check.findings);
        let inputs = &world.inputs;
        let of_services = previous.filter(|previous| previous.shares_services(world));
        let of_destinations =
            of_services.filter(|previous| previous.shares_rules(world) && previous.shares_gateways(world));

        let known = of_destinations.map(|previous| &previous.findings.virtual_services);
        let objects = inputs.virtual_services.objects();
        // Those that delegate depend on other VirtualServices too.
        let lasts = |spec: &VirtualService| spec.http.iter().all(|http| http.delegate.is_none());
        let virtual_services = by_object(&objects.virtual_services, known, lasts, |object, spec| {
            check.virtual_service(object, spec);
            std::mem::take(&mut check.findings)
        });
        let known = of_services.map(|previous| &previous.findings.destination_rules);
        let same = |section: fn(&Inputs) -> &Section| {
            of_services.is_some_and(|previous| section(inputs).is(section(&previous.inputs)))
        };
        let destination_rules = match known {
            Some(known) if same(|inputs| &inputs.destination_rules) => known.clone(),
            _ => {
                let objects = inputs.destination_rules.objects();
                let look = |object: &Arc<Object>, spec: &DestinationRule| {
                    check.destination_rule(object, spec);
                    std::mem::take(&mut check.findings)
                };
                by_object(&objects.destination_rules, known, |_| true, look)
            }
        };
        for (_, findings) in virtual_services.iter().chain(&*destination_rules) {
            found.extend(findings.iter().cloned());
        }
        let same_rest = same(|inputs| &inputs.services)
            && same(|inputs| &inputs.telemetries)
            && same(|inputs| &inputs.endpoints)
            && same(|inputs| &inputs.others);
        let rest = match of_services {
            Some(previous) if same_rest => previous.findings.rest.clone(),
            _ => check.rest(inputs),
        };
        found.extend(rest.iter().cloned());
        (Findings { virtual_services, destination_rules, rest }, found)
    }
}

impl Check<'_> {
    /// Looks at objects of which few say anything.
    fn rest(&mut self, inputs: &Inputs) -> Arc<[Diagnostic]> {
        let check = self;
        for (object, _) in &inputs.services.objects().services {
            check.service(object);
        }
        for (object, spec) in &inputs.sidecars.objects().sidecars {
            check.sidecar(object, spec);
        }
        for (object, spec) in &inputs.telemetries.objects().telemetries {
            check.telemetry(object, spec);
        }
        // There may be many Pods, of which few say anything.
        let told = inputs.endpoints.iter().filter(|object| telemetry::has_proxy_annotation(object));
        for (object, _) in &Objects::build(told).pods {
            check.proxy_annotation(object, "metadata.annotations", &object.metadata.annotations);
        }
        for object in &inputs.others.objects().others {
            check.other(object);
        }
        std::mem::take(&mut check.findings).into()
    }
}

/// What is found in each object, or was known of it; `lasts` tells for which that may be.
fn by_object<T>(
    objects: &[Typed<'_, T>],
    known: Option<&Arc<ByObject>>,
    lasts: impl Fn(&T) -> bool,
    mut look: impl FnMut(&Arc<Object>, &T) -> Vec<Diagnostic>,
) -> Arc<ByObject> {
    let none: Arc<[Diagnostic]> = Arc::new([]);
    let known: HashMap<usize, &Arc<[Diagnostic]>> =
        known.into_iter().flat_map(|known| &**known).map(|(object, found)| (address(&**object), found)).collect();
    let found = objects.iter().map(|(object, spec)| {
        let findings = match known.get(&address(&***object)) {
            Some(found) if lasts(spec) => (*found).clone(),
            _ => match look(object, spec) {
                found if found.is_empty() => none.clone(),
                found => found.into(),
            },
        };
        ((*object).clone(), findings)
    });
    Arc::new(found.collect())
}

struct Check<'a> {
    world: &'a World,
    gateways: BTreeSet<String>,
    findings: Vec<Diagnostic>,
}

impl Check<'_> {
    fn virtual_service(&mut self, object: &Arc<Object>, spec: &VirtualService) {
        let namespace = &object.metadata.namespace;
        for (index, gateway) in spec.gateways.iter().enumerate() {
            let name = host::resolve_gateway(gateway, namespace);
            if *name == *host::MESH || self.gateways.contains(&*name) {
                continue;
            }
            let known = host::closest(&name, self.gateways.iter().map(String::as_str)).map(str::to_owned);
            self.missing(
                object,
                &format!("spec.gateways[{index}]"),
                format!("gateway `{name}` does not exist"),
                "no Gateway has this name",
                known.map(|known| format!("did you mean `{known}`?")),
            );
        }
        for (index, http) in spec.http.iter().enumerate() {
            self.http_rule(object, &format!("spec.http[{index}]"), http);
        }
        let tls = spec.tls.iter().enumerate().map(|(index, rule)| (format!("spec.tls[{index}]"), &rule.route));
        let tcp = spec.tcp.iter().enumerate().map(|(index, rule)| (format!("spec.tcp[{index}]"), &rule.route));
        for (path, routes) in tls.chain(tcp) {
            for (index, entry) in routes.iter().enumerate() {
                if let Some(destination) = &entry.destination {
                    self.destination(object, &format!("{path}.route[{index}].destination"), destination);
                }
            }
        }
    }

    fn http_rule(&mut self, object: &Arc<Object>, path: &str, http: &HttpRoute) {
        if let Some(delegate) = &http.delegate {
            let namespace = delegate.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            let namespace = namespace.unwrap_or(&object.metadata.namespace);
            let name = delegate.name.as_deref().unwrap_or_default();
            let full_name = format!("{namespace}/{name}");
            let all = self.world.all_virtual_services();
            let names: Vec<String> = all.iter().map(|known| format!("{}/{}", known.namespace, known.name)).collect();
            if !names.contains(&full_name) {
                let known = host::closest(&full_name, names.iter().map(String::as_str));
                let known = known.map(|known| format!("did you mean `{known}`?"));
                self.missing(
                    object,
                    &format!("{path}.delegate"),
                    format!("VirtualService `{full_name}` does not exist: the rule is left out"),
                    "no VirtualService has this name",
                    known,
                );
            }
        }
        for (index, request) in http.r#match.iter().enumerate() {
            for (field, headers) in [("headers", &request.headers), ("withoutHeaders", &request.without_headers)] {
                if headers.keys().any(|name| is_claim(name)) {
                    self.claims(object, &format!("{path}.match[{index}].{field}"));
                }
            }
        }
        if http.route.len() > 1 && http.route.iter().all(|entry| entry.weight <= 0) {
            let finding =
                Diagnostic::warning(NO_WEIGHT, "no destination of the rule has a weight: the rule is left out")
                    .label("the weights of all destinations are 0");
            self.push(object, &format!("{path}.route"), finding);
        }
        let routes = http.route.iter().enumerate().filter_map(|(index, entry)| {
            Some((format!("{path}.route[{index}].destination"), entry.destination.as_ref()?))
        });
        let mirror = http.mirror.iter().map(|destination| (format!("{path}.mirror"), destination));
        let mirrors = http.mirrors.iter().enumerate().filter_map(|(index, mirror)| {
            Some((format!("{path}.mirrors[{index}].destination"), mirror.destination.as_ref()?))
        });
        let destinations: Vec<_> = routes.chain(mirror).chain(mirrors).collect();
        for (path, destination) in destinations {
            self.destination(object, &path, destination);
        }
    }

    /// Tokens are not read, so no request has claims, whatever its token says.
    fn claims(&mut self, object: &Arc<Object>, path: &str) {
        let message = "no request matches a claim: tokens are not read, for RequestAuthentication is not carried out";
        let help = "at gateways a claim counts as absent, so `headers` never match and `withoutHeaders` always do; \
                    sidecars leave the match out";
        self.push(object, path, Diagnostic::warning(NOT_COMPILED, message).help(help));
    }

    fn destination(&mut self, object: &Arc<Object>, path: &str, destination: &Destination) {
        let namespace = &object.metadata.namespace;
        let world = self.world;
        let name = host::resolve(&destination.host, namespace, &world.mesh.cluster_domain);
        let Some(service) = world.services_of(&name).next() else {
            self.unknown_host(object, &format!("{path}.host"), &destination.host, &name);
            return;
        };
        if let Some(port) = destination.port.as_ref().map(|port| port.number).filter(|port| *port != 0)
            && service.alias_of.is_none()
            && service.port(port).is_none()
        {
            let known: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
            self.missing(
                object,
                &format!("{path}.port.number"),
                format!("service `{name}` has no port {port}"),
                "no such port",
                Some(format!("its ports are {}", known.join(", "))),
            );
        }
        let Some(subset) = destination.subset.as_deref().filter(|subset| !subset.is_empty()) else {
            return;
        };
        let client = Client { namespace, labels: None };
        let rule = world.destination_rule(service, &client);
        if rule.is_some_and(|rule| rule.subset(subset).is_some()) {
            return;
        }
        let help = match rule {
            None => format!("define it in a DestinationRule for `{name}`"),
            Some(rule) => {
                let known = rule.subsets.iter().map(|subset| &*subset.name);
                match host::closest(subset, known) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("add it to DestinationRule {}/{}", rule.namespace, rule.name),
                }
            }
        };
        self.missing(
            object,
            &format!("{path}.subset"),
            format!("subset `{subset}` of `{name}` is not defined"),
            "no DestinationRule has this subset",
            Some(help),
        );
    }

    fn destination_rule(&mut self, object: &Arc<Object>, spec: &DestinationRule) {
        let name = host::resolve(&spec.host, &object.metadata.namespace, &self.world.mesh.cluster_domain);
        let known = if host::is_wildcard(&name) {
            self.world.hosts().any(|host| host::overlaps(&name, host))
        } else {
            self.world.services_of(&name).next().is_some()
        };
        if !known {
            self.unknown_host(object, "spec.host", &spec.host, &name);
        }
        if let Some(policy) = &spec.traffic_policy {
            self.traffic_policy(object, "spec.trafficPolicy", policy);
        }
        for (index, subset) in spec.subsets.iter().enumerate() {
            if let Some(policy) = &subset.traffic_policy {
                self.traffic_policy(object, &format!("spec.subsets[{index}].trafficPolicy"), policy);
            }
        }
    }

    fn traffic_policy(&mut self, object: &Arc<Object>, path: &str, policy: &TrafficPolicy) {
        let mut balancers: Vec<(String, Option<&LoadBalancerSettings>)> =
            vec![(format!("{path}.loadBalancer"), policy.load_balancer.as_ref())];
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            let path = format!("{path}.portLevelSettings[{index}]");
            balancers.push((format!("{path}.loadBalancer"), port.load_balancer.as_ref()));
        }
        for (path, settings) in balancers {
            let by_name = settings.and_then(|settings| settings.policy.as_ref());
            if matches!(by_name, Some(LoadBalancerPolicy::Simple(SimpleLb::Passthrough))) {
                self.not_compiled(object, &format!("{path}.simple"), "`PASSTHROUGH` without redirected connections is");
            }
        }
    }

    /// A gateway between networks: workloads of another network would have to be reached through it.
    fn service(&mut self, object: &Arc<Object>) {
        if object.metadata.labels.contains_key(NETWORK) {
            let finding = Diagnostic::warning(NOT_COMPILED, "gateways between networks are not compiled yet")
                .help("workloads of every network are sent to at their own addresses");
            self.push(object, &format!("metadata.labels.{NETWORK}"), finding);
        }
    }

    fn sidecar(&mut self, object: &Arc<Object>, spec: &Sidecar) {
        for (index, listener) in spec.egress.iter().enumerate() {
            if listener.bind.as_deref().is_some_and(|bind| bind.starts_with("unix://")) {
                self.not_compiled(
                    object,
                    &format!("spec.egress[{index}].bind"),
                    "a unix domain socket of a Sidecar is",
                );
            }
            let protocol = listener.port.as_ref().and_then(|port| port.protocol.as_deref());
            if protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("HTTP_PROXY")) {
                let path = format!("spec.egress[{index}].port.protocol");
                self.not_compiled(object, &path, "an HTTP proxy for the services of all ports is");
            }
        }
    }

    /// Kinds that change traffic, other than those that are compiled.
    fn other(&mut self, object: &Arc<Object>) {
        use lateen_config::Kind;
        // Whoever relies on these has to know that nobody is kept out.
        if matches!(object.kind, Kind::RequestAuthentication | Kind::AuthorizationPolicy | Kind::WasmPlugin) {
            let message = format!("{} is not carried out: requests pass as if it were not there", object.kind);
            self.push(object, "", Diagnostic::warning(NOT_COMPILED, message));
        }
        if let Spec::Deployment(deployment) = &object.spec {
            let metadata = &deployment.template.metadata;
            self.proxy_annotation(object, "spec.template.metadata.annotations", &metadata.annotations);
        }
    }

    fn unknown_host(&mut self, object: &Arc<Object>, path: &str, written: &str, name: &str) {
        let help = match host::closest(name, self.world.hosts()) {
            Some(known) => Some(format!("did you mean `{}`?", self.short(known, object))),
            None if written.contains('.') && !host::is_wildcard(written) => {
                // `reviews.prod` looks like a short name and is none.
                let full = format!("{written}.svc.{}", self.world.mesh.cluster_domain);
                self.world
                    .services_of(&full)
                    .next()
                    .is_some()
                    .then(|| format!("names with a dot are not expanded: write `{full}`"))
            }
            None => None,
        };
        self.missing(
            object,
            path,
            format!("host `{name}` is not a known service"),
            "no Service or ServiceEntry has this host",
            help,
        );
    }

    /// The name by which an object of the same namespace would call a host.
    fn short(&self, known: &str, object: &Object) -> String {
        let suffix = format!(".{}.svc.{}", object.metadata.namespace, self.world.mesh.cluster_domain);
        known.strip_suffix(&suffix).unwrap_or(known).to_owned()
    }

    fn missing(&mut self, object: &Arc<Object>, path: &str, message: String, label: &str, help: Option<String>) {
        let mut finding = Diagnostic::warning(NOT_FOUND, message).label(label);
        finding.help = help;
        self.push(object, path, finding);
    }

    /// `what` reads as the beginning of a sentence: "`tcp` routes are".
    fn not_compiled(&mut self, object: &Arc<Object>, path: &str, what: &str) {
        self.push(object, path, Diagnostic::warning(NOT_COMPILED, format!("{what} not compiled yet")));
    }

    fn push(&mut self, object: &Arc<Object>, path: &str, mut finding: Diagnostic) {
        finding = finding.at(object.location(path)).about(object.subject());
        finding.path = path.to_owned();
        self.findings.push(finding);
    }
}
