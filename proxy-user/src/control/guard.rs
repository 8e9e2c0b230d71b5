//! The lock-out guard: refuses a configuration whose gate would cut the operator off.
//!
//! The decision is a pure function of the configuration and of the host's sockets ([`faults`]); what `Guard` adds is
//! reading `/proc` ([`host`]). Only faults that the running configuration doesn't have count: who has forced a
//! configuration once is not asked again at each reload. Without a gate nothing is dropped that isn't Weir's, and nothing
//! is refused; likewise where an entrypoint is shadowed.

pub mod host;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::{
    admission::PrefixSet,
    config::model::{AdminAddr, Config, Entrypoint, KernelMode},
};

/// The two ends of a TCP connection, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// What the decision is made of, beside the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sockets {
    /// The SSH session of whoever asks.
    pub operator: Option<Session>,
    /// Other SSH sessions into this host.
    pub logged_in: Vec<Session>,
    pub established: Vec<Session>,
    /// Where other processes listen.
    pub foreign: Vec<SocketAddr>,
    /// The TCP addresses of this daemon's admin interface.
    pub admin: Vec<SocketAddr>,
}

/// One way in which an entrypoint would cut somebody off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An SSH session ends there: the operator's own, or another one.
    Session { entrypoint: String, lists: String, session: Session, own: bool },
    /// Somebody else's service is there, with connections that would end.
    Service { entrypoint: String, lists: String, at: SocketAddr, cut_off: Vec<IpAddr> },
    /// The admin interface is there, and is used from elsewhere or by nobody yet.
    Admin { entrypoint: String, lists: String, at: SocketAddr, cut_off: Vec<IpAddr> },
}

/// What a daemon knows for its checks.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Nothing is refused: `weir run --force`.
    pub off: bool,
}

/// Everything that `config` would cut off.
pub fn faults(config: &Config, sockets: &Sockets) -> Vec<Fault> {
    guarded(config).flat_map(|one| at(config, one, sockets)).collect()
}

/// The entrypoints at which packets are dropped.
fn guarded(config: &Config) -> impl Iterator<Item = &Entrypoint> {
    let gate = config.kernel.mode != KernelMode::Off && !config.kernel.interfaces.is_empty();
    config.entrypoints.iter().filter(move |one| gate && !one.allow.is_empty() && !one.shadow)
}

/// Whether nobody needs to look who is connected: `next` drops nothing, or what `running` drops. To look is to have the kernel
/// walk through all of its connections, which takes long enough to hold a configuration up.
fn changes_nothing(next: &Config, running: Option<&Config>) -> bool {
    let all = |config| {
        let all = guarded(config).map(|one| {
            let lists = one.allow.iter().map(|list| &config.allowlists[list.0]);
            let lists: Vec<_> = lists.map(|list| (&list.name, &list.prefixes)).collect();
            (&one.name, &one.bind, lists)
        });
        all.collect::<Vec<_>>()
    };
    guarded(next).next().is_none()
        || running.is_some_and(|running| {
            admin_addresses(next) == admin_addresses(running) && all(next) == all(running)
        })
}

/// Whether `next` turns anybody away who is connected to this host.
fn disconnects(next: &Config, sockets: &Sockets) -> bool {
    let as_sessions = Sockets { logged_in: sockets.established.clone(), ..Sockets::default() };
    !faults(next, &as_sessions).is_empty()
}

fn at(config: &Config, one: &Entrypoint, sockets: &Sockets) -> Vec<Fault> {
    let lists = one.allow.iter().map(|list| &config.allowlists[list.0]);
    let listed = PrefixSet::new(lists.clone().flat_map(|list| &list.prefixes));
    let lists: Vec<_> = lists.map(|list| format!("`{}`", list.name)).collect();
    let (entrypoint, lists) = (one.name.to_string(), lists.join(", "));
    let guarded = |addr: SocketAddr| one.bind.iter().any(|bind| covers(*bind, addr));
    let cut_off_at = |at: SocketAddr| {
        let mut cut_off: Vec<_> = sockets
            .established
            .iter()
            .filter(|session| covers(at, session.local) && !listed.contains(session.remote.ip()))
            .map(|session| session.remote.ip().to_canonical())
            .collect();
        cut_off.sort_unstable();
        cut_off.dedup();
        cut_off
    };

    let mut faults = Vec::new();
    let operator = sockets.operator.map(|session| (session, true));
    let logged_in = sockets.logged_in.iter().filter(|session| sockets.operator != Some(**session));
    for (session, own) in operator.into_iter().chain(logged_in.map(|session| (*session, false))) {
        if guarded(session.local) && !listed.contains(session.remote.ip()) {
            let (entrypoint, lists) = (entrypoint.clone(), lists.clone());
            faults.push(Fault::Session { entrypoint, lists, session, own });
        }
    }
    let overlaps = |addr: SocketAddr| one.bind.iter().any(|bind| covers(*bind, addr) || covers(addr, *bind));
    for at in sockets.foreign.iter().copied().filter(|at| overlaps(*at)) {
        let (entrypoint, lists) = (entrypoint.clone(), lists.clone());
        faults.push(Fault::Service { entrypoint, lists, at, cut_off: cut_off_at(at) });
    }
    for at in sockets.admin.iter().copied().filter(|at| overlaps(*at)) {
        let cut_off = cut_off_at(at);
        let used = sockets.established.iter().any(|session| covers(at, session.local));
        if !used || !cut_off.is_empty() {
            faults.push(Fault::Admin { entrypoint: entrypoint.clone(), lists: lists.clone(), at, cut_off });
        }
    }
    faults
}

