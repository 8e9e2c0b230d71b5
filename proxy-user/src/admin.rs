//! The admin API: what runs, for people, scripts and load balancers. On loopback and a unix socket by default.
//!
//! Every address can be read from; what changes something is in [`verbs`], and taken over sockets only.

pub mod api;
pub mod client;
pub mod events;
pub mod problem;
pub mod read;
pub mod ready;
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

use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use crate::{
    admin::verbs::Peer,
    config::model::{Admin, AdminAddr},
    control::{order::Desk, state::ControlState},
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
        let app = api::router(state.clone(), desk.clone()).into_make_service_with_connect_info::<Peer>();
        match listener {
            Listener::Tcp(listener) => serving.spawn(async move { axum::serve(listener, app).await }),
            Listener::Unix(listener) => serving.spawn(async move { axum::serve(listener, app).await }),
        };
    }
    serving
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
