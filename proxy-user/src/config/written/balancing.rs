//! How a service's work is spread over its servers.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};
use serde_json::json;
use toml::Spanned;

use super::{At, List, value::OneOrMany};
use crate::config::default;

/// A text, or a table that says the same and more.
#[derive(Debug)]
pub struct Short<T> {
    pub span: Range<usize>,
    pub kind: TextOrTable<T>,
}

#[derive(Debug)]
pub enum TextOrTable<T> {
    Text(String),
    Table(Box<T>),
}

/// `servers = "…"`, or a list of texts and tables.
#[derive(Debug)]
pub struct Servers {
    pub span: Range<usize>,
    pub items: Vec<Short<Server>>,
}

/// A server with more than its address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `ADDRESS:PORT`, `NAME:PORT` or `srv:SERVICE`.
    #[schemars(required, example = "app.internal:8080")]
    pub address: Option<At<String>>,
    /// Its share of the work, against the others' weights. Each address of a name has it. Not with `srv:`, whose weights
    /// come from DNS.
    #[schemars(range(min = 1, max = 256), extend("default" = default::WEIGHT))]
    pub weight: Option<At<i64>>,
    /// The zone where it stands; see `zone` of `[host]`. Without it, it is near to every host.
    #[schemars(example = &"b")]
    pub zone: Option<At<String>>,
    /// 1 gets all work; 2 gets some when tier 1 has too few servers left (`tier_spill`), and so on.
    #[schemars(range(min = 1, max = 16), extend("default" = default::TIER))]
    pub tier: Option<At<i64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in its turn, as often as its weight says.
    RoundRobin,
    /// Of two servers that are drawn by weight, the one with fewer requests under way.
    LeastRequests,
    /// Of two servers that are drawn by weight, the one that promises to answer sooner: how long it takes to its first byte
    /// (with peaks that are forgotten within seconds), times what it has under way.
    Latency,
    /// The same server for the same key, `hash_by`. When servers come or go, few keys move.
    Hash,
}

/// A cookie that leads a visitor back to the same server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The cookie's name. Without it, `weir-` and the service's name.
    #[schemars(example = &"lb")]
    pub name: Option<At<String>>,
    /// For how long browsers keep it: a duration in whole seconds, 1s to 1y. Without it, until they are closed.
    #[schemars(example = "1d")]
    pub max_age: Option<At<String>>,
    /// Whether browsers send it over HTTPS only. Without it, so it is for visitors who came over HTTPS.
    pub secure: Option<At<bool>>,
    /// Whether it is kept from the page's scripts.
    #[schemars(extend("default" = true))]
    pub http_only: Option<At<bool>>,
    /// Whether browsers send it with requests that other sites have caused.
    #[schemars(extend("default" = "lax"))]
    pub same_site: Option<At<SameSite>>,
    /// The path below which it is sent.
    #[schemars(extend("default" = "/"))]
    pub path: Option<At<String>>,
    /// Whether a server that is drained keeps the visitors that have its cookie. With `false` they get another one, and its
    /// cookie: then a drain comes to an end also while they go on asking.
    #[schemars(extend("default" = true))]
    pub keep_drained: Option<At<bool>>,
    /// A file with a secret of at least 32 bytes, by which cookies are signed. Hosts that stand in for each other need the
    /// same one (`head -c 32 /dev/urandom | base64` makes it). Without it, Weir makes a secret of its own and keeps it in its state folder.
    #[schemars(example = "/etc/weir/sticky.key")]
    pub key_file: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Never.
    Strict,
    /// Only when a visitor follows a link.
    Lax,
    /// Always. Only with `secure`.
    None,
}

/// This host.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The zone where this host stands. Servers of the same `zone` are preferred.
    #[schemars(example = &"a")]
    pub zone: Option<At<String>>,
}

/// How the names of servers are resolved.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// The DNS servers to ask, as `ADDRESS:PORT`. Without them, those of `/etc/resolv.conf`, with its search list, and
    /// `/etc/hosts` before them.
    #[schemars(example = ["10.0.0.2:53"])]
    pub servers: Option<List>,
    /// A name is asked for again no sooner, whatever its TTL: a duration, 1s to 1h.
    #[schemars(extend("default" = default::DNS_MIN_TTL))]
    pub min_ttl: Option<At<String>>,
    /// A name is asked for again no later, whatever its TTL: a duration, 1s to 24h.
    #[schemars(extend("default" = default::DNS_MAX_TTL))]
    pub max_ttl: Option<At<String>>,
    /// How long an answer may take: a duration, 100ms to 30s.
    #[schemars(extend("default" = default::DNS_TIMEOUT))]
    pub timeout: Option<At<String>>,
}

// === impl Short ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<TextOrTable<T>>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span(), kind: spanned.into_inner() })
    }
}

impl<T: JsonSchema> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("TextOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = T::json_schema(generator);
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}

/// By hand, because an untagged enum would only say that nothing matched, and lose the places.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOrTable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = TextOrTable<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOrTable::Text(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|table| TextOrTable::Table(table.into()))
            }
        }

        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

// === impl Servers ===

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<OneOrMany<Short<Server>>>::deserialize(deserializer)?;
        let span = spanned.span();
        let items = match spanned.into_inner() {
            OneOrMany::One(text) => vec![Short { span: span.clone(), kind: TextOrTable::Text(text) }],
            OneOrMany::Many(items) => items,
        };
        Ok(Self { span, items })
    }
}

impl JsonSchema for Servers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Servers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = json!(Short::<Server>::json_schema(generator));
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": items }] })
    }
}
