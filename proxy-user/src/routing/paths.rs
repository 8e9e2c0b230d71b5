//! The paths of one host: a tree of segments for those that are written out, and a list of regular expressions.

use super::{
    NONE,
    patterns::Patterns,
    rule::{Asked, Rule},
};
use crate::config::model::{PathMatch, Pattern};

/// Small, and what most hosts have lies in it: with many hosts, what a lookup costs is the memory that it has to fetch.
#[derive(Debug)]
pub struct Paths {
    root: Node,
    best: u32,
    by_pattern: Option<Box<ByPattern>>,
}

/// The rules whose path is a regular expression.
#[derive(Debug, Default)]
struct ByPattern {
    /// Best first.
    ranks: Vec<u32>,
    patterns: Patterns,
}

/// What begins with the segments on the way here.
#[derive(Debug, Default)]
struct Node {
    /// The rules for this path alone.
    exact: Ranks,
    /// The rules for this path and all below.
    prefix: Ranks,
    /// By segment.
    below: Vec<(Box<str>, Node)>,
}

/// Best first.
#[derive(Debug)]
struct Ranks {
    first: Ranked,
    others: Vec<Ranked>,
}

#[derive(Debug, Clone, Copy)]
struct Ranked {
    rank: u32,
    /// The rule asks for nothing beside host and path: it need not be looked at.
    takes_all: bool,
}

// === impl Paths ===

impl Default for Paths {
    fn default() -> Self {
        Self { root: Node::default(), best: NONE, by_pattern: None }
    }
}

impl Paths {
    /// Ranks must come in rising order.
    pub fn insert<T>(&mut self, rank: u32, rule: &Rule<T>) {
        self.best = self.best.min(rank);
        let ranked = Ranked { rank, takes_all: rule.when.is_empty() && rule.not.is_empty() };
        match &rule.path {
            PathMatch::Regex(_) => self.by_pattern.get_or_insert_default().ranks.push(rank),
            PathMatch::Exact(path) => self.root.at(path).exact.push(ranked),
            PathMatch::Prefix(path) => self.root.at(path.trim_end_matches('/')).prefix.push(ranked),
        }
    }

    /// To be called when all are here.
    pub fn complete<T>(&mut self, rules: &[Rule<T>]) {
        let Some(by_pattern) = &mut self.by_pattern else { return };
        let patterns: Vec<Pattern> = by_pattern
            .ranks
            .iter()
            .filter_map(|&rank| match &rules[rank as usize].path {
                PathMatch::Regex(pattern) => Some(pattern.clone()),
                PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            })
            .collect();
        by_pattern.patterns = Patterns::new(&patterns);
    }

    /// The best rank of all that are here.
    pub fn best(&self) -> u32 {
        self.best
    }

    /// The rank of the best rule that takes the request, if it is better than `best`; else `best`.
    pub fn find<T>(&self, asked: &Asked<'_>, rules: &[Rule<T>], best: u32) -> u32 {
        let takes = |rank: u32| rules[rank as usize].takes(asked);
        let first = |ranks: &Ranks, best: u32| {
            let mut better = ranks.iter().take_while(|ranked| ranked.rank < best);
            better.find(|ranked| ranked.takes_all || takes(ranked.rank)).map_or(best, |ranked| ranked.rank)
        };
        let mut best = first(&self.root.prefix, best);
        let mut node = &self.root;
        let mut rest = asked.path.strip_prefix('/');
        while let Some(path) = rest {
            let (segment, behind) = match path.split_once('/') {
                Some((segment, behind)) => (segment, Some(behind)),
                None => (path, None),
            };
            let Ok(at) = node.below.binary_search_by(|(known, _)| (**known).cmp(segment)) else { break };
            node = &node.below[at].1;
            best = first(&node.prefix, best);
            if behind.is_none() {
                best = first(&node.exact, best);
            }
            rest = behind;
        }
        let Some(by_pattern) = self.by_pattern.as_deref().filter(|them| them.ranks[0] < best) else {
            return best;
        };
        let matching = by_pattern.patterns.matching(asked.path).map(|nth| by_pattern.ranks[nth]);
        matching.take_while(|&rank| rank < best).find(|&rank| takes(rank)).unwrap_or(best)
    }
}

impl Node {
    /// The node of `path`, made if it is not there yet.
    fn at(&mut self, path: &str) -> &mut Self {
        let mut node = self;
        for segment in path.strip_prefix('/').into_iter().flat_map(|path| path.split('/')) {
            let at = match node.below.binary_search_by(|(known, _)| (**known).cmp(segment)) {
                Ok(at) => at,
                Err(at) => {
                    node.below.insert(at, (segment.into(), Self::default()));
                    at
                }
            };
            node = &mut node.below[at].1;
        }
        node
    }
}

// === impl Ranks ===

impl Default for Ranks {
    fn default() -> Self {
        Self { first: Ranked { rank: NONE, takes_all: false }, others: Vec::new() }
    }
}

impl Ranks {
    /// Ranks must come in rising order.
    fn push(&mut self, ranked: Ranked) {
        if self.first.rank == NONE {
            self.first = ranked;
        } else {
            self.others.push(ranked);
        }
    }

    /// Ends with one that is no rule's, if there is none at all.
    fn iter(&self) -> impl Iterator<Item = Ranked> + '_ {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}
