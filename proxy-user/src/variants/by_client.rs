//! A split of connections: nobody can be given a cookie, so the client's address decides, by weighted rendezvous hashing. Pure.
//!
//! Every variant draws a lot for the client, and the best one wins. A lot depends on client, split and variant alone, and is
//! scaled by the weight: when a weight changes, clients move to the variant that has more of it now, or away from the one
//! that has less, and nobody else moves. Hosts with the same configuration choose alike. (Mosko, Schindelhauer and
//! Schomaker, "Weighted distributed hash tables", 2005.)

use crate::balance::hash;

/// One of those that `may` be, by its weight. `client` is the hash of the client's address.
pub fn pick<'n>(
    split: &str,
    variants: impl IntoIterator<Item = (&'n str, u32)>,
    client: u64,
    may: impl Fn(usize) -> bool,
) -> Option<usize> {
    let split = hash::of(split.as_bytes());
    let lots = variants.into_iter().enumerate().filter(|(index, (_, weight))| *weight > 0 && may(*index));
    let lots = lots.map(|(index, (name, weight))| {
        let drawn = mixed(client ^ mixed(split ^ mixed(hash::of(name.as_bytes()))));
        // Above 0, and at most 1.
        let drawn = ((drawn >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (index, -drawn.ln() / f64::from(weight))
    });
    lots.min_by(|one, other| one.1.total_cmp(&other.1)).map(|(index, _)| index)
}

/// Every bit depends on every other (the finish of splitmix64).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(client: u32, new: u32, old: u32) -> usize {
        let client = hash::of(&client.to_be_bytes());
        pick("shop", [("new", new), ("old", old)], client, |_| true).unwrap()
    }

    #[test]
    fn shares_are_as_the_weights_say() {
        for (new, old) in [(1, 99), (20, 80), (50, 50)] {
            let got = (0..100_000).filter(|client| of(*client, new, old) == 0).count();
            let expected = 1000 * new as usize;
            assert!(got.abs_diff(expected) < 60 + expected / 20, "{new}: {got}");
        }
    }

    #[test]
    fn a_client_moves_to_what_grows_and_never_back_and_forth() {
        for client in 0..10_000 {
            let way: Vec<_> = [0, 1, 5, 20, 50, 100].map(|new| of(client, new, 100 - new)).into();
            assert!(way.is_sorted_by(|one, next| one >= next), "{way:?}");
            assert_eq!((way[0], way[5]), (1, 0));
        }
    }

    #[test]
    fn who_may_not_be_picked_leaves_the_others_where_they_are() {
        let variants = [("a", 1), ("b", 1), ("c", 1)];
        for client in 0..1000 {
            let all = pick("s", variants, client, |_| true).unwrap();
            let rest = pick("s", variants, client, |index| index != 1).unwrap();
            assert!(rest != 1 && (all == 1 || all == rest));
        }
        assert_eq!(pick("s", variants, 7, |_| false), None);
        assert_eq!(pick("s", [("a", 0)], 7, |_| true), None);
    }
}
