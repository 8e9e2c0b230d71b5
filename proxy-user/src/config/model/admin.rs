//! The valid `[admin]`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use super::{ClientAuth, Secret};
use crate::tls::certificates::Certificates;

#[derive(Debug, Clone)]
pub struct Admin {
    /// Default `127.0.0.1:9190` and `unix:/run/weir/admin.sock`.
    pub bind: Vec<AdminAddr>,
    /// Nobody wrote `bind`: the socket may then be missing, with a warning.
    pub by_default: bool,
    /// Whoever knows it may do everything. Printable ASCII without spaces.
    pub token: Option<Secret>,
    /// Never missing where an address can be reached by others and there is no token.
    pub tls: Option<AdminTls>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddr {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone)]
pub struct AdminTls {
    pub certificates: Arc<Certificates>,
    /// Whose clients may do everything. Need not be shown where there is a token.
    pub clients: Option<ClientAuth>,
}
