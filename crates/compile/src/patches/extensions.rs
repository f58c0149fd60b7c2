//! Where does the configuration of a filter go that is discovered apart? Into the filter that names it: a set of
//! resources has no extension configurations, and a proxy that is given all at once need not ask for them.

use lateen_xds::any;
use lateen_xds::envoy::config::core::v3::ExtensionConfigSource;
use lateen_xds::envoy::config::listener::v3::{FilterChain, Listener, ListenerFilter, filter, listener_filter};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_filter;
use prost_types::Any;

use super::filter_chains::connection_manager;
use super::{About, Change, Report, Table};

/// Fills in the discovered configurations of a whole listener.
pub(super) fn inline(table: &Table, listener: &mut Listener, report: &mut Report) {
    inline_in_filters(table, &mut listener.listener_filters, report);
    for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
        inline_in_chain(table, chain, report);
    }
}

/// Fills in those of listener filters; returns the patches that they come from.
pub(super) fn inline_in_filters<'t>(
    table: &'t Table,
    filters: &mut [ListenerFilter],
    report: &mut Report,
) -> Vec<&'t About> {
    let mut applied = Vec::new();
    for filter in filters {
        if let Some(listener_filter::ConfigType::ConfigDiscovery(source)) = &filter.config_type
            && let Some((config, about)) = configuration(table, &filter.name, source, report)
        {
            filter.config_type = Some(listener_filter::ConfigType::TypedConfig(config));
            applied.push(about);
        }
    }
    applied
}

/// Fills in those of a filter chain and its connection managers; returns the patches that they come from.
pub(super) fn inline_in_chain<'t>(table: &'t Table, chain: &mut FilterChain, report: &mut Report) -> Vec<&'t About> {
    let mut applied = Vec::new();
    if table.extensions.is_empty() {
        return applied;
    }
    for filter in &mut chain.filters {
        if let Some(filter::ConfigType::ConfigDiscovery(source)) = &filter.config_type
            && let Some((config, about)) = configuration(table, &filter.name, source, report)
        {
            filter.config_type = Some(filter::ConfigType::TypedConfig(config));
            applied.push(about);
        }
        let Some(mut manager) = connection_manager(filter) else {
            continue;
        };
        let before = applied.len();
        for filter in &mut manager.http_filters {
            if let Some(http_filter::ConfigType::ConfigDiscovery(source)) = &filter.config_type
                && let Some((config, about)) = configuration(table, &filter.name, source, report)
            {
                filter.config_type = Some(http_filter::ConfigType::TypedConfig(config));
                applied.push(about);
            }
        }
        if applied.len() > before {
            filter.config_type = Some(filter::ConfigType::TypedConfig(any::pack(&manager)));
        }
    }
    applied
}

/// The configuration that patches give to a name, if it is of a type that the filter takes.
fn configuration<'t>(
    table: &'t Table,
    name: &str,
    source: &ExtensionConfigSource,
    report: &mut Report,
) -> Option<(Any, &'t About)> {
    let mut chosen = None;
    for patch in &table.extensions {
        let Change::Insert(value, _) = &patch.change else {
            continue;
        };
        if value.name != name {
            continue;
        }
        let Some(config) = &value.typed_config else {
            continue;
        };
        let type_name = any::type_name(&config.type_url);
        if !source.type_urls.iter().any(|wanted| any::type_name(wanted) == type_name) {
            let why = format!("`{type_name}` is not among its `type_urls`");
            report.refused(&patch.about, &format!("the filter `{name}`"), &why);
        } else if chosen.is_some() {
            report.refused(
                &patch.about,
                &format!("the filter `{name}`"),
                "another patch gave its configuration before",
            );
        } else {
            report.matched(&patch.about);
            chosen = Some((config.clone(), &patch.about));
        }
    }
    chosen
}
