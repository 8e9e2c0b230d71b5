//! Traefik's rules: ``Host(`a`) && (PathPrefix(`/x`) || !Method(`GET`))``, as the conditions of routes.

use toml::Value;

use crate::import::{convert, draft::table_of};

/// A rule with more alternatives would make as many routes.
const MOST: usize = 32;
const DEEPEST: usize = 16;

/// The keys of one route.
pub(super) type Conditions = toml::Table;

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Ask(String, Vec<String>),
}

/// The rule as routes, each with the conditions that must all hold. An error is why it can't be done.
pub(super) fn routes(text: &str) -> Result<Vec<Conditions>, String> {
    let mut reader = Reader { rest: text };
    let rule = reader.any(0)?;
    reader.skip();
    if !reader.rest.is_empty() {
        return Err("the rule isn't understood".into());
    }
    let alternatives = alternatives(&rule, false)?;
    alternatives.iter().map(|asks| conditions(asks)).collect()
}

/// The names of a rule of TCP: ``HostSNI(`a`) || HostSNI(`b`)``. An error is why it can't be done.
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    let mut reader = Reader { rest: text };
    let rule = reader.any(0)?;
    reader.skip();
    let alternatives = alternatives(&rule, false)?;
    if !reader.rest.is_empty() || alternatives.is_empty() {
        return Err("the rule isn't understood".into());
    }
    let mut names = Vec::new();
    for asks in &alternatives {
        match asks.as_slice() {
            [(false, "HostSNI", asked)] if !asked.is_empty() => names.extend(asked.iter().cloned()),
            _ => {
                return Err("a connection that isn't decrypted is asked for the name in its hello (HostSNI), and for nothing else".into());
            }
        }
    }
    names.dedup();
    Ok(names)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn any(&mut self, depth: usize) -> Result<Rule, String> {
        let mut rules = vec![self.all(depth)?];
        while self.take("||") {
            rules.push(self.all(depth)?);
        }
        Ok(if rules.len() == 1 { rules.remove(0) } else { Rule::Any(rules) })
    }

    fn all(&mut self, depth: usize) -> Result<Rule, String> {
        let mut rules = vec![self.one(depth)?];
        while self.take("&&") {
            rules.push(self.one(depth)?);
        }
        Ok(if rules.len() == 1 { rules.remove(0) } else { Rule::All(rules) })
    }

    fn one(&mut self, depth: usize) -> Result<Rule, String> {
        if depth > DEEPEST {
            return Err("the rule is nested too deeply".into());
        }
        if self.take("!") {
            return Ok(Rule::Not(self.one(depth + 1)?.into()));
        }
        if self.take("(") {
            let rule = self.any(depth + 1)?;
            return if self.take(")") { Ok(rule) } else { Err("a parenthesis is never closed".into()) };
        }
        self.skip();
        let end = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let name = name.to_owned();
        self.rest = rest;
        if name.is_empty() || !self.take("(") {
            return Err("the rule isn't understood".into());
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            arguments.push(self.quoted()?);
            self.take(",");
        }
        Ok(Rule::Ask(name, arguments))
    }

    fn quoted(&mut self) -> Result<String, String> {
        self.skip();
        let Some(quote) = self.rest.chars().next().filter(|quote| matches!(quote, '`' | '"' | '\'')) else {
            return Err("what a rule compares with stands in backticks".into());
        };
        let inside = &self.rest[1..];
        let Some(end) = inside.find(quote) else { return Err("a quote is never closed".into()) };
        self.rest = &inside[end + 1..];
        let text = &inside[..end];
        // In double quotes as in Go.
        Ok(if quote == '"' { text.replace("\\\\", "\\") } else { text.to_owned() })
    }

    fn take(&mut self, sign: &str) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

/// An ask, and whether it must not hold.
type Ask<'a> = (bool, &'a str, &'a [String]);

fn alternatives(rule: &Rule, negated: bool) -> Result<Vec<Vec<Ask<'_>>>, String> {
    let all = match (rule, negated) {
        (Rule::Ask(name, arguments), _) => vec![vec![(negated, name.as_str(), arguments.as_slice())]],
        (Rule::Not(inner), _) => alternatives(inner, !negated)?,
        (Rule::Any(rules), false) | (Rule::All(rules), true) => {
            let mut all = Vec::new();
            for rule in rules {
                all.extend(alternatives(rule, negated)?);
            }
            all
        }
        (Rule::All(rules), false) | (Rule::Any(rules), true) => {
            let mut all = vec![Vec::new()];
            for rule in rules {
                let next = alternatives(rule, negated)?;
                if all.len().saturating_mul(next.len()) > MOST {
                    return Err("it has too many alternatives".into());
                }
                all = all
                    .iter()
                    .flat_map(|known: &Vec<Ask<'_>>| {
                        next.iter().map(move |more| [known.as_slice(), more].concat())
                    })
                    .collect();
            }
            all
        }
    };
    if all.len() > MOST { Err("it has too many alternatives".into()) } else { Ok(all) }
}

