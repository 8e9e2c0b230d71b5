//! What a route asks of a request, from text to values. Every fault of a route is found, not only its first.

use std::{collections::BTreeMap, ops::Range};

use http::{HeaderName, Method};

use crate::config::{
    code::Code,
    findings::Findings,
    model::{AllowlistId, Condition, HostMatch, Network, PathMatch, Pattern, TextMatch},
    source::FileId,
    validate::{merge::Merged, scalar},
    value::{self, quoted},
    written::{self, At, HostPatterns, List, Name, PatternKind, TextPattern},
};

type Fields = At<BTreeMap<Name, TextPattern>>;

/// What else than host and path must hold. None: a part of it is faulty.
pub fn when(
    file: FileId,
    by: &str,
    body: &written::Route,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Vec<Condition>> {
    let methods = body.method.as_ref().map(|list| methods(file, by, list, findings));
    let headers = fields(file, by, body.header.as_ref(), findings, header);
    let query = fields(file, by, body.query.as_ref(), findings, parameter);
    let client = body.client.as_ref().map(|list| clients(file, by, list, written, findings));
    together(methods, headers?, query?, client)
}

/// What must not hold.
pub fn not(
    file: FileId,
    by: &str,
    body: &written::Route,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Vec<Condition>> {
    let Some(not) = &body.not else { return Some(Vec::new()) };
    let (by, not) = (&format!("{by}: not"), &not.value);
    let hosts = not.host.as_ref().map(|list| hosts(file, &format!("{by}.host"), list, findings));
    let mut paths = Some(Vec::new());
    for one in not.path.iter().flat_map(|list| &list.items) {
        let path = path(file, &format!("{by}.path"), one, findings);
        paths = paths.zip(path).map(|(mut paths, path)| {
            paths.push(path);
            paths
        });
    }
    let methods = not.method.as_ref().map(|list| methods(file, by, list, findings));
    let headers = fields(file, by, not.header.as_ref(), findings, header);
    let query = fields(file, by, not.query.as_ref(), findings, parameter);
    let client = not.client.as_ref().map(|list| clients(file, by, list, written, findings));
    let mut all: Vec<_> = hosts.unwrap_or(Some(Vec::new()))?.into_iter().map(Condition::Host).collect();
    all.extend(paths?.into_iter().map(Condition::Path));
    all.extend(together(methods, headers?, query?, client)?);
    Some(all)
}

fn together(
    methods: Option<Option<Condition>>,
    headers: Vec<Condition>,
    query: Vec<Condition>,
    client: Option<Option<Condition>>,
) -> Option<Vec<Condition>> {
    let mut all = Vec::new();
    if let Some(methods) = methods {
        all.push(methods?);
    }
    all.extend(headers);
    all.extend(query);
    if let Some(client) = client {
        all.push(client?);
    }
    Some(all)
}

pub fn hosts(
    file: FileId,
    what: &str,
    written: &HostPatterns,
    findings: &mut Findings,
) -> Option<Vec<HostMatch>> {
    if written.items.is_empty() {
        let message = format!("{what} is an empty list");
        findings
            .error(Code::EmptyList, file, &written.span, message)
            .hint("leave the key out to match any host");
        return None;
    }
    let mut hosts: Vec<Option<HostMatch>> = Vec::new();
    for one in &written.items {
        let host = match &one.kind {
            PatternKind::Plain(text) => {
                refusable(file, Code::BadHost, what, &one.span, text, findings, value::host)
            }
            PatternKind::Regex(text) => pattern(file, what, text, findings).map(HostMatch::Regex),
            PatternKind::Exact(_) | PatternKind::Unclear => unclear(file, what, &one.span, findings),
        };
        if !hosts.contains(&host) || host.is_none() {
            hosts.push(host);
        }
    }
    hosts.into_iter().collect()
}

pub fn path(
    file: FileId,
    what: &str,
    written: &written::Pattern<true>,
    findings: &mut Findings,
) -> Option<PathMatch> {
    match &written.kind {
        PatternKind::Plain(text) => {
            let path =
                refusable(file, Code::BadPath, what, &written.span, text, findings, value::path_prefix)?;
            Some(PathMatch::Prefix(path.into()))
        }
        PatternKind::Exact(text) => {
            let path =
                refusable(file, Code::BadPath, what, &text.span, &text.value, findings, value::path_exact)?;
            Some(PathMatch::Exact(path.into()))
        }
        PatternKind::Regex(text) => pattern(file, what, text, findings).map(PathMatch::Regex),
        PatternKind::Unclear => unclear(file, what, &written.span, findings),
    }
}

pub fn priority(file: FileId, by: &str, written: Option<&At<i64>>, findings: &mut Findings) -> i32 {
    let Some(written) = written else { return 0 };
    match i32::try_from(written.value) {
        Ok(priority) if (-1000..=1000).contains(&priority) => priority,
        _ => {
            let message = format!("{by}: priority is `{}`, out of range", written.value);
            findings
                .error(Code::OutOfRange, file, &written.span, message)
                .hint("it goes from -1000 to 1000; without it, it is 0");
            0
        }
    }
}

fn methods(file: FileId, by: &str, list: &List, findings: &mut Findings) -> Option<Condition> {
    let methods = method_list(file, by, "method = [\"GET\", \"HEAD\"]", list, findings);
    if list.items.is_empty() {
        let message = format!("{by}: `method` is an empty list");
        findings
            .error(Code::EmptyList, file, &list.span, message)
            .hint("leave the key out to match every method");
    }
    (!methods.is_empty() && methods.len() == list.items.len()).then_some(Condition::Method(methods))
}

/// Those of a list of methods that are methods.
pub fn method_list(
    file: FileId,
    by: &str,
    example: &str,
    list: &List,
    findings: &mut Findings,
) -> Vec<Method> {
    let mut methods = Vec::new();
    for one in &list.items {
        let upper = one.value.to_ascii_uppercase();
        match Method::from_bytes(one.value.as_bytes()) {
            // Methods are case-sensitive: `get` would never match anything.
            Ok(method) if upper == one.value => methods.push(method),
            _ => {
                let message = format!("{by}: {} is not a method", quoted(&one.value));
                let finding = findings.error(Code::BadMethod, file, &one.span, message);
                match Method::from_bytes(upper.as_bytes()) {
                    Ok(method) if !one.value.is_empty() => finding.suggest(Some(method.as_str())),
                    _ => finding.hint(format!("for instance `{example}`")),
                };
            }
        }
    }
    methods
}

/// Each of a table of names and values.
fn fields(
    file: FileId,
    by: &str,
    written: Option<&Fields>,
    findings: &mut Findings,
    one: impl Fn(FileId, &str, &Name, TextMatch, &mut Findings) -> Option<Condition>,
) -> Option<Vec<Condition>> {
    let mut all = Vec::new();
    for (name, value) in written.iter().flat_map(|fields| &fields.value) {
        let what = format!("{by}: {}", quoted(&name.value));
        let value = match &value.kind {
            PatternKind::Plain(text) => Some(TextMatch::Exact(text.as_str().into())),
            PatternKind::Regex(text) => pattern(file, &what, text, findings).map(TextMatch::Regex),
            PatternKind::Exact(_) | PatternKind::Unclear => unclear(file, &what, &value.span, findings),
        };
        all.push(value.and_then(|value| one(file, by, name, value, findings)));
    }
    all.into_iter().collect()
}

fn header(
    file: FileId,
    by: &str,
    name: &Name,
    value: TextMatch,
    findings: &mut Findings,
) -> Option<Condition> {
    match name.value.parse::<HeaderName>() {
        Ok(name) => Some(Condition::Header(name, value)),
        Err(_) => {
            let message = format!("{by}: {} is not a header's name", quoted(&name.value));
            findings
                .error(Code::BadHeader, file, &name.span, message)
                .hint("for instance `header = { X-Canary = \"1\" }`");
            None
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside `header`")]
fn parameter(_: FileId, _: &str, name: &Name, value: TextMatch, _: &mut Findings) -> Option<Condition> {
    Some(Condition::Query(name.value.as_str().into(), value))
}

fn clients(
    file: FileId,
    by: &str,
    list: &List,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Condition> {
    if list.items.is_empty() {
        let message = format!("{by}: `client` is an empty list");
        findings
            .error(Code::EmptyList, file, &list.span, message)
            .hint("leave the key out to match every client");
    }
    let networks = networks(file, &format!("{by}: client"), list, written, findings)?;
    (!networks.is_empty()).then_some(Condition::Client(networks))
}

/// Names of allowlists, and prefixes.
pub fn networks(
    file: FileId,
    what: &str,
    list: &List,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Vec<Network>> {
    let mut networks = Vec::new();
    for one in &list.items {
        // No name of a list holds one of these, and every prefix does.
        let network = if one.value.contains(['.', ':', '/']) {
            refusable(file, Code::BadPrefix, what, &one.span, &one.value, findings, value::prefix)
                .map(Network::Prefix)
        } else {
            written
                .allowlists
                .refer(file, one, &format!("{what} is on"), Code::NoSuchAllowlist, findings)
                .map(|id| Network::List(AllowlistId(id)))
        };
        networks.push(network);
    }
    networks.into_iter().collect()
}

pub fn pattern(file: FileId, what: &str, text: &At<String>, findings: &mut Findings) -> Option<Pattern> {
    match Pattern::new(&text.value) {
        Ok(pattern) => Some(pattern),
        Err(because) => {
            let message = format!("{what}: {} is not a regular expression: {because}", quoted(&text.value));
            findings.error(Code::BadPattern, file, &text.span, message);
            None
        }
    }
}

fn unclear<T>(file: FileId, what: &str, span: &Range<usize>, findings: &mut Findings) -> Option<T> {
    if findings.found_within(file, span) {
        return None;
    }
    let message = format!("{what} doesn't say how it is meant");
    findings
        .error(Code::WrongValue, file, span, message)
        .hint("write the text itself, or a table with one key: `{ regex = \"…\" }`");
    None
}

fn refusable<T>(
    file: FileId,
    code: Code,
    what: &str,
    span: &Range<usize>,
    text: &str,
    findings: &mut Findings,
    parse: impl Fn(&str) -> Result<T, value::Refusal>,
) -> Option<T> {
    match parse(text) {
        Ok(value) => Some(value),
        Err(refusal) => {
            let written = At { span: span.clone(), value: text.to_owned() };
            scalar::refused(file, code, what, &written, refusal, findings);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::value;

    #[test]
    fn no_name_of_a_list_is_taken_for_a_prefix() {
        for text in ["10.0.0.1", "::1", "10.0.0.0/8", "a.b"] {
            assert!(value::name(text).is_err(), "{text}");
        }
    }
}
