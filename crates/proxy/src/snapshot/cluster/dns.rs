//! Which addresses of a name count, and how often is it looked up? The DNS part of Envoy's cluster.

use std::net::IpAddr;
use std::time::Duration;

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::cluster::v3::cluster as message;

use crate::snapshot::Invalid;
use crate::snapshot::fields::duration;

/// Envoy's default `dns_refresh_rate`.
const DEFAULT_REFRESH: Duration = Duration::from_secs(5);

/// How names of a cluster are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns {
    /// `dns_lookup_family`.
    pub family: Family,
    /// When names are looked up again.
    pub refresh: Refresh,
}

/// When a name is looked up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refresh {
    /// `dns_refresh_rate`: after a success.
    pub rate: Duration,
    /// `dns_jitter`: up to so much is added by chance.
    pub jitter: Duration,
    /// `dns_failure_refresh_rate`: after a failure, from the first of these times up to the second, doubled each time.
    pub failure: Option<(Duration, Duration)>,
}

/// Envoy's `DnsLookupFamily`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv6 if there is any, else IPv4.
    Auto,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// IPv4 if there is any, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

impl Dns {
    pub(super) fn build(message: &cluster_v3::Cluster) -> Result<Self, Invalid> {
        let family = match message::DnsLookupFamily::try_from(message.dns_lookup_family) {
            Ok(message::DnsLookupFamily::Auto) => Family::Auto,
            Ok(message::DnsLookupFamily::V4Only) => Family::V4Only,
            Ok(message::DnsLookupFamily::V6Only) => Family::V6Only,
            Ok(message::DnsLookupFamily::V4Preferred) => Family::V4Preferred,
            Ok(message::DnsLookupFamily::All) => Family::All,
            Err(_) => {
                return Err(Invalid::at("dns_lookup_family", format!("{} is no family", message.dns_lookup_family)));
            }
        };
        let span = |value: Option<&prost_types::Duration>, field: &str, default: Duration| {
            value.map_or(Ok(default), |value| duration(value, field))
        };
        let failure = match &message.dns_failure_refresh_rate {
            None => None,
            Some(rate) => {
                let path = "dns_failure_refresh_rate";
                let base = span(rate.base_interval.as_ref(), &format!("{path}.base_interval"), DEFAULT_REFRESH)?;
                let longest = base.saturating_mul(10);
                let max = span(rate.max_interval.as_ref(), &format!("{path}.max_interval"), longest)?;
                if max < base {
                    let text = "must not be smaller than base_interval".to_owned();
                    return Err(Invalid::at(format!("{path}.max_interval"), text));
                }
                Some((base, max))
            }
        };
        let refresh = Refresh {
            rate: span(message.dns_refresh_rate.as_ref(), "dns_refresh_rate", DEFAULT_REFRESH)?,
            jitter: span(message.dns_jitter.as_ref(), "dns_jitter", Duration::ZERO)?,
            failure,
        };
        Ok(Self { family, refresh })
    }
}

impl Family {
    /// The addresses that count.
    #[must_use]
    pub fn select(self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let all = |wanted: fn(&IpAddr) -> bool| addresses.iter().copied().filter(wanted).collect::<Vec<_>>();
        let preferred = |first: fn(&IpAddr) -> bool, second: fn(&IpAddr) -> bool| {
            let found = all(first);
            if found.is_empty() { all(second) } else { found }
        };
        match self {
            Self::Auto => preferred(IpAddr::is_ipv6, IpAddr::is_ipv4),
            Self::V4Preferred => preferred(IpAddr::is_ipv4, IpAddr::is_ipv6),
            Self::V4Only => all(IpAddr::is_ipv4),
            Self::V6Only => all(IpAddr::is_ipv6),
            Self::All => addresses.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_count_by_their_family() {
        let both: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "::1"].map(|address| address.parse().unwrap());
        let (four, six) = (&both[..2], &both[2..]);
        assert_eq!(Family::Auto.select(&both), six);
        assert_eq!(Family::Auto.select(four), four);
        assert_eq!(Family::V4Preferred.select(&both), four);
        assert_eq!(Family::V4Preferred.select(six), six);
        assert_eq!(Family::V4Only.select(&both), four);
        assert_eq!(Family::V4Only.select(six), [] as [IpAddr; 0]);
        assert_eq!(Family::V6Only.select(&both), six);
        assert_eq!(Family::All.select(&both), both);
    }

    #[test]
    fn what_is_not_said_is_envoys_default() {
        let build = |json| Dns::build(&lateen_xds::json::parse(json).unwrap());
        let dns = build(json!({"name": "c"})).unwrap();
        assert_eq!((dns.family, dns.refresh.rate, dns.refresh.failure), (Family::Auto, DEFAULT_REFRESH, None));
        let dns = build(json!({"name": "c", "dns_failure_refresh_rate": {"base_interval": "2s"}})).unwrap();
        assert_eq!(dns.refresh.failure, Some((Duration::from_secs(2), Duration::from_secs(20))));
        let reversed = json!({"name": "c", "dns_failure_refresh_rate": {"base_interval": "2s", "max_interval": "1s"}});
        assert_eq!(build(reversed).unwrap_err().path, "dns_failure_refresh_rate.max_interval");
    }
}
