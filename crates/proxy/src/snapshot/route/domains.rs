//! Which virtual host has a host name? Exact names, then suffix and prefix wildcards by length, then `*`.

use lateen_xds::envoy::config::route::v3 as route_v3;

use super::super::Invalid;

/// The domains of a route configuration, each with the index of its virtual host. Names are compared without regard to
/// the case of ASCII letters, and neither copied nor lower-cased for it.
#[derive(Debug, Default)]
pub(super) struct Domains {
    exact: Table,
    /// `*.example.com`, without the star; longest first.
    suffixes: Vec<(usize, Table)>,
    /// `www.*`, without the star; longest first.
    prefixes: Vec<(usize, Table)>,
    any: Option<usize>,
}

impl Domains {
    /// Indexes the domains of all virtual hosts.
    ///
    /// # Errors
    /// A virtual host without domains or with an empty one, a domain that occurs twice, a second `*`.
    pub(super) fn build(hosts: &[route_v3::VirtualHost], config: &str) -> Result<Self, Invalid> {
        let mut domains = Self::default();
        for (host, message) in hosts.iter().enumerate() {
            if message.domains.is_empty() {
                return Err(Invalid::at(
                    format!("virtual_hosts[{host}].domains"),
                    format!("virtual host `{}` has no domain", message.name),
                ));
            }
            for (index, domain) in message.domains.iter().enumerate() {
                let path = || format!("virtual_hosts[{host}].domains[{index}]");
                let added = match domain.as_bytes() {
                    [] => return Err(Invalid::at(path(), "a domain must not be empty".into())),
                    b"*" if domains.any.is_some() => {
                        let message = format!("Only a single wildcard domain is permitted in route {config}");
                        return Err(Invalid::at(path(), message));
                    }
                    b"*" => {
                        domains.any = Some(host);
                        true
                    }
                    [b'*', suffix @ ..] => of_length(&mut domains.suffixes, suffix.len()).insert(suffix, host),
                    [prefix @ .., b'*'] => of_length(&mut domains.prefixes, prefix.len()).insert(prefix, host),
                    name => domains.exact.insert(name, host),
                };
                if !added {
                    let message = format!(
                        "Only unique values for domains are permitted. Duplicate entry of domain {domain} in route {config}"
                    );
                    return Err(Invalid::at(path(), message));
                }
            }
        }
        domains.suffixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        domains.prefixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        Ok(domains)
    }

    /// The index of the virtual host for a name.
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        let exact = || self.exact.find(name);
        // A wildcard stands for at least one character.
        let suffix = || {
            self.suffixes
                .iter()
                .filter(|(length, _)| *length < name.len())
                .find_map(|(length, table)| table.find(&name[name.len() - length..]))
        };
        let prefix = || {
            self.prefixes
                .iter()
                .filter(|(length, _)| *length < name.len())
                .find_map(|(length, table)| table.find(&name[..*length]))
        };
        exact().or_else(suffix).or_else(prefix).or(self.any)
    }
}

fn of_length(tables: &mut Vec<(usize, Table)>, length: usize) -> &mut Table {
    let position = match tables.iter().position(|(known, _)| *known == length) {
        Some(position) => position,
        None => {
            tables.push((length, Table::default()));
            tables.len() - 1
        }
    };
    &mut tables[position].1
}

/// Names sorted by their hash.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    name: Box<[u8]>,
    host: usize,
}

impl Table {
    /// Adds a name; tells whether it was new.
    fn insert(&mut self, name: &[u8], host: usize) -> bool {
        let hash = hash(name);
        let at = self.entries.partition_point(|entry| entry.hash < hash);
        let same = self.entries[at..].iter().take_while(|entry| entry.hash == hash);
        if same.into_iter().any(|entry| entry.name.eq_ignore_ascii_case(name)) {
            return false;
        }
        self.entries.insert(at, Entry { hash, name: name.into(), host });
        true
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let hash = hash(name);
        let at = self.entries.partition_point(|entry| entry.hash < hash);
        self.entries[at..]
            .iter()
            .take_while(|entry| entry.hash == hash)
            .find(|entry| entry.name.eq_ignore_ascii_case(name))
            .map(|entry| entry.host)
    }
}

