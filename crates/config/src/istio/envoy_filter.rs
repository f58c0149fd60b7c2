//! What can an EnvoyFilter say? Its fields as Istio's API has them (`networking.istio.io/v1alpha3`, EnvoyFilter).
//! The values of patches are Envoy's own; they stay JSON here.

use std::collections::BTreeMap;

use super::workload::WorkloadSelector;
use crate::decode::{enumeration, message, oneof};

message! {
    /// Changes to what is generated for some proxies.
    pub struct EnvoyFilter {
        /// The workloads. Absent: all of the namespace.
        workload_selector: Option<WorkloadSelector>,
        /// The objects that the patches are for, in place of workloads.
        target_refs: Vec<PolicyTargetReference>,
        /// The changes.
        config_patches: Vec<EnvoyConfigObjectPatch>,
        /// Lower ones are applied first.
        priority: Option<i32>,
    }

    /// An object that a policy is for.
    pub struct PolicyTargetReference {
        /// API group.
        group: Option<String>,
        /// Kind.
        kind: Option<String>,
        /// Name.
        name: Option<String>,
        /// Namespace. Absent: the same.
        namespace: Option<String>,
    }

    /// One change.
    pub struct EnvoyConfigObjectPatch {
        /// The type of what is changed.
        apply_to: ApplyTo,
        /// Which of that type.
        r#match: Option<EnvoyConfigObjectMatch>,
        /// The change.
        patch: Option<Patch>,
    }

    /// Which of its type is changed.
    pub struct EnvoyConfigObjectMatch {
        /// For which direction it was generated.
        context: PatchContext,
        /// For which proxies.
        proxy: Option<ProxyMatch>,
        ;oneof {
            /// Which one.
            object: ObjectTypes,
        }
    }

    /// Proxies that are changed.
    pub struct ProxyMatch {
        /// Regular expression on the version.
        proxy_version: Option<String>,
        /// Entries of the node's metadata.
        metadata: BTreeMap<String, String>,
    }

    /// Clusters that are changed.
    pub struct ClusterMatch {
        /// Service port.
        port_number: Option<u32>,
        /// Host.
        service: Option<String>,
        /// Subset.
        subset: Option<String>,
        /// The whole name; alone it decides.
        name: Option<String>,
    }

    /// Route configurations that are changed, and what in them.
    pub struct RouteConfigurationMatch {
        /// Port of the listener.
        port_number: Option<u32>,
        /// Name of the Gateway's port.
        port_name: Option<String>,
        /// Gateway, as `namespace/name`.
        gateway: Option<String>,
        /// Virtual host in it.
        vhost: Option<VirtualHostMatch>,
        /// Name.
        name: Option<String>,
    }

    /// Virtual hosts that are changed, and what in them.
    pub struct VirtualHostMatch {
        /// Name.
        name: Option<String>,
        /// Route in it.
        route: Option<RouteMatch>,
        /// One of its domains.
        domain_name: Option<String>,
    }

    /// Routes that are changed.
    pub struct RouteMatch {
        /// Name.
        name: Option<String>,
        /// What it does.
        action: RouteAction,
    }

    /// Listeners that are changed, and what in them.
    pub struct ListenerMatch {
        /// Port.
        port_number: Option<u32>,
        /// Not looked at.
        port_name: Option<String>,
        /// Filter chain in it.
        filter_chain: Option<FilterChainMatch>,
        /// Listener filter in it.
        listener_filter: Option<String>,
        /// Name.
        name: Option<String>,
    }

    /// Filter chains that are changed, and what in them.
    pub struct FilterChainMatch {
        /// Name.
        name: Option<String>,
        /// Name of the server that it is for.
        sni: Option<String>,
        /// `raw_buffer` or `tls`.
        transport_protocol: Option<String>,
        /// Application protocols, separated by commas.
        application_protocols: Option<String>,
        /// Network filter in it.
        filter: Option<FilterMatch>,
        /// Destination port that it is for.
        destination_port: Option<u32>,
    }

    /// Network filters that are changed, and what in them.
    pub struct FilterMatch {
        /// Name.
        name: Option<String>,
        /// HTTP filter in it.
        sub_filter: Option<SubFilterMatch>,
    }

    /// HTTP filters that are changed.
    pub struct SubFilterMatch {
        /// Name.
        name: Option<String>,
    }

    /// A change.
    pub struct Patch {
        /// What is done.
        operation: Operation,
        /// With what: Envoy's JSON.
        value: Option<PatchValue>,
        /// Where a filter is inserted.
        filter_class: FilterClass,
    }
}

