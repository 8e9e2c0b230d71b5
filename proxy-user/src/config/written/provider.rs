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
    /// `consul`, `consul-catalog`: the agent or server whose HTTP API is asked. `kubernetes`: the API server, for a host that is no node of the
    /// cluster; `kubeconfig` says that and more.
    #[schemars(example = "http://127.0.0.1:8500")]
    pub address: Option<At<String>>,
    /// `etcd`: its members, `HOST:PORT`; the first that answers is asked.
    #[schemars(example = ["10.0.0.5:2379", "10.0.0.6:2379"])]
    pub endpoints: Option<List>,
    /// `consul`: the keys below this are documents, by the rest of their names. `etcd`: all that is Weir's stands below this
    /// (`docs/fleet.md` tells what).
    #[schemars(extend("default" = default::PROVIDER_PREFIX))]
    pub prefix: Option<At<String>>,
    /// `docker`: where the daemon (or podman's service) answers: `unix:///PATH`, or `tcp://HOST:PORT`.
    #[schemars(extend("default" = default::DOCKER_ENDPOINT))]
    pub endpoint: Option<At<String>>,
    /// `docker`: the network in which containers are reached, for those that are in several. A container's label
    /// `weir.network` goes before it.
    #[schemars(example = &"edge")]
    pub network: Option<At<String>>,
    /// `docker`: also containers without the label `weir.enable=true` count, if they have another label of Weir's; without the
    /// key false. `consul-catalog`: likewise services without that tag; without the key true. With `weir.enable=false` nobody counts.
    pub exposed_by_default: Option<At<bool>>,
    /// `etcd`, `docker` with `tcp://`: TLS, as soon as this is written.
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
    /// `consul-catalog`: the datacenters whose services count, where that isn't the agent's own alone.
    #[schemars(example = ["dc1", "dc2"])]
    pub datacenters: Option<List>,
    /// `consul`, `consul-catalog`: a file with the token that is sent along (`X-Consul-Token`). `kubernetes`, with `address`: a file with the
    /// token of a service account; it is read for each request.
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
    /// `kubernetes`: the file that says where the API server is and who Weir is there, as `kubectl` has it; its current context
    /// counts. Without it and without `address`, the service account of the pod that Weir runs in.
    #[schemars(example = "/etc/weir/kubeconfig")]
    pub kubeconfig: Option<At<String>>,
    /// `kubernetes`: whose objects are looked at. Without it, those of all namespaces.
    #[schemars(example = ["shop", "blog"])]
    pub namespaces: Option<List>,
    /// `kubernetes`: the class of the Ingresses that are served; `off`: none is looked at.
    #[schemars(extend("default" = default::KUBERNETES_CLASS))]
    pub ingress_class: Option<At<String>>,
    /// `kubernetes`: the class of the Gateways whose routes are served, by its name; `off`: none is looked at.
    #[schemars(extend("default" = default::KUBERNETES_CLASS))]
    pub gateway_class: Option<At<String>>,
    /// `kubernetes`: the entrypoints without TLS, and the port for which listeners of Gateways name each: `http` for port 80,
    /// `internal:8080` for another one. Ingresses come in at those with the first one's port. At least one of `http`, `https`
    /// and `passthrough` is there.
    #[schemars(example = ["http", "internal:8080"])]
    pub http: Option<List>,
    /// `kubernetes`: the entrypoints with `tls`: `https` for port 443, `other:8443` for another one.
    #[schemars(example = ["https"])]
    pub https: Option<List>,
    /// `kubernetes`: the entrypoints at which TLSRoutes are carried untouched; written like `https`. Without it, those of `https`.
    #[schemars(example = ["https"])]
    pub passthrough: Option<List>,
    /// `kubernetes`: Services of type ExternalName are served, by DNS. Whoever may make Services there can then have this host
    /// ask any name that it reaches.
    #[schemars(extend("default" = false))]
    pub external_names: Option<At<bool>>,
    /// `kubernetes`: the Secrets that Ingresses and Gateways name are read, and kept as files that an entrypoint's `certificates`
    /// can name: `STATE/kubernetes/NAME`. `docs/kubernetes.md` tells of it.
    #[schemars(extend("default" = false))]
    pub secrets: Option<At<bool>>,
    /// `http`, `consul`, `consul-catalog`, `kubernetes` with `address`: a PEM file of the authorities to trust. Without it, those of the operating
    /// system.
    #[schemars(example = "/etc/weir/config-ca.pem")]
    pub ca: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// A folder, watched: `path`, `every`.
    Directory,
    /// A URL, fetched again and again: `url`, `every`, `timeout`, `headers`, `header_files`, `ca`.
    Http,
    /// The keys of a Consul, waited on: `address`, `prefix`, `datacenter`, `token_file`, `ca`.
    Consul,
    /// The services of a Consul whose tags say so, waited on: `address`, `datacenters`, `exposed_by_default`, `token_file`, `ca`.
    ConsulCatalog,
    /// The containers of a Docker or podman whose labels say so, watched: `endpoint`, `network`, `exposed_by_default`, `tls`.
    Docker,
    /// The generation that is current in an etcd, as `weir push` makes them: `endpoints`, `prefix`, `tls`, `user`,
    /// `password_file`.
    Etcd,
    /// The Ingresses and Gateways of a Kubernetes cluster, watched: `kubeconfig`, or `address`, `token_file` and `ca`;
    /// `namespaces`, `ingress_class`, `gateway_class`, `http`, `https`, `passthrough`, `external_names`, `secrets`.
    Kubernetes,
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
