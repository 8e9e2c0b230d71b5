//! `[provider.NAME]` with `kind = "kubernetes"`

use std::{path::PathBuf, sync::Arc};

use http::Uri;

use super::Secret;
use crate::tls::certificates::{Certificate, ServerAuthorities};

/// A cluster whose Ingresses and Gateways are served.
#[derive(Debug, Clone, PartialEq)]
pub struct Kubernetes {
    pub access: Access,
    /// Empty: all.
    pub namespaces: Vec<Arc<str>>,
    /// Default `weir`. `None`: Ingresses are not looked at.
    pub ingress_class: Option<Arc<str>>,
    /// Default `weir`. `None`: nothing of Gateway API is looked at.
    pub gateway_class: Option<Arc<str>>,
    pub http: Vec<PortOf>,
    pub https: Vec<PortOf>,
    /// Default: those of `https`.
    pub passthrough: Vec<PortOf>,
    pub external_names: bool,
    /// Where certificates out of Secrets are put. `None`: Secrets are not read.
    pub certificates: Option<PathBuf>,
}

/// An entrypoint, and the port by which listeners of Gateways mean it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOf {
    pub entrypoint: Arc<str>,
    pub port: u16,
}

/// How the API server is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// By the service account of the pod that this is.
    InCluster,
    At(Box<ApiServer>),
}

#[derive(Debug, Clone)]
pub struct ApiServer {
    /// Without a path.
    pub address: Uri,
    pub authorities: ServerAuthorities,
    pub token: Option<ApiToken>,
    /// What is shown to a server that knows its clients by certificates.
    pub certificate: Option<Arc<Certificate>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiToken {
    /// Read for each request: whoever issues them renews them.
    File(PathBuf),
    Said(Secret),
}

impl PartialEq for ApiServer {
    /// Authorities and certificates are compared by what they are.
    fn eq(&self, other: &Self) -> bool {
        let Self { address, authorities, token, certificate } = self;
        let chain = |certificate: &Option<Arc<Certificate>>| {
            certificate.as_ref().map(|certificate| certificate.key.cert.clone())
        };
        *address == other.address
            && authorities.same_as(&other.authorities)
            && *token == other.token
            && chain(certificate) == chain(&other.certificate)
    }
}