/// The value of a patch: Envoy's JSON, with its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PatchValue {
    /// Where it is written.
    pub at: crate::position::Position,
    /// The fields of an Envoy message.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl crate::decode::Decode for PatchValue {
    fn decode(node: &crate::node::Node, cx: &mut crate::decode::Decoder<'_>) -> Option<Self> {
        let fields = serde_json::Map::decode(node, cx)?;
        Some(PatchValue { at: node.at, fields })
    }
}

oneof! {
    /// What a patch is for.
    pub enum ObjectTypes {
        /// A listener or something in it.
        Listener(ListenerMatch) as "listener",
        /// A route configuration or something in it.
        RouteConfiguration(RouteConfigurationMatch) as "route_configuration",
        /// A cluster.
        Cluster(ClusterMatch) as "cluster",
        /// What is generated for a waypoint. Not supported.
        Waypoint(serde_json::Map<String, serde_json::Value>) as "waypoint",
    }
}

enumeration! {
    /// The type of what a patch changes.
    pub enum ApplyTo {
        /// None: the patch is invalid.
        Invalid = 0 "INVALID",
        /// Listener.
        Listener = 1 "LISTENER",
        /// Filter chain of a listener.
        FilterChain = 2 "FILTER_CHAIN",
        /// Network filter of a filter chain.
        NetworkFilter = 3 "NETWORK_FILTER",
        /// HTTP filter of a connection manager.
        HttpFilter = 4 "HTTP_FILTER",
        /// Route configuration.
        RouteConfiguration = 5 "ROUTE_CONFIGURATION",
        /// Virtual host of a route configuration.
        VirtualHost = 6 "VIRTUAL_HOST",
        /// Route of a virtual host.
        HttpRoute = 7 "HTTP_ROUTE",
        /// Cluster.
        Cluster = 8 "CLUSTER",
        /// Configuration of a filter that is discovered apart.
        ExtensionConfig = 9 "EXTENSION_CONFIG",
        /// Bootstrap.
        Bootstrap = 10 "BOOTSTRAP",
        /// Listener filter of a listener.
        ListenerFilter = 11 "LISTENER_FILTER",
    }

    /// For which direction the thing to change was generated.
    pub enum PatchContext {
        /// Any.
        Any = 0 "ANY",
        /// To the workload.
        SidecarInbound = 1 "SIDECAR_INBOUND",
        /// From the workload.
        SidecarOutbound = 2 "SIDECAR_OUTBOUND",
        /// Gateway.
        Gateway = 3 "GATEWAY",
        /// Waypoint.
        Waypoint = 4 "WAYPOINT",
    }

    /// What a patch does.
    pub enum Operation {
        /// Nothing: the patch is invalid.
        Invalid = 0 "INVALID",
        /// Merge the value into it.
        Merge = 1 "MERGE",
        /// Add the value to the list.
        Add = 2 "ADD",
        /// Remove it.
        Remove = 3 "REMOVE",
        /// Insert the value before it.
        InsertBefore = 4 "INSERT_BEFORE",
        /// Insert the value after it.
        InsertAfter = 5 "INSERT_AFTER",
        /// Insert the value as the first of the list.
        InsertFirst = 6 "INSERT_FIRST",
        /// Put the value in its place.
        Replace = 7 "REPLACE",
        /// Merge the value into it, lists in place of lists.
        MergeAndReplaceList = 8 "MERGE_AND_REPLACE_LIST",
    }

    /// Where a filter is inserted.
    pub enum FilterClass {
        /// Anywhere.
        Unspecified = 0 "UNSPECIFIED",
        /// After authentication.
        Authn = 1 "AUTHN",
        /// After authorisation.
        Authz = 2 "AUTHZ",
        /// Before statistics.
        Stats = 3 "STATS",
    }

    /// What a route does.
    pub enum RouteAction {
        /// Anything.
        Any = 0 "ANY",
        /// It forwards.
        Route = 1 "ROUTE",
        /// It redirects.
        Redirect = 2 "REDIRECT",
        /// It answers.
        DirectResponse = 3 "DIRECT_RESPONSE",
    }
}
