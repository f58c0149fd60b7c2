//! What does a consistent-hash destination hash? The setting on the cluster alone does nothing: the route has to
//! say which part of a request is the key.

use lateen_config::Destination;
use lateen_config::{ConsistentHash, HashKey};
use lateen_xds::envoy::config::route::v3::route_action::{HashPolicy, hash_policy};

use super::actions;
use super::virtual_service::Listener;
use crate::context::Context;
use crate::message;
use crate::policy;
use crate::world::services::Service;

/// The hash policy of a VirtualService's destination. Settings of a port count only when the destination
/// names it; a subset's come before those of the whole rule.
pub(crate) fn of_destination(
    cx: &Context<'_>,
    destination: &Destination,
    listener: Listener<'_>,
) -> Option<HashPolicy> {
    let service = cx.destination(&destination.host)?;
    let rule = cx.rule(service)?;
    let named = destination.port.as_ref().map(|_| actions::port(cx, destination, listener));
    let of = |policy| policy::consistent_hash(policy, named);
    let subset = destination.subset.as_deref().and_then(|name| rule.subset(name));
    let hash =
        subset.and_then(|subset| of(subset.traffic_policy.as_ref())).or_else(|| of(rule.traffic_policy.as_ref()))?;
    compile(hash)
}

/// The hash policy of a service that no VirtualService names.
pub(crate) fn of_service(cx: &Context<'_>, service: &Service, port: u32) -> Option<HashPolicy> {
    let rule = cx.rule(service)?;
    compile(policy::consistent_hash(rule.traffic_policy.as_ref(), Some(port))?)
}

fn compile(hash: &ConsistentHash) -> Option<HashPolicy> {
    let specifier = match hash.key.as_ref()? {
        HashKey::HttpHeaderName(name) => hash_policy::PolicySpecifier::Header(hash_policy::Header {
            header_name: name.clone(),
            ..Default::default()
        }),
        HashKey::HttpCookie(cookie) => hash_policy::PolicySpecifier::Cookie(hash_policy::Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone().unwrap_or_default(),
            // Without a time to live the proxy never makes the cookie up; zero makes a session cookie.
            ttl: cookie.ttl.map(message::duration),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| hash_policy::CookieAttribute {
                    name: attribute.name.clone(),
                    value: attribute.value.clone().unwrap_or_default(),
                })
                .collect(),
        }),
        HashKey::UseSourceIp(true) => {
            hash_policy::PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true })
        }
        HashKey::UseSourceIp(false) => return None,
        HashKey::HttpQueryParameterName(name) => {
            hash_policy::PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name: name.clone() })
        }
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..Default::default() })
}
