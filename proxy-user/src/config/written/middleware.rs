//! `[middleware.NAME]`, as written.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};
use serde_json::json;
use toml::Spanned;

use super::{At, List, Name, value::OneOrMany};
use crate::config::default;

/// What is done to requests and responses on their way: exactly one of these keys. `docs/middleware.md` has an example
/// for each.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Middleware {
    /// Sets, adds and removes header fields of requests and responses.
    pub headers: Option<At<Headers>>,
    /// Sends the client elsewhere.
    pub redirect: Option<At<Redirect>>,
    /// Takes the first of these prefixes that fits off the path, by whole segments. The server is told in
    /// `X-Forwarded-Prefix`.
    #[schemars(example = &"/api")]
    pub strip_path: Option<List>,
    /// Puts this before the path.
    #[schemars(example = &"/v1")]
    pub add_path: Option<At<String>>,
    /// Replaces the path where it matches as a whole.
    pub replace_path: Option<At<ReplacePath>>,
    /// Lets in by the client's address; others get 403.
    pub clients: Option<At<Clients>>,
    /// Asks for a user name and a password.
    pub basic_auth: Option<At<BasicAuth>>,
    /// Has another service decide who may pass.
    pub forward_auth: Option<At<ForwardAuth>>,
    /// So many requests in a time; the rest gets 429.
    pub rate_limit: Option<At<RateLimit>>,
    /// So many requests at once; the rest gets 503. Counted from the request's head to the last byte of its answer.
    #[schemars(range(min = 1, max = 1_000_000), example = 100)]
    pub concurrency: Option<At<i64>>,
    /// The largest body of a request, as `10MiB`; a larger one gets 413, also when its length is not told before.
    #[schemars(example = &"10MiB")]
    pub body_limit: Option<At<String>>,
    /// Takes in a request's whole body, of up to so many bytes, before a server is asked: slow clients then hold up no
    /// server. A larger one gets 413. At most 64MiB.
    #[schemars(example = &"1MiB")]
    pub buffer: Option<At<String>>,
    /// How long a request may take.
    pub timeouts: Option<At<RouteTimeouts>>,
    /// Compresses responses for clients that ask for it.
    pub compress: Option<At<Compress>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Headers {
    /// Of the request, before it goes to a server.
    pub request: Option<At<HeaderChanges>>,
    /// Of the response, also where Weir made it.
    pub response: Option<At<HeaderChanges>>,
}

/// First what goes, then what is set, then what is added. In values `{client_ip}`, `{host}`, `{scheme}`,
/// `{request_id}` and `{route}` are filled in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderChanges {
    /// In the place of all fields of that name.
    #[serde(default)]
    pub set: BTreeMap<Name, At<String>>,
    /// Beside what is there.
    #[serde(default)]
    pub add: BTreeMap<Name, At<String>>,
    /// All fields of these names.
    pub remove: Option<List>,
}

/// Where to: what isn't written stays as it was asked for. A request that already is where it would be sent passes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// `https` or `http`.
    #[schemars(example = &"https")]
    pub scheme: Option<At<String>>,
    /// The host, with a port if need be.
    #[schemars(example = &"www.example.com")]
    pub host: Option<At<String>>,
    /// Another path; requests whose path doesn't match as a whole pass.
    pub path: Option<At<ReplacePath>>,
    /// 301 or 308 for good, 302, 303 or 307 for now. 303 makes any request a GET; 307 and 308 keep method and body.
    #[schemars(extend("default" = default::REDIRECT_STATUS))]
    pub status: Option<At<i64>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplacePath {
    /// A regular expression for the whole path, without the query.
    #[schemars(required, example = &"/old/(.*)")]
    pub regex: Option<At<String>>,
    /// The new path; `$1` or `${name}` is what a group matched, `$$` a dollar.
    #[schemars(required, example = &"/new/$1")]
    pub to: Option<At<String>>,
}

