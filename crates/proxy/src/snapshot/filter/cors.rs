//! Which other origins may use what a route serves, and what are they told?

use std::sync::Arc;

use lateen_xds::envoy::extensions::filters::http::cors::v3 as cors_v3;

use super::super::Invalid;
use super::super::matcher::{Fraction, StringMatcher};

/// Envoy's `CorsPolicy`. What a policy leaves out is taken from the policy of the next more general level.
#[derive(Debug)]
pub struct CorsPolicy {
    /// Origins that are allowed.
    pub allow_origins: Arc<[StringMatcher]>,
    /// `access-control-allow-methods`; empty is none.
    pub allow_methods: Arc<[u8]>,
    /// `access-control-allow-headers`; empty is none.
    pub allow_headers: Arc<[u8]>,
    /// `access-control-expose-headers`; empty is none.
    pub expose_headers: Arc<[u8]>,
    /// `access-control-max-age`; empty is none.
    pub max_age: Arc<[u8]>,
    /// `access-control-allow-credentials`.
    pub allow_credentials: Option<bool>,
    /// Private networks may be reached, if the client asks.
    pub allow_private_network: Option<bool>,
    /// A preflight of another origin goes to the upstream; else it is answered here.
    pub forward_not_matching_preflights: Option<bool>,
    /// How many requests the policy is applied to.
    pub enabled: Fraction,
    /// How many requests are judged and counted without being touched.
    pub shadow_enabled: Fraction,
}

impl CorsPolicy {
    /// Reads the message.
    ///
    /// # Errors
    /// An origin matcher that does not compile, an unknown denominator.
    pub(super) fn build(message: &cors_v3::CorsPolicy) -> Result<Self, Invalid> {
        let origins = message.allow_origin_string_match.iter().enumerate().map(|(index, origin)| {
            let field = format!("allow_origin_string_match[{index}]");
            StringMatcher::build(origin).map_err(|invalid| invalid.under(&field))
        });
        let fraction = |message: Option<&_>, field, default| match message {
            Some(fraction) => Fraction::build_default(fraction).map_err(|invalid| invalid.under(field)),
            None => Ok(default),
        };
        Ok(Self {
            allow_origins: origins.collect::<Result<Vec<_>, _>>()?.into(),
            allow_methods: message.allow_methods.as_bytes().into(),
            allow_headers: message.allow_headers.as_bytes().into(),
            expose_headers: message.expose_headers.as_bytes().into(),
            max_age: message.max_age.as_bytes().into(),
            allow_credentials: message.allow_credentials,
            allow_private_network: message.allow_private_network_access,
            forward_not_matching_preflights: message.forward_not_matching_preflights,
            enabled: fraction(message.filter_enabled.as_ref(), "filter_enabled", Fraction::ALL)?,
            shadow_enabled: fraction(message.shadow_enabled.as_ref(), "shadow_enabled", Fraction::NONE)?,
        })
    }

    /// Whether an origin is one of the allowed ones.
    #[must_use]
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.allow_origins.iter().any(|matcher| matcher.matches(origin))
    }

    /// This policy with the fields of a more general one where it says nothing. Which requests are meant, the most
    /// specific policy says alone.
    pub(super) fn over(&self, general: &Self) -> Self {
        fn set<T>(own: &Arc<[T]>, general: &Arc<[T]>) -> Arc<[T]> {
            if own.is_empty() { general.clone() } else { own.clone() }
        }
        Self {
            allow_origins: set(&self.allow_origins, &general.allow_origins),
            allow_methods: set(&self.allow_methods, &general.allow_methods),
            allow_headers: set(&self.allow_headers, &general.allow_headers),
            expose_headers: set(&self.expose_headers, &general.expose_headers),
            max_age: set(&self.max_age, &general.max_age),
            allow_credentials: self.allow_credentials.or(general.allow_credentials),
            allow_private_network: self.allow_private_network.or(general.allow_private_network),
            forward_not_matching_preflights: self
                .forward_not_matching_preflights
                .or(general.forward_not_matching_preflights),
            enabled: self.enabled,
            shadow_enabled: self.shadow_enabled,
        }
    }
}
