//! `[page.NAME]`, and the built-in one.

use bytes::Bytes;

use super::{
    merge::{Item, Merged},
    scalar::{self, DAY, SECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    gather,
    model::Page,
    value::{self, quoted},
    written,
};

const LARGEST: u64 = 1 << 20;

pub fn all(written: &Merged<'_>, findings: &mut Findings) -> Vec<Page> {
    let mut pages: Vec<_> = written.pages.items.iter().map(|item| one(item, findings)).collect();
    if let Some(name) = written.pages.built_in() {
        let retry_after = value::duration(default::RETRY_AFTER).unwrap_or_default();
        pages.push(Page { name: name.into(), html: built_in(), retry_after });
    }
    pages
}

fn built_in() -> Bytes {
    Bytes::from_static(default::PAGE_HTML.as_bytes())
}

fn one(item: &Item<'_, written::Page>, findings: &mut Findings) -> Page {
    let Item { file, name, body } = *item;
    let what = format!("page `{}`", name.value);
    let setting = format!("{what}: retry_after");
    let written = body.retry_after.as_ref();
    let retry_after = scalar::duration(file, &setting, written, default::RETRY_AFTER, SECOND..=DAY, findings);
    if let Some(written) = written
        && retry_after.subsec_millis() != 0
    {
        let message = format!("{setting} is {}, not whole seconds", quoted(&written.value));
        findings
            .error(Code::BadDuration, file, &written.span, message)
            .hint(format!("browsers are told in seconds: write `{}s`", retry_after.as_secs() + 1));
    }
    Page { name: name.value.as_str().into(), html: html(item, &what, findings), retry_after }
}

fn html(item: &Item<'_, written::Page>, what: &str, findings: &mut Findings) -> Bytes {
    let Some(html) = &item.body.html else {
        // `[page.maintenance]` with only `retry_after` keeps the built-in text; any other page is nothing without its own.
        if item.name.value != default::PAGE && !findings.lost(&format!("page.{}.html", item.name.value)) {
            let message = format!("{what} has no `html`");
            findings
                .error(Code::Missing, item.file, &item.name.span, message)
                .hint("name its file: `html = \"/etc/weir/sorry.html\"`");
        }
        return built_in();
    };
    let path = findings.sources.resolve(item.file, &html.value);
    findings.watch(&path);
    let reason = match gather::bytes(&path, LARGEST) {
        Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => "it is empty".to_owned(),
        Ok(bytes) => return Bytes::from(bytes),
        Err(error) => gather::reason(&error),
    };
    let message = format!("{what}: file {} can't be served: {reason}", quoted(&path.to_string_lossy()));
    findings
        .error(Code::BadPage, item.file, &html.span, message)
        .hint("leave the page out to serve the built-in one");
    built_in()
}