/// Whether a listener at `listener` gets what is sent to `addr`. An `[::]` that takes IPv4 too is left out: where one is,
/// an entrypoint can't listen on IPv4 at all.
fn covers(listener: SocketAddr, addr: SocketAddr) -> bool {
    let (own, other) = (listener.ip().to_canonical(), addr.ip().to_canonical());
    let everywhere = own.is_unspecified() && (own.is_ipv4() == other.is_ipv4());
    listener.port() == addr.port() && (everywhere || own == other)
}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { entrypoint, lists, session, own } => {
                let (local, who) = (session.local, session.remote.ip().to_canonical());
                let whose = if *own { "your own" } else { "an" };
                write!(
                    f,
                    "entrypoint `{entrypoint}` would guard {local}, where {whose} SSH session from {who} comes in, and \
                     its lists ({lists}) don't hold that address: add \"{who}\" to one of them"
                )
            }
            Self::Service { entrypoint, at, lists, cut_off } => {
                write!(
                    f,
                    "entrypoint `{entrypoint}` would guard {at}, where another program listens (`ss -ltnp` shows it)"
                )?;
                who(f, lists, cut_off)
            }
            Self::Admin { entrypoint, at, lists, cut_off } => {
                write!(f, "entrypoint `{entrypoint}` would guard {at}, the admin address of this daemon")?;
                who(f, lists, cut_off)
            }
        }
    }
}

fn who(f: &mut fmt::Formatter<'_>, lists: &str, cut_off: &[IpAddr]) -> fmt::Result {
    if let [first, rest @ ..] = cut_off {
        write!(f, ", and cut off {first}")?;
        if !rest.is_empty() {
            write!(f, " and {} more", rest.len())?;
        }
        write!(f, ", which is connected there: add \"{first}\" to one of its lists ({lists}), or")?;
    } else {
        f.write_str(":")?;
    }
    f.write_str(" give the entrypoint another address or port")
}

// === impl Session ===

impl Session {
    /// From what sshd puts into `SSH_CONNECTION`: client address and port, server address and port.
    pub fn from_ssh(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut end = || {
            let (address, port) = (words.next()?, words.next()?);
            let address = address.split('%').next()?.parse::<IpAddr>().ok()?.to_canonical();
            Some(SocketAddr::new(address, port.parse().ok()?))
        };
        let (remote, local) = (end()?, end()?);
        Some(Self { local, remote })
    }

    /// As sshd writes it.
    pub fn to_ssh(self) -> String {
        let Self { local, remote } = self;
        format!("{} {} {} {}", remote.ip(), remote.port(), local.ip(), local.port())
    }
}

// === impl Guard ===

impl Guard {
    /// Likewise of a list that was fetched, which takes nothing but its place in the running configuration.
    ///
    /// # Errors
    /// The sentence for the operator.
    pub fn check_list(
        &self,
        next: &Config,
        running: &Config,
        operator: Option<Session>,
    ) -> Result<(), String> {
        self.new_faults(next, Some(running), operator).map_err(|new| {
            format!(
                "{new}. With this list somebody would be locked out, so it is refused (`weir allowlist refresh NAME \
                 --force` takes it all the same)"
            )
        })
    }

    /// Says what `next` would cut off that `running` doesn't.
    ///
    /// # Errors
    /// The sentence for the operator.
    pub fn check(
        &self,
        next: &Config,
        running: Option<&Config>,
        operator: Option<Session>,
    ) -> Result<(), String> {
        self.new_faults(next, running, operator).map_err(|new| {
            format!("{new}. This would lock somebody out, so it is refused; `--force` does it all the same")
        })
    }

