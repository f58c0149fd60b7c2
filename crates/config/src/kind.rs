//! Which kinds of objects are there? Group, versions and names of each, in one place.

use std::fmt;

/// A kind of object that Lateen knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the kinds of Istio and Kubernetes")]
pub enum Kind {
    VirtualService,
    DestinationRule,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
    Sidecar,
    EnvoyFilter,
    ProxyConfig,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Telemetry,
    WasmPlugin,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
    IngressClass,
    Pod,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    ConfigMap,
    Secret,
    ServiceAccount,
    Namespace,
    Node,
}

/// What is known of a kind.
#[derive(Clone, Copy, Debug)]
struct Facts {
    kind: Kind,
    name: &'static str,
    plural: &'static str,
    group: &'static str,
    /// The preferred one first.
    versions: &'static [&'static str],
    is_namespaced: bool,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";

/// In the order of the enum.
const FACTS: &[Facts] = &[
    istio(Kind::VirtualService, "VirtualService", "virtualservices", NETWORKING, &["v1", "v1beta1", "v1alpha3"]),
    istio(Kind::DestinationRule, "DestinationRule", "destinationrules", NETWORKING, &["v1", "v1beta1", "v1alpha3"]),
    istio(Kind::Gateway, "Gateway", "gateways", NETWORKING, &["v1", "v1beta1", "v1alpha3"]),
    istio(Kind::ServiceEntry, "ServiceEntry", "serviceentries", NETWORKING, &["v1", "v1beta1", "v1alpha3"]),
    istio(Kind::WorkloadEntry, "WorkloadEntry", "workloadentries", NETWORKING, &["v1", "v1beta1", "v1alpha3"]),
    istio(Kind::WorkloadGroup, "WorkloadGroup", "workloadgroups", NETWORKING, &["v1", "v1beta1", "v1alpha3"]),
    istio(Kind::Sidecar, "Sidecar", "sidecars", NETWORKING, &["v1", "v1beta1", "v1alpha3"]),
    istio(Kind::EnvoyFilter, "EnvoyFilter", "envoyfilters", NETWORKING, &["v1alpha3"]),
    istio(Kind::ProxyConfig, "ProxyConfig", "proxyconfigs", NETWORKING, &["v1beta1", "v1"]),
    istio(Kind::PeerAuthentication, "PeerAuthentication", "peerauthentications", SECURITY, &["v1", "v1beta1"]),
    istio(Kind::RequestAuthentication, "RequestAuthentication", "requestauthentications", SECURITY, &["v1", "v1beta1"]),
    istio(Kind::AuthorizationPolicy, "AuthorizationPolicy", "authorizationpolicies", SECURITY, &["v1", "v1beta1"]),
    istio(Kind::Telemetry, "Telemetry", "telemetries", "telemetry.istio.io", &["v1", "v1alpha1"]),
    istio(Kind::WasmPlugin, "WasmPlugin", "wasmplugins", "extensions.istio.io", &["v1alpha1"]),
    core(Kind::Service, "Service", "services"),
    core(Kind::Endpoints, "Endpoints", "endpoints"),
    Facts {
        kind: Kind::EndpointSlice,
        name: "EndpointSlice",
        plural: "endpointslices",
        group: "discovery.k8s.io",
        versions: &["v1", "v1beta1"],
        is_namespaced: true,
    },
    Facts {
        kind: Kind::Ingress,
        name: "Ingress",
        plural: "ingresses",
        group: "networking.k8s.io",
        versions: &["v1"],
        is_namespaced: true,
    },
    Facts {
        kind: Kind::IngressClass,
        name: "IngressClass",
        plural: "ingressclasses",
        group: "networking.k8s.io",
        versions: &["v1"],
        is_namespaced: false,
    },
    core(Kind::Pod, "Pod", "pods"),
    apps(Kind::Deployment, "Deployment", "deployments"),
    apps(Kind::ReplicaSet, "ReplicaSet", "replicasets"),
    apps(Kind::StatefulSet, "StatefulSet", "statefulsets"),
    apps(Kind::DaemonSet, "DaemonSet", "daemonsets"),
    Facts { kind: Kind::Job, name: "Job", plural: "jobs", group: "batch", versions: &["v1"], is_namespaced: true },
    core(Kind::ConfigMap, "ConfigMap", "configmaps"),
    core(Kind::Secret, "Secret", "secrets"),
    core(Kind::ServiceAccount, "ServiceAccount", "serviceaccounts"),
    Facts { is_namespaced: false, ..core(Kind::Namespace, "Namespace", "namespaces") },
    Facts { is_namespaced: false, ..core(Kind::Node, "Node", "nodes") },
];

const fn istio(
    kind: Kind,
    name: &'static str,
    plural: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
) -> Facts {
    Facts { kind, name, plural, group, versions, is_namespaced: true }
}

const fn core(kind: Kind, name: &'static str, plural: &'static str) -> Facts {
    Facts { kind, name, plural, group: "", versions: &["v1"], is_namespaced: true }
}

const fn apps(kind: Kind, name: &'static str, plural: &'static str) -> Facts {
    Facts { kind, name, plural, group: "apps", versions: &["v1"], is_namespaced: true }
}

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        FACTS.iter().map(|facts| facts.kind)
    }

    /// The kind of a name in a group, for example `VirtualService` in `networking.istio.io`. The core group of
    /// Kubernetes has the empty name.
    pub fn find(group: &str, name: &str) -> Option<Kind> {
        FACTS.iter().find(|facts| facts.group == group && facts.name == name).map(|facts| facts.kind)
    }

    /// The kind of a plural name in a group, as in paths of the Kubernetes API.
    pub fn find_plural(group: &str, plural: &str) -> Option<Kind> {
        FACTS.iter().find(|facts| facts.group == group && facts.plural == plural).map(|facts| facts.kind)
    }

    /// Name, for example `VirtualService`.
    pub fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// Name as in paths of the Kubernetes API, for example `virtualservices`.
    pub fn plural(self) -> &'static str {
        self.facts().plural
    }

    /// API group; empty for the core group of Kubernetes.
    pub fn group(self) -> &'static str {
        self.facts().group
    }

    /// Versions that can be read, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        self.facts().versions
    }

    /// `apiVersion` with the preferred version.
    pub fn api_version(self) -> String {
        let version = self.versions()[0];
        match self.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// Whether objects of the kind are in namespaces.
    pub fn is_namespaced(self) -> bool {
        self.facts().is_namespaced
    }

    /// Whether the kind is Istio's, so that all of its fields are known here.
    pub fn is_istio(self) -> bool {
        self.group().ends_with(".istio.io")
    }

    fn facts(self) -> &'static Facts {
        &FACTS[self as usize]
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Divides `group/version`; the core group of Kubernetes is not written.
pub(crate) fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, facts) in FACTS.iter().enumerate() {
            assert_eq!(facts.kind as usize, index, "{}", facts.name);
            assert_eq!(facts.kind.as_str(), format!("{:?}", facts.kind));
        }
    }

    #[test]
    fn kinds_are_found_by_group_and_name() {
        assert_eq!(Kind::find("networking.istio.io", "Gateway"), Some(Kind::Gateway));
        assert_eq!(Kind::find("gateway.networking.k8s.io", "Gateway"), None);
        assert_eq!(Kind::find("", "Service"), Some(Kind::Service));
        assert_eq!(Kind::find_plural("apps", "deployments"), Some(Kind::Deployment));
        assert_eq!(Kind::VirtualService.api_version(), "networking.istio.io/v1");
        assert_eq!(Kind::Pod.api_version(), "v1");
        assert!(!Kind::Node.is_namespaced());
    }
}