/// FNV-1a over the lower-cased bytes. Only configured names are stored, so nobody can choose names that collide.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(hosts: &[&[&str]]) -> Result<Domains, Invalid> {
        let hosts: Vec<_> = hosts
            .iter()
            .map(|domains| route_v3::VirtualHost {
                domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
                ..Default::default()
            })
            .collect();
        Domains::build(&hosts, "rc")
    }

    #[test]
    fn exact_precedes_suffix_precedes_prefix_precedes_any() {
        let domains = domains(&[&["*"], &["pre.*"], &["*.b.com"], &["a.b.com"], &["*.a.b.com"], &["pre.b.*"]]).unwrap();
        assert_eq!(domains.find(b"a.b.com"), Some(3));
        assert_eq!(domains.find(b"x.b.com"), Some(2));
        assert_eq!(domains.find(b"x.a.b.com"), Some(4));
        assert_eq!(domains.find(b"pre.b.com"), Some(2));
        assert_eq!(domains.find(b"pre.b.org"), Some(5));
        assert_eq!(domains.find(b"pre.c.org"), Some(1));
        assert_eq!(domains.find(b"other"), Some(0));
        assert_eq!(domains.find(b""), Some(0));
    }

    #[test]
    fn a_wildcard_stands_for_at_least_one_character_and_may_span_dots() {
        let domains = domains(&[&["*.b.com"], &["*foo.com"], &["*-bar.foo.org"], &["www.*"]]).unwrap();
        assert_eq!(domains.find(b"b.com"), None);
        assert_eq!(domains.find(b".b.com"), None);
        assert_eq!(domains.find(b"x.y.b.com"), Some(0));
        assert_eq!(domains.find(b"foo.com"), None);
        assert_eq!(domains.find(b"xfoo.com"), Some(1));
        assert_eq!(domains.find(b"a-bar.foo.org"), Some(2));
        assert_eq!(domains.find(b"www."), None);
        assert_eq!(domains.find(b"www.x"), Some(3));
    }

    #[test]
    fn names_are_compared_without_case_and_with_their_port() {
        let domains = domains(&[&["A.com", "port.com:8080"]]).unwrap();
        assert_eq!(domains.find(b"a.COM"), Some(0));
        assert_eq!(domains.find(b"a.com:80"), None);
        assert_eq!(domains.find(b"port.com:8080"), Some(0));
        assert_eq!(domains.find(b"port.com"), None);
    }

    #[test]
    fn duplicates_are_refused_with_their_place() {
        let error = domains(&[&["a.com"], &["b.com", "A.com"]]).unwrap_err();
        assert_eq!(error.path, "virtual_hosts[1].domains[1]");
        assert!(error.message.contains("Duplicate entry of domain A.com in route rc"), "{error}");
        let error = domains(&[&["*"], &["*"]]).unwrap_err();
        assert_eq!(error.message, "Only a single wildcard domain is permitted in route rc");
        assert!(domains(&[&["*.a"], &["*.a"]]).is_err());
        assert!(domains(&[&[]]).is_err());
        assert!(domains(&[&[""]]).is_err());
    }

    #[test]
    fn thousands_of_names_are_found() {
        let names: Vec<_> = (0..5000).map(|index| format!("host-{index}.example.com")).collect();
        let hosts: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
        let hosts: Vec<&[&str]> = hosts.iter().map(|host| &host[..]).collect();
        let domains = domains(&hosts).unwrap();
        for (index, name) in names.iter().enumerate() {
            assert_eq!(domains.find(name.to_ascii_uppercase().as_bytes()), Some(index));
        }
    }
}
