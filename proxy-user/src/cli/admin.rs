//! How commands reach the daemon: over its admin addresses.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::StatusCode;
use serde_json::Value;

use crate::{
    admin::client,
    cli::{Failure, block_on},
    config::{DEFAULT_ADMIN_SOCKET, DEFAULT_ADMIN_TCP, model::AdminAddr},
};

/// Where the daemon is asked.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// Admin address of the daemon: HOST:PORT, or unix:/path [default: unix:/run/weir/admin.sock; what only looks
    /// also tries 127.0.0.1:9190]
    #[arg(long, env = "WEIR_ADMIN", value_parser = admin_address)]
    admin: Option<AdminAddr>,
}

/// Why an order was not followed, as far as is known here.
#[derive(Debug)]
pub enum Unfollowed {
    /// The daemon said no.
    Refused(Failure),
    /// No answer came: it may have been followed all the same.
    Unanswered(Failure),
}

impl AdminArgs {
    /// GETs `path`.
    pub fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let ask = async {
            let addr = match &self.admin {
                Some(addr) => addr.clone(),
                // Only its owner may open the socket; anybody may look.
                None if client::answers(&socket()).await => socket(),
                None => admin_address(DEFAULT_ADMIN_TCP).map_err(Failure::Failed)?,
            };
            client::get(&addr, path).await.map_err(|fault| Failure::Failed(fault.to_string()))
        };
        block_on(ask)?
    }

    /// GETs `path` where orders are taken.
    pub fn get_for_orders(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let addr = self.admin.clone().unwrap_or_else(socket);
        block_on(client::get(&addr, path))?.map_err(|fault| Failure::Failed(fault.to_string()))
    }

    /// Where orders are taken, as it is written.
    pub fn for_orders(&self) -> String {
        match self.admin.clone().unwrap_or_else(socket) {
            AdminAddr::Tcp(addr) => addr.to_string(),
            AdminAddr::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Gives an order. A refusal is a failure: of the configuration's (exit code 2) where that is at fault.
    pub fn order(&self, path: &str, arguments: &Value) -> Result<Value, Unfollowed> {
        let addr = self.admin.clone().unwrap_or_else(socket);
        let unanswered = |sentence: String| Unfollowed::Unanswered(Failure::Failed(sentence));
        let (status, body) = block_on(client::post(&addr, path, arguments))
            .map_err(Unfollowed::Unanswered)?
            .map_err(|fault| unanswered(fault.to_string()))?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let why = match answer["detail"].as_str() {
            Some(why) => why.to_owned(),
            None if status == StatusCode::NOT_FOUND => {
                "the daemon doesn't know this command: is it another version?".to_owned()
            }
            None => format!("the daemon answered {status}"),
        };
        Err(Unfollowed::Refused(match status {
            StatusCode::UNPROCESSABLE_ENTITY => Failure::BadConfig(why),
            _ => Failure::Failed(why),
        }))
    }
}

impl From<Unfollowed> for Failure {
    fn from(unfollowed: Unfollowed) -> Self {
        match unfollowed {
            Unfollowed::Refused(failure) | Unfollowed::Unanswered(failure) => failure,
        }
    }
}

fn socket() -> AdminAddr {
    AdminAddr::Unix(PathBuf::from(DEFAULT_ADMIN_SOCKET))
}

pub fn admin_address(text: &str) -> Result<AdminAddr, String> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(AdminAddr::Unix(PathBuf::from(path))),
        None => text
            .parse()
            .map(AdminAddr::Tcp)
            .map_err(|_| "expected an address and port (127.0.0.1:9190), or unix:/path".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_tcp_or_a_unix_socket() {
        assert_eq!(admin_address("127.0.0.1:1"), Ok(AdminAddr::Tcp("127.0.0.1:1".parse().unwrap())));
        assert_eq!(admin_address("unix:/run/x"), Ok(AdminAddr::Unix("/run/x".into())));
        assert!(admin_address("nowhere").is_err());
    }
}
