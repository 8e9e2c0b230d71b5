use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proxy_common::admission::{
    directory::{Listed, block, touches},
    index::Place,
    tree::At,
};

use super::*;

// The questions as the kernel asks them.

fn lists(allowed: &Allowed, address: IpAddr) -> bool {
    let sieve = &allowed.sieve;
    let nodes = |at: u32| allowed.nodes.get(at as usize);
    match (address, &allowed.directory) {
        (IpAddr::V4(address), Some(Directory { touched, blocks, hosts })) => {
            let address = u32::from(address);
            let at = block(address) as usize;
            touches(touched[at], address)
                && match blocks[at].lists(touched[at], address) {
                    Listed::Yes => true,
                    Listed::Partly(place) => hosts[place as usize].list(address),
                }
        }
        (IpAddr::V4(address), None) => {
            let address = u32::from(address);
            sieve.may_list_v4((address >> 16) as u16) && sieve.tree_v4.holds(address, nodes).unwrap()
        }
        (IpAddr::V6(address), _) => {
            let address = u128::from(address);
            let index = allowed.index.as_ref();
            let filter = |word: u32| index?.filter.get(word as usize);
            let buckets = |bucket: u32| index?.buckets.get(bucket as usize);
            let halves = [(address >> 64) as u64, address as u64];
            sieve.lists_v6(halves, nodes, filter, buckets).unwrap()
        }
    }
}

/// As large sets are looked up.
fn as_if_large(set: &PrefixSet) -> Allowed {
    let allowed = with(set, true, true);
    assert!(allowed.index.is_some());
    allowed
}

fn net(address: impl Into<IpAddr>, length: u8) -> IpNet {
    IpNet::new(address.into(), length).unwrap().trunc()
}

/// Its ends, their neighbours outside, and something between.
fn boundaries(prefix: &IpNet, between: u128) -> Vec<IpAddr> {
    match prefix {
        IpNet::V4(prefix) => {
            let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
            let inside = first | between as u32 & u32::from(prefix.hostmask());
            [first, last, inside, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|address| IpAddr::V4(address.into()))
                .to_vec()
        }
        IpNet::V6(prefix) => {
            let (first, last) = (u128::from(prefix.network()), u128::from(prefix.broadcast()));
            let inside = first | between & u128::from(prefix.hostmask());
            [first, last, inside, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|address| IpAddr::V6(address.into()))
                .to_vec()
        }
    }
}

fn agrees(prefixes: &[IpNet], asked: &[IpAddr]) -> Result<(), TestCaseError> {
    let set = PrefixSet::new(prefixes);
    let (either, large) = (tables(&set), as_if_large(&set));
    for address in asked {
        let listed = prefixes.iter().any(|prefix| prefix.contains(address));
        prop_assert_eq!(lists(&either, *address), listed, "{}", address);
        prop_assert_eq!(lists(&large, *address), listed, "{} in a large set", address);
    }
    Ok(())
}

/// Addresses near each other, so that prefixes overlap, touch and share /24s and /64s.
fn close_v4() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0..2048_u32).prop_map(|n| 0x0a00_0000 + n), Just(0), Just(u32::MAX)]
}