/// Names of allowlists, prefixes and addresses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Only these. Without it, all but those of `deny`.
    #[schemars(example = &["office", "198.51.100.0/24"])]
    pub allow: Option<List>,
    /// Never these, also where `allow` has them.
    pub deny: Option<List>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// `NAME:HASH`, where the hash is bcrypt's or Argon2's; `weir hash-password` makes one.
    #[schemars(example = &["alice:$argon2id$v=19$m=19456,t=2,p=1$…"])]
    pub users: Option<List>,
    /// A file with one of these a line, as `htpasswd -B` writes it; `#` begins a comment. It is watched like the
    /// configuration itself.
    #[schemars(example = &"/etc/weir/users")]
    pub file: Option<At<String>>,
    /// What a browser shows when it asks.
    #[schemars(extend("default" = default::REALM))]
    pub realm: Option<At<String>>,
    /// A header field in which the server is told the user's name.
    #[schemars(example = &"X-User")]
    pub user_header: Option<At<String>>,
    /// Leaves the `Authorization` field in the request.
    #[schemars(extend("default" = false))]
    pub pass_on: Option<At<bool>>,
}

/// The service is asked with GET, with the request's own header and `X-Forwarded-Method`, `-Uri`, `-Host`, `-Proto` and
/// `-For`. With 2xx the request goes on; any other answer is the client's. Without an answer it gets 503.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuth {
    /// The service that is asked.
    #[schemars(required, example = &"auth")]
    pub service: Option<At<String>>,
    /// What it is asked for.
    #[schemars(extend("default" = "/"), example = &"/verify")]
    pub path: Option<At<String>>,
    /// Fields of its answer that the request takes along; what the client itself sent under these names is removed.
    #[schemars(example = &["X-User", "X-Groups"])]
    pub copy: Option<List>,
    /// How long it may take: a duration, 10ms to 1m.
    #[schemars(extend("default" = default::FORWARD_AUTH_TIMEOUT))]
    pub timeout: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many in a second, minute or hour: `10/s`, `300/m`, `1000/h`. They come in evenly, beside the burst.
    #[schemars(required, example = &"10/s")]
    pub rate: Option<At<String>>,
    /// So many may come at once, after a pause. Without it, as many as `rate` says.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<At<i64>>,
    /// Who is counted for himself: `client` (IPv6 by /64), `route` (all requests together), or `header:NAME` (each
    /// value; requests without the field by client).
    #[schemars(extend("default" = "client"), example = &"header:X-Api-Key")]
    pub by: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTimeouts {
    /// From the request to the first byte of the response, with all attempts: a duration, 1ms to 24h. Then the service's
    /// page comes.
    pub first_byte: Option<At<String>>,
    /// To the last byte of the response: a duration, 1ms to 24h. Then it is broken off.
    pub total: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compress {
    /// The codings to choose from; where the client likes several the same, the first of these.
    #[schemars(extend("default" = default::CODINGS))]
    pub with: Option<List>,
    /// Smaller responses stay as they are, where their size is known.
    #[schemars(extend("default" = default::COMPRESS_FROM))]
    pub min_size: Option<At<String>>,
    /// Media types that are compressed, beside the built-in ones: text, JSON, JavaScript, XML, SVG, fonts, WebAssembly
    /// and the like.
    #[schemars(example = &["application/x-ndjson"])]
    pub types: Option<List>,
}

/// An element of a chain: a name, or a middleware that has none.
#[derive(Debug)]
pub enum Link {
    Name(At<String>),
    Inline(Range<usize>, Box<Middleware>),
}

/// A chain of middleware: `"a"`, `["a", { strip_path = "/x" }]`.
#[derive(Debug)]
pub struct Links {
    pub items: Vec<Link>,
}

// === impl Links ===

impl<'de> Deserialize<'de> for Links {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<OneOrMany<Spanned<Raw>>>::deserialize(deserializer)?;
        let span = spanned.span();
        let at = |item: Spanned<Raw>| {
            let span = item.span();
            item.into_inner().at(span)
        };
        Ok(Self {
            items: match spanned.into_inner() {
                OneOrMany::One(name) => vec![Raw::Name(name).at(span)],
                OneOrMany::Many(items) => items.into_iter().map(at).collect(),
            },
        })
    }
}

impl JsonSchema for Links {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Links".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inline = Middleware::json_schema(generator);
        let items = json!({ "anyOf": [{ "type": "string" }, inline] });
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": items }] })
    }
}

enum Raw {
    Name(String),
    Inline(Box<Middleware>),
}

impl Raw {
    fn at(self, span: Range<usize>) -> Link {
        match self {
            Self::Name(value) => Link::Name(At { span, value }),
            Self::Inline(middleware) => Link::Inline(span, middleware),
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
                Ok(Raw::Name(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Raw, A::Error> {
                Middleware::deserialize(MapAccessDeserializer::new(map))
                    .map(|inline| Raw::Inline(inline.into()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
