//! Which filter chain does a connection get? Envoy asks one criterion after the other in a fixed order, keeps the most
//! specific value that fits, and never goes back: a chain lost at one criterion stays lost.

use std::net::{IpAddr, Ipv4Addr};

use lateen_xds::envoy::config::core::v3::CidrRange;
use lateen_xds::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use lateen_xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use lateen_xds::{Origin, Part, Resource};

use super::call::Call;
use super::explanation::Tried;
use super::listener::Connection;

/// Most lost chains that are spoken of.
const MAX_LOST: usize = 8;

/// The result of the search.
pub(crate) enum Selection<'a> {
    /// One chain, and where it came from.
    Chain(&'a FilterChain, Option<&'a Origin>),
    /// Nothing fits, and there is no default.
    Nothing,
    /// These fit alike; Envoy refuses a listener with two such chains.
    Several(Vec<&'a str>),
}

/// A chain that is still in the race.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    chain: &'a FilterChain,
    origin: Option<&'a Origin>,
}

impl<'a> Candidate<'a> {
    fn criteria(&self) -> &'a FilterChainMatch {
        static NONE: std::sync::LazyLock<FilterChainMatch> = std::sync::LazyLock::new(FilterChainMatch::default);
        self.chain.filter_chain_match.as_ref().unwrap_or(&NONE)
    }
}

/// Chooses, and tells which chains were lost on the way and why.
pub(crate) fn select<'a>(
    listener: &'a Resource<Listener>,
    call: &Call,
    connection: &Connection,
    tried: &mut Vec<Tried>,
) -> Selection<'a> {
    let mut race = Race { left: Vec::new(), tried: Vec::new() };
    race.left.extend(
        listener
            .message
            .filter_chains
            .iter()
            .enumerate()
            .map(|(index, chain)| Candidate { chain, origin: listener.origin(Part::FilterChain(index)) }),
    );
    race.run(call, connection);
    let Race { left, tried: mut lost } = race;
    // An object with several chains is not passed over while one of them is chosen.
    let chosen = left.iter().filter_map(|candidate| candidate.origin).collect::<Vec<_>>();
    lost.retain(|tried| !tried.origin.as_ref().is_some_and(|origin| chosen.contains(&origin)));
    lost.dedup();
    tried.extend(lost.into_iter().take(MAX_LOST));
    match left.as_slice() {
        [] => match &listener.message.default_filter_chain {
            Some(chain) => Selection::Chain(chain, listener.origin(Part::Whole)),
            None => Selection::Nothing,
        },
        [only] => Selection::Chain(only.chain, only.origin),
        several => Selection::Several(several.iter().map(|candidate| candidate.chain.name.as_str()).collect()),
    }
}

struct Race<'a> {
    left: Vec<Candidate<'a>>,
    tried: Vec<Tried>,
}

impl<'a> Race<'a> {
    fn run(&mut self, call: &Call, connection: &Connection) {
        let port = u32::from(call.port);
        self.keep_best(
            |criteria| match criteria.destination_port {
                Some(wanted) if wanted == port => Some(1),
                Some(_) => None,
                None => Some(0),
            },
            |_| None,
        );
        // Chains for other ports, and those for ports without any of their own, are not worth a word.
        self.tried.clear();
        let address = call.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.keep_best(
            |criteria| longest_prefix(&criteria.prefix_ranges, address),
            |_| Some(format!("it is for other destination addresses than {address}")),
        );
        let name = &connection.server_name;
        self.keep_best(
            |criteria| server_name_rank(&criteria.server_names, name),
            |criteria| {
                let names = criteria.server_names.join("`, `");
                Some(match (name.is_empty(), connection.transport_protocol) {
                    (true, "tls") => format!("it is for the server name `{names}`, and the client sends none"),
                    (true, _) => format!("it is for the server name `{names}`, and no handshake was seen"),
                    (false, _) => format!("it is for the server name `{names}`, not `{name}`"),
                })
            },
        );
        self.keep_best(
            |criteria| match criteria.transport_protocol.as_str() {
                "" => Some(0),
                wanted => (wanted == connection.transport_protocol).then_some(1),
            },
            |criteria| {
                let kind = |protocol: &str| if protocol == "tls" { "TLS" } else { "plaintext" };
                let seen = if connection.tls_unseen { "this TLS goes unnoticed here" } else { "this one is not" };
                Some(format!("it is for {} connections, and {seen}", kind(&criteria.transport_protocol)))
            },
        );
        self.keep_best(
            |criteria| application_protocol_rank(&criteria.application_protocols, &connection.application_protocols),
            |criteria| {
                let wanted = match criteria.application_protocols.as_slice() {
                    [one, other] if one == "http/1.1" && other == "h2c" => "plaintext HTTP".to_owned(),
                    protocols => protocols.join(", "),
                };
                Some(match connection.application_protocols.as_slice() {
                    [] if connection.tls_unseen => format!("it is for {wanted}, and the client begins with TLS"),
                    [] => format!("it is for {wanted}, and the client was not seen to speak it"),
                    offered => format!("it is for {wanted}, not {}", offered.join(", ")),
                })
            },
        );
        let source = call.source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.keep_best(
            |criteria| longest_prefix(&criteria.direct_source_prefix_ranges, source),
            |_| Some(format!("it is for other clients than {source}")),
        );
        let local = source.is_loopback() || call.source.is_some() && call.source == call.address;
        self.keep_best(
            |criteria| match criteria.source_type() {
                ConnectionSourceType::Any => Some(0),
                ConnectionSourceType::SameIpOrLoopback => local.then_some(1),
                ConnectionSourceType::External => (!local).then_some(1),
            },
            |criteria| {
                let wanted = match criteria.source_type() {
                    ConnectionSourceType::SameIpOrLoopback => "the same host",
                    _ => "other hosts",
                };
                Some(format!("it is for clients on {wanted}"))
            },
        );
        self.keep_best(
            |criteria| longest_prefix(&criteria.source_prefix_ranges, source),
            |_| Some(format!("it is for other clients than {source}")),
        );
        // The port of a client is any port: only chains for all of them can be expected.
        self.keep_best(
            |criteria| criteria.source_ports.is_empty().then_some(0),
            |_| Some("it is for certain ports of the client".to_owned()),
        );
    }

