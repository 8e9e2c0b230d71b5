//! `acl` and `if`: what a rule asks, as the conditions of routes.

use std::collections::BTreeMap;

use toml::Value;

use super::syntax::Line;
use crate::import::{convert, draft::table_of};

/// A rule with more alternatives would make as many routes.
const MOST: usize = 32;

/// What one test asks: any of these values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Test {
    pub about: About,
    pub values: Vec<Value>,
    pub negated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    Host,
    Path,
    Method,
    Client,
    /// The name in TLS's hello.
    Sni,
    /// That there is such a hello, of whatever name.
    Hello,
    /// Whether it came over TLS.
    Tls,
    Header(String),
}

/// Named tests, as lines. A name may be defined in several: any of them.
pub(super) type Acls<'a> = BTreeMap<&'a str, Vec<&'a Line>>;

/// The condition as alternatives, each of tests that must all hold. `None`: it asks something that Weir doesn't.
pub(super) fn alternatives(condition: &[String], acls: &Acls<'_>) -> Option<Vec<Vec<Test>>> {
    let (how, words) = condition.split_first()?;
    let mut all: Vec<Vec<Test>> = Vec::new();
    for term in words.split(|word| matches!(word.as_str(), "or" | "||" | "OR")) {
        let mut partial: Vec<Vec<Test>> = vec![Vec::new()];
        let mut words = term.iter();
        if term.is_empty() {
            return None;
        }
        while let Some(word) = words.next() {
            let (negated, name) = word.strip_prefix('!').map_or((false, word.as_str()), |name| (true, name));
            let tests = if name == "{" {
                let inner: Vec<&str> =
                    words.by_ref().map(String::as_str).take_while(|word| *word != "}").collect();
                vec![test(&inner)?]
            } else {
                let lines = acls.get(name)?;
                lines
                    .iter()
                    .map(|line| test(&line.words.iter().skip(2).map(String::as_str).collect::<Vec<_>>()))
                    .collect::<Option<Vec<_>>>()?
            };
            partial = combine(&partial, &tests, negated)?;
        }
        all.extend(partial);
    }
    if all.len() > MOST {
        return None;
    }
    if how == "if" {
        return Some(all);
    }
    // `unless`: none of it, which is one alternative if each of them has one test.
    let mut none = Vec::new();
    for alternative in all {
        let [test] = alternative.as_slice() else { return None };
        none.push(Test { negated: !test.negated, ..test.clone() });
    }
    Some(vec![none])
}

/// Each alternative so far with each of the tests; with all of them, if none may hold.
fn combine(partial: &[Vec<Test>], tests: &[Test], negated: bool) -> Option<Vec<Vec<Test>>> {
    if partial.len().saturating_mul(tests.len()) > MOST {
        return None;
    }
    let with = |known: &Vec<Test>, more: &[Test]| {
        let mut all = known.clone();
        all.extend_from_slice(more);
        all
    };
    Some(if negated {
        let none: Vec<Test> =
            tests.iter().map(|test| Test { negated: !test.negated, ..test.clone() }).collect();
        partial.iter().map(|known| with(known, &none)).collect()
    } else {
        let each = |known| tests.iter().map(move |test| with(known, std::slice::from_ref(test)));
        partial.iter().flat_map(each).collect()
    })
}

/// `hdr(host) -i a.example b.example`, `path_beg /x`, `src 10.0.0.0/8` …
fn test(words: &[&str]) -> Option<Test> {
    let (criterion, rest) = words.split_first()?;
    let (mut method, mut values, mut ignore_case) = (None, Vec::new(), false);
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match *word {
            "-i" => ignore_case = true,
            "-m" => method = rest.next().copied(),
            "--" => {
                values.extend(rest.by_ref().copied());
            }
            // Files of values, and what is compared as a number.
            "-f" | "-M" | "-n" | "-u" => return None,
            value => values.push(value),
        }
    }
    let criterion = criterion.to_ascii_lowercase().replace(' ', "");
    let (fetch, converter) = criterion.split_once(',').unwrap_or((&criterion, ""));
    if !matches!(converter, "" | "lower" | "field(1,:)" | "host_only" | "lower,host_only") {
        return None;
    }
    let (name, argument) = match fetch.split_once('(') {
        Some((name, argument)) => (name, argument.trim_end_matches(')')),
        None => (fetch, ""),
    };
    let (base, suffix) = match name.rsplit_once('_') {
        Some((base @ ("hdr" | "path" | "base" | "url" | "req.ssl_sni" | "req_ssl_sni"), suffix)) => {
            (base, suffix)
        }
        _ => (name, ""),
    };
    let how = method.unwrap_or(suffix);
    if values.is_empty() && !matches!(base, "ssl_fc") {
        return None;
    }
    let about = match (base, argument) {
        ("hdr" | "req.hdr", "host") => About::Host,
        ("path", "") => About::Path,
        ("method", "") => About::Method,
        ("src", "") => About::Client,
        ("ssl_fc", "") => About::Tls,
        ("req.ssl_sni" | "req_ssl_sni", "") => About::Sni,
        ("req.ssl_hello_type" | "req_ssl_hello_type" | "req.ssl_sni_present", "") => About::Hello,
        ("hdr" | "req.hdr", header) if !header.is_empty() && !header.contains(',') => {
            About::Header(header.to_owned())
        }
        _ => return None,
    };
    let value = |text: &str| -> Option<Value> { value(&about, how, text, ignore_case) };
    let values = values.iter().map(|text| value(text)).collect::<Option<Vec<_>>>()?;
    Some(Test { about, values, negated: false })
}

