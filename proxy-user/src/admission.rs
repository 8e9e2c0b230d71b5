//! Who may come in, as user space judges it: the same prefixes that the gate holds, asked once more at accept.
//!
//! Where the gate can't be had this is the whole of enforcement; where it stands, it is the second lock.
//! Pure: no I/O, no clock.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;

/// Who may come in at an entrypoint.
#[derive(Debug)]
pub struct Admission {
    listed: Arc<PrefixSet>,
    /// Nobody is turned away here: those who would be are only counted.
    pub shadow: bool,
    /// Those that the next configuration lets in. The gate lets them through a moment before that configuration
    /// runs here, and they must not be turned away in between.
    arriving: ArcSwapOption<PrefixSet>,
}

/// A set of addresses, as sorted ranges that don't touch: a lookup is one binary search, however the prefixes
/// were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

// === impl Admission ===

impl Admission {
    pub fn new(listed: PrefixSet) -> Self {
        Self { listed: Arc::new(listed), shadow: false, arriving: ArcSwapOption::empty() }
    }

    pub fn shadowed(self, shadow: bool) -> Self {
        Self { shadow, ..self }
    }

    pub fn admits(&self, address: IpAddr) -> bool {
        self.listed.contains(address)
            || self.arriving.load().as_ref().is_some_and(|arriving| arriving.contains(address))
    }

    /// From now on admits those of `next` too.
    pub fn expect(&self, next: &Self) {
        let arriving = if next.shadow { Arc::new(PrefixSet::everybody()) } else { next.listed.clone() };
        self.arriving.store(Some(arriving));
    }

    /// The next configuration did not come about.
    pub fn expect_nobody(&self) {
        self.arriving.store(None);
    }
}

// === impl PrefixSet ===

impl PrefixSet {
    /// All addresses: an entrypoint without an allowlist.
    pub fn everybody() -> Self {
        Self { v4: Box::new([(0, u32::MAX)]), v6: Box::new([(0, u128::MAX)]) }
    }

    pub fn new<'a>(prefixes: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Self { v4: merged(v4, |end| end.checked_add(1)), v6: merged(v6, |end| end.checked_add(1)) }
    }

    /// First and last addresses.
    pub fn ranges_v4(&self) -> &[(u32, u32)] {
        &self.v4
    }

    /// First and last addresses.
    pub fn ranges_v6(&self) -> &[(u128, u128)] {
        &self.v6
    }

    /// Whether `address` is in the set. IPv4 in IPv6 clothes is judged as the IPv4 address that it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => covers(&self.v4, u32::from(address)),
            IpAddr::V6(address) => covers(&self.v6, u128::from(address)),
        }
    }
}

fn covers<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(start, _)| start <= address);
    after > 0 && ranges[after - 1].1 >= address
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            // `next` is None at the very last address: nothing can follow it, so the range is covered.
            Some(last) if next(last.1).is_none_or(|adjacent| start <= adjacent) => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(prefixes: &[&str]) -> PrefixSet {
        PrefixSet::new(&prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect::<Vec<IpNet>>())
    }

    #[test]
    fn the_ends_of_a_prefix_are_inside_and_their_neighbours_are_not() {
        let set = set(&["103.21.244.0/22", "2a06:98c0::/29"]);
        for (address, inside) in [
            ("103.21.243.255", false),
            ("103.21.244.0", true),
            ("103.21.247.255", true),
            ("103.21.248.0", false),
            ("::ffff:103.21.245.1", true),
            ("2a06:98bf:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2a06:98c0::", true),
            ("2a06:98c7:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2a06:98c8::", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    #[test]
    fn overlapping_and_adjacent_prefixes_become_one_range() {
        let set = set(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "255.255.255.255/32", "255.0.0.0/8"]);
        assert_eq!(set.v4.len(), 2);
        assert!(set.contains("255.255.255.255".parse().unwrap()));
    }

    #[test]
    fn those_who_are_to_come_are_admitted_until_the_change_is_off() {
        let (now, next) = (Admission::new(set(&["10.0.0.0/8"])), Admission::new(set(&["192.0.2.0/24"])));
        let newcomer = "192.0.2.1".parse().unwrap();
        assert!(!now.admits(newcomer));
        now.expect(&next);
        assert!(now.admits(newcomer) && now.admits("10.0.0.1".parse().unwrap()));
        now.expect_nobody();
        assert!(!now.admits(newcomer));
    }

    #[test]
    fn everybody_may_come_when_a_rehearsal_begins() {
        let lists = || set(&["10.0.0.0/8"]);
        let (now, next) = (Admission::new(lists()), Admission::new(lists()).shadowed(true));
        let stranger = "192.0.2.1".parse().unwrap();
        now.expect(&next);
        assert!(now.admits(stranger));
        assert!(!next.admits(stranger), "it is judged all the same");
    }

    #[test]
    fn everybody_is_everybody() {
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(PrefixSet::everybody().contains(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_empty_set_holds_nobody() {
        assert!(!PrefixSet::default().contains("127.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn containment_is_that_of_the_prefixes(
            prefixes in prop::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            address: u32,
            pick: prop::sample::Index,
        ) {
            let nets: Vec<IpNet> = prefixes
                .iter()
                .map(|&(address, length)| IpNet::new(IpAddr::V4(address.into()), length).unwrap().trunc())
                .collect();
            let set = PrefixSet::new(&nets);
            let mut asked = vec![address];
            if !nets.is_empty() {
                // Boundaries are where range code goes wrong.
                if let IpNet::V4(net) = nets[pick.index(nets.len())] {
                    let (low, high) = (u32::from(net.network()), u32::from(net.broadcast()));
                    asked.extend([low, high, low.wrapping_sub(1), high.wrapping_add(1)]);
                }
            }
            for address in asked {
                let address = IpAddr::V4(address.into());
                prop_assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address)));
            }
        }
    }
}
