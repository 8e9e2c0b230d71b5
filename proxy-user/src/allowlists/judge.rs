//! Whether a list that was fetched is believed: the last lock before it decides who comes in. Pure.
//!
//! A list can be whole and well-formed and yet be wrong: emptied by a fault at its source, cut off at the end of a line,
//! or opened to everybody. Both ends are guarded: what would shut (nearly) all out, and what would let (nearly) all in.

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;

/// No provider has a range wider than these; whoever means one writes it into the configuration.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 16;

/// So many prefixes of each kind are named when a list changes; a list may have a million.
const NAMED: usize = 8;

/// Why a list that was fetched is not believed. `Display` is a sentence about the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error("it is empty")]
    Empty,
    #[error(
        "it has {now} {family} prefixes, fewer than {limit} % of the {before} of the last good list \
         (`weir allowlist refresh NAME --accept-shrunken` takes it all the same)"
    )]
    Shrunken { family: &'static str, before: usize, now: usize, limit: u32 },
    #[error("it holds {0}, wider than any provider's: write that into `prefixes` if it is meant")]
    TooWide(IpNet),
}

/// What a change of a list brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    pub added: Vec<IpNet>,
    pub removed: Vec<IpNet>,
    /// How many prefixes the list has now.
    pub total: usize,
}

/// Whether `fetched` may take the place of `before`, the last good list of the same source; empty if there is none. Each
/// family is judged alone: seven prefixes of IPv6 are lost among many of IPv4, but they are everybody who uses it.
///
/// # Errors
/// With what is doubtful about it.
pub fn judge(before: &[IpNet], fetched: &[IpNet], shrink_limit: u32) -> Result<(), Doubt> {
    if fetched.is_empty() {
        return Err(Doubt::Empty);
    }
    if let Some(wide) = fetched.iter().find(|prefix| too_wide(prefix)) {
        return Err(Doubt::TooWide(*wide));
    }
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        let count =
            |list: &[IpNet]| list.iter().filter(|prefix| matches!(prefix, IpNet::V4(_)) == is_v4).count();
        let (before, now) = (count(before), count(fetched));
        if now * 100 < before * shrink_limit as usize {
            return Err(Doubt::Shrunken { family, before, now, limit: shrink_limit });
        }
    }
    Ok(())
}

fn too_wide(prefix: &IpNet) -> bool {
    prefix.prefix_len() < if matches!(prefix, IpNet::V4(_)) { WIDEST_V4 } else { WIDEST_V6 }
}

// === impl Diff ===

impl Diff {
    pub fn between(before: &[IpNet], after: &[IpNet]) -> Self {
        let (before, after): (BTreeSet<_>, BTreeSet<_>) = (before.iter().collect(), after.iter().collect());
        Self {
            added: after.difference(&before).map(|&&prefix| prefix).collect(),
            removed: before.difference(&after).map(|&&prefix| prefix).collect(),
            total: after.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// One line of bounded length.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} added, {} removed, {} now", self.added.len(), self.removed.len(), self.total)?;
        for (sign, prefixes) in [('+', &self.added), ('-', &self.removed)] {
            for prefix in prefixes.iter().take(NAMED) {
                write!(f, " {sign}{prefix}")?;
            }
            if prefixes.len() > NAMED {
                write!(f, " {sign}({} more)", prefixes.len() - NAMED)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(count: usize) -> Vec<IpNet> {
        let net = |n| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + ((n as u32) << 8)).into(), 24);
        (0..count).map(|n| net(n).unwrap()).collect()
    }

    fn v6(count: usize) -> Vec<IpNet> {
        (0..count).map(|n| format!("2001:db8:{n:x}::/48").parse().unwrap()).collect()
    }

    fn both(four: usize, six: usize) -> Vec<IpNet> {
        [v4(four), v6(six)].concat()
    }

    #[test]
    fn a_list_may_shrink_to_its_limit_and_no_further() {
        for (before, now, limit, believed) in [
            (both(15, 7), both(15, 7), 50, true),
            (both(15, 7), both(8, 4), 50, true),
            (both(15, 7), both(7, 7), 50, false),
            (both(15, 7), both(15, 3), 50, false),
            (both(15, 7), both(15, 0), 50, false),
            (both(15, 7), both(15, 0), 0, true),
            (both(15, 7), both(14, 7), 100, false),
            (both(15, 7), both(1, 1), 0, true),
            (both(0, 0), both(1, 0), 100, true),
            (both(1, 0), both(1000, 0), 50, true),
        ] {
            assert_eq!(judge(&before, &now, limit).is_ok(), believed, "{} → {}", before.len(), now.len());
        }
    }

    #[test]
    fn an_empty_list_is_never_believed() {
        for limit in [0, 50, 100] {
            assert_eq!(judge(&[], &[], limit), Err(Doubt::Empty));
        }
    }

    #[test]
    fn a_list_that_opens_everything_is_not_believed() {
        for (prefix, believed) in [
            ("0.0.0.0/0", false),
            ("128.0.0.0/1", false),
            ("10.0.0.0/7", false),
            ("10.0.0.0/8", true),
            ("::/0", false),
            ("2000::/3", false),
            ("2600::/16", true),
        ] {
            assert_eq!(judge(&[], &[prefix.parse().unwrap()], 50).is_ok(), believed, "{prefix}");
        }
    }

    #[test]
    fn a_difference_says_what_came_and_went_and_stays_short() {
        let diff = Diff::between(&v4(2), &[v4(1), v6(1)].concat());
        assert_eq!(diff.to_string(), "1 added, 1 removed, 2 now +2001:db8::/48 -10.0.1.0/24");
        let diff = Diff::between(&[], &v4(100_000));
        assert!(diff.to_string().len() < 300, "{diff}");
        assert!(diff.to_string().ends_with("+(99992 more)"), "{diff}");
        assert!(Diff::between(&both(3, 3), &both(3, 3)).is_empty());
    }

    proptest! {
        /// Whatever is fetched, at most the limit is lost and somebody is on the list.
        #[test]
        fn what_is_believed_shuts_out_no_more_than_the_limit(
            before in (0usize..60, 0usize..60), now in (0usize..60, 0usize..60), limit in 0u32..=100,
        ) {
            let (list_before, list_now) = (both(before.0, before.1), both(now.0, now.1));
            if judge(&list_before, &list_now, limit).is_ok() {
                prop_assert!(now.0 + now.1 > 0);
                for (before, now) in [(before.0, now.0), (before.1, now.1)] {
                    prop_assert!(now as f64 >= before as f64 * f64::from(limit) / 100.0 - 1e-9);
                }
            }
        }
    }
}