    /// Keeps the candidates of the highest rank. `None` is no match; 0 is a chain that does not ask.
    fn keep_best(
        &mut self,
        rank: impl Fn(&FilterChainMatch) -> Option<u32>,
        mismatch: impl Fn(&FilterChainMatch) -> Option<String>,
    ) {
        let ranks: Vec<Option<u32>> = self.left.iter().map(|candidate| rank(candidate.criteria())).collect();
        let best = ranks.iter().flatten().max().copied();
        let mut ranks = ranks.into_iter();
        let tried = &mut self.tried;
        self.left.retain(|candidate| {
            let rank = ranks.next().flatten();
            if rank.is_some() && rank == best {
                return true;
            }
            let reason = match rank {
                None => mismatch(candidate.criteria()),
                Some(_) => Some("another one is more specific".to_owned()),
            };
            if let Some(reason) = reason {
                let reason = match (candidate.chain.name.as_str(), candidate.origin) {
                    // What stands in for an unnamed chain is the object that made it.
                    ("", Some(_)) => reason,
                    ("", None) => format!("a filter chain: {reason}"),
                    (name, _) => format!("filter chain `{name}`: {reason}"),
                };
                tried.push(Tried { origin: candidate.origin.cloned(), reason });
            }
            false
        });
    }
}

/// One more than the length of the longest range that holds the address; 0 without ranges.
fn longest_prefix(ranges: &[CidrRange], address: IpAddr) -> Option<u32> {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges.iter().filter_map(|range| contains(range, address)).max().map(|length| length + 1)
}

/// Length of a range that holds an address.
fn contains(range: &CidrRange, address: IpAddr) -> Option<u32> {
    let length = range.prefix_len.unwrap_or(0);
    let (network, address, bits) = match (range.address_prefix.parse::<IpAddr>().ok()?, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (u128::from(network.to_bits()), address.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return None,
    };
    let shift = bits - length.min(bits);
    let same = if shift == 128 { true } else { network >> shift == address >> shift };
    same.then_some(length.min(bits))
}

/// An exact name beats wildcards, a longer wildcard a shorter one, and any of them a chain for all names.
fn server_name_rank(names: &[String], name: &str) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    if name.is_empty() {
        return None;
    }
    let rank = |wanted: &String| {
        let wanted = wanted.to_ascii_lowercase();
        if wanted == name {
            return Some(u32::MAX);
        }
        // `*.example.com`, and Envoy's old form of it, `.example.com`.
        let suffix = wanted.strip_prefix('*').unwrap_or(&wanted);
        let covers = suffix.starts_with('.') && name.len() > suffix.len() && name.ends_with(suffix);
        covers.then(|| u32::try_from(suffix.len()).unwrap_or(u32::MAX - 1))
    };
    names.iter().filter_map(rank).max()
}

/// The client's first protocol that some chain wants decides.
fn application_protocol_rank(wanted: &[String], offered: &[String]) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let place = offered.iter().position(|protocol| wanted.contains(protocol))?;
    Some(u32::MAX - u32::try_from(place).unwrap_or(u32::MAX - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses_are_ranked_by_length() {
        let range = |address: &str, length| CidrRange { address_prefix: address.into(), prefix_len: Some(length) };
        let ranges = [range("10.0.0.0", 8), range("10.1.0.0", 16), range("::", 0)];
        assert_eq!(longest_prefix(&ranges, "10.1.2.3".parse().unwrap()), Some(17));
        assert_eq!(longest_prefix(&ranges, "10.2.2.3".parse().unwrap()), Some(9));
        assert_eq!(longest_prefix(&ranges, "11.2.2.3".parse().unwrap()), None);
        assert_eq!(longest_prefix(&ranges, "2001::1".parse().unwrap()), Some(1));
        assert_eq!(longest_prefix(&[], "11.2.2.3".parse().unwrap()), Some(0));
    }

    #[test]
    fn server_names_are_ranked_by_how_specific_they_are() {
        let rank = |names: &[&str], name| {
            server_name_rank(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>(), name)
        };
        assert!(rank(&["a.b.com"], "a.b.com") > rank(&["*.b.com"], "a.b.com"));
        assert!(rank(&["*.b.com"], "a.b.com") > rank(&["*.com"], "a.b.com"));
        assert!(rank(&["*.com"], "a.b.com") > rank(&[], "a.b.com"));
        assert_eq!(rank(&["*.b.com"], "b.com"), None);
        assert_eq!(rank(&["b.com"], ""), None);
    }
}
