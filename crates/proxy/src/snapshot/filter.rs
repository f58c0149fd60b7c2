//! Which HTTP filters does a request pass before the router, and with which settings on its route?
//!
//! The chain is the connection manager's. What the levels of a route configuration say of a filter is merged when the
//! routes are built, so that a request finds for each filter at most one value.

mod cors;
mod fault;

use std::collections::HashMap;
use std::sync::Arc;

use lateen_xds::any;
use lateen_xds::envoy::config::route::v3::FilterConfig;
use lateen_xds::envoy::extensions::filters::http::cors::v3 as cors_v3;
use lateen_xds::envoy::extensions::filters::http::fault::v3 as fault_v3;
use prost_types::Any;

pub use cors::CorsPolicy;
pub use fault::{Abort, AbortStatus, Delay, DelayTime, Fault, RateLimit, Throughput};

use super::fields::unpack;
use super::route::PerFilterConfigs;
use super::{ClusterNames, Invalid};

/// The number of a filter's name in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub u32);

/// The settings of one filter. A filter of the chain without settings does nothing until a route has some for it.
#[derive(Clone, Debug)]
pub enum FilterSettings {
    /// `envoy.filters.http.fault`.
    Fault(Arc<Fault>),
    /// `envoy.filters.http.cors`.
    Cors(Arc<CorsPolicy>),
}

/// The kind of a filter that this data plane runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterKind {
    /// `envoy.filters.http.fault`.
    Fault,
    /// `envoy.filters.http.cors`.
    Cors,
}

/// One filter of a connection manager.
#[derive(Debug)]
pub struct ChainFilter {
    /// Its name's number, by which routes refer to it.
    pub id: FilterId,
    /// What it is.
    pub kind: FilterKind,
    /// What it does where a route says nothing; `None` is nothing.
    pub settings: Option<FilterSettings>,
}

/// The filters of a connection manager before its router, in their order.
#[derive(Debug, Default)]
pub struct FilterChain {
    filters: Box<[ChainFilter]>,
    /// Some filter acts without a route's settings.
    active: bool,
}

/// What the levels of a route say of filters, merged: the most specific level counts.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Box<[(FilterId, Override)]>);

/// What a route says of one filter.
#[derive(Clone, Debug)]
enum Override {
    Settings(FilterSettings),
    Disabled,
}

impl FilterSettings {
    /// The kind of filter that these are for.
    #[must_use]
    pub fn kind(&self) -> FilterKind {
        match self {
            Self::Fault(_) => FilterKind::Fault,
            Self::Cors(_) => FilterKind::Cors,
        }
    }

    /// The settings of a more general level under these.
    fn over(&self, general: &Self) -> Self {
        match (self, general) {
            (Self::Cors(own), Self::Cors(general)) => Self::Cors(Arc::new(own.over(general))),
            (own, _) => own.clone(),
        }
    }
}

impl FilterChain {
    /// A chain of these filters.
    #[must_use]
    pub fn new(filters: Vec<ChainFilter>) -> Self {
        let active = filters.iter().any(|filter| filter.settings.is_some());
        Self { filters: filters.into(), active }
    }

    /// Whether a request on a route with these overrides passes the chain untouched.
    #[inline]
    #[must_use]
    pub fn is_idle(&self, overrides: Option<&Overrides>) -> bool {
        !self.active && overrides.is_none_or(|overrides| overrides.0.is_empty())
    }

    /// Whether the chain has a filter of a kind.
    #[must_use]
    pub fn has(&self, kind: FilterKind) -> bool {
        self.filters.iter().any(|filter| filter.kind == kind)
    }

    /// The settings of the filters that act on a route with these overrides, in the order of the chain.
    pub fn settings<'v>(&'v self, overrides: Option<&'v Overrides>) -> impl Iterator<Item = &'v FilterSettings> {
        self.filters.iter().filter_map(move |filter| match overrides.and_then(|overrides| overrides.of(filter.id)) {
            Some(Override::Settings(settings)) if settings.kind() == filter.kind => Some(settings),
            Some(Override::Disabled) => None,
            _ => filter.settings.as_ref(),
        })
    }
}

impl Overrides {
    /// Reads the `typed_per_filter_config` of one level and lays it over that of the next more general level.
    ///
    /// # Errors
    /// Settings that do not decode, or that a filter here does not honour. Settings of other filters are left out; see
    /// [`is_supported`].
    pub(super) fn build(
        configs: &PerFilterConfigs,
        general: Option<&Self>,
        names: &mut ClusterNames,
    ) -> Result<Self, Invalid> {
        let mut merged: HashMap<FilterId, Override> =
            general.map(|general| general.0.iter().cloned().collect()).unwrap_or_default();
        for (name, config) in configs {
            let path = || format!("typed_per_filter_config[{name}]");
            let Some(own) = route_settings(config).map_err(|invalid| invalid.under(&path()))? else { continue };
            let id = names.filter(name);
            let laid = match (own, merged.get(&id)) {
                (Override::Settings(own), Some(Override::Settings(general))) => Override::Settings(own.over(general)),
                (own, _) => own,
            };
            merged.insert(id, laid);
        }
        let mut merged: Vec<_> = merged.into_iter().collect();
        merged.sort_by_key(|(id, _)| *id);
        Ok(Self(merged.into()))
    }

    fn of(&self, id: FilterId) -> Option<&Override> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, found)| found)
    }
}

/// Whether a route's settings of a filter are carried out.
pub(super) fn is_supported(config: &Any) -> bool {
    match unwrapped(config) {
        Ok(FilterConfig { disabled: true, .. }) => true,
        Ok(FilterConfig { config: Some(config), .. }) => {
            any::is::<fault_v3::HttpFault>(&config) || any::is::<cors_v3::CorsPolicy>(&config)
        }
        _ => false,
    }
}

/// What a filter of the chain does where no route says otherwise.
///
/// # Errors
/// Settings that the filter here does not honour.
pub(super) fn chain_settings(kind: FilterKind, config: &Any) -> Result<Option<FilterSettings>, Invalid> {
    match kind {
        // CORS policies are the routes' alone.
        FilterKind::Cors => Ok(None),
        FilterKind::Fault => {
            let fault = Fault::build(&unpack::<fault_v3::HttpFault>(config, "")?)?;
            Ok(fault.acts().then(|| FilterSettings::Fault(Arc::new(fault))))
        }
    }
}

fn route_settings(config: &Any) -> Result<Option<Override>, Invalid> {
    let wrapped = unwrapped(config)?;
    if wrapped.disabled {
        return Ok(Some(Override::Disabled));
    }
    let Some(config) = &wrapped.config else { return Ok(None) };
    let settings = if any::is::<fault_v3::HttpFault>(config) {
        FilterSettings::Fault(Arc::new(Fault::build(&unpack::<fault_v3::HttpFault>(config, "")?)?))
    } else if any::is::<cors_v3::CorsPolicy>(config) {
        FilterSettings::Cors(Arc::new(CorsPolicy::build(&unpack::<cors_v3::CorsPolicy>(config, "")?)?))
    } else {
        return Ok(None);
    };
    Ok(Some(Override::Settings(settings)))
}

/// A route's settings as they are, or in the `FilterConfig` round them.
fn unwrapped(config: &Any) -> Result<FilterConfig, Invalid> {
    if any::is::<FilterConfig>(config) {
        return unpack::<FilterConfig>(config, "");
    }
    Ok(FilterConfig { config: Some(config.clone()), ..FilterConfig::default() })
}

#[cfg(test)]
mod tests;
