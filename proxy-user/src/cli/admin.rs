//! How commands reach the daemon: over its admin addresses, and over nothing else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, StatusCode};
use rustls::pki_types::ServerName;
use serde_json::Value;

use crate::{
    admin::{
        client::{self, Address, Door},
        problem::Problem,
    },
    cli::{Failure, block_on},
    config::{
        DEFAULT_ADMIN_SOCKET, DEFAULT_ADMIN_TCP,
        model::{AdminAddr, ServiceTls},
    },
    tls::{
        certificates::{self, ServerAuthorities},
        server::ServerTls,
    },
};

/// Where the daemon is asked.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// Admin address of the daemon: HOST:PORT, https://HOST:PORT, or unix:/path [default: unix:/run/weir/admin.sock; what
    /// only looks also tries 127.0.0.1:9190]
    #[arg(long, env = "WEIR_ADMIN", value_name = "ADDRESS")]
    admin: Option<Address>,
    /// File of the token that the daemon's `[admin] token_file` holds
    #[arg(long, env = "WEIR_ADMIN_TOKEN_FILE", value_name = "FILE", hide_short_help = true)]
    admin_token_file: Option<PathBuf>,
    /// PEM file of the authorities that an https address may have its certificate from [default: the operating system's]
    #[arg(long, env = "WEIR_ADMIN_CA", value_name = "FILE", hide_short_help = true)]
    admin_ca: Option<PathBuf>,
    /// PEM file of a client certificate and its key, to be shown to an https address
    #[arg(long, env = "WEIR_ADMIN_CERTIFICATE", value_name = "FILE", hide_short_help = true)]
    admin_certificate: Option<PathBuf>,
}

/// Why an order was not followed, as far as is known here.
#[derive(Debug)]
pub enum Unfollowed {
    /// The daemon said no.
    Refused(Failure),
    /// No answer came: it may have been followed all the same.
    Unanswered(Failure),
}

/// Whether the other hosts of the fleet know what was ordered, for people; nothing, where there are none.
pub fn fleet_knows(answer: &Value) -> &'static str {
    match answer["fleet"].as_str() {
        Some("told") => "the other hosts of the fleet are told\n",
        Some("later") => "the fleet's store is away: the other hosts are told when it is back\n",
        Some("here") => "only at this host: the other hosts of the fleet are told nothing\n",
        _ => "",
    }
}

impl AdminArgs {
    /// GETs `path`.
    pub fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let address = match &self.admin {
            Some(address) => address.clone(),
            // Only its owner may open the socket; anybody may look.
            None if block_on(client::answers(&AdminAddr::Unix(socket())))? => Address::Unix(socket()),
            None => DEFAULT_ADMIN_TCP.parse().map_err(Failure::Failed)?,
        };
        self.get_from(address, path)
    }

    /// GETs `path` where orders are taken.
    pub fn get_for_orders(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        self.get_from(self.for_orders(), path)
    }

    fn get_from(&self, address: Address, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let door = self.door(address)?;
        let (status, body) =
            block_on(client::get(&door, path))?.map_err(|fault| Failure::Failed(fault.to_string()))?;
        match (status, problem(&body)) {
            // What everything may be answered with. The rest, whoever asks knows best.
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(problem)) => {
                Err(Failure::Failed(problem.detail))
            }
            _ => Ok((status, body)),
        }
    }

    /// Where orders are taken.
    pub fn for_orders(&self) -> Address {
        self.admin.clone().unwrap_or_else(|| Address::Unix(socket()))
    }

    /// Gives an order. A refusal is a failure: of the configuration's (exit code 2) where that is at fault.
    pub fn order(&self, path: &str, arguments: &Value) -> Result<Value, Unfollowed> {
        let door = self.door(self.for_orders()).map_err(Unfollowed::Refused)?;
        let unanswered = |sentence: String| Unfollowed::Unanswered(Failure::Failed(sentence));
        let (status, body) = block_on(client::post(&door, path, arguments))
            .map_err(Unfollowed::Unanswered)?
            .map_err(|fault| unanswered(fault.to_string()))?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body).unwrap_or_default());
        }
        let why = match problem(&body) {
            None | Some(_) if status == StatusCode::NOT_FOUND => {
                "the daemon doesn't know this command: is it another version?".to_owned()
            }
            Some(problem) => problem.detail,
            None => format!("the daemon answered {status}"),
        };
        Err(Unfollowed::Refused(match status {
            StatusCode::UNPROCESSABLE_ENTITY => Failure::BadConfig(why),
            _ => Failure::Failed(why),
        }))
    }

    /// With all that it takes to get in.
    fn door(&self, address: Address) -> Result<Door, Failure> {
        let token = self.admin_token_file.as_deref().map(token).transpose().map_err(Failure::Failed)?;
        let tls = match &address {
            Address::Tcp { tls: true, .. } => Some(self.tls(&address).map_err(Failure::Failed)?),
            Address::Tcp { tls: false, .. } | Address::Unix(_) => None,
        };
        Ok(Door { address, token, tls })
    }

    fn tls(&self, address: &Address) -> Result<ServerTls, String> {
        let host = address.host().unwrap_or_default().to_owned();
        let server_name =
            ServerName::try_from(host).map_err(|error| format!("`--admin {address}`: {error}"))?;
        let authorities = match &self.admin_ca {
            None => ServerAuthorities::System,
            Some(path) => ServerAuthorities::Own(
                certificates::read_authorities(path).map_err(|fault| fault.to_string())?,
            ),
        };
        let certificate = match &self.admin_certificate {
            None => None,
            Some(path) => {
                Some(Arc::new(certificates::read_pair(path, path).map_err(|fault| fault.to_string())?))
            }
        };
        ServerTls::new(&ServiceTls { server_name, authorities, certificate })
            .map_err(|error| error.to_string())
    }
}

impl From<Unfollowed> for Failure {
    fn from(unfollowed: Unfollowed) -> Self {
        match unfollowed {
            Unfollowed::Refused(failure) | Unfollowed::Unanswered(failure) => failure,
        }
    }
}

fn token(path: &Path) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the token in {} can't be read: {error}", path.display()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .map_err(|_| format!("{} holds no token: it is one line of printable characters", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn problem(body: &[u8]) -> Option<Problem> {
    serde_json::from_slice(body).ok()
}

fn socket() -> PathBuf {
    PathBuf::from(DEFAULT_ADMIN_SOCKET)
}
