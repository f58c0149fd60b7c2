//! Where does a request go whose host by hash has too much to do? Envoy's bounded load (`hash_balance_factor`).
//!
//! The other hosts are looked at in an order that follows from the hash, so that requests with one key overflow to the
//! same host.

use crate::snapshot::endpoints::Endpoints;

/// The host by hash, or the first of the others that has room, or the one with the least too much.
///
/// `shares` are all hosts with their parts of the whole; `active` are the requests under way to all of them.
pub(super) fn pick(
    chosen: u32,
    hash: u64,
    factor: u32,
    shares: &[(u32, f64)],
    active: u32,
    endpoints: &Endpoints,
) -> u32 {
    let overload = |host: u32, share: f64| {
        let slots = (u64::from(active) + 1) * u64::from(factor);
        let slots = ((slots.div_ceil(100) as f64) * share).ceil().max(1.0);
        let busy = endpoints.hosts.get(host as usize).map_or(0, |host| host.state.active_requests());
        f64::from(busy) / slots
    };
    let share = shares.iter().find(|(host, _)| *host == chosen).map_or(1.0, |(_, share)| *share);
    let mut least = (chosen, overload(chosen, share));
    if least.1 <= 1.0 {
        return chosen;
    }
    let mut random = MersenneTwister::new(hash);
    let mut order: Vec<usize> = (0..shares.len()).collect();
    for index in 0..order.len() {
        let rest = order.len() - index;
        let jump = random.below(u32::try_from(rest).unwrap_or(u32::MAX)) as usize;
        order.swap(index, index + jump);
        let Some(&(host, share)) = order.get(index).and_then(|index| shares.get(*index)) else { continue };
        if host == chosen {
            continue;
        }
        let load = overload(host, share);
        if load <= 1.0 {
            return host;
        }
        if load < least.1 {
            least = (host, load);
        }
    }
    least.0
}

/// The generator of the C++ standard library (`mt19937`), whose numbers Envoy shuffles by.
struct MersenneTwister {
    state: [u32; Self::SIZE],
    next: usize,
}

impl MersenneTwister {
    const SIZE: usize = 624;
    const SHIFT: usize = 397;

    /// Of a seed only the lower half counts.
    fn new(seed: u64) -> Self {
        let mut state = [0_u32; Self::SIZE];
        let mut last = (seed & u64::from(u32::MAX)) as u32;
        for (index, word) in (0_u32..).zip(&mut state) {
            if index > 0 {
                last = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index);
            }
            *word = last;
        }
        Self { state, next: Self::SIZE }
    }

    fn number(&mut self) -> u32 {
        if self.next >= Self::SIZE {
            for index in 0..Self::SIZE {
                let following = self.state[(index + 1) % Self::SIZE];
                let joined = (self.state[index] & 0x8000_0000) | (following & 0x7fff_ffff);
                let twisted = if joined & 1 == 0 { joined >> 1 } else { (joined >> 1) ^ 0x9908_b0df };
                self.state[index] = self.state[(index + Self::SHIFT) % Self::SIZE] ^ twisted;
            }
            self.next = 0;
        }
        let mut number = self.state[self.next];
        self.next += 1;
        number ^= number >> 11;
        number ^= (number << 7) & 0x9d2c_5680;
        number ^= (number << 15) & 0xefc6_0000;
        number ^ (number >> 18)
    }

    /// A number below a bound.
    fn below(&mut self, bound: u32) -> u32 {
        let part = (u64::from(u32::MAX) + 1) / u64::from(bound.max(1));
        loop {
            let number = u64::from(self.number()) / part;
            if number < u64::from(bound.max(1)) {
                return u32::try_from(number).unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C++ standard names the ten thousandth number of the default seed.
    #[test]
    fn the_generator_is_that_of_the_cpp_library() {
        let mut random = MersenneTwister::new(5489);
        assert_eq!(random.number(), 3_499_211_612);
        for _ in 0..9_998 {
            random.number();
        }
        assert_eq!(random.number(), 4_123_659_995);
    }

    #[test]
    fn numbers_below_a_bound_are_spread_evenly() {
        let mut random = MersenneTwister::new(7);
        let mut counts = [0_u32; 5];
        for _ in 0..5000 {
            counts[random.below(5) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..=1150).contains(count)), "{counts:?}");
    }
}
