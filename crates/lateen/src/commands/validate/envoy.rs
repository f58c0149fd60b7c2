//! Does Envoy know the values of an EnvoyFilter's patches? Each is read as the message that it is to become.

use lateen_config::{ApplyTo, Diagnostic, EnvoyFilter, Location, Object, Operation, PatchContext, Position, code};
use lateen_xds::json::{JsonError, parse_named};
use serde_json::Value;

/// What is wrong with the values: errors for what can never be read, warnings for what another Envoy may know.
pub(super) fn patches(object: &Object, filter: &EnvoyFilter) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for (index, patch) in filter.config_patches.iter().enumerate() {
        let is_for_waypoint = patch.r#match.as_ref().is_some_and(|m| m.context == PatchContext::Waypoint);
        let Some(change) = patch.patch.as_ref().filter(|change| change.operation != Operation::Remove) else {
            continue;
        };
        let (Some(value), Some(message)) = (&change.value, message(patch.apply_to)) else {
            continue;
        };
        if is_for_waypoint {
            continue;
        }
        if let Err(error) = parse_named(message, &Value::Object(value.fields.clone())) {
            diagnostics.push(diagnostic(object, &format!("spec.configPatches[{index}].patch.value"), value.at, &error));
        }
    }
    diagnostics
}

/// The full name of what a patch makes or changes.
fn message(apply_to: ApplyTo) -> Option<&'static str> {
    Some(match apply_to {
        ApplyTo::Invalid => return None,
        ApplyTo::Listener => "envoy.config.listener.v3.Listener",
        ApplyTo::FilterChain => "envoy.config.listener.v3.FilterChain",
        ApplyTo::NetworkFilter => "envoy.config.listener.v3.Filter",
        ApplyTo::HttpFilter => "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        ApplyTo::RouteConfiguration => "envoy.config.route.v3.RouteConfiguration",
        ApplyTo::VirtualHost => "envoy.config.route.v3.VirtualHost",
        ApplyTo::HttpRoute => "envoy.config.route.v3.Route",
        ApplyTo::Cluster => "envoy.config.cluster.v3.Cluster",
        ApplyTo::ExtensionConfig => "envoy.config.core.v3.TypedExtensionConfig",
        ApplyTo::Bootstrap => "envoy.config.bootstrap.v3.Bootstrap",
        ApplyTo::ListenerFilter => "envoy.config.listener.v3.ListenerFilter",
    })
}

/// The place of a problem. The text is read again for it, so long texts only give the beginning of the value.
fn place(object: &Object, path: &str, value: Position) -> Option<Location> {
    const LONG: usize = 256 * 1024;
    let file = object.source.file.as_ref()?;
    if file.text.len() > LONG { Location::of(file, value, 1) } else { object.location(path) }
}

fn diagnostic(object: &Object, value: &str, at: Position, error: &JsonError) -> Diagnostic {
    let path = if error.path.is_empty() { value.to_owned() } else { format!("{value}.{}", error.path) };
    let message = format!("`{path}`: {}", error.message);
    // A field or a type that is not known here may be one of a newer Envoy or of one with extensions.
    let is_unknown = error.message.ends_with("has no such field") || error.message.contains(" is not known");
    let mut diagnostic = match is_unknown {
        true => Diagnostic::warning(code::QUESTIONABLE, message),
        false => Diagnostic::error(code::INVALID, message),
    };
    diagnostic = diagnostic.at(place(object, &path, at));
    diagnostic.path = path;
    diagnostic
}
