//! To which host does the hash of a request belong? Envoy's ring and its Maglev table, the same to the last bit.

use xxhash_rust::xxh64::xxh64;

use super::cluster::{HashFunction, Policy};

/// The seed of the C++ standard library's hash.
const MURMUR_SEED: u64 = 0xc70f_6907;

/// A host as a table sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its index among the endpoints.
    pub host: u32,
    /// What is hashed for it.
    pub key: &'a str,
    /// Its share; all together are 1.
    pub weight: f64,
}

/// A table of one priority level.
#[derive(Debug)]
pub enum HashTable {
    /// Points by their hash.
    Ring(Box<[Point]>),
    /// Hosts by the remainder of the hash.
    Maglev(Box<[u32]>),
}

/// A point on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    hash: u64,
    host: u32,
}

impl HashTable {
    /// The table of these hosts; `None` without hosts, or for a policy without tables.
    #[must_use]
    pub fn build(policy: &Policy, candidates: &[Candidate<'_>]) -> Option<Self> {
        if candidates.is_empty() {
            return None;
        }
        match policy {
            Policy::RingHash { min, max, function } => Some(Self::Ring(ring(candidates, *min, *max, *function))),
            Policy::Maglev { size } => Some(Self::Maglev(maglev(candidates, *size))),
            _ => None,
        }
    }

    /// The host of a hash. A second attempt and further ones look elsewhere, which need not find another host.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u64, attempt: u32) -> Option<u32> {
        match self {
            Self::Ring(points) => {
                let first = points.partition_point(|point| point.hash < hash);
                let index = if first == points.len() { 0 } else { first };
                let index = (index + attempt as usize).checked_rem(points.len())?;
                points.get(index).map(|point| point.host)
            }
            Self::Maglev(hosts) => {
                let hash = if attempt == 0 { hash } else { hash ^ u64::from(attempt).wrapping_neg() };
                let index = hash.checked_rem(hosts.len() as u64)?;
                hosts.get(usize::try_from(index).ok()?).copied()
            }
        }
    }

    /// Entries in all, and the fewest and the most of one host.
    #[must_use]
    pub fn extent(&self) -> (u64, u64, u64) {
        let mut counts = std::collections::BTreeMap::new();
        let hosts: &mut dyn Iterator<Item = u32> = match self {
            Self::Ring(points) => &mut points.iter().map(|point| point.host),
            Self::Maglev(hosts) => &mut hosts.iter().copied(),
        };
        for host in hosts {
            *counts.entry(host).or_insert(0_u64) += 1;
        }
        let (least, most) = (counts.values().min(), counts.values().max());
        (counts.values().sum(), least.copied().unwrap_or(0), most.copied().unwrap_or(0))
    }
}

