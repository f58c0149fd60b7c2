//! Which filters does a merge mean, and what becomes of them? One rule for the filters of listeners, of their chains
//! and of HTTP.

use lateen_xds::any;
use lateen_xds::envoy::config::listener::v3::{Filter, ListenerFilter, filter, listener_filter};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use prost::Name;
use prost_types::Any;

use super::report::Report;
use super::{Change, Patch, merging};

/// A filter of any of Envoy's chains: a name and a configuration.
pub(super) trait AnyFilter: Name + Default {
    /// Its `name`.
    fn name(&self) -> &str;

    /// Its `typed_config`, unless that comes by discovery.
    fn config(&self) -> Option<&Any>;
}

macro_rules! filters {
    ($($filter:ty, $config:path;)*) => {$(
        impl AnyFilter for $filter {
            fn name(&self) -> &str {
                &self.name
            }

            fn config(&self) -> Option<&Any> {
                use $config as ConfigType;
                match self.config_type.as_ref()? {
                    ConfigType::TypedConfig(config) => Some(config),
                    ConfigType::ConfigDiscovery(_) => None,
                }
            }
        }
    )*};
}

filters! {
    ListenerFilter, listener_filter::ConfigType;
    Filter, filter::ConfigType;
    HttpFilter, http_filter::ConfigType;
}

/// Merges into a filter what the patch has for it: for the one that it names, else for those with the type of its
/// value. Says whether the filter was changed; patches that are no merges change nothing.
pub(super) fn merge<F: AnyFilter>(patch: &Patch<F>, filter: &mut F, resource: &str, report: &mut Report) -> bool {
    let Change::Merge(value, lists) = &patch.change else {
        return false;
    };
    let meant = match &patch.about.element {
        Some(name) => **name == *filter.name(),
        None => same_type(filter.config(), value.message.config()),
    };
    if !meant {
        return false;
    }
    report.matched(&patch.about);
    match merging::message(filter, value, *lists) {
        Ok(merged) => {
            *filter = merged;
            true
        }
        Err(error) => {
            report.refused(&patch.about, resource, &error);
            false
        }
    }
}

fn same_type(one: Option<&Any>, other: Option<&Any>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => any::type_name(&one.type_url) == any::type_name(&other.type_url),
        _ => false,
    }
}
