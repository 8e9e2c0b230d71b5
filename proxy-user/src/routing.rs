//! Which route a request takes. Pure: no I/O, and built anew for each snapshot.
//!
//! Every route has its place in one order ([`order`]), and of the routes that match, the first wins. That is all of
//! the meaning; the rest is finding it fast. Exact hosts are found by hash, wildcards by the hash of each suffix, paths in
//! a tree of segments ([`paths`]), regular expressions all at once ([`patterns`]); what else a route asks for ([`rule`]) is looked
//! at for the candidates alone. So a lookup costs the same with one host and with ten thousand, and allocates nothing, unless
//! the host is in upper case or one of many regular expressions matches.

pub mod order;
mod paths;
mod patterns;
pub mod rule;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::config::model::{HostMatch, Pattern};

use paths::Paths;
use patterns::Patterns;
use rule::{Asked, Rule};

/// The routes of one entrypoint, and what each leads to.
#[derive(Debug)]
pub struct Router<T> {
    /// In their order; the number of a rule is its rank.
    rules: Vec<Rule<T>>,
    exact: Hosts,
    wildcard: Hosts,
    /// The most labels that a wildcard's suffix has, and the best rank of any.
    deepest: usize,
    best_wildcard: u32,
    /// The paths behind each regular expression, by their best rank.
    by_pattern: Vec<Paths>,
    patterns: Patterns,
    any: Paths,
}

/// Who fills the table is the operator, and who asks can't make it slow: no need for a hash that stands up to attackers.
type Hosts = HashMap<Arc<str>, Paths, foldhash::fast::RandomState>;

/// No rule.
const NONE: u32 = u32::MAX;

// === impl Router ===

impl<T> Router<T> {
    /// `rules` in any order: those that [`order`] holds for equal must come as they are written.
    pub fn new(rules: impl IntoIterator<Item = Rule<T>>) -> Self {
        let mut rules: Vec<Rule<T>> = rules.into_iter().collect();
        rules.sort_by_key(|rule| rule.order);
        let mut router = Self {
            exact: Hosts::default(),
            wildcard: Hosts::default(),
            deepest: 0,
            best_wildcard: NONE,
            by_pattern: Vec::new(),
            patterns: Patterns::default(),
            any: Paths::default(),
            rules: Vec::new(),
        };
        let mut patterns: Vec<Pattern> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        for (rank, rule) in (0..NONE).zip(&rules) {
            let paths = match &rule.host {
                HostMatch::Exact(host) => router.exact.entry(host.clone()).or_default(),
                HostMatch::Wildcard(suffix) => {
                    router.deepest = router.deepest.max(suffix.split('.').count());
                    router.best_wildcard = router.best_wildcard.min(rank);
                    router.wildcard.entry(suffix.clone()).or_default()
                }
                HostMatch::Regex(pattern) => {
                    let at = *known.entry(pattern.as_str().to_owned()).or_insert_with(|| {
                        patterns.push(pattern.clone());
                        router.by_pattern.push(Paths::default());
                        patterns.len() - 1
                    });
                    &mut router.by_pattern[at]
                }
                HostMatch::Any => &mut router.any,
            };
            paths.insert(rank, rule);
        }
        let hosts = router.exact.values_mut().chain(router.wildcard.values_mut());
        let others = router.by_pattern.iter_mut().chain([&mut router.any]);
        hosts.chain(others).for_each(|paths| paths.complete(&rules));
        router.patterns = Patterns::new(&patterns);
        router.rules = rules;
        router
    }

    /// The route that a request takes.
    pub fn find(&self, asked: &Asked<'_>) -> Option<&T> {
        let host = canonical(asked.host);
        let asked = &asked.at(&host);
        let mut best = NONE;
        if let Some(paths) = self.exact.get(asked.host) {
            best = paths.find(asked, &self.rules, best);
        }
        if self.best_wildcard < best {
            best = self.among_wildcards(asked, best);
        }
        if self.by_pattern.first().is_some_and(|paths| paths.best() < best) {
            for nth in self.patterns.matching(asked.host) {
                let paths = &self.by_pattern[nth];
                if paths.best() >= best {
                    break;
                }
                best = paths.find(asked, &self.rules, best);
            }
        }
        if self.any.best() < best {
            best = self.any.find(asked, &self.rules, best);
        }
        self.rules.get(best as usize).map(|rule| &rule.target)
    }

    /// All rules, in their order.
    pub fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }

    fn among_wildcards(&self, asked: &Asked<'_>, mut best: u32) -> u32 {
        let mut rest = asked.host;
        let mut labels = rest.bytes().filter(|&byte| byte == b'.').count();
        while let Some((_, suffix)) = rest.split_once('.') {
            // A name with more labels than any suffix: its first ones needn't be looked up.
            if labels <= self.deepest
                && let Some(paths) = self.wildcard.get(suffix)
            {
                best = paths.find(asked, &self.rules, best);
            }
            labels -= 1;
            rest = suffix;
        }
        best
    }
}

/// Whether `path` is `prefix` or lies below it, by whole segments.
pub fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host without port and root dot, in lower case; borrowed when it already is so.
pub fn canonical(host: &str) -> Cow<'_, str> {
    let name = if host.starts_with('[') {
        // An IPv6 literal: `[::1]:443`.
        host.split_inclusive(']').next().unwrap_or(host)
    } else {
        host.split(':').next().unwrap_or(host)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests;
