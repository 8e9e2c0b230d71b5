//! Connections that stop being HTTP: WebSocket and whatever else is asked for with `Upgrade` (RFC 9110 §7.8).
//!
//! `Upgrade` belongs to one hop, so a proxy asks the server anew for what the client asked it. When both have switched
//! (101), bytes are carried both ways until either side ends; a reload or another configuration does not touch them.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Version, header, request, response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;

use crate::{
    access_log::Exchange,
    upstream::{Lease, http1::Connection},
    worker::Worker,
};

/// Per direction; as much as a WebSocket message usually has.
const BUFFER: usize = 16 * 1024;

/// A client's wish to switch to another protocol.
#[derive(Debug)]
pub struct Wish {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// Both sides have agreed to switch: what is left of the way is carrying bytes.
#[derive(Debug)]
pub struct Tunnel {
    client: OnUpgrade,
    server: Box<Connection>,
}

impl Wish {
    /// What the client asks for, if it asks: to be called before the fields of this hop are stripped.
    pub fn of(head: &mut request::Parts) -> Option<Self> {
        if head.version != Version::HTTP_11 || !names_upgrade(&head.headers) {
            return None;
        }
        let protocol = head.headers.get(header::UPGRADE)?.clone();
        let client = head.extensions.remove::<OnUpgrade>()?;
        Some(Self { protocol, client })
    }

    /// Asks the server for the same.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// The tunnel, after the server has agreed with `head`; its fields are made those for the client.
    pub fn granted(self, head: &mut response::Parts, protocol: Option<HeaderValue>, server: Lease) -> Tunnel {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol.unwrap_or(self.protocol));
        Tunnel { client: self.client, server: server.into_connection() }
    }
}

impl Tunnel {
    /// Carries bytes until either side ends, then writes the access log's line.
    pub fn carry(self, worker: &Rc<Worker>, mut exchange: Box<Exchange>) {
        let counted = worker.count_connection();
        tokio::task::spawn_local(async move {
            // The client's side is there once it has got the answer's head; it may be gone before.
            if let Ok(client) = self.client.await {
                let (mut client, mut server) = (TokioIo::new(client), self.server);
                let carried = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
                if let Ok((to_server, to_client)) = carried {
                    exchange.bytes_in.set(to_server);
                    exchange.bytes_out = to_client;
                }
            }
            exchange.finish();
            drop(counted);
        });
    }
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_is_one_of_a_list_and_in_any_case() {
        for (value, wished) in [
            ("upgrade", true),
            ("keep-alive, Upgrade", true),
            ("keep-alive", false),
            ("upgrade-insecure", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONNECTION, HeaderValue::from_static(value))]);
            assert_eq!(names_upgrade(&headers), wished, "{value}");
        }
    }
}
