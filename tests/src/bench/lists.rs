//! The lists that are measured.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proxy_user::config;

/// The ranges of the built-in list.
pub fn cloudflare() -> Vec<IpNet> {
    config::BUILT_IN_PREFIXES.iter().filter_map(|prefix| prefix.parse().ok()).collect()
}

/// Cloudflare's, and so many of each family that are spread over the whole of the address space, always the
/// same. Of ten, four are networks as they are announced (/24, /48), three single hosts (/32, /64 and /128), and
/// three of other lengths. Documentation's addresses are none of them.
pub fn spread(count: usize) -> Vec<IpNet> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let reserved: [IpNet; 3] =
        ["198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"].map(|net| net.parse().expect("a constant"));
    let mut seen: HashSet<IpNet> = HashSet::with_capacity(count * 2);
    for family in [numbers_v4 as fn(&mut Numbers) -> IpNet, numbers_v6] {
        let until = seen.len() + count;
        while seen.len() < until {
            let net = family(&mut numbers);
            if !reserved.iter().any(|reserved| reserved.contains(&net) || net.contains(reserved)) {
                seen.insert(net);
            }
        }
    }
    cloudflare().into_iter().chain(seen).collect()
}

fn numbers_v4(numbers: &mut Numbers) -> IpNet {
    let address = Ipv4Addr::from(numbers.draw() as u32);
    let length = match numbers.draw() % 10 {
        0..4 => 24,
        4..7 => 32,
        _ => 20 + (numbers.draw() % 12) as u8,
    };
    Ipv4Net::new_assert(address, length).trunc().into()
}

fn numbers_v6(numbers: &mut Numbers) -> IpNet {
    let upper = numbers.draw() >> 4 | 0x2 << 60;
    let address = Ipv6Addr::from(u128::from(upper) << 64 | u128::from(numbers.draw()));
    let length = match numbers.draw() % 20 {
        0..8 => 48,
        8..13 => 64,
        13 => 128,
        _ => 29 + (numbers.draw() % 35) as u8,
    };
    Ipv6Net::new_assert(address, length).trunc().into()
}

/// xorshift64*: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
