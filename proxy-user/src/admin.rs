//! The admin API: what runs, for people, scripts and load balancers. On loopback and a unix socket by default.
//!
//! Every address can be read from; what changes something is in [`verbs`], and taken over sockets only.

pub mod client;
pub mod status;
pub mod verbs;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use crate::{
    admin::verbs::Peer,
    config::model::{Admin, AdminAddr},
    control::{order::Desk, splits, state::ControlState},
    explain::{self, Question},
    metrics,
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

/// Binds the admin addresses. The default's socket may be missing: then nobody can give this daemon orders.
///
/// # Errors
/// When one of them can't be had.
pub fn bind(admin: &Admin) -> Result<Bound, AdminFault> {
    let mut bound = Vec::new();
    for addr in &admin.bind {
        match (bind_one(addr, admin.by_default), addr) {
            (Ok(listener), _) => bound.push(listener),
            (Err(fault), AdminAddr::Unix(_)) if admin.by_default => {
                tracing::warn!(
                    "{fault}. This daemon can be looked at, but not be given orders (`weir apply`)"
                );
            }
            (Err(fault), _) => return Err(fault),
        }
    }
    Ok(Bound(bound))
}

/// Serves the API until the returned set is dropped. Orders go to `desk`.
pub fn serve(bound: Bound, state: &Arc<ControlState>, desk: &Desk) -> JoinSet<io::Result<()>> {
    let mut serving = JoinSet::new();
    for listener in bound.0 {
        let app = router(state.clone())
            .merge(verbs::router(desk.clone()))
            .into_make_service_with_connect_info::<Peer>();
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
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/status", get(status))
        .route("/api/v1/allowlists", get(allowlists))
        .route("/api/v1/explain", get(explained))
        .route("/api/v1/blocks", get(blocks))
        .route("/api/v1/splits", get(shares))
        .route("/api/v1/maintenance", get(maintenance))
        .route("/api/v1/drains", get(drains))
        .route("/api/v1/flows", get(flows))
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

async fn metrics(State(state): State<Arc<ControlState>>) -> Response {
    match metrics::scrape(&state).await {
        Some(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

/// `?prefixes=true` for who is on them too.
#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    prefixes: bool,
}

/// `?service=NAME&most=100`
#[derive(Debug, Default, Deserialize)]
struct WantedFlows {
    service: Option<String>,
    most: Option<usize>,
}

async fn flows(State(state): State<Arc<ControlState>>, Query(wanted): Query<WantedFlows>) -> Response {
    match status::forwarding::flows(&state, wanted.service, wanted.most).await {
        Ok(flows) => Json(flows).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn allowlists(State(state): State<Arc<ControlState>>, Query(wanted): Query<Wanted>) -> Response {
    match status::allowlists::document(&state, wanted.prefixes) {
        Some(document) => Json(document).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

/// `?question=…`: a [`Question`] as JSON.
#[derive(Debug, Deserialize)]
struct Asked {
    question: String,
}

async fn explained(State(state): State<Arc<ControlState>>, Query(asked): Query<Asked>) -> Response {
    let Some(running) = state.running() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response();
    };
    let snapshot = running.load_full();
    let explained = serde_json::from_str::<Question>(&asked.question)
        .map_err(|error| format!("the question is not understood: {error}"))
        .and_then(|question| {
            let mut explanation = explain::explain(&snapshot.config, Some(snapshot.generation), &question)?;
            explain::pages::of_snapshot(&mut explanation, &snapshot, &question);
            Ok(explanation.with_weights(|split, variant| splits::weight(&snapshot, split, variant)))
        });
    match explained {
        Ok(explanation) => Json(explanation).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

async fn blocks(State(state): State<Arc<ControlState>>) -> Response {
    match status::blocks::document(&state).await {
        Some(document) => Json(document).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

async fn shares(State(state): State<Arc<ControlState>>) -> Response {
    match status::splits::document(&state) {
        Some(document) => Json(document).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

async fn maintenance(
    State(state): State<Arc<ControlState>>,
) -> Json<status::maintenance::MaintenanceDocument> {
    Json(status::maintenance::document(&state.maintenance))
}

async fn drains(State(state): State<Arc<ControlState>>) -> Response {
    match status::drains::document(&state) {
        Some(document) => Json(document).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

/// `make_folder`: the folder of a socket is made if it is missing.
fn bind_one(addr: &AdminAddr, make_folder: bool) -> Result<Listener, AdminFault> {
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
            if make_folder {
                folder_of(path).map_err(fault)?;
            }
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

/// Nobody else's business: who may connect is decided by the folder first.
fn folder_of(socket: &Path) -> io::Result<()> {
    let Some(folder) = socket.parent() else { return Ok(()) };
    match std::fs::DirBuilder::new().mode(0o750).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
