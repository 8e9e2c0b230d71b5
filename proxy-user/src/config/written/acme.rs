//! `[acme]`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List};
use crate::config::default;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// That you have read and agree to the authority's terms. It has to be said: `true`.
    #[schemars(required, example = true)]
    pub agree_to_terms: Option<At<bool>>,
    /// Mail addresses to which the authority may write.
    #[schemars(example = ["ops@example.com"])]
    pub contact: Option<List>,
    /// The URL of the authority's directory.
    #[schemars(extend("default" = default::ACME_DIRECTORY))]
    pub directory: Option<At<String>>,
    /// A PEM file of the authorities to trust for the directory itself. Without it, those of the operating system.
    #[schemars(example = "/etc/weir/acme-ca.pem")]
    pub ca: Option<At<String>>,
    /// How a name is proved to be ours.
    #[schemars(extend("default" = "http-01"))]
    pub challenge: Option<At<AcmeChallenge>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AcmeChallenge {
    /// The authority asks port 80 of the name over plain HTTP: some entrypoint must be reached that way. Any of them
    /// answers, before routes and redirects.
    #[serde(rename = "http-01")]
    Http01,
    /// The authority shakes hands with port 443 of the name. It must reach the entrypoint itself: no CDN in between.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}
