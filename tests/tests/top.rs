//! `weir top`: its rates are those of real packets, and it leaves a terminal as it found it.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use weir_lab::{
    Lab,
    lab::{
        addresses::{EDGE, HTTPS},
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// SYNs per second from the stranger.
const FLOOD: u64 = 5_000;

fn top(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Ran> {
    let bpffs = lab.bpffs();
    weir::run(lab, &[&["top", "--bpffs", &bpffs.to_string_lossy()], arguments].concat())
}

fn interval(lab: &Lab) -> anyhow::Result<Value> {
    let ran = top(lab, &["--once", "--json", "--every", "2s"])?;
    ensure!(ran.code == 0, "{ran:?}");
    Ok(serde_json::from_str(&ran.stdout)?)
}

fn entrypoint(interval: &Value) -> anyhow::Result<&Value> {
    let mut all = interval["entrypoints"].as_array().context("no entrypoints")?.iter();
    all.find(|one| one["name"] == "https").with_context(|| format!("no entrypoint `https`: {interval}"))
}

fn per_second(of: &Value) -> f64 {
    of["packets_per_second"].as_f64().unwrap_or_default()
}

#[test]
fn a_flood_is_told_with_its_entrypoint_its_reason_and_where_it_comes_from() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up()?;
    let flood = Flood::start(&stand.lab)?;
    let load = stand.load("/", 50)?;
    let (before, begun) = (flood.sent(), Instant::now());
    let told = interval(&stand.lab)?;
    let sent = (flood.sent() - before) as f64 / begun.elapsed().as_secs_f64();
    load.stop()?;

    let https = entrypoint(&told)?;
    let dropped = per_second(&https["dropped_by_reason"]["not_listed"]);
    // On a busy machine the way to the gate may lose some.
    assert!(dropped > sent / 10.0 && dropped < sent * 3.0, "{sent} sent per second: {told}");
    assert!(per_second(&https["passed"]) >= 25.0, "a request is a packet at least: {https}");
    let requests = https["requests_per_second"].as_f64().unwrap_or_default();
    assert!((25.0..100.0).contains(&requests), "{requests} of 50 requests a second: {told}");
    let source = &told["sources_sampled"][0];
    assert_eq!(
        (&source["prefix"], &source["entrypoint"], &source["reason"]),
        (&"203.0.113.0/24".into(), &"https".into(), &"not_listed".into()),
        "{told}"
    );
    // Nobody else is dropped: the estimate is all of what was counted.
    assert!((per_second(source) / dropped - 1.0).abs() < 0.05, "{source}, of {dropped}");
    assert_eq!(told["gate"]["interfaces"][0]["name"], "public");
    let servers = told["services"][0]["servers"].as_array().context("no servers")?;
    assert!(servers.iter().all(|server| server["status"] == "up") && servers.len() == 2, "{told}");

    // The pins alone are enough.
    stand.weir.kill()?;
    let told = interval(&stand.lab)?;
    assert!(told["daemon_trouble"].as_str().is_some_and(|why| why.contains("no weir answers")), "{told}");
    assert!(per_second(&entrypoint(&told)?["dropped"]) > 0.0, "{told}");
    assert_eq!(told["sources_sampled"][0]["prefix"], "203.0.113.0/24");
    let text = top(&stand.lab, &[])?;
    assert!(text.code == 0 && text.stdout.contains("DOESN'T ANSWER"), "{text:?}");
    assert!(text.stdout.contains("dropped from (sampled)") && !text.stdout.contains('\u{1b}'), "{text:?}");
    Ok(())
}

#[test]
fn what_a_shadowed_entrypoint_would_drop_is_told_by_prefix() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let shadowed = "allow = [\"cloudflare\"]\nshadow = true";
    let stand = Stand::up_with(|_, toml| toml.replace("allow = [\"cloudflare\"]", shadowed))?;
    let _flood = Flood::start(&stand.lab)?;
    let told = interval(&stand.lab)?;
    let https = entrypoint(&told)?;
    assert_eq!((&https["shadow"], per_second(&https["dropped"])), (&true.into(), 0.0), "{https}");
    let would_drop = per_second(&https["would_drop_by_reason"]["not_listed"]);
    assert!(would_drop > 100.0, "{https}");
    assert_eq!(https["would_drop_from"][0]["prefix"], "203.0.113.0/24", "{https}");
    assert!((per_second(&https["would_drop_from"][0]) / would_drop - 1.0).abs() < 0.1, "{https}");
    assert_eq!(told["sources_sampled"], serde_json::json!([]), "nothing is dropped");
    Ok(())
}

#[test]
fn a_terminal_shows_it_and_is_given_back() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("tmux"));
    let stand = Stand::up()?;
    let _flood = Flood::start(&stand.lab)?;
    let screen = Screen::start(&stand.lab, &["--every", "200ms"])?;
    let shows = |what: &str| {
        wait::until_true(&format!("the terminal shows `{what}`"), PATIENCE, || {
            Ok(screen.text()?.contains(what))
        })
        .map_err(|why| why.context(screen.text().unwrap_or_default()))
    };
    for what in
        ["weir top", "gate: generation 1, public tc", "https", "not_listed", "203.0.113.0/24", "2/2 up"]
    {
        shows(what)?;
    }
    screen.keys("?")?;
    shows("q Esc Ctrl-C   quit")?;
    screen.keys("?")?;
    screen.keys("p")?;
    shows("PAUSED")?;
    screen.resize(60, 20)?;
    shows("entrypoint        pass/s")?;
    // The shell's own text is there again, and the shell goes on.
    screen.keys("q")?;
    shows("ended with 0")?;
    assert!(!screen.text()?.contains("weir top  every"), "{}", screen.text()?);
    Ok(())
}

