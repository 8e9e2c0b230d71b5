//! `[allowlist.NAME]`, and the built-in one.

use std::collections::HashSet;

use ipnet::IpNet;

use super::{
    fetch,
    merge::{Item, Merged},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    gather,
    model::Allowlist,
    source::FileId,
    value::{self, quoted},
    written::{self, At},
};

/// A million prefixes fit in this many bytes twice over.
const LARGEST_FILE: u64 = 64 << 20;

pub fn all(written: &Merged<'_>, findings: &mut Findings) -> Vec<Allowlist> {
    let mut lists: Vec<_> = written.allowlists.items.iter().map(|item| one(item, findings)).collect();
    for name in written.allowlists.built_in() {
        let fetch = fetch::cloudflare();
        let prefixes = fetch.floor.clone();
        lists.push(Allowlist {
            name: name.into(),
            prefixes,
            written: Vec::new(),
            fetch: Some(fetch),
            cdn: true,
        });
    }
    lists
}

fn one(item: &Item<'_, written::Allowlist>, findings: &mut Findings) -> Allowlist {
    let Item { file, name, body } = *item;
    let faults_before = findings.count();
    let mut prefixes = Vec::new();
    for prefix in body.prefixes.iter().flat_map(|list| &list.items) {
        add(file, &format!("allowlist `{}`:", name.value), prefix, &mut prefixes, findings);
    }
    if let Some(path) = &body.file {
        read_list(file, &name.value, path, &mut prefixes, findings);
    }
    let fetch = fetch::of(item, findings);
    let path = format!("allowlist.{}", name.value);
    let lost = ["prefixes", "file", "url"].iter().any(|key| findings.lost(&format!("{path}.{key}")));
    if prefixes.is_empty() && fetch.is_none() && findings.count() == faults_before && !lost {
        let message = format!("allowlist `{}` holds no prefix: nobody could come in", name.value);
        findings
            .error(Code::EmptyList, file, &name.span, message)
            .hint("write `prefixes = [\"198.51.100.0/24\"]`, `file = \"…\"` with one prefix a line, or `url = \"https://…\"`");
    }
    let mut seen = HashSet::new();
    prefixes.retain(|prefix| seen.insert(*prefix));
    let written = prefixes.clone();
    prefixes.extend(fetch.iter().flat_map(|fetch| &fetch.floor));
    let cdn = body.cdn.as_ref().map_or(name.value == default::CLOUDFLARE, |cdn| cdn.value);
    Allowlist { name: name.value.as_str().into(), prefixes, written, fetch, cdn }
}

fn add(file: FileId, before: &str, written: &At<String>, prefixes: &mut Vec<IpNet>, findings: &mut Findings) {
    match value::prefix(&written.value) {
        Ok(prefix) => prefixes.push(prefix),
        Err(refusal) => super::scalar::refused(file, Code::BadPrefix, before, written, refusal, findings),
    }
}

/// One prefix a line. Its faults point into the list file itself.
fn read_list(
    file: FileId,
    name: &str,
    written: &At<String>,
    prefixes: &mut Vec<IpNet>,
    findings: &mut Findings,
) {
    let path = findings.sources.resolve(file, &written.value);
    findings.watch(&path);
    let text = match gather::text(&path, LARGEST_FILE) {
        Ok(text) => text,
        Err(error) => {
            let reason = gather::reason(&error);
            let message = format!(
                "allowlist `{name}`: file {} can't be used: {reason}",
                quoted(&path.to_string_lossy())
            );
            findings.error(Code::BadListFile, file, &written.span, message);
            return;
        }
    };
    let mut faulty = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.split('#').next().unwrap_or_default();
        let word = content.trim();
        if !word.is_empty() {
            let offset = start + content.len() - content.trim_start().len();
            match value::prefix(word) {
                Ok(prefix) => prefixes.push(prefix),
                Err(refusal) => {
                    faulty.push((At { span: offset..offset + word.len(), value: word.to_owned() }, refusal));
                }
            }
        }
        start += line.len();
    }
    if faulty.is_empty() {
        return;
    }
    let list = findings.sources.add_part(file, path, text);
    let before = format!("allowlist `{name}`:");
    // A file that is no list at all would bury everything else.
    let more = faulty.len().saturating_sub(20);
    for (word, refusal) in faulty.into_iter().take(20) {
        super::scalar::refused(list, Code::BadPrefix, &before, &word, refusal, findings);
    }
    if more > 0 {
        let message = format!("allowlist `{name}`: {more} more lines of its file are not prefixes");
        findings.error(Code::BadListFile, file, &written.span, message);
    }
}