fn close_v6() -> impl Strategy<Value = u128> {
    prop_oneof![
        any::<u128>(),
        (0..2048_u128, 0..2048_u128).prop_map(|(network, host)| (0x2001_0db8 << 96) + (network << 64) + host),
        Just(0),
        Just(u128::MAX)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ipv4_is_listed_as_the_prefixes_say(
        written in prop::collection::vec((close_v4(), 0..=32_u8), 0..120),
        strays in prop::collection::vec(close_v4(), 20),
        between: u128,
    ) {
        // Short ones cover everything, so most are long.
        let prefixes: Vec<_> = written.iter().enumerate()
            .map(|(n, &(address, length))| {
                let length = if n % 8 == 0 { length } else { length.max(22) };
                net(std::net::Ipv4Addr::from(address), length)
            })
            .collect();
        let mut asked: Vec<_> = prefixes.iter().flat_map(|prefix| boundaries(prefix, between)).collect();
        asked.extend(strays.into_iter().map(|address| IpAddr::V4(address.into())));
        agrees(&prefixes, &asked)?;
    }

    #[test]
    fn ipv6_is_listed_as_the_prefixes_say(
        written in prop::collection::vec((close_v6(), 0..=128_u8), 0..120),
        strays in prop::collection::vec(close_v6(), 20),
        between: u128,
    ) {
        let prefixes: Vec<_> = written.iter().enumerate()
            .map(|(n, &(address, length))| {
                let length = if n % 8 == 0 { length } else { length.max(54) };
                net(std::net::Ipv6Addr::from(address), length)
            })
            .collect();
        let mut asked: Vec<_> = prefixes.iter().flat_map(|prefix| boundaries(prefix, between)).collect();
        asked.extend(strays.into_iter().map(|address| IpAddr::V6(address.into())));
        agrees(&prefixes, &asked)?;
    }
}

#[test]
fn everybody_and_nobody() {
    for (set, listed) in [(PrefixSet::everybody(), true), (PrefixSet::default(), false)] {
        for allowed in [tables(&set), as_if_large(&set)] {
            for address in [
                "0.0.0.0",
                "127.0.0.1",
                "255.255.255.255",
                "::",
                "2001:db8::1",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ] {
                assert_eq!(lists(&allowed, address.parse().unwrap()), listed, "{address}");
            }
        }
    }
}

#[test]
fn as_many_ranges_as_cloudflare_has_are_one_node_for_each_family() {
    // Fourteen and seven ranges: two of the fifteen for IPv4 touch.
    let prefixes: Vec<IpNet> = (0..14_u32)
        .map(|n| net(std::net::Ipv4Addr::from(n << 25), 13))
        .chain((0..7_u128).map(|n| net(std::net::Ipv6Addr::from((0x2400 + n) << 112), 32)))
        .collect();
    let allowed = tables(&PrefixSet::new(&prefixes));
    assert_eq!(allowed.nodes.len(), 2);
    assert!(allowed.directory.is_none());
}

#[test]
fn many_ipv4_prefixes_make_a_directory_and_few_do_not() {
    // Every other /24, so that none merge.
    let prefixes = |count: u32| -> Vec<IpNet> {
        (0..count).map(|n| net(std::net::Ipv4Addr::from(0x0b00_0000 + n * 512), 24)).collect()
    };
    let below = DIRECTORY_FROM as u32 - 1;
    assert!(tables(&PrefixSet::new(&prefixes(below))).directory.is_none());
    assert!(tables(&PrefixSet::new(&prefixes(below + 1))).directory.is_some());
}

#[test]
fn large_sets_of_every_shape_agree_with_the_ranges() {
    let v6 = |address: u128, length| net(std::net::Ipv6Addr::from(address), length);
    let base = 0x2001_0db8_u128 << 96;
    let shapes: [(&str, Vec<IpNet>); 9] = [
        ("one /32 for each", (0..3_000).map(|n| v6((0x2a00 << 112) + (n << 96) + (n << 80), 48)).collect()),
        ("every other /32, whole", (0..3_000).map(|n| v6((0x2a00 << 112) + (n << 97), 32)).collect()),
        ("/33s that end where the next /32 begins", {
            let upper = |n: u128| (0x2a00 << 112) + (n << 97) + (1 << 95);
            (0..3_000).flat_map(|n| [v6(upper(n), 33), v6(upper(n) + (3 << 95), 33)]).collect()
        }),
        ("all in one /32", (0..40_000).map(|n| v6(base + (n << 65), 64)).collect()),
        ("much in each of some /32s, one of which has a half that is whole", {
            let much = |n: u128| (0..700).map(move |site| v6(base + (n << 96) + (site << 79), 50));
            (0..5).flat_map(much).chain([v6(base + (1 << 95), 33)]).collect()
        }),
        ("hosts of one /64", (0..40_000).map(|n| v6(base + n * 2, 128)).collect()),
        ("from one to forty in a /32", {
            let within = |n: u128| (0..n % 40 + 1).map(move |site| v6(base + (n << 96) + (site << 81), 48));
            (0..500).flat_map(within).collect()
        }),
        ("from one to twelve hosts in a /64", {
            let within = |n: u128| (0..n % 12 + 1).map(move |host| v6(base + (n << 64) + host * 2, 128));
            (0..500).flat_map(within).collect()
        }),
        ("wider than places can be", {
            let wide = (0..400).map(|n| v6(n << 112, 17));
            wide.chain([v6(0, 65), v6(u128::MAX, 128)])
                .chain((0..900).map(|n| v6(base + (n << 81), 49)))
                .collect()
        }),
    ];
    for (shape, prefixes) in shapes {
        let set = PrefixSet::new(&prefixes);
        let allowed = as_if_large(&set);
        assert_eq!(allowed.sieve.tree_v6_wide.levels > 0, shape.starts_with("wider"), "{shape}");
        for prefix in &prefixes {
            for address in boundaries(prefix, u128::MAX / 3) {
                assert_eq!(lists(&allowed, address), set.contains(address), "{address}: {shape}");
            }
        }
    }
}

#[test]
fn what_is_listed_in_a_place_is_mostly_in_one_leaf() {
    // Five ranges in each /32, which two leaves would share if nobody cared.
    let sites = |n: u128| {
        (0..5_u128)
            .map(move |site| net(std::net::Ipv6Addr::from((0x2a00 << 112) + (n << 96) + (site << 81)), 48))
    };
    let prefixes: Vec<IpNet> = (0..20_000).flat_map(sites).collect();
    let allowed = tables(&PrefixSet::new(&prefixes));
    let leaves = allowed.sieve.tree_v6.levels as usize - 1;
    let starts = allowed.index.as_ref().unwrap().buckets.iter().flat_map(|bucket| bucket.0);
    let (at_leaves, higher): (Vec<_>, Vec<_>) =
        starts.filter(|start| start.kind != 0).partition(|start| start.at.level() == leaves);
    assert_eq!((at_leaves.len(), higher.len()), (20_000, 0));
}

#[test]
fn a_crowded_network_is_divided_and_begins_near_the_leaves_too() {
    let prefixes: Vec<IpNet> = (0..60_000_u128)
        .map(|n| net(std::net::Ipv6Addr::from((0x2001_0db8 << 96) + (n << 80) + (7 << 64)), 64))
        .collect();
    let allowed = tables(&PrefixSet::new(&prefixes));
    let leaves = allowed.sieve.tree_v6.levels as usize - 1;
    let starts = allowed.index.as_ref().unwrap().buckets.iter().flat_map(|bucket| bucket.0);
    let starts: Vec<_> = starts.filter(|start| start.kind != 0).collect();
    assert_eq!(starts.iter().filter(|start| start.at == At::DEEPER).count(), 1);
    assert_eq!(starts.iter().filter(|start| start.at.level() == leaves).count(), 60_000);
}

#[test]
fn however_the_ranges_lie_places_are_not_many_more() {
    let v6 = |n: u128, length: u32| {
        net(std::net::Ipv6Addr::from((0x2000 << 112) + (n << (129 - length))), length as u8)
    };
    for length in [26, 28, 29, 31, 32, 40, 47, 48, 64] {
        let prefixes: Vec<IpNet> = (0..3_000).map(|n| v6(n, length)).collect();
        let set = PrefixSet::new(&prefixes);
        let allowed = tables(&set);
        assert!(allowed.index.as_ref().unwrap().buckets.len() * 4 < 3_000 * 5, "/{length}");
        for address in prefixes.iter().step_by(37).flat_map(|prefix| boundaries(prefix, u128::MAX / 3)) {
            assert_eq!(lists(&allowed, address), set.contains(address), "{address} among /{length}s");
        }
    }
}

#[test]
fn strangers_are_known_by_the_filter() {
    let prefixes: Vec<IpNet> =
        (0..100_000).map(|n| net(std::net::Ipv6Addr::from((0x2a00 << 112) + (n << 97)), 48)).collect();
    let allowed = tables(&PrefixSet::new(&prefixes));
    let (index, Index { filter, .. }) = (allowed.sieve.index_v6, allowed.index.as_ref().unwrap());
    let passes = |first: u32| {
        let hashed = index.hashed(Place::Allocation(first).parts());
        filter[index.word(hashed) as usize] & hashed.bits() == hashed.bits()
    };
    let first = |n: u32| 0x2a00_0000 + n * 2;
    assert!((0..100_000).all(|n| passes(first(n))), "who is listed always does");
    let strangers = (0..100_000).filter(|n| passes(first(*n) + 1)).count();
    assert!(strangers < 3_000, "{strangers} of 100,000 strangers");
}

#[test]
fn trees_of_every_height_agree_with_the_ranges() {
    for count in [1_u128, 8, 9, 16, 17, 33, 273, 300, 5_000, 90_000] {
        let hosts: Vec<IpNet> = (0..count)
            .flat_map(|n| {
                let host = (0x2001_0db8_u128 << 96) + n * 6;
                let network = (0x2a00_u128 << 112) + (n << 81);
                [net(std::net::Ipv6Addr::from(host), 127), net(std::net::Ipv6Addr::from(network), 48)]
            })
            .collect();
        let set = PrefixSet::new(&hosts);
        let allowed = tables(&set);
        for prefix in hosts.iter().step_by(hosts.len() / 997 + 1) {
            for address in boundaries(prefix, u128::MAX / 3) {
                assert_eq!(lists(&allowed, address), set.contains(address), "{address} of {count}");
            }
        }
    }
}
