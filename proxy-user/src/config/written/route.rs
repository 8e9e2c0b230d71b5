//! `[[route]]`, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, HostPatterns, Links, List, Mirror, Name, PathPatterns, StatusPages, TextPattern};

/// A match and where it leads.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What logs and metrics call it. Without it, a name made of host and path.
    #[schemars(example = &"shop")]
    pub name: Option<At<String>>,
    /// Only requests that came in there. Without it, at any entrypoint.
    #[schemars(example = &"https")]
    pub entrypoint: Option<List>,
    /// Another way to write `entrypoint`.
    pub entrypoints: Option<List>,
    /// The host that is asked for: a name, `*.example.com` for all names below it, or `{ regex = "…" }`, which must match
    /// the whole name in lower case. In a list, any of them. Without it, any.
    #[schemars(example = &"shop.example.com")]
    pub host: Option<HostPatterns>,
    /// The path, or what it begins with, in whole segments: `/shop` matches `/shop` and `/shop/cart`, never `/shopping`.
    /// `{ exact = "/shop" }` matches that path alone, `{ regex = "/v[0-9]+/.*" }` must match the whole of it, without
    /// the query.
    #[schemars(extend("default" = "/"), example = &"/shop")]
    pub path: Option<super::Pattern<true>>,
    /// The methods, in upper case.
    #[schemars(example = ["GET", "HEAD"])]
    pub method: Option<List>,
    /// Header fields that must be there, all of them: a name, and the value or `{ regex = "…" }` for the whole value. Of a
    /// field that is there more than once, one must do.
    pub header: Option<At<BTreeMap<Name, TextPattern>>>,
    /// Parameters of the query that must be there, all of them; written like `header`, and compared with what they mean:
    /// `a%20b` and `a+b` are `a b`.
    pub query: Option<At<BTreeMap<Name, TextPattern>>>,
    /// Where the client must be: names of allowlists, prefixes and addresses; any of them. The client is who the
    /// entrypoint's `client_ip` says, else the TCP peer.
    #[schemars(example = ["office", "198.51.100.0/24"])]
    pub client: Option<List>,
    /// What must not be so: the route matches only where nothing of this holds.
    pub not: Option<At<Not>>,
    /// Goes before how specific a match is: a route with a higher number wins over those with a lower one.
    #[schemars(range(min = -1000, max = 1000), extend("default" = 0))]
    pub priority: Option<At<i64>>,
    /// What is done to requests on their way, in this order, and to responses in the reverse one: names of
    /// `[middleware.NAME]`, or a short one as a table in its place.
    #[schemars(example = &["office-only", "compress"])]
    pub middleware: Option<Links>,
    /// The service that answers. Only a route with `split` or `passthrough`, or whose middleware has a `redirect`, may do without.
    #[schemars(example = &"shop")]
    pub service: Option<At<String>>,
    /// In the place of `service`: several, each with its share, as in `[service.NAME]`. The split is called like the route.
    pub split: Option<At<BTreeMap<Name, At<i64>>>>,
    /// Beside `split`, as in `[service.NAME]`.
    #[schemars(example = &"cookie")]
    pub sticky: Option<At<String>>,
    /// Beside `split`, as in `[service.NAME]`.
    #[schemars(extend("default" = true))]
    pub fall_over: Option<At<bool>>,
    /// The names in TLS's hello (SNI) that the route takes, with `passthrough`: a name, or `*.example.com` for all names below
    /// it. Other names are terminated at an entrypoint with `tls`.
    #[schemars(example = &"legacy.example.com")]
    pub sni: Option<List>,
    /// In the place of `service`: the service that the connection is carried to untouched, without decrypting anything. It has
    /// servers, or is made of such services by `split` or `failover`. At entrypoints with `tls` only together with `sni`;
    /// without `sni` the route names its entrypoints with `protocol = "tcp"` or `"udp"`, and takes what no `sni` there does.
    /// `docs/passthrough.md` tells of it.
    #[schemars(example = &"legacy")]
    pub passthrough: Option<At<String>>,
    /// With `passthrough` and `sni`, at entrypoints with `tls`: the page for when no server can be reached, served where a
    /// certificate for the name is held: `page:NAME`. Without it, and where there is no certificate, the connection is closed
    /// with an alert.
    #[schemars(example = &"page:maintenance")]
    pub on_outage: Option<At<String>>,
    /// Copies requests to another service, as in `[service.NAME]`.
    pub mirror: Option<At<Mirror>>,
    /// Pages in the place of a server's own answers, by status, as a service's `pages`, and before them.
    pub pages: Option<At<StatusPages>>,
}

/// Each key is written as in the route itself, and excludes for itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Not {
    /// None of these hosts.
    pub host: Option<HostPatterns>,
    /// None of these paths.
    pub path: Option<PathPatterns>,
    /// None of these methods.
    pub method: Option<List>,
    /// None of these fields with such a value.
    pub header: Option<At<BTreeMap<Name, TextPattern>>>,
    /// None of these parameters with such a value.
    pub query: Option<At<BTreeMap<Name, TextPattern>>>,
    /// Nowhere there.
    pub client: Option<List>,
}
