//! The dashboard: a page, its style and its script, for a browser. They are in the binary, need nothing from elsewhere, and know
//! nothing: what they show, the script asks of the API like anybody else, with the token that it is given where that takes one.
//!
//! The script is written in parts, in the order in which they are read here, and sent as one.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;

use crate::middleware::compress::{Coding, whole};

const PAGE: &str = include_str!("dashboard/index.html");
const STYLE: &str = include_str!("dashboard/style.css");
const SCRIPT: &str = concat!(
    include_str!("dashboard/asking.js"),
    include_str!("dashboard/reckoning.js"),
    include_str!("dashboard/elements.js"),
    include_str!("dashboard/picture.js"),
    include_str!("dashboard/charts.js"),
    include_str!("dashboard/parts.js"),
    include_str!("dashboard/flows.js"),
    include_str!("dashboard/fleet.js"),
    include_str!("dashboard/services.js"),
    include_str!("dashboard/orders.js"),
    include_str!("dashboard/events.js"),
    include_str!("dashboard/life.js"),
);

/// Only what is from here is run, shown or asked; nobody else's page shows this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Compressed once, when somebody first asks.
static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("text/html; charset=utf-8", PAGE),
        Asset::new("text/css; charset=utf-8", STYLE),
        Asset::new("text/javascript; charset=utf-8", SCRIPT),
    ]
});

struct Asset {
    media: &'static str,
    tag: String,
    plain: &'static str,
    gzip: Option<Bytes>,
    brotli: Option<Bytes>,
}

/// Whether the path is of one of the dashboard's files.
pub fn has(path: &str) -> bool {
    matches!(path, "/" | "/dashboard" | "/dashboard.css" | "/dashboard.js")
}

pub fn router() -> Router {
    let file = |index: usize| get(move |request: Request| async move { ASSETS[index].answer(&request) });
    Router::new()
        .route("/", file(0))
        .route("/dashboard", file(0))
        .route("/dashboard.css", file(1))
        .route("/dashboard.js", file(2))
}

// === impl Asset ===

impl Asset {
    fn new(media: &'static str, plain: &'static str) -> Self {
        let tag = digest::digest(&digest::SHA256, plain.as_bytes()).as_ref()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let packed = |coding| whole(coding, plain.as_bytes()).ok();
        Self { media, tag, plain, gzip: packed(Coding::Gzip), brotli: packed(Coding::Brotli) }
    }

    fn answer(&self, request: &Request) -> Response {
        let asked =
            |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (coding, body) = self.packed(asked(header::ACCEPT_ENCODING));
        let tag = format!("\"{}{}{coding}\"", self.tag, if coding.is_empty() { "" } else { "-" });
        let is_known = asked(header::IF_NONE_MATCH).split(',').any(
            |known| matches!(known.trim().trim_start_matches("W/"), known if known == tag || known == "*"),
        );
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut response = body.into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media));
            response
        };
        let headers = response.headers_mut();
        if !is_known && !coding.is_empty() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        for (name, value) in [
            (header::VARY, "accept-encoding"),
            // Kept, and asked after: another version of the daemon has another page.
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// The shortest form that the browser takes.
    fn packed(&self, accepts: &str) -> (&'static str, Bytes) {
        let takes = |coding: &str| {
            accepts.split(',').any(|one| {
                let (name, weight) = one.split_once(';').unwrap_or((one, ""));
                name.trim().eq_ignore_ascii_case(coding)
                    && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
            })
        };
        match (&self.brotli, &self.gzip) {
            (Some(brotli), _) if takes("br") => ("br", brotli.clone()),
            (_, Some(gzip)) if takes("gzip") => ("gzip", gzip.clone()),
            _ => ("", Bytes::from_static(self.plain.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::service::waits::EDGES;

    fn ask(index: usize, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ASSETS[index].answer(&request.body(Body::empty()).unwrap())
    }

    fn header(response: &Response, name: &str) -> String {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn the_first_look_transfers_less_than_100_kb() {
        let packed = |asset: &Asset| asset.gzip.as_ref().map_or(asset.plain.len(), Bytes::len);
        let all: usize = ASSETS.iter().map(packed).sum();
        assert!(all < 60_000, "{all} bytes; what the API answers comes on top");
    }

    #[test]
    fn a_browser_gets_what_it_takes_and_nothing_twice() {
        for (accepts, coding) in [("gzip, deflate, br", "br"), ("gzip;q=1", "gzip"), ("br;q=0", ""), ("", "")]
        {
            let response = ask(2, &[("accept-encoding", accepts)]);
            assert_eq!(header(&response, "content-encoding"), coding, "{accepts}");
            let tag = header(&response, "etag");
            let again = ask(2, &[("accept-encoding", accepts), ("if-none-match", &format!("\"x\", {tag}"))]);
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{accepts}");
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere_and_nothing_is_run_inline() {
        let policy = header(&ask(0, &[]), "content-security-policy");
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        for text in [PAGE, STYLE, SCRIPT] {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"));
        }
        for inline in [" style=", " onclick=", "<style", "<script>"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        for unsafe_way in ["innerHTML", "insertAdjacentHTML", "eval(", "document.write"] {
            assert!(
                !SCRIPT.contains(unsafe_way),
                "{unsafe_way}: a name out of a configuration could be markup"
            );
        }
    }

    #[test]
    fn the_script_knows_the_edges_of_the_buckets() {
        let edges: Vec<String> = EDGES.iter().map(|micros| (*micros as f64 / 1000.0).to_string()).collect();
        let line = format!("const EDGES = [{}];", edges.join(", "));
        assert!(SCRIPT.contains(&line), "asking for {line}");
    }
}
