//! `[provider.NAME]`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List, Name};
use crate::config::default;

/// A source of further configuration. What it gives are documents: pieces of configuration, each like a file of a folder.
/// They come after the host's own files, provider by provider. `docs/providers.md` tells of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// What kind of source it is. Which of the keys below it takes follows from that.
    #[schemars(required, example = &"directory")]
    pub kind: Option<At<ProviderKind>>,
    /// Where its documents come among those of other providers: a whole number, 1 to 1000; of two with the same, the one
    /// whose name comes first. Where two documents define the same name, the one that comes first counts.
    #[schemars(range(min = 1, max = 1000), extend("default" = default::PROVIDER_ORDER))]
    pub order: Option<At<i64>>,
    /// `directory`: the folder. All `*.toml` in it and in its folders are documents; names that begin with a dot are not
    /// looked at. It may be a symbolic link that is swapped.
    #[schemars(example = "/srv/weir-sites")]
    pub path: Option<At<String>>,
    /// `http`: where the documents are fetched from, `https://…`: one in TOML, or several in JSON,
    /// `{ "documents": { "NAME": "TEXT" } }`.
    #[schemars(example = "https://config.example.com/edge.json")]
    pub url: Option<At<String>>,
    /// `consul`: the agent or server whose HTTP API is asked.
    #[schemars(example = "http://127.0.0.1:8500")]
    pub address: Option<At<String>>,
    /// `etcd`: its members, `HOST:PORT`; the first that answers is asked.
    #[schemars(example = ["10.0.0.5:2379", "10.0.0.6:2379"])]
    pub endpoints: Option<List>,
    /// `consul`: the keys below this are documents, by the rest of their names. `etcd`: all that is Weir's stands below this
    /// (`docs/fleet.md` tells what).
    #[schemars(extend("default" = default::PROVIDER_PREFIX))]
    pub prefix: Option<At<String>>,
    /// `etcd`: TLS, as soon as this is written.
    pub tls: Option<At<StoreTls>>,
    /// `etcd`: the user, where etcd's authentication is on.
    #[schemars(example = &"weir")]
    pub user: Option<At<String>>,
    /// `etcd`: a file with the user's password. It is read for each connection.
    #[schemars(example = "/etc/weir/etcd-password")]
    pub password_file: Option<At<String>>,
    /// `consul`: the datacenter, where it isn't the agent's own.
    #[schemars(example = &"dc1")]
    pub datacenter: Option<At<String>>,
    /// `consul`: a file with the token that is sent along (`X-Consul-Token`).
    #[schemars(example = "/etc/weir/consul-token")]
    pub token_file: Option<At<String>>,
    /// `http`: from one look to the next, give or take a tenth: a duration, 1s to 24h, without the key 30s. `directory`: how
    /// often all documents are read again although nothing has told of a change, as on NFS: 1s to 24h, without the key 1m.
    #[schemars(example = "30s")]
    pub every: Option<At<String>>,
    /// `http`: how long a whole look may take: a duration, 100ms to 1m.
    #[schemars(extend("default" = default::PROVIDER_TIMEOUT))]
    pub timeout: Option<At<String>>,
    /// `http`: header fields that are sent along.
    pub headers: Option<At<BTreeMap<Name, At<String>>>>,
    /// `http`: header fields whose values stand in files, for secrets: `{ Authorization = "/etc/weir/config-token" }`. White
    /// space at the file's ends doesn't count.
    pub header_files: Option<At<BTreeMap<Name, At<String>>>>,
    /// `http`, `consul`: a PEM file of the authorities to trust. Without it, those of the operating system.
    #[schemars(example = "/etc/weir/config-ca.pem")]
    pub ca: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// A folder, watched: `path`, `every`.
    Directory,
    /// A URL, fetched again and again: `url`, `every`, `timeout`, `headers`, `header_files`, `ca`.
    Http,
    /// The keys of a Consul, waited on: `address`, `prefix`, `datacenter`, `token_file`, `ca`.
    Consul,
    /// The generation that is current in an etcd, as `weir push` makes them: `endpoints`, `prefix`, `tls`, `user`,
    /// `password_file`.
    Etcd,
}

/// How a store is told that it is the right one, and how it knows this host.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreTls {
    /// A PEM file of the authorities to trust. Without it, those of the operating system.
    #[schemars(example = "/etc/weir/etcd-ca.pem")]
    pub ca: Option<At<String>>,
    /// A PEM file with the certificate to show.
    #[schemars(example = "/etc/weir/etcd-client.pem")]
    pub certificate: Option<At<String>>,
    /// A PEM file with its key.
    #[schemars(example = "/etc/weir/etcd-client.key")]
    pub key: Option<At<String>>,
}

/// This host's part in a fleet: hosts that run one configuration, which they have from a store. `docs/fleet.md` tells of it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The provider whose store this host reports to, of kind `etcd`. Required.
    #[schemars(example = &"store")]
    pub store: Option<At<String>>,
    /// What this host is called there: 1 to 64 letters, digits, dots, dashes and underscores, another one for each host. Without
    /// it, the host's name.
    #[schemars(example = "edge-1")]
    pub host: Option<At<String>>,
    /// A file with the keys that seal what stands in the store and isn't for everybody who reads it: one a line, as `weir fleet key`
    /// makes them. The first seals, all of them open. Every host has the same; the store never sees them.
    #[schemars(example = "/etc/weir/fleet.key")]
    pub key_file: Option<At<String>>,
}