/// Each host gets points in proportion to its weight, in all about as many as the smallest weight needs to get a whole
/// one, at least the minimum.
fn ring(candidates: &[Candidate<'_>], min: u64, max: u64, function: HashFunction) -> Box<[Point]> {
    let least = candidates.iter().map(|candidate| candidate.weight).fold(1.0_f64, f64::min);
    let scale = ((least * min as f64).ceil() / least).min(max as f64);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let (mut current, mut target) = (0.0, 0.0);
    let mut name = String::new();
    for candidate in candidates {
        name.clear();
        name.push_str(candidate.key);
        name.push('_');
        let stem = name.len();
        target += scale * candidate.weight;
        let mut index = 0_u64;
        while current < target {
            name.truncate(stem);
            name.push_str(&index.to_string());
            let hash = match function {
                HashFunction::XxHash => xxh64(name.as_bytes(), 0),
                HashFunction::MurmurHash2 => murmur2(name.as_bytes(), MURMUR_SEED),
            };
            points.push(Point { hash, host: candidate.host });
            index += 1;
            current += 1.0;
        }
    }
    points.sort_by_key(|point| point.hash);
    points.into_boxed_slice()
}

/// Hosts take turns to place themselves where their own permutation of the table has its next free entry; those of
/// less weight sit out turns.
fn maglev(candidates: &[Candidate<'_>], size: u64) -> Box<[u32]> {
    struct Builder {
        host: u32,
        weight: f64,
        target: f64,
        offset: u64,
        skip: u64,
        next: u64,
    }
    const FREE: u32 = u32::MAX;
    let mut sorted: Vec<_> = candidates.to_vec();
    sorted.sort_by(|one, other| one.key.cmp(other.key));
    let greatest = sorted.iter().map(|candidate| candidate.weight).fold(0.0_f64, f64::max);
    let mut builders: Vec<_> = sorted
        .iter()
        .map(|candidate| Builder {
            host: candidate.host,
            weight: candidate.weight,
            target: 0.0,
            offset: xxh64(candidate.key.as_bytes(), 0) % size,
            skip: xxh64(candidate.key.as_bytes(), 1) % (size.max(2) - 1) + 1,
            next: 0,
        })
        .collect();
    let mut table = vec![FREE; usize::try_from(size).unwrap_or(0)];
    let mut placed = 0;
    let mut turn = 0.0;
    while placed < table.len() {
        turn += 1.0;
        for builder in &mut builders {
            if placed == table.len() {
                break;
            }
            if turn * builder.weight < builder.target {
                continue;
            }
            builder.target += greatest;
            // The step is prime to the size, so it comes by every entry, and one is free.
            loop {
                let entry = (builder.offset + builder.skip * builder.next) % size;
                builder.next += 1;
                if let Some(entry) = usize::try_from(entry).ok().and_then(|entry| table.get_mut(entry))
                    && *entry == FREE
                {
                    *entry = builder.host;
                    placed += 1;
                    break;
                }
            }
        }
    }
    table.into_boxed_slice()
}

/// MurmurHash2 for 64 bits, as the GNU C++ library has it.
fn murmur2(bytes: &[u8], seed: u64) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    let shift = |value: u64| value ^ (value >> 47);
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        hash = (hash ^ shift(word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
    }
    shift(shift(hash).wrapping_mul(MULTIPLIER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates<'a>(keys: &[(&'a str, f64)]) -> Vec<Candidate<'a>> {
        let total: f64 = keys.iter().map(|(_, weight)| weight).sum();
        let indexed = (0_u32..).zip(keys);
        indexed.map(|(host, (key, weight))| Candidate { host, key, weight: weight / total }).collect()
    }

    const THREE: [(&str, f64); 3] = [("127.0.0.1:20001", 1.0), ("127.0.0.1:20002", 1.0), ("127.0.0.1:20003", 1.0)];

    fn ring_hash(min: u64) -> Policy {
        Policy::RingHash { min, max: 8 * 1024 * 1024, function: HashFunction::XxHash }
    }

    /// Sizes that Envoy showed in its statistics for the same weights.
    #[test]
    fn a_ring_has_as_many_points_as_envoys() {
        let extent = |keys: &[(&str, f64)], min| HashTable::build(&ring_hash(min), &candidates(keys)).unwrap().extent();
        assert_eq!(extent(&THREE, 1024), (1026, 342, 342));
        assert_eq!(extent(&THREE, 64), (66, 22, 22));
        assert_eq!(extent(&[("a", 1.0), ("b", 3.0)], 64), (64, 16, 48));
    }

    #[test]
    fn a_maglev_table_has_as_many_entries_of_each_host_as_envoys() {
        let extent = |keys: &[(&str, f64)]| {
            HashTable::build(&Policy::Maglev { size: 65537 }, &candidates(keys)).unwrap().extent()
        };
        assert_eq!(extent(&THREE), (65537, 21845, 21846));
        assert_eq!(extent(&[("a", 1.0), ("b", 3.0), ("c", 1.0)]), (65537, 13107, 39322));
    }

    #[test]
    fn the_ring_gives_the_first_point_at_or_after_the_hash_and_turns_round() {
        let points = [(10, 0), (20, 1), (30, 2)].map(|(hash, host)| Point { hash, host });
        let ring = HashTable::Ring(points.into());
        let picks = [5, 10, 11, 30, 31].map(|hash| ring.pick(hash, 0));
        assert_eq!(picks, [0, 0, 1, 2, 0].map(Some));
        assert_eq!([1, 2, 3].map(|attempt| ring.pick(11, attempt)), [2, 0, 1].map(Some));
    }

    #[test]
    fn a_host_that_goes_moves_only_its_own_keys() {
        let maglev = Policy::Maglev { size: 65537 };
        // Rings in which each host has 342 points; a Maglev table is disturbed a little.
        for (before, after, limit) in [(ring_hash(1026), ring_hash(684), 0), (maglev, maglev, 100)] {
            let all = HashTable::build(&before, &candidates(&THREE)).unwrap();
            let less = HashTable::build(&after, &candidates(&THREE[..2])).unwrap();
            let keys = (0..2000_u64).map(|key| xxh64(&key.to_le_bytes(), 0));
            let moved = keys.filter(|hash| {
                let host = all.pick(*hash, 0);
                host != Some(2) && host != less.pick(*hash, 0)
            });
            let moved = moved.count();
            assert!(moved <= limit, "{before:?}: {moved} of 2000");
        }
    }

    /// Values of `std::hash<std::string>` of the GNU C++ library.
    #[test]
    fn murmur_is_that_of_the_cpp_library() {
        assert_eq!(murmur2(b"", MURMUR_SEED), 6_142_509_188_972_423_790);
        assert_eq!(murmur2(b"a", MURMUR_SEED), 4_993_892_634_952_068_459);
        assert_eq!(murmur2(b"hello", MURMUR_SEED), 2_762_169_579_135_187_400);
        assert_eq!(murmur2(b"12345678", MURMUR_SEED), 10_113_836_418_918_046_885);
        assert_eq!(murmur2(b"127.0.0.1:20001_17", MURMUR_SEED), 1_104_979_332_014_257_903);
    }
}
