//! The admin API: what runs, for people, scripts and load balancers. On loopback or a unix socket by default.

pub mod client;
pub mod status;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::{fs::PermissionsExt, net::UnixListener as StdUnixListener},
    path::PathBuf,
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use crate::{
    config::model::{Admin, AdminAddr},
    control::state::ControlState,
};

/// Why the admin API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminFault {
    #[error(
        "the admin address {addr} can't be listened on: {error}; is another weir running? `[admin] bind` sets it"
    )]
    Tcp { addr: SocketAddr, error: io::Error },
    #[error(
        "the admin socket {path} can't be made: {error}; does its folder exist, and may weir write there?"
    )]
    Unix { path: PathBuf, error: io::Error },
    #[error(
        "the admin socket {path} is in use by another weir: stop that one, or set another `[admin] bind`"
    )]
    UnixTaken { path: PathBuf },
}

/// Sockets that are bound, but not served yet.
#[derive(Debug)]
pub struct Bound(Vec<Listener>);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds the admin addresses.
///
/// # Errors
/// When one of them can't be had.
pub fn bind(admin: &Admin) -> Result<Bound, AdminFault> {
    admin.bind.iter().map(bind_one).collect::<Result<_, _>>().map(Bound)
}

/// Serves the API until the returned set is dropped.
pub fn serve(bound: Bound, state: &Arc<ControlState>) -> JoinSet<io::Result<()>> {
    let mut serving = JoinSet::new();
    for listener in bound.0 {
        let app = router(state.clone());
        match listener {
            Listener::Tcp(listener) => serving.spawn(async move { axum::serve(listener, app).await }),
            Listener::Unix(listener) => serving.spawn(async move { axum::serve(listener, app).await }),
        };
    }
    serving
}

fn router(state: Arc<ControlState>) -> Router {
    Router::new()
        .route("/ping", get(ping))
        .route("/api/v1/ping", get(ping))
        .route("/api/v1/status", get(status))
        .route("/api/status", get(status))
        .with_state(state)
}

/// For load balancers and container checks: 200 while this host takes traffic, 503 while it drains.
async fn ping(State(state): State<Arc<ControlState>>) -> Response {
    if state.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "pong\n".into_response()
    }
}

async fn status(State(state): State<Arc<ControlState>>) -> Response {
    match status::of(&state).await {
        Some(status) => Json(status).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

fn bind_one(addr: &AdminAddr) -> Result<Listener, AdminFault> {
    match addr {
        AdminAddr::Tcp(addr) => {
            let fault = |error| AdminFault::Tcp { addr: *addr, error };
            let listener = StdTcpListener::bind(addr).map_err(fault)?;
            listener.set_nonblocking(true).map_err(fault)?;
            TcpListener::from_std(listener).map(Listener::Tcp).map_err(fault)
        }
        AdminAddr::Unix(path) => {
            // The socket of a daemon that was killed stays behind; one that answers belongs to a living one.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(AdminFault::UnixTaken { path: path.clone() });
            }
            let fault = |error| AdminFault::Unix { path: path.clone(), error };
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
                _ => {}
            }
            let listener = StdUnixListener::bind(path).map_err(fault)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fault)?;
            listener.set_nonblocking(true).map_err(fault)?;
            UnixListener::from_std(listener).map(Listener::Unix).map_err(fault)
        }
    }
}
