//! What belongs to Weir's design but not to this version. It is refused by name: whoever writes it must not believe
//! that it works, nor be told that it is a typing error. A line goes when its feature comes.

pub struct Unsupported {
    /// The section, with `NAME` for names; empty for the top level.
    section: &'static str,
    key: &'static str,
    /// What this version has in its place, or how to do without.
    pub instead: &'static str,
}

const ALL: &[Unsupported] = &[
    entry("", "rate_limit", "`[middleware.NAME]` has `rate_limit`"),
    entry("", "include", "give a folder instead of a file: all its `*.toml` are merged"),
    entry("", "metrics", "counters are on the admin interface"),
    entry("kernel", "dry_run", "take it out; `allow` of an entrypoint drops at once"),
    entry("entrypoint.NAME", "http3", "take it out"),
    entry("entrypoint.NAME", "rate_limit", "`[middleware.NAME]` has `rate_limit`"),
    entry(
        "service.NAME",
        "weights",
        "a server has its weight: `{ address = \"10.0.0.11:8080\", weight = 2 }`",
    ),
    entry("service.NAME", "start", "take it out"),
    entry("service.NAME", "retry", "a request that no server has seen goes to another one by itself"),
    entry("page.NAME", "json", "take it out"),
    entry("route", "shadow", "take it out"),
    entry("route", "middleware", "take it out"),
];

const fn entry(section: &'static str, key: &'static str, instead: &'static str) -> Unsupported {
    Unsupported { section, key, instead }
}

/// The entry for `name` in a section, if it is known.
pub fn key(section: &str, name: &str) -> Option<&'static Unsupported> {
    ALL.iter().find(|entry| entry.section == section && entry.key == name)
}