fn value(about: &About, how: &str, text: &str, ignore_case: bool) -> Option<Value> {
    let exact = matches!(how, "" | "str");
    let pattern = |pattern: String| -> Value {
        let flags = if ignore_case { "(?i)" } else { "" };
        table_of([("regex", format!("{flags}{pattern}").into())]).into()
    };
    let literal = |text: &str| regex::escape(text);
    match about {
        About::Host => match how {
            "" | "str" => convert::host(text.split(':').next()?).map(Value::from),
            "end" if text.starts_with('.') => convert::host(&format!("*{text}")).map(Value::from),
            "dom" | "beg" | "end" | "sub" | "reg" => Some(anywhere(how, &text.to_ascii_lowercase())),
            _ => None,
        },
        About::Path => match how {
            "" | "str" if !ignore_case => Some(table_of([("exact", text.into())]).into()),
            "beg" => match convert::path(text) {
                // HAProxy compares letters and Weir segments: `/api/` is the same for both.
                Some(path) if text.ends_with('/') && !ignore_case => Some(path.into()),
                _ => Some(pattern(format!("{}.*", literal(text)))),
            },
            "dir" => Some(pattern(format!(".*/{}(?:/.*)?", literal(text.trim_matches('/'))))),
            "end" => Some(pattern(format!(".*{}", literal(text)))),
            "sub" => Some(pattern(format!(".*{}.*", literal(text)))),
            "str" | "" => Some(pattern(literal(text))),
            "reg" => Some(pattern(convert::within(text))),
            _ => None,
        },
        About::Method if exact => Some(text.to_ascii_uppercase().into()),
        About::Client if matches!(how, "" | "ip") => convert::prefix(text).map(Value::from),
        About::Sni => match how {
            "" | "str" => convert::host(text).map(Value::from),
            "end" if text.starts_with('.') => convert::host(&format!("*{text}")).map(Value::from),
            _ => None,
        },
        About::Hello => Some(text.into()),
        About::Tls => None,
        About::Header(_) => match how {
            "" | "str" if !ignore_case => Some(text.into()),
            "" | "str" => Some(pattern(literal(text))),
            "beg" => Some(pattern(format!("{}.*", literal(text)))),
            "end" => Some(pattern(format!(".*{}", literal(text)))),
            "sub" => Some(pattern(format!(".*{}.*", literal(text)))),
            "reg" => Some(pattern(convert::within(text))),
            _ => None,
        },
        About::Method | About::Client => None,
    }
}

/// Of a host, which is always compared in lower case.
fn anywhere(how: &str, text: &str) -> Value {
    let literal = regex::escape(text);
    let pattern = match how {
        "beg" => format!("{literal}.*"),
        "end" => format!(".*{literal}"),
        "sub" => format!(".*{literal}.*"),
        "dom" => format!("(?:.*\\.)?{}(?:\\..*)?", regex::escape(text.trim_matches('.'))),
        _ => convert::within(text),
    };
    table_of([("regex", pattern.into())]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<Vec<Test>>> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        alternatives(&words, &Acls::new())
    }

    #[test]
    fn a_condition_becomes_alternatives_of_tests() {
        let read = read("if { hdr(host) -i a.example } { path_beg /x/ } or !{ src 10.0.0.0/8 }").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((&read[0][0].about, &read[0][1].values), (&About::Host, &vec![Value::from("/x")]));
        assert!(read[1][0].negated && read[1][0].about == About::Client);
    }

    #[test]
    fn what_weir_does_not_ask_is_not_guessed() {
        for odd in [
            "if { nbsrv(app) lt 1 }",
            "if unknown",
            "if { hdr(host) -f /etc/hosts }",
            "if",
            "if { }",
            "unless { method GET } { path /x }",
        ] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn letters_that_mean_something_in_patterns_mean_themselves() {
        let read = read("if { path_beg /a.b }").unwrap();
        assert_eq!(read[0][0].values[0]["regex"].as_str(), Some("/a\\.b.*"));
    }
}