fn conditions(asks: &[Ask<'_>]) -> Result<Conditions, String> {
    let (mut is, mut not) = (Conditions::new(), Conditions::new());
    for (negated, name, arguments) in asks {
        let (key, value) = ask(name, arguments)?;
        let into = if *negated { &mut not } else { &mut is };
        match (into.get_mut(key), value) {
            (None, value) => _ = into.insert(key.to_owned(), value),
            // Several fields may be asked for, but only one host, path and so on.
            (Some(Value::Table(known)), Value::Table(more))
                if matches!(key, "header" | "query") && !*negated =>
            {
                known.extend(more);
            }
            _ => return Err(format!("a route asks for its {key} only once")),
        }
    }
    // A route has one path; several are as many routes, which the writer of the rule can make.
    if let Some(Value::Array(paths)) = is.get("path") {
        match paths.as_slice() {
            [one] => _ = is.insert("path".into(), one.clone()),
            _ => return Err("a route has one path".into()),
        }
    }
    if !not.is_empty() {
        is.insert("not".into(), not.into());
    }
    Ok(is)
}

fn ask(name: &str, arguments: &[String]) -> Result<(&'static str, Value), String> {
    let unknown = || format!("`{name}` has no counterpart with such values");
    if arguments.is_empty() {
        return Err(unknown());
    }
    let pattern = |text: &str| Value::from(table_of([("regex", text.into())]));
    let list = |value: &dyn Fn(&String) -> Option<Value>| -> Result<Value, String> {
        let values: Option<Vec<Value>> = arguments.iter().map(value).collect();
        values.map(Value::Array).ok_or_else(unknown)
    };
    let pair = |regex: bool| -> Result<Value, String> {
        let [field, value] = arguments else { return Err(unknown()) };
        let value = if regex { pattern(&convert::within(value)) } else { value.as_str().into() };
        Ok(table_of([(field.as_str(), value)]).into())
    };
    Ok(match name {
        "Host" => ("host", list(&|text| convert::host(text).map(Value::from))?),
        // Version 2 wrote `{name:pattern}` in it.
        "HostRegexp" => (
            "host",
            list(&|text| {
                (!text.contains('{') || text.contains('^')).then(|| pattern(&convert::within(text)))
            })?,
        ),
        "Path" => ("path", list(&|text| Some(table_of([("exact", text.as_str().into())]).into()))?),
        "PathPrefix" => (
            "path",
            list(&|text| match convert::path(text) {
                Some(path) => Some(path.into()),
                None => text.starts_with('/').then(|| pattern(&format!("{}.*", regex::escape(text)))),
            })?,
        ),
        "PathRegexp" => ("path", list(&|text| Some(pattern(&convert::within(text))))?),
        "Method" => ("method", list(&|text| Some(text.to_ascii_uppercase().into()))?),
        "ClientIP" => ("client", list(&|text| convert::prefix(text).map(Value::from))?),
        "Header" | "Headers" => ("header", pair(false)?),
        "HeaderRegexp" | "HeadersRegexp" => ("header", pair(true)?),
        "Query" => match arguments {
            [one] => {
                let (key, value) = one.split_once('=').ok_or_else(unknown)?;
                ("query", table_of([(key, value.into())]).into())
            }
            _ => ("query", pair(false)?),
        },
        "QueryRegexp" => ("query", pair(true)?),
        _ => return Err(unknown()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rule: &str) -> Result<String, String> {
        let routes = routes(rule)?;
        Ok(routes.iter().map(|keys| Value::from(keys.clone()).to_string()).collect::<Vec<_>>().join(" | "))
    }

    #[test]
    fn rules_become_the_conditions_of_routes() {
        for (rule, expected) in [
            ("Host(`a.example`)", "{ host = [\"a.example\"] }"),
            (
                "Host(`a.example`, `b.example`) && PathPrefix(`/x`)",
                "{ host = [\"a.example\", \"b.example\"], path = \"/x\" }",
            ),
            (
                "Host(`a.example`) && (PathPrefix(`/x`) || Method(`get`))",
                "{ host = [\"a.example\"], path = \"/x\" } | { host = [\"a.example\"], method = [\"GET\"] }",
            ),
            (
                "Host(`a.example`) && !ClientIP(`10.0.0.0/8`)",
                "{ host = [\"a.example\"], not = { client = [\"10.0.0.0/8\"] } }",
            ),
            ("Header(`X-A`, `1`) && Header(`X-B`, `2`)", "{ header = { X-A = \"1\", X-B = \"2\" } }"),
        ] {
            assert_eq!(read(rule).as_deref(), Ok(expected), "{rule}");
        }
    }

    #[test]
    fn a_rule_of_tcp_is_names() {
        assert_eq!(names("HostSNI(`*`)"), Ok(vec!["*".to_owned()]));
        let two = names("HostSNI(`a.example`) || HostSNI(`b.example`, `c.example`)").unwrap();
        assert_eq!(two, ["a.example", "b.example", "c.example"]);
        for odd in [
            "",
            "Host(`a`)",
            "!HostSNI(`a`)",
            "HostSNI(`a`) && ClientIP(`10.0.0.0/8`)",
            "HostSNI()",
            "HostSNI(`a`) x",
        ] {
            assert!(names(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_and_not_guessed() {
        for odd in [
            "",
            "Host(a)",
            "Host(`a`",
            "Host(`a`) &&",
            "(Host(`a`)",
            "HostSNI(`*`)",
            "Host(`a`) Host(`b`)",
            "Path(`/a`) && Path(`/b`)",
            "!(Path(`/a`)",
        ] {
            assert!(read(odd).is_err(), "{odd}");
        }
        assert!(read(&format!("{}Host(`a`)", "!".repeat(100))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_rule_is_too_odd(text in "(Host|Path|[()!&|`a, ]){0,60}") {
            let _ = routes(&text);
        }
    }
}
