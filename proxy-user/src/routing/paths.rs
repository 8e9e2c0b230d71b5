//! The paths of one host: a tree of segments for those that are written out, and a list of regular expressions.

use super::{
    NONE,
    patterns::Patterns,
    rule::{Asked, Rule},
};
use crate::config::model::{PathMatch, Pattern};

#[derive(Debug)]
pub struct Paths {
    root: Node,
    /// Ranks of the rules whose path is a regular expression, best first.
    by_pattern: Vec<u32>,
    patterns: Patterns,
    best: u32,
}

/// What begins with the segments on the way here.
#[derive(Debug, Default)]
struct Node {
    /// Ranks of the rules for this path alone, best first.
    exact: Vec<u32>,
    /// Ranks of the rules for this path and all below.
    prefix: Vec<u32>,
    /// By segment.
    below: Vec<(Box<str>, Node)>,
}

// === impl Paths ===

impl Default for Paths {
    fn default() -> Self {
        Self { root: Node::default(), by_pattern: Vec::new(), patterns: Patterns::default(), best: NONE }
    }
}

impl Paths {
    /// Ranks must come in rising order.
    pub fn insert(&mut self, rank: u32, path: &PathMatch) {
        self.best = self.best.min(rank);
        match path {
            PathMatch::Regex(_) => self.by_pattern.push(rank),
            PathMatch::Exact(path) => self.root.at(path).exact.push(rank),
            PathMatch::Prefix(path) => self.root.at(path.trim_end_matches('/')).prefix.push(rank),
        }
    }

    /// To be called when all are here.
    pub fn complete<T>(&mut self, rules: &[Rule<T>]) {
        let patterns: Vec<Pattern> = self
            .by_pattern
            .iter()
            .filter_map(|&rank| match &rules[rank as usize].path {
                PathMatch::Regex(pattern) => Some(pattern.clone()),
                PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            })
            .collect();
        self.patterns = Patterns::new(&patterns);
    }

    /// The best rank of all that are here.
    pub fn best(&self) -> u32 {
        self.best
    }

    /// The rank of the best rule that takes the request, if it is better than `best`; else `best`.
    pub fn find<T>(&self, asked: &Asked<'_>, rules: &[Rule<T>], best: u32) -> u32 {
        let first = |ranks: &[u32], best: u32| {
            let better = ranks.iter().copied().take_while(|&rank| rank < best);
            better.into_iter().find(|&rank| rules[rank as usize].takes(asked)).unwrap_or(best)
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
        if self.by_pattern.first().is_none_or(|&rank| rank >= best) {
            return best;
        }
        let matching = self.patterns.matching(asked.path).map(|nth| self.by_pattern[nth]);
        let better = matching.take_while(|&rank| rank < best);
        better.into_iter().find(|&rank| rules[rank as usize].takes(asked)).unwrap_or(best)
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
