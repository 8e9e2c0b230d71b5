//! The lock-out guard: refuses a configuration whose gate would cut the operator off.
//!
//! The decision is a pure function of the configuration and of the host's sockets ([`faults`]); what `Guard` adds is
//! reading `/proc`. Only faults that the running configuration doesn't have count: who has forced a configuration once is
//! not asked again at each reload. Without a gate nothing is dropped that isn't Weir's, and nothing is refused.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
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
    pub established: Vec<Session>,
    /// Where other processes listen.
    pub foreign: Vec<SocketAddr>,
    /// The TCP addresses of this daemon's admin interface.
    pub admin: Vec<SocketAddr>,
}

/// One way in which an entrypoint would cut somebody off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The operator's own session ends there.
    Session { entrypoint: String, lists: String, session: Session },
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
    pub admin: Vec<SocketAddr>,
}

/// Everything that `config` would cut off.
pub fn faults(config: &Config, sockets: &Sockets) -> Vec<Fault> {
    if config.kernel.mode == KernelMode::Off || config.kernel.interfaces.is_empty() {
        return Vec::new();
    }
    config
        .entrypoints
        .iter()
        .filter(|one| !one.allow.is_empty())
        .flat_map(|one| at(config, one, sockets))
        .collect()
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
    if let Some(session) = sockets.operator
        && guarded(session.local)
        && !listed.contains(session.remote.ip())
    {
        faults.push(Fault::Session { entrypoint: entrypoint.clone(), lists: lists.clone(), session });
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
            Self::Session { entrypoint, lists, session } => {
                let (local, who) = (session.local, session.remote.ip().to_canonical());
                write!(
                    f,
                    "entrypoint `{entrypoint}` would guard {local}, where your own SSH session from {who} comes in, and \
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

    /// The SSH session in which this process was started: by its environment, or by that of the processes above it,
    /// since `sudo` clears the environment.
    pub fn of_this_process() -> Option<Self> {
        if let Ok(text) = std::env::var("SSH_CONNECTION") {
            return Self::from_ssh(&text);
        }
        let mut process = nix::unistd::getppid().as_raw();
        for _ in 0..32 {
            if process <= 1 {
                break;
            }
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let found = environment
                .split(|byte| *byte == 0)
                .find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))
                .and_then(|text| Self::from_ssh(&String::from_utf8_lossy(text)));
            if found.is_some() {
                return found;
            }
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            // The name may hold spaces and parentheses: the fields are counted from behind it.
            process = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        }
        None
    }
}

// === impl Guard ===

impl Guard {
    pub fn new(off: bool, admin: &[AdminAddr]) -> Self {
        let tcp = admin.iter().filter_map(|addr| match addr {
            AdminAddr::Tcp(addr) => Some(*addr),
            AdminAddr::Unix(_) => None,
        });
        Self { off, admin: tcp.collect() }
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
        if self.off {
            return Ok(());
        }
        let mut sockets = read();
        sockets.operator = operator;
        sockets.admin = self.admin.clone();
        let known = running.map(|running| faults(running, &sockets)).unwrap_or_default();
        let new: Vec<_> = faults(next, &sockets)
            .into_iter()
            .filter(|fault| !known.contains(fault))
            .map(|f| f.to_string())
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{}. This would lock somebody out, so it is refused; `--force` does it all the same",
            new.join("; ")
        ))
    }
}

impl Guard {
    /// Says whom a block would cut off who should not be: whoever asks for it, and who uses the admin address.
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
        if self.off {
            return Ok(());
        }
        let sockets = Sockets { operator, admin: self.admin.clone(), ..read() };
        match cut_off_by(prefix, cdn, config, &sockets) {
            None => Ok(()),
            Some(fault) => Err(format!(
                "{fault}. This would lock somebody out, so it is refused; `--force` does it all the same"
            )),
        }
    }
}

/// Whom a block would cut off.
pub fn cut_off_by(prefix: IpNet, cdn: bool, config: &Config, sockets: &Sockets) -> Option<String> {
    config.entrypoints.iter().find_map(|one| {
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
        if let Some(session) = sockets.operator.filter(hits) {
            return Some(format!(
                "{prefix} has {}, from where your own SSH session comes in at entrypoint `{name}`",
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

// === /proc ===

const ESTABLISHED: &str = "01";
const LISTENING: &str = "0A";

/// The TCP sockets of this network namespace. What can't be read is not there.
fn read() -> Sockets {
    let own = own_inodes();
    let mut sockets = Sockets::default();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        for row in text.lines().skip(1).filter_map(row) {
            match row.state {
                ESTABLISHED => sockets.established.push(Session { local: row.local, remote: row.remote }),
                LISTENING if !own.contains(row.inode) => sockets.foreign.push(row.local),
                _ => {}
            }
        }
    }
    sockets
}

struct Row<'a> {
    local: SocketAddr,
    remote: SocketAddr,
    state: &'a str,
    inode: &'a str,
}

/// `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`
fn row(line: &str) -> Option<Row<'_>> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote) = (words.next().and_then(address)?, words.next().and_then(address)?);
    let state = words.next()?;
    Some(Row { local, remote, state, inode: words.nth(5)? })
}

/// Addresses are words of four bytes, each in the host's order.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for (number, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(number * 8)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The inodes of the sockets that this process holds.
fn own_inodes() -> HashSet<String> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return HashSet::new() };
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
