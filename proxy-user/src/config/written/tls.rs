//! The `tls` of entrypoints and services, and what goes with it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List, Name};
use crate::config::default;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntrypointTls {
    /// PEM files with chain and key, and folders of them: `NAME.crt` or `NAME.pem` with `NAME.key` beside each, or
    /// `fullchain.pem` with `privkey.pem`, also one folder deeper. They are watched. A client gets the certificate for
    /// the name that it asks for, an ECDSA one if it can; `default.crt`, else the first by file name, if there is none.
    /// Required, unless there is `acme`. `store`: the certificates in the store of `[fleet]`, as `weir fleet certificate add` puts them
    /// there; those of files go before them (a folder of that name is `./store`).
    #[schemars(example = "/etc/weir/certs", example = ["/etc/weir/certs", "store"])]
    pub certificates: Option<List>,
    /// The names for which certificates are ordered and renewed by `[acme]`, one for each. Until one is there, its name
    /// counts as unknown. A certificate of just that name among `certificates` goes before it, a wildcard's doesn't.
    #[schemars(example = ["app.example.com"])]
    pub acme: Option<List>,
    /// What a client gets that asks for a name which no certificate is for.
    #[schemars(extend("default" = "default"))]
    pub unknown_host: Option<At<UnknownHost>>,
    /// How long before its end a certificate is reported, and again 7 days and 1 day before: a duration, 0s to 1y. Never
    /// before three quarters of its life are over.
    #[schemars(extend("default" = default::EXPIRY_WARNING))]
    pub expiry_warning: Option<At<String>>,
    /// The oldest version of TLS that is spoken.
    #[schemars(extend("default" = "1.2"))]
    pub min_version: Option<At<TlsVersion>>,
    /// Which cipher suites are offered, by the names of Mozilla's guide.
    #[schemars(extend("default" = "intermediate"))]
    pub ciphers: Option<At<CipherSuites>>,
    /// What may be spoken inside, by preference: `h2`, `http/1.1`.
    #[schemars(extend("default" = default::ALPN))]
    pub alpn: Option<List>,
    /// A PEM file of authorities. A client must then show a certificate from one of them (Cloudflare calls it
    /// Authenticated Origin Pulls).
    #[schemars(example = "/etc/weir/origin-pull-ca.pem")]
    pub client_ca: Option<At<String>>,
    /// What becomes of a client without a certificate. Only with `client_ca`.
    #[schemars(extend("default" = "require"))]
    pub client_auth: Option<At<ClientAuth>>,
    /// Tell the servers of the client's certificate in `X-Client-Cert-Verified` (`SUCCESS` or `NONE`),
    /// `X-Client-Cert-Subject` and `X-Client-Cert-Fingerprint` (SHA-256). What clients send under these names is always
    /// taken out. Only with a `client_ca`, here or for a host.
    #[schemars(extend("default" = false))]
    pub client_headers: Option<At<bool>>,
    /// What differs for a host, by its name or `*.example.com`. A request for such a host is answered only on
    /// a connection that was made for it (else with 421).
    #[serde(default)]
    pub host: BTreeMap<Name, At<HostTls>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTls {
    /// As `client_ca` of the entrypoint, for clients of this host; in its place.
    #[schemars(required, example = "/etc/weir/origin-pull-ca.pem")]
    pub client_ca: Option<At<String>>,
    /// What becomes of a client without a certificate; `none`: nobody is asked for one, whatever the entrypoint says.
    #[schemars(extend("default" = "require"))]
    pub client_auth: Option<At<ClientAuth>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// It is refused.
    Require,
    /// It is served too; one with a certificate of somebody else is refused.
    Request,
    /// No client is asked for a certificate. For hosts.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownHost {
    /// The first certificate; what is served there is up to the routes.
    Default,
    /// A refused handshake. Clients that name no host get the first certificate all the same.
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2, which every client of the last ten years speaks.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 alone.
    #[serde(rename = "1.3")]
    V1_3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CipherSuites {
    /// Forward secrecy and authenticated encryption alone: all of TLS 1.3, and of TLS 1.2 ECDHE with AES-GCM or ChaCha20.
    Intermediate,
    /// Those of TLS 1.3 alone, so that `min_version` is 1.3.
    Modern,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hsts {
    /// For how long a browser keeps to it: a duration in whole seconds, 0s (forget it at once) to 10y.
    #[schemars(extend("default" = default::HSTS_MAX_AGE))]
    pub max_age: Option<At<String>>,
    /// For all names below the host too.
    #[schemars(extend("default" = false))]
    pub include_subdomains: Option<At<bool>>,
    /// Agree to be built into browsers, which is hard to undo. Only with `include_subdomains` and at least 1y.
    #[schemars(extend("default" = false))]
    pub preload: Option<At<bool>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceTls {
    /// The name that is sent as SNI and that the server's certificate must carry.
    #[schemars(required, example = "app.example.com")]
    pub server_name: Option<At<String>>,
    /// A PEM file of the authorities to trust. Without it, those of the operating system.
    #[schemars(example = "/etc/weir/upstream-ca.pem")]
    pub ca: Option<At<String>>,
    /// A PEM file with the certificate that Weir shows to servers that ask for one.
    #[schemars(example = "/etc/weir/client.crt")]
    pub client_certificate: Option<At<String>>,
    /// The PEM file with its key. Without it, the key stands in `client_certificate` too, or beside it as `NAME.key`.
    #[schemars(example = "/etc/weir/client.key")]
    pub client_key: Option<At<String>>,
    /// Accept any certificate. A warning stands in the log and in `weir status` as long as this does.
    #[schemars(extend("default" = false))]
    pub insecure: Option<At<bool>>,
}
