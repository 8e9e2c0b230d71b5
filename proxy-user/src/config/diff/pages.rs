//! The keys of pages, of what they stand in for, and of maintenance.

use super::{Keys, fingerprint, joined, show};
use crate::config::model::{Config, LivePage, Maintenance, Network, Page, Recurrence, StatusPages};

pub fn page(config: &Config, one: &Page) -> Keys {
    let Page { name: _, html, languages, status, retry_after, live, assets } = one;
    let text = |html: &[u8]| format!("{} bytes ({})", html.len(), fingerprint(html));
    let mut keys = Keys::from([("html", text(html)), ("retry_after", show(*retry_after))]);
    if !languages.is_empty() {
        keys.insert(
            "languages",
            joined(languages.iter().map(|(name, html)| format!("{name}: {}", text(html)))),
        );
    }
    if let Some(status) = status {
        keys.insert("status", status.as_u16().to_string());
    }
    if let Some(LivePage { service, path, timeout }) = live {
        keys.insert(
            "service",
            format!("{}{path} within {}", config.services[service.0].name, show(*timeout)),
        );
    }
    if !assets.is_empty() {
        let all: Vec<u8> =
            assets.iter().flat_map(|(name, bytes)| [name.as_bytes(), b"\0", bytes].concat()).collect();
        keys.insert("assets", format!("{} files ({})", assets.len(), fingerprint(&all)));
    }
    keys
}

pub fn by_status(config: &Config, pages: &StatusPages, keys: &mut Keys) {
    if !pages.is_empty() {
        let one = |(range, page): &(std::ops::RangeInclusive<u16>, crate::config::model::PageId)| {
            format!("{}-{}: {}", range.start(), range.end(), config.pages[page.0].name)
        };
        keys.insert("pages", joined(pages.iter().map(one)));
    }
}

pub fn maintenance(config: &Config, one: &Maintenance) -> Keys {
    let Maintenance { routes, hosts, when, allow, except, page, why } = one;
    let network = |network: &Network| match network {
        Network::List(id) => config.allowlists[id.0].name.to_string(),
        Network::Prefix(prefix) => prefix.to_string(),
    };
    let mut keys = Keys::from([("page", config.pages[page.0].name.to_string())]);
    match when {
        Recurrence::Once(span) => {
            keys.extend(span.from.map(|from| ("from", from.to_string())));
            keys.extend(span.until.map(|until| ("until", until.to_string())));
        }
        Recurrence::Weekly(weekly) => {
            keys.insert("weekly", weekly.to_string());
        }
    }
    let lists = [
        ("route", joined(routes)),
        ("host", joined(hosts)),
        ("allow", joined(allow.iter().map(network))),
        ("except", joined(except)),
        ("why", why.to_string()),
    ];
    keys.extend(lists.into_iter().filter(|(_, text)| !text.is_empty()));
    keys
}
