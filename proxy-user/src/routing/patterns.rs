//! Many regular expressions at once: which of them match a text costs about as much as asking one, not one after the other.

use regex::{RegexSet, RegexSetBuilder};

use crate::config::model::Pattern;

/// Fewer than this are asked one by one.
const FEW: usize = 4;

/// What the automata of one set may take, in bytes. When they would take more, it is parted.
const LARGEST: usize = 8 << 20;

/// In their order; known by their place in it.
#[derive(Debug, Default)]
pub struct Patterns(Vec<Group>);

/// A run of them.
#[derive(Debug)]
enum Group {
    Few { first: usize, patterns: Vec<Pattern> },
    Many { first: usize, set: RegexSet },
}

// === impl Patterns ===

impl Patterns {
    pub fn new(patterns: &[Pattern]) -> Self {
        Self::within(patterns, LARGEST)
    }

    fn within(patterns: &[Pattern], largest: usize) -> Self {
        let mut groups = Vec::new();
        group(patterns, 0, largest, &mut groups);
        Self(groups)
    }

    /// Those that match, in order. They are looked for as the result is asked for them, a group at a time.
    pub fn matching<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + use<'a> {
        self.0.iter().flat_map(move |group| {
            let (few, many) = match group {
                Group::Few { first, patterns } => (Some((*first, patterns)), None),
                // What matched is noted in a new list, which most texts need not have.
                Group::Many { first, set } => (None, set.is_match(text).then(|| (*first, set.matches(text)))),
            };
            let few = few.into_iter().flat_map(move |(first, patterns)| {
                let matching = patterns.iter().enumerate().filter(|(_, pattern)| pattern.matches(text));
                matching.map(move |(nth, _)| first + nth)
            });
            let many = many.into_iter().flat_map(|(first, set)| set.into_iter().map(move |nth| first + nth));
            few.chain(many)
        })
    }
}

/// Parts `patterns`, of which the first has the place `first`, into as few sets as their size allows.
fn group(patterns: &[Pattern], first: usize, largest: usize, groups: &mut Vec<Group>) {
    if patterns.len() < FEW {
        groups.push(Group::Few { first, patterns: patterns.to_vec() });
        return;
    }
    let whole = patterns.iter().map(Pattern::whole);
    match RegexSetBuilder::new(whole).size_limit(largest).dfa_size_limit(largest).build() {
        Ok(set) => groups.push(Group::Many { first, set }),
        // Each alone is sound, so together they are too large.
        Err(_) => {
            let (one, other) = patterns.split_at(patterns.len() / 2);
            group(one, first, largest, groups);
            group(other, first + one.len(), largest, groups);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_pattern() -> impl Strategy<Value = Pattern> {
        "(\\^?[ab.]{1,3}|\\(a\\|b\\)\\+|a\\{1,3\\}b?|\\[ab\\]\\*|a\\|bb){1,2}"
            .prop_filter_map("no pattern", |text| Pattern::new(&text).ok())
    }

    #[test]
    fn a_thousand_are_one_set_and_larger_ones_are_parted() {
        let hosts: Vec<_> =
            (0..1000).map(|nth| Pattern::new(&format!("shop{nth}[a-z]*\\.example")).unwrap()).collect();
        let patterns = Patterns::new(&hosts);
        assert_eq!(patterns.0.len(), 1);
        let parted = Patterns::within(&hosts, 64 << 10);
        assert!(parted.0.len() > 1, "{}", parted.0.len());
        for patterns in [patterns, parted] {
            let found = |host: &str| patterns.matching(host).collect::<Vec<_>>();
            assert_eq!(found("shop999.example"), [999]);
            assert_eq!(found("shop0x.example"), [0]);
            assert_eq!(found("shop1000.example"), [0_usize; 0]);
        }
    }

    proptest! {
        // Sets take long to build without optimization.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_same_match_as_one_by_one(
            patterns in prop::collection::vec(some_pattern(), 0..24),
            text in "[ab.\n]{0,6}",
            largest in prop::sample::select(vec![1_usize, 1 << 12, LARGEST]),
        ) {
            let expected: Vec<_> =
                (0..patterns.len()).filter(|&nth| patterns[nth].matches(&text)).collect();
            let found: Vec<_> = Patterns::within(&patterns, largest).matching(&text).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