#[test]
fn a_signal_or_a_terminal_that_is_gone_ends_it() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("tmux"));
    let stand = Stand::up()?;
    let screen = Screen::start(&stand.lab, &[])?;
    wait::until_true("it draws", PATIENCE, || Ok(screen.text()?.contains("2/2 up")))?;
    let process = screen.process()?;
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM)?;
    wait::until_true("the terminal is given back", PATIENCE, || Ok(screen.text()?.contains("ended with 0")))?;
    drop(screen);

    let screen = Screen::start(&stand.lab, &[])?;
    wait::until_true("it draws", PATIENCE, || Ok(screen.text()?.contains("2/2 up")))?;
    let process = screen.process()?;
    drop(screen);
    wait::until_true("it ends with its terminal", PATIENCE, || {
        Ok(nix::sys::signal::kill(process, None) == Err(nix::Error::ESRCH))
    })
}

#[test]
fn where_there_is_nothing_it_says_so() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let ran = top(&lab, &["--once"])?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("nothing of Weir's is in the kernel; no weir answers"), "{ran:?}");
    let ran = top(&lab, &["--every", "5ms"])?;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("an interval is from 100ms to 1m"), "{ran:?}");
    Ok(())
}

/// SYNs that nobody answers, until it is dropped.
struct Flood {
    goes_on: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Done>>,
}

impl Flood {
    fn start(lab: &Lab) -> anyhow::Result<Self> {
        use nix::sys::socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
        };
        // To a guarded TCP port, past the stranger's own TCP: so raw.
        let raw = lab.stranger.run(|| {
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)
        })??;
        let frame =
            proxy_user::packet::syn(Ipv4Addr::UNSPECIFIED.into(), HTTPS).map_err(anyhow::Error::msg)?;
        let (goes_on, sent) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (goes_on.clone(), sent.clone());
        let thread = thread::spawn(move || -> Done {
            let to = SockaddrIn::from(std::net::SocketAddrV4::new(EDGE, 0));
            let begun = Instant::now();
            while until.load(Ordering::Relaxed) {
                let due = (begun.elapsed().as_secs_f64() * FLOOD as f64) as u64;
                while count.load(Ordering::Relaxed) < due {
                    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&raw);
                    // Behind the Ethernet and IPv4 headers, which the kernel writes.
                    match sendto(descriptor, &frame[34..], &to, MsgFlags::empty()) {
                        Ok(_) | Err(nix::Error::ENOBUFS) => count.fetch_add(1, Ordering::Relaxed),
                        Err(error) => return Err(error).context("can't send"),
                    };
                }
                thread::park_timeout(Duration::from_millis(1));
            }
            Ok(())
        });
        Ok(Self { goes_on, sent, thread: Some(thread) })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it could not send shows in the test.
            let _ = thread.join();
        }
    }
}

/// A terminal of tmux's, 80 by 24, with `weir top` in a shell.
struct Screen {
    socket: std::path::PathBuf,
    said: std::path::PathBuf,
}

impl Screen {
    fn start(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Self> {
        // The server of an earlier one may be ending still.
        static TERMINALS: AtomicU64 = AtomicU64::new(0);
        let socket = lab.folder().join(format!("tmux{}", TERMINALS.fetch_add(1, Ordering::Relaxed)));
        let said = lab.folder().join("top.pid");
        let _ = std::fs::remove_file(&said);
        let mut command = lab.edge.command("tmux")?;
        // The shell tells its number, and weir takes its place in a child of the same group.
        let script = format!(
            "stty -echo; sh -c 'echo $$ > {pid}.new; mv {pid}.new {pid}; exec \"$0\" top \"$@\"' {weir} {arguments}; \
             echo ended with $?; sleep 60",
            pid = said.display(),
            weir = weir::program()?.display(),
            arguments = arguments.join(" "),
        );
        command
            .arg("-S")
            .arg(&socket)
            .args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &script])
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .env("WEIR_BPFFS", lab.bpffs())
            .env("WEIR_ADMIN", format!("unix:{}", weir::admin_socket(lab).display()));
        let ran = weir::finish(command)?;
        ensure!(ran.code == 0, "tmux does not start: {ran:?}");
        Ok(Self { socket, said })
    }

    fn tmux(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("tmux");
        let output = command.arg("-S").arg(&self.socket).args(arguments).env("LC_ALL", "C.UTF-8").output()?;
        ensure!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn text(&self) -> anyhow::Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    fn keys(&self, keys: &str) -> Done {
        self.tmux(&["send-keys", keys]).map(drop)
    }

    fn resize(&self, width: u16, height: u16) -> Done {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]).map(drop)
    }

    /// Of `weir top`.
    fn process(&self) -> anyhow::Result<nix::unistd::Pid> {
        let text = wait::until("weir top tells its number", PATIENCE, || {
            Ok(std::fs::read_to_string(&self.said).ok())
        })?;
        Ok(nix::unistd::Pid::from_raw(text.trim().parse()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
