//! Who is connected to this host, and where others listen: `/proc`, as the lock-out guard needs it.

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{OnceLock, mpsc},
    thread,
};

use super::{Session, Sockets};

const ESTABLISHED: &str = "01";
const LISTENING: &str = "0A";

/// The TCP sockets of this network namespace. What can't be read is not there.
pub fn sockets() -> Sockets {
    let own = own_inodes();
    let mut sockets = Sockets::default();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
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

type Errand = Box<dyn FnOnce() + Send>;

/// Whoever does what others may not.
static OUTSIDE: OnceLock<mpsc::SyncSender<Errand>> = OnceLock::new();

/// Begins a thread that looks at other processes on behalf of all others, and starts a successor. Landlock lets nobody look whom it
/// keeps from writing, and holds for whoever is started, so this one is begun before; `first` is what it gives up itself.
///
/// # Errors
/// When there is no thread to be had.
pub fn stay_outside<T>(first: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
    let (ask, asked) = mpsc::sync_channel::<Errand>(1);
    thread::Builder::new().name("outside".to_owned()).spawn(move || {
        let _gave_up = first();
        for errand in asked {
            errand();
        }
    })?;
    // There is one already where tests begin several daemons; it is as good.
    let _ = OUTSIDE.set(ask);
    Ok(())
}

/// Has it do something. `None`: there is none.
pub fn outside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::sync_channel(1);
    let errand = move || {
        // Whoever asked may have gone.
        let _ = answer.send(work());
    };
    OUTSIDE.get()?.send(Box::new(errand)).ok()?;
    answered.recv().ok()
}

/// Those of the established connections that are SSH sessions: some process of this network namespace was started in
/// them. Only the processes that may be looked at are.
pub fn logged_in(established: &[Session]) -> Vec<Session> {
    if OUTSIDE.get().is_none() {
        return look(established);
    }
    let established = established.to_vec();
    outside(move || look(&established)).unwrap_or_default()
}

fn look(established: &[Session]) -> Vec<Session> {
    let namespace = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    let ours = namespace(Path::new("/proc/self"));
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_process = |path: &Path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    };
    let mut sessions: Vec<Session> = Vec::new();
    for process in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_process(path)) {
        // Started in a session that has ended since, or in another one's network.
        let session = started_in(&process).filter(|session| established.contains(session));
        if let Some(session) = session
            && !sessions.contains(&session)
            && namespace(&process) == ours
        {
            sessions.push(session);
        }
    }
    sessions.sort_unstable_by_key(|session| (session.local, session.remote));
    sessions
}

/// The SSH session in which a process was started, by its environment.
fn started_in(process: &Path) -> Option<Session> {
    let environment = fs::read(process.join("environ")).ok()?;
    let entries = environment.split(|byte| *byte == 0);
    let told = entries.filter_map(|entry| entry.strip_prefix(b"SSH_CONNECTION=")).next()?;
    Session::from_ssh(&String::from_utf8_lossy(told))
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
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return HashSet::new() };
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

// === impl Session ===

impl Session {
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
            if let Some(session) = started_in(Path::new(&format!("/proc/{process}"))) {
                return Some(session);
            }
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            // The name may hold spaces and parentheses: the fields are counted from behind it.
            process = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        }
        None
    }
}
