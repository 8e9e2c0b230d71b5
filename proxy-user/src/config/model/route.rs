//! `[[route]]`, valid: which requests it is for, and where it leads.

use std::{fmt, sync::Arc};

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::{AllowlistId, EntrypointId, MiddlewareId, ServiceId, StatusPages};

/// `[[route]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// For logs, metrics and `explain`: as written, or made from host and path.
    pub name: Arc<str>,
    /// Only requests of these entrypoints; empty: of all.
    pub entrypoints: Vec<EntrypointId>,
    /// Any of these; at least one.
    pub hosts: Vec<HostMatch>,
    pub path: PathMatch,
    /// What else must hold, all of it.
    pub when: Vec<Condition>,
    /// What must not hold, none of it.
    pub not: Vec<Condition>,
    /// Default 0; -1000 to 1000. Higher goes first.
    pub priority: i32,
    /// In the order in which requests pass.
    pub middleware: Vec<MiddlewareId>,
    /// `None`: its middleware answers every request.
    pub service: Option<ServiceId>,
    /// In the place of a server's own answers; before those of the service.
    pub pages: StatusPages,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostMatch {
    Any,
    /// Lower case, without a port.
    Exact(Arc<str>),
    /// `*.example.com` is kept as `example.com`: one or more labels in front of it.
    Wildcard(Arc<str>),
    /// Of the whole host, in lower case, without a port.
    Regex(Pattern),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Matches on whole segments: `/a` matches `/a` and `/a/b`, never `/ab`. `/` matches everything.
    Prefix(Arc<str>),
    Exact(Arc<str>),
    /// Of the whole path, without the query.
    Regex(Pattern),
}

/// A condition on something else than host and path; in `not` on those too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Host(HostMatch),
    Path(PathMatch),
    /// Any of these.
    Method(Vec<Method>),
    /// One of the field's lines matches.
    Header(HeaderName, TextMatch),
    /// One of the parameters of that name matches.
    Query(Arc<str>, TextMatch),
    /// The client is in one of these.
    Client(Vec<Network>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    Exact(Arc<str>),
    Regex(Pattern),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    List(AllowlistId),
    Prefix(IpNet),
}

/// A regular expression that must match the whole of a text. Its size is bounded, and its running time by that and the
/// text's length.
#[derive(Clone)]
pub struct Pattern {
    written: Arc<str>,
    regex: regex::Regex,
}

// === impl Pattern ===

impl Pattern {
    /// The longest that is taken, in bytes.
    pub const LONGEST: usize = 1000;
    /// What its automata may take, in bytes.
    const LARGEST: usize = 1 << 20;

    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn new(written: &str) -> Result<Self, String> {
        if written.len() > Self::LONGEST {
            return Err(format!("it is longer than {} characters", Self::LONGEST));
        }
        // Alone first: `a)(?:b` must not become whole by what is put around it.
        let alone = regex_for(written)?;
        drop(alone);
        Ok(Self { written: written.into(), regex: regex_for(&whole(written))? })
    }

    /// As it is handed to the library, to match nothing but the whole of a text.
    #[must_use]
    pub fn whole(&self) -> String {
        whole(&self.written)
    }

    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// For what replaces captures.
    #[must_use]
    pub fn regex(&self) -> &regex::Regex {
        &self.regex
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

fn whole(written: &str) -> String {
    format!("^(?:{written})$")
}

fn regex_for(text: &str) -> Result<regex::Regex, String> {
    let built = regex::RegexBuilder::new(text)
        .size_limit(Pattern::LARGEST)
        .dfa_size_limit(Pattern::LARGEST)
        .nest_limit(50)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it would take too much memory".to_owned(),
        // The library draws the expression with a caret over several lines; the last one says what is wrong.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    })
}

/// Patterns that are written alike are alike.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.written.hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.written)
    }
}

// === how they are shown ===

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Regex(pattern) => write!(f, "~{}", pattern.as_str()),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(path) => f.write_str(path),
            Self::Exact(path) => write!(f, "={path}"),
            Self::Regex(pattern) => write!(f, "~{}", pattern.as_str()),
        }
    }
}

impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "={text}"),
            Self::Regex(pattern) => write!(f, "~{}", pattern.as_str()),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {host}"),
            Self::Path(path) => write!(f, "path {path}"),
            Self::Method(methods) => {
                f.write_str("method")?;
                methods.iter().try_for_each(|method| write!(f, " {method}"))
            }
            Self::Header(name, value) => write!(f, "header {name}{value}"),
            Self::Query(name, value) => write!(f, "query {name}{value}"),
            Self::Client(networks) => write!(f, "client in {} networks", networks.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_of_a_text() {
        let pattern = Pattern::new("a|bc").unwrap();
        for (text, matches) in [("a", true), ("bc", true), ("xa", false), ("ax", false), ("a\n", false)] {
            assert_eq!(pattern.matches(text), matches, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_pattern_is_said_on_one_line() {
        for (wrong, why) in [
            ("(", "unclosed group"),
            ("a)(?:b", "unopened group"),
            ("[z-a]", "invalid character class range, the start must be <= the end"),
            (r"(?:\w{1000}){1000}", "it would take too much memory"),
        ] {
            assert_eq!(Pattern::new(wrong).unwrap_err(), why, "{wrong}");
        }
        assert!(Pattern::new(&"a".repeat(1001)).is_err());
    }
}
