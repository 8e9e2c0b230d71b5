//! The part of the admin API that changes something: POST requests, taken over unix sockets only, from root and from the
//! user that the daemon runs as. Any local user can reach a TCP port on loopback; a socket tells who has connected.
//!
//! A request becomes a [`Verb`] and goes to the control loop; what that answers goes back as JSON, an object of the
//! verb's own or `{"error": "…"}`. 400 and 422 blame what was sent, 403 the sender, 409 the state of things.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State, connect_info::Connected},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
    serve::IncomingStream,
};
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};

use crate::control::order::{
    Apply, Block, Confirm, Desk, Diff, Drain, EndMaintenance, Maintain, RefreshAllowlists, Refusal, Reload,
    Revert, Split, Unblock, Undrain, Verb,
};

/// What a request may carry at most: a long list of prefixes, never a flood.
const LARGEST_BODY: usize = 4 << 20;

/// Who is at the other end of an admin connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Anybody who reaches the address.
    Tcp,
    /// A process of this user; `None`: the kernel doesn't tell.
    Unix { uid: Option<u32> },
}

/// The verbs' routes.
pub fn router(desk: Desk) -> Router {
    Router::new()
        .route("/api/v1/reload", post(order::<Reload>))
        .route("/api/v1/apply", post(order::<Apply>))
        .route("/api/v1/confirm", post(order::<Confirm>))
        .route("/api/v1/revert", post(order::<Revert>))
        .route("/api/v1/diff", post(order::<Diff>))
        .route("/api/v1/allowlists/refresh", post(order::<RefreshAllowlists>))
        .route("/api/v1/blocks/add", post(order::<Block>))
        .route("/api/v1/blocks/remove", post(order::<Unblock>))
        .route("/api/v1/splits/set", post(order::<Split>))
        .route("/api/v1/maintenance/begin", post(order::<Maintain>))
        .route("/api/v1/maintenance/end", post(order::<EndMaintenance>))
        .route("/api/v1/drain", post(order::<Drain>))
        .route("/api/v1/undrain", post(order::<Undrain>))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(only_the_owner))
        .with_state(desk)
}

/// Takes an order: the body is its arguments as a JSON object, or empty for none.
async fn order<Arguments>(State(desk): State<Desk>, body: Bytes) -> Response
where
    Arguments: DeserializeOwned + Into<Verb>,
{
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    match serde_json::from_slice::<Arguments>(text) {
        Ok(arguments) => match desk.order(arguments.into()).await {
            Ok(answer) => Json(answer).into_response(),
            Err(refusal) => refused(status(&refusal), &refusal.to_string()),
        },
        Err(error) => refused(StatusCode::BAD_REQUEST, &format!("the request is not understood: {error}")),
    }
}

/// Lets through who may change what the edge does. Reading is not asked about.
async fn only_the_owner(peer: ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    match peer.0.may_change(geteuid().as_raw()) {
        Ok(()) => next.run(request).await,
        Err(why) => refused(StatusCode::FORBIDDEN, why),
    }
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Faulty(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Refused(_) => StatusCode::CONFLICT,
        Refusal::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

// === impl Peer ===

impl Peer {
    fn may_change(self, own: u32) -> Result<(), &'static str> {
        match self {
            Self::Tcp => Err(
                "this address can only be read from; commands that change something are taken on the admin socket \
                 (`--admin unix:/run/weir/admin.sock`)",
            ),
            Self::Unix { uid: Some(uid) } if uid == 0 || uid == own => Ok(()),
            Self::Unix { .. } => {
                Err("only root and the user that weir runs as may change what it does: try with sudo")
            }
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self::Tcp
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self::Unix { uid: stream.io().peer_cred().ok().map(|peer| peer.uid()) }
    }
}

// === Arguments ===

macro_rules! verbs {
    ($($verb:ident),+) => {
        $(impl From<$verb> for Verb {
            fn from(arguments: $verb) -> Self {
                Self::$verb(arguments)
            }
        })+
    };
}

verbs!(
    Reload,
    Apply,
    Confirm,
    Revert,
    Diff,
    RefreshAllowlists,
    Block,
    Unblock,
    Split,
    Maintain,
    EndMaintenance,
    Drain,
    Undrain
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_daemons_user_may_change_things_over_a_socket_and_nobody_over_tcp() {
        for (peer, may) in [
            (Peer::Unix { uid: Some(0) }, true),
            (Peer::Unix { uid: Some(990) }, true),
            (Peer::Unix { uid: Some(1000) }, false),
            (Peer::Unix { uid: None }, false),
            (Peer::Tcp, false),
        ] {
            assert_eq!(peer.may_change(990).is_ok(), may, "{peer:?}");
        }
    }
}
