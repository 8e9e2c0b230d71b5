//! One route with one of its hosts, and whether a request is for it.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, Method};

use super::order::Order;
use crate::{
    admission::PrefixSet,
    config::model::{Condition, HostMatch, PathMatch, TextMatch},
};

/// What a request says, as far as routes ask.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As in a Host field: any case, perhaps with a port.
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub client: IpAddr,
}

#[derive(Debug)]
pub struct Rule<T> {
    pub order: Order,
    pub host: HostMatch,
    pub path: PathMatch,
    /// Beside host and path: all of them, and none of those in `not`.
    pub when: Box<[Test]>,
    pub not: Box<[Test]>,
    pub target: T,
}

/// A condition as it runs.
#[derive(Debug, Clone)]
pub struct Test {
    pub condition: Condition,
    /// The networks of a [`Condition::Client`], with who is on the lists now.
    pub clients: Option<PrefixSet>,
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// The same with the host in the form in which routes have it, and a path that is one.
    pub fn at<'b>(&self, host: &'b str) -> Asked<'b>
    where
        'a: 'b,
    {
        // `OPTIONS *` asks about the server as a whole: where its root leads.
        let path = if self.path.starts_with('/') { self.path } else { "/" };
        Asked { host, path, ..*self }
    }
}

// === impl Rule ===

impl<T> Rule<T> {
    /// Whether everything but host and path holds.
    pub fn takes(&self, asked: &Asked<'_>) -> bool {
        self.when.iter().all(|test| test.holds(asked)) && !self.not.iter().any(|test| test.holds(asked))
    }
}

// === impl Test ===

impl Test {
    pub fn holds(&self, asked: &Asked<'_>) -> bool {
        match &self.condition {
            Condition::Host(host) => host.matches(asked.host),
            Condition::Path(path) => path.matches(asked.path),
            Condition::Method(methods) => methods.contains(asked.method),
            Condition::Header(name, value) => {
                asked.headers.get_all(name).iter().any(|line| value.matches_bytes(line.as_bytes()))
            }
            Condition::Query(name, value) => parameters(asked.query.unwrap_or_default())
                .any(|(known, given)| decoded(known) == **name && value.matches(&decoded(given))),
            Condition::Client(_) => {
                self.clients.as_ref().is_some_and(|networks| networks.contains(asked.client))
            }
        }
    }
}

impl HostMatch {
    /// `host` is in lower case, without a port.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => {
                host.strip_suffix(&**suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Regex(pattern) => pattern.matches(host),
        }
    }
}

impl PathMatch {
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => super::is_under(path, prefix),
            Self::Exact(exact) => **exact == *path,
            Self::Regex(pattern) => pattern.matches(path),
        }
    }
}

impl TextMatch {
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Regex(pattern) => pattern.matches(text),
        }
    }

    fn matches_bytes(&self, text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok_and(|text| self.matches(text))
    }
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A name or value of a query as it is meant. What is no sound escape stands for itself.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten().and_then(hex);
        match (bytes[at], escaped) {
            (_, Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', None) => out.push(b' '),
            (byte, None) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_compared_with_what_it_means() {
        for (text, meant) in
            [("a", "a"), ("a+b%20c", "a b c"), ("%C3%A4", "ä"), ("100%", "100%"), ("%zz", "%zz")]
        {
            assert_eq!(decoded(text), meant, "{text}");
        }
        let all: Vec<_> = parameters("a=1&&b&c=d=e").collect();
        assert_eq!(all, [("a", "1"), ("b", ""), ("c", "d=e")]);
    }
}
