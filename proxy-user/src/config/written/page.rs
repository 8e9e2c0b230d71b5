//! `[page.NAME]`, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Name};
use crate::config::default;

/// `pages = { "502-504" = "maintenance", "500" = "error" }`: statuses, and names of pages.
pub type StatusPages = BTreeMap<Name, At<String>>;

/// A response that Weir serves itself: as HTML for browsers, and as JSON, text or gRPC's status for whoever asks for that.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The HTML file, at most 1 MiB. Filled in are `{{request_id}}`, `{{host}}`, `{{status}}`, `{{reason}}` (the status in
    /// words), `{{time}}`, `{{retry_after}}` (whole seconds, as the header says) and `{{refresh}}` (seconds after which a
    /// page may ask again: no more than the page's `retry_after`). Without it, the built-in text.
    #[schemars(example = "/etc/weir/maintenance.html")]
    pub html: Option<At<String>>,
    /// The same in other languages: files by language, such as `de` or `pt-BR`, chosen by `Accept-Language`. `html` is for
    /// everybody else; its own language is what `<html lang="…">` says in it.
    pub languages: Option<At<BTreeMap<Name, At<String>>>>,
    /// A folder of pictures, styles and fonts, served from memory as `/.weir/page/NAME/FILE` at every entrypoint: at most 200
    /// files, 8 MiB together. Names that begin with a dot are left out.
    #[schemars(example = "/etc/weir/maintenance")]
    pub assets: Option<At<String>>,
    /// A service of yours that makes the page, while it can: it is asked for `path`, and what is in memory is shown when it
    /// doesn't answer with 200 in time. For HTML only.
    #[schemars(example = &"pages")]
    pub service: Option<At<String>>,
    /// What `service` is asked for.
    #[schemars(extend("default" = default::PAGE_PATH))]
    pub path: Option<At<String>>,
    /// How long `service` may take for all of it: a duration, 10ms to 10s.
    #[schemars(extend("default" = default::PAGE_TIMEOUT))]
    pub timeout: Option<At<String>>,
    /// With which status the page is served. Without it: that of the answer that it replaces, though never 502 and 504, whose
    /// bodies CDNs replace; else 503.
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<At<i64>>,
    /// When a visitor's browser should ask again, where no end is known: a duration in whole seconds, 1s to 24h.
    #[schemars(extend("default" = default::RETRY_AFTER))]
    pub retry_after: Option<At<String>>,
}