    fn new_faults(
        &self,
        next: &Config,
        running: Option<&Config>,
        operator: Option<Session>,
    ) -> Result<(), String> {
        if self.off || changes_nothing(next, running) {
            return Ok(());
        }
        let mut sockets = host::sockets();
        sockets.operator = operator;
        sockets.admin = running.map(admin_addresses).unwrap_or_default();
        sockets.admin.extend(admin_addresses(next));
        sockets.admin.sort_unstable();
        sockets.admin.dedup();
        // Whose the sessions are is a question to every process: asked only where it matters.
        if disconnects(next, &sockets) {
            sockets.logged_in = host::logged_in(&sockets.established);
        }
        let known = running.map(|running| faults(running, &sockets)).unwrap_or_default();
        let new: Vec<_> = faults(next, &sockets)
            .into_iter()
            .filter(|fault| !known.contains(fault))
            .map(|f| f.to_string())
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        Err(new.join("; "))
    }
}

// === impl Guard, of blocks ===

impl Guard {
    /// Says whom a block would cut off who should not be: whoever asks for it, any other SSH session, and who uses the
    /// admin address.
    ///
    /// # Errors
    /// The sentence for the operator.
    pub fn check_block(
        &self,
        prefix: IpNet,
        cdn: bool,
        config: &Config,
        operator: Option<Session>,
    ) -> Result<(), String> {
        self.check_blocks([(prefix, cdn)], config, operator).pop().unwrap_or(Ok(()))
    }

    /// Likewise of many, of which each is judged by itself.
    pub fn check_blocks(
        &self,
        blocks: impl IntoIterator<Item = (IpNet, bool)>,
        config: &Config,
        operator: Option<Session>,
    ) -> Vec<Result<(), String>> {
        if self.off {
            return blocks.into_iter().map(|_| Ok(())).collect();
        }
        let mut sockets = host::sockets();
        sockets.operator = operator;
        sockets.admin = admin_addresses(config);
        sockets.logged_in = host::logged_in(&sockets.established);
        let check = |(prefix, cdn)| match cut_off_by(prefix, cdn, config, &sockets) {
            None => Ok(()),
            Some(fault) => Err(format!(
                "{fault}. This would lock somebody out, so it is refused; `--force` does it all the same"
            )),
        };
        blocks.into_iter().map(check).collect()
    }
}

/// The TCP addresses at which a configuration has the daemon answer.
fn admin_addresses(config: &Config) -> Vec<SocketAddr> {
    let tcp = |addr: &AdminAddr| match addr {
        AdminAddr::Tcp(addr) => Some(*addr),
        AdminAddr::Unix(_) => None,
    };
    config.admin.bind.iter().filter_map(tcp).collect()
}

/// Whom a block would cut off.
pub fn cut_off_by(prefix: IpNet, cdn: bool, config: &Config, sockets: &Sockets) -> Option<String> {
    config.entrypoints.iter().filter(|one| !one.shadow).find_map(|one| {
        let spared = PrefixSet::new(
            one.allow
                .iter()
                .map(|list| &config.allowlists[list.0])
                .filter(|list| list.cdn && !cdn)
                .flat_map(|list| &list.prefixes),
        );
        let hits = |session: &Session| {
            let remote = session.remote.ip().to_canonical();
            prefix.contains(&remote)
                && !spared.contains(remote)
                && one.bind.iter().any(|bind| covers(*bind, session.local))
        };
        let name = &one.name;
        let operator = sockets.operator.map(|session| (session, "your own"));
        let logged_in = sockets.logged_in.iter().map(|session| (*session, "an"));
        if let Some((session, whose)) =
            operator.into_iter().chain(logged_in).find(|(session, _)| hits(session))
        {
            return Some(format!(
                "{prefix} has {}, from where {whose} SSH session comes in at entrypoint `{name}`",
                session.remote.ip().to_canonical()
            ));
        }
        let uses_admin = |session: &&Session| {
            sockets.admin.iter().any(|admin| covers(*admin, session.local)) && hits(session)
        };
        sockets.established.iter().find(uses_admin).map(|session| {
            format!(
                "{prefix} has {}, which is connected to the admin address {} at entrypoint `{name}`",
                session.remote.ip().to_canonical(),
                session.local
            )
        })
    })
}

#[cfg(test)]
mod tests;
