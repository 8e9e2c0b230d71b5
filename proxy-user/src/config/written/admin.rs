//! `[admin]`, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List, default};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Addresses to listen on: `127.0.0.1:9190`, or `unix:` and the path of a socket. On loopback anybody may read, and
    /// nobody may change anything without the token; on a socket, root and the daemon's own user may give orders (`weir
    /// apply`). Addresses that other hosts can reach need `token_file`, or `tls` with `client_ca`. The default's socket may be
    /// missing, with a warning, where it can't be made; one that is written may not. Who is connected at an address that a
    /// reload gives up has five seconds to get an answer.
    #[schemars(extend("default" = default::ADMIN_BIND), example = ["127.0.0.1:9190", "unix:/run/weir/admin.sock"])]
    pub bind: Option<List>,
    /// A file with a secret of at least 32 printable characters, without spaces. Whoever sends it (`Authorization: Bearer …`)
    /// may read and change everything, at every TCP address. It is read anew with every reload.
    #[schemars(example = "/etc/weir/admin.token")]
    pub token_file: Option<At<String>>,
    /// TLS at every TCP address that is not on loopback.
    pub tls: Option<At<AdminTls>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// PEM files with chain and key, and folders of them, as in an entrypoint's `tls`. Required.
    #[schemars(example = "/etc/weir/admin.pem")]
    pub certificates: Option<List>,
    /// A PEM file of authorities. Whoever shows a certificate from one of them may read and change everything. Without
    /// `token_file`, nobody else comes in.
    #[schemars(example = "/etc/weir/operators-ca.pem")]
    pub client_ca: Option<At<String>>,
}
