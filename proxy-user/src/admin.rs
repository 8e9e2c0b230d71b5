//! The admin API: what runs, for people, scripts and load balancers. On loopback and a unix socket by default.
//!
//! [`api`] has the whole table of what can be asked ([`read`], [`events`]) and ordered ([`verbs`]); [`access`] says by whom.

pub mod access;
pub mod api;
pub mod client;
pub mod dashboard;
pub mod events;
mod pace;
pub mod problem;
pub mod read;
pub mod ready;
mod serve;
pub mod status;
mod unread;
pub mod verbs;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::UnixListener as StdUnixListener,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};

use crate::{
    config::model::{Admin, AdminAddr},
    control::{order::Desk, state::ControlState},
    handoff::sockets::{At, Sockets},
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
#[derive(Debug, Default)]
pub struct Bound(Vec<(AdminAddr, Listener)>);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where the API is served, until this is dropped. Follows the configuration.
#[derive(Debug)]
pub struct Doors {
    app: Router,
    state: Arc<ControlState>,
    open: Vec<(AdminAddr, Door)>,
    tasks: JoinSet<()>,
}

/// An address at which the API is served; dropped, no new connection comes in there.
#[derive(Debug)]
struct Door {
    /// For who comes after this daemon.
    socket: Option<(At, OwnedFd)>,
    leaves: watch::Sender<bool>,
}

/// Binds the admin addresses, or goes on with those that were `inherited`. The default's socket may be missing: then nobody
/// can give this daemon orders.
///
/// # Errors
/// When one of them can't be had.
pub fn bind(admin: &Admin, inherited: &mut Sockets) -> Result<Bound, AdminFault> {
    let mut bound = Vec::new();
    for addr in &admin.bind {
        match (bind_one(addr, admin.by_default, inherited), addr) {
            (Ok(listener), _) => bound.push((addr.clone(), listener)),
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

// === impl Bound ===

impl Bound {
    /// Nobody is going to serve there after all.
    pub fn give_up(self) {
        for (addr, _) in self.0 {
            if let AdminAddr::Unix(path) = addr {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Listener {
    fn share(&self) -> Option<(At, OwnedFd)> {
        let own = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        Some((At::of(own)?, own.try_clone_to_owned().ok()?))
    }
}

/// Serves the API until what is returned is dropped. Orders go to `desk`.
pub fn serve(bound: Bound, state: &Arc<ControlState>, desk: &Desk) -> Doors {
    let app = api::router(state.clone(), desk.clone());
    let mut doors = Doors { app, state: state.clone(), open: Vec::new(), tasks: JoinSet::new() };
    doors.open(bound);
    doors
}

/// `make_folder`: the folder of a socket is made if it is missing.
fn bind_one(addr: &AdminAddr, make_folder: bool, inherited: &mut Sockets) -> Result<Listener, AdminFault> {
    match addr {
        AdminAddr::Tcp(addr) => {
            let fault = |error| AdminFault::Tcp { addr: *addr, error };
            let handed = inherited.take_tcp(*addr);
            let listener = handed.map_or_else(|| StdTcpListener::bind(addr), Ok).map_err(fault)?;
            listener.set_nonblocking(true).map_err(fault)?;
            TcpListener::from_std(listener).map(Listener::Tcp).map_err(fault)
        }
        AdminAddr::Unix(path) => {
            let fault = |error| AdminFault::Unix { path: path.clone(), error };
            if let Some(handed) = inherited.take_unix(path) {
                return UnixListener::from_std(handed).map(Listener::Unix).map_err(fault);
            }
            // The socket of a daemon that was killed stays behind; one that answers belongs to a living one.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(AdminFault::UnixTaken { path: path.clone() });
            }
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

// === impl Doors ===

impl Doors {
    /// Binds what another configuration wants and the running one doesn't.
    ///
    /// # Errors
    /// When one of them can't be had; nothing has changed then.
    pub fn missing(&self, running: &Admin, next: &Admin) -> Result<Bound, AdminFault> {
        let bind = next.bind.iter().filter(|addr| !running.bind.contains(addr)).cloned().collect();
        self::bind(&Admin { bind, ..next.clone() }, &mut Sockets::default())
    }

    /// Serves at what was missing, and no more at what isn't wanted. Whoever is connected there gets the answer that is under way.
    pub fn follow(&mut self, missing: Bound, next: &Admin) {
        self.open.retain(|(addr, _)| {
            let stays = next.bind.contains(addr);
            if !stays && let AdminAddr::Unix(path) = addr {
                // Whoever tries it shall not wait for an answer.
                let _ = std::fs::remove_file(path);
            }
            stays
        });
        self.open(missing);
        while self.tasks.try_join_next().is_some() {}
    }

    fn open(&mut self, bound: Bound) {
        for (addr, listener) in bound.0 {
            let (leaves, left) = watch::channel(false);
            let socket = listener.share();
            self.tasks.spawn(serve::at(listener, self.app.clone(), self.state.clone(), left));
            self.open.push((addr, Door { socket, leaves }));
        }
    }

    /// The sockets that it is served at, for who comes after this daemon.
    pub fn sockets(&self) -> impl Iterator<Item = (At, &OwnedFd)> {
        self.open.iter().filter_map(|(_, door)| door.socket.as_ref()).map(|(at, socket)| (at.clone(), socket))
    }

    /// Somebody else goes on with the sockets. Who is being answered still is.
    pub fn leave(&mut self) {
        for (_, door) in &mut self.open {
            door.socket = None;
            door.leaves.send_replace(true);
        }
    }

    /// Resolves when nobody is being answered any more, after [`Self::leave`].
    pub async fn over(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
