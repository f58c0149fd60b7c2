//! Which headers does a rule set, add and remove? Header operations of rules and of their destinations.

use lateen_config::{HeaderOperations, Headers, HttpRoute};
use lateen_xds::envoy::config::core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};

/// The four lists of a route or weighted cluster.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    pub(crate) request_add: Vec<HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
}

/// The operations of a route. Those of an only destination are part of it, after the rule's own; several
/// destinations keep theirs to themselves.
pub(crate) fn of_route(http: &HttpRoute) -> Operations {
    let mut operations = of(http.headers.as_ref());
    if let [only] = http.route.as_slice() {
        let destination = of(only.headers.as_ref());
        operations.request_add.extend(destination.request_add);
        operations.request_remove.extend(destination.request_remove);
        operations.response_add.extend(destination.response_add);
        operations.response_remove.extend(destination.response_remove);
    }
    operations
}

/// The operations of one `headers` block.
pub(crate) fn of(headers: Option<&Headers>) -> Operations {
    let Some(headers) = headers else {
        return Operations::default();
    };
    Operations {
        request_add: headers.request.as_ref().map(added).unwrap_or_default(),
        request_remove: headers.request.as_ref().map(removed).unwrap_or_default(),
        response_add: headers.response.as_ref().map(added).unwrap_or_default(),
        response_remove: headers.response.as_ref().map(removed).unwrap_or_default(),
    }
}

/// The host that a `headers` block puts in place of the request's: `host` and `:authority` are no headers to
/// Envoy. What is set wins over what is added.
pub(crate) fn host_rewrite(headers: Option<&Headers>) -> Option<&str> {
    let request = headers?.request.as_ref()?;
    [&request.set, &request.add]
        .into_iter()
        .find_map(|values| values.iter().find(|(name, _)| is_host(name)).map(|(_, value)| value.as_str()))
        .filter(|host| !host.is_empty())
}

fn added(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let set = operations.set.iter().map(|entry| (entry, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.iter().map(|entry| (entry, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add)
        .filter(|((name, _), _)| !is_internal(name))
        .map(|((name, value), action)| HeaderValueOption {
            header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..Default::default() }),
            append_action: action.into(),
            ..Default::default()
        })
        .collect()
}

fn removed(operations: &HeaderOperations) -> Vec<String> {
    operations.remove.iter().filter(|name| !is_internal(name)).cloned().collect()
}

/// Envoy refuses a whole route configuration that changes one of these as a header.
fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}
