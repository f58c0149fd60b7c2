//! Which DestinationRules do not hold for the services that a call reaches, and why is a cluster not there or empty?

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Search, is_same};
use crate::explain::explanation::{ClusterShare, Discovery, Explanation, Tried};
use crate::host;
use crate::names;
use crate::world::destination_rules::{Client, DestinationRule};
use crate::world::services::Service;

impl Search<'_> {
    /// DestinationRules for the services that are reached, but not the ones that hold.
    pub(super) fn destination_rules(&self, explanation: &Explanation, lost: &mut Vec<Tried>) {
        let client = Client { namespace: &self.scope.namespace, labels: self.scope.labels.as_ref() };
        let mut seen = BTreeSet::new();
        let hosts: BTreeSet<&str> = explanation
            .clusters
            .iter()
            .filter_map(|cluster| Some(names::parse_outbound_cluster(&cluster.name)?.host))
            .collect();
        for host in hosts {
            let Some(service) = self.world.services().iter().find(|service| *service.host == *host) else { continue };
            let used = self.world.destination_rule(service, &client);
            for rule in self.world.all_destination_rules().filter(|rule| host::covers(&rule.host, host)) {
                let is_used = used.is_some_and(|used| {
                    is_same(&used.origin, &rule.origin)
                        || used.merged.iter().any(|merged| is_same(merged, &rule.origin))
                });
                if !is_used && seen.insert((rule.namespace.clone(), rule.name.clone())) {
                    let reason = self.unused_rule(rule, used.map(|used| &**used), service);
                    lost.push(Tried { origin: Some((*rule.origin).clone()), reason });
                }
            }
        }
    }

    /// Why a cluster is not there, or has no endpoints.
    pub(super) fn shortcoming(&self, cluster: &ClusterShare) -> Option<String> {
        let is_sound = cluster
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.discovery != Discovery::Listed || !upstream.endpoints.is_empty());
        if cluster.weight == 0 || is_sound {
            return None;
        }
        let parts = names::parse_outbound_cluster(&cluster.name)?;
        let namespace = &self.scope.namespace;
        let known: Vec<&Arc<Service>> =
            self.world.services().iter().filter(|service| *service.host == *parts.host).collect();
        let Some(service) = known.iter().find(|service| service.visibility.includes(namespace)) else {
            return Some(match known.as_slice() {
                [] => format!("no Service or ServiceEntry has host `{}`", parts.host),
                [hidden, ..] => format!(
                    "{} {}/{} is not exported to namespace `{namespace}`",
                    hidden.origin.kind, hidden.namespace, hidden.name
                ),
            });
        };
        if service.port(parts.port).is_none() {
            let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
            let object = format!("{} {}/{}", service.origin.kind, service.namespace, service.name);
            return Some(format!("{object} has port {}, not {}", ports.join(", "), parts.port));
        }
        if parts.subset.is_empty() {
            return nothing_behind(service);
        }
        let client = Client { namespace, labels: self.scope.labels.as_ref() };
        let Some(rule) = self.world.destination_rule(service, &client) else {
            return Some(format!("no DestinationRule that holds here makes subsets of `{}`", parts.host));
        };
        let object = format!("DestinationRule {}/{}", rule.namespace, rule.name);
        let Some(subset) = rule.subset(parts.subset) else {
            let subsets: Vec<&str> = rule.subsets.iter().map(|subset| &*subset.name).collect();
            return Some(match subsets.as_slice() {
                [] => format!("{object} has no subsets"),
                subsets => format!("{object} has no subset `{}`, but `{}`", parts.subset, subsets.join("`, `")),
            });
        };
        if self.world.endpoints(service, service.port(parts.port)?).is_empty()
            && let Some(reason) = nothing_behind(service)
        {
            return Some(reason);
        }
        let labels: Vec<String> = subset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Some(format!("no endpoint carries the labels of subset `{}`: {}", parts.subset, labels.join(", ")))
    }

    fn unused_rule(&self, rule: &DestinationRule, used: Option<&DestinationRule>, service: &Service) -> String {
        let namespace = &self.scope.namespace;
        if let Some(selector) = &rule.workload_selector {
            let selector = selector.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            if *rule.namespace != **namespace || !self.scope.selected_by(selector) {
                return "it is for other workloads".to_owned();
            }
        }
        if !rule.visibility.includes(namespace) {
            return format!("it is not exported to namespace `{namespace}`");
        }
        let root = &self.world.mesh().root_namespace;
        if ![namespace, &service.namespace, root].contains(&&rule.namespace) {
            return format!(
                "its namespace is neither the client's (`{namespace}`), nor the service's (`{}`), nor `{root}`",
                service.namespace
            );
        }
        // Client, service, root: the first namespace with a rule decides.
        let asked = [namespace, &service.namespace, root];
        let turn = |namespace: &Arc<str>| asked.iter().position(|asked| *asked == namespace);
        match used {
            Some(used) if turn(&used.namespace) < turn(&rule.namespace) => format!(
                "DestinationRule {}/{} holds: the namespace of the client is asked first, then that of the service",
                used.namespace, used.name
            ),
            Some(used) if used.namespace == rule.namespace => {
                format!("DestinationRule {}/{} names the host more exactly, or comes first", used.namespace, used.name)
            }
            // Within a namespace the most specific host alone is looked at, even if its rule is for other workloads.
            _ => "another DestinationRule of its namespace names the host more exactly".to_owned(),
        }
    }
}

/// Why a service has no endpoints at all, if it chooses them by labels.
fn nothing_behind(service: &Service) -> Option<String> {
    let labels: Vec<String> = service.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let object = format!("{} {}/{}", service.origin.kind, service.namespace, service.name);
    (!labels.is_empty()).then(|| {
        format!(
            "{object} selects {}, and no Pod, EndpointSlice or WorkloadEntry in the files is an endpoint of it; \
             a Deployment has no addresses",
            labels.join(", ")
        )
    })
}
