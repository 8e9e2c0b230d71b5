//! One daemon takes over from another: with everybody on the way, with binaries that are no good, as a user without rights, and over a
//! restart by the service manager.

use std::{
    fs,
    io::{IoSliceMut, Write},
    net::TcpListener,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{fs::PermissionsExt, net::UnixDatagram, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{
        signal::Signal,
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
    },
};
use weir_lab::{
    Lab,
    lab::{
        addresses::{HTTP, HTTPS},
        client::Browser,
        http3::{self, Line},
        knock::knock,
        process::Process,
        raw::Raw,
        server::{Server, Which},
        stand::{PATIENCE, Stand, wait_for_both},
        successors::{Successors, ordered},
        travellers::{self, Travellers},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Where somebody else listens.
const TAKEN: &str = "127.0.0.1:7070";

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// net_bind_service, net_admin, perfmon and bpf; and nothing else.
const THE_FOUR: &str = "000000c000001400";

fn strangers_stay_out(lab: &Lab) -> Done {
    let knocks = knock(&lab.stranger, HTTPS, 2, Duration::from_millis(300))?;
    ensure!(knocks.silent == 2, "the gate doesn't stand: {knocks:?}");
    Ok(())
}

/// Requests that all daemons together have counted.
fn counted(stand: &Stand) -> anyhow::Result<f64> {
    let text = stand.weir.admin().get("/metrics")?.text();
    let name = "weir_entrypoint_requests_total{entrypoint=\"https\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such metric")?;
    Ok(line.parse()?)
}

/// A script in a binary's place, which is the real one as far as `version` and `check` go.
fn stand_in(lab: &Lab, name: &str, check: &str, run: &str) -> anyhow::Result<PathBuf> {
    let (path, real) = (lab.folder().join(name), weir::program()?);
    let text = format!(
        "#!/bin/sh\ncase $1 in\nversion) exec {real} version --json;;\ncheck) {check};;\n*) {run};;\nesac\n",
        real = real.display(),
    );
    let mut file = fs::File::create(&path)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn nobody_on_the_way_notices_an_upgrade_and_a_bad_binary_changes_nothing() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up_with(|_, toml| {
        toml.replace("[entrypoint.https]\n", "[entrypoint.https]\nhttp3 = true\n")
            + &travellers::configuration()
            + "[upgrade]\nready = \"30s\"\ndrain = \"1m\"\n"
    })?;
    let lab = &stand.lab;
    let mut successors = Successors::of(&stand.weir);
    let first = stand.weir.pid();
    let mut travellers = Travellers::set_off(&stand, 40)?;

    // 1. Binaries that are no good: the running daemon goes on, and says why.
    let never = stand_in(lab, "never", "exit 0", "exec sleep 60")?;
    stand.weir.rewrite_config(
        &fs::read_to_string(stand.weir.config())?.replace("ready = \"30s\"", "ready = \"1s\""),
    )?;
    wait::until_true("the shorter time holds", PATIENCE, || Ok(stand.weir.status()?["generation"] == 2))?;
    for (binary, told) in [
        (never, "it did not serve within 1 s"),
        (
            stand_in(lab, "strict", "echo no such key; exit 2", "exit 1")?,
            "does not take the configuration:\nno such key",
        ),
        (stand_in(lab, "dies", "exit 0", "exit 7")?, "it ended before it served (exit status: 7)"),
        (PathBuf::from("/bin/false"), "`/bin/false version --json` failed"),
        (lab.folder().join("nothing"), "can't be started: No such file"),
    ] {
        let ran = ordered(lab, &["--binary", &binary.display().to_string()])?;
        ensure!(ran.code == 1 && ran.stderr.contains(told), "{}: {ran:?}", binary.display());
        ensure!(ran.stderr.contains("goes on as before"), "{ran:?}");
    }
    let events = stand.weir.admin().get("/api/v1/events?after=0")?.text();
    ensure!(events.contains("upgrade_failed") && events.contains("no such key"), "{events}");
    ensure!(stand.weir.status()?["pid"] == first, "somebody else answers");
    strangers_stay_out(lab)?;
    travellers.all_are_heard()?;
    stand.weir.rewrite_config(
        &fs::read_to_string(stand.weir.config())?.replace("ready = \"1s\"", "ready = \"30s\""),
    )?;
    wait::until_true("the longer time holds", PATIENCE, || Ok(stand.weir.status()?["generation"] == 3))?;

    // A successor that finds out what it can't do when it has everything: somebody else has a port.
    let written = fs::read_to_string(stand.weir.config())?;
    let _other = lab.edge.run(|| TcpListener::bind(TAKEN))??;
    stand.weir.rewrite_config(&(written.clone() + &format!("[entrypoint.taken]\nbind = \"{TAKEN}\"\n")))?;
    wait::until_true("the running daemon finds that too", PATIENCE, || {
        Ok(stand.weir.status()?["configuration"]["last_reload_ok"] == false)
    })?;
    let ran = ordered(lab, &[])?;
    ensure!(ran.code == 1 && ran.stderr.contains("did not take over"), "{ran:?}");
    ensure!(ran.stderr.contains("is taken by another process"), "{ran:?}");
    ensure!(stand.weir.status()?["pid"] == first, "somebody else answers");
    strangers_stay_out(lab)?;
    travellers.wait_for_more(20)?;
    travellers.all_are_heard()?;
    stand.weir.rewrite_config(&written)?;
    wait::until_true("what is written holds again", PATIENCE, || {
        Ok(stand.weir.status()?["configuration"]["last_reload_ok"] == true)
    })?;

    // 2. A download over HTTP/3 that lasts longer than its daemon is asked.
    let browser = http3::browser(lab, &lab.visitor, HTTPS)?;
    let target = browser.target.clone();
    let (tell, told) = std::sync::mpsc::channel();
    browser.station().spawn(async move {
        let work = async {
            let line = Line::open(&target).await?;
            let warm = line.get("/").await?;
            ensure!(warm.status == 200, "{warm:?}");
            let _ = tell.send(Ok(0));
            Ok(line.get("/drip?n=60&ms=50").await?.body.len())
        };
        let _ = tell.send(work.await);
    });
    told.recv_timeout(PATIENCE)??;

    // 3. Upgrades by command and by signal, one after the other.
    let mut before = counted(&stand)?;
    let mut serves = first;
    for round in 0..3 {
        if round == 0 {
            let answer = successors.upgrade(lab)?;
            ensure!(answer["old_pid"] == serves, "{answer}");
        } else if round == 1 {
            successors.signal(serves, Signal::SIGUSR2)?;
            successors.wait_for_another(lab, serves)?;
        } else {
            let binary = lab.folder().join("weir-2");
            fs::copy(weir::program()?, &binary)?;
            let ran = ordered(lab, &["--binary", &binary.display().to_string()])?;
            ensure!(ran.code == 0, "{ran:?}");
            successors.wait_for_another(lab, serves)?;
        }
        serves = successors.latest().context("nobody has taken over")?;
        if round == 0 {
            // It has the connections that last.
            wait::until_true("the status tells of it", PATIENCE, || {
                Ok(stand.weir.status()?["predecessors"][0]["connections"].as_u64() > Some(0))
            })?;
        }
        travellers.wait_for_more(20)?;
        travellers.all_are_heard()?;
        let now = counted(&stand)?;
        ensure!(now > before, "metrics have fallen from {before} to {now}");
        before = now;
    }
    strangers_stay_out(lab)?;
    ensure!(http3::get(&browser, "/")?.status == 200, "new connections of HTTP/3");
    let downloaded = told.recv_timeout(PATIENCE)??;
    ensure!(downloaded == 60 * 5, "the download has {downloaded} bytes");
    let status = stand.weir.status()?;
    ensure!(status["pid"] == serves, "{status}");
    let servers = &status["services"][0]["servers"];
    ensure!(servers[0]["status"] == "up" && servers[0]["why"] == "the first probe succeeded", "{servers}");

    // 4. The first daemon still has the connections that last; when they end, it does.
    ensure!(stand.weir.process().cpu().is_ok(), "the first daemon has ended");
    travellers.leave();
    let ended = stand.weir.wait(Duration::from_secs(20))?;
    ensure!(ended.success(), "{ended}");
    travellers.arrive_all()
}

#[test]
fn a_daemon_without_rights_is_upgraded_and_restarted_with_its_queues() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("setpriv"));
    let lab = Lab::build()?;
    let (_one, _two) = (Server::start(&lab, Which::One)?, Server::start(&lab, Which::Two)?);
    fs::set_permissions(lab.bpffs(), fs::Permissions::from_mode(0o700))?;
    let config = lab.folder().join("weir.toml");
    let plain =
        format!("[entrypoint.plain]\nbind = \"{HTTP}\"\nallow = [\"cloudflare\"]\nredirect = \"https\"\n");
    fs::write(&config, weir::standard(&lab) + &plain)?;
    let handed = weir::run(&lab, &["hand-over", &NOBODY.to_string(), &config.display().to_string()])?;
    ensure!(handed.code == 0, "{handed:?}");
    let manager = Manager::listen(&lab)?;
    let mut successors = Successors::with(&config);

    // 1. As the unit starts it.
    let mut first = manager.start(&lab, &config, &[])?;
    manager.until(|told| told == "READY=1")?;
    let visitor = Browser::of_site(&lab, &lab.visitor)?;
    wait_for_both(&visitor).context(first.log_text())?;
    let field = |pid: u32, field: &str| -> anyhow::Result<String> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no {field}"))?.trim().to_owned())
    };
    let filters = field(first.pid(), "Seccomp_filters")?;

    // 2. Upgraded, it has what it had: no right more or less, and no filter over another. The unit follows.
    for _ in 0..2 {
        let answer = successors.upgrade(&lab).with_context(|| first.log_text())?;
        let pid = answer["pid"].as_u64().context("no process id")? as u32;
        manager.until(|told| told == format!("MAINPID={pid}"))?;
        ensure!(field(pid, "CapEff")? == THE_FOUR && field(pid, "NoNewPrivs")? == "1");
        ensure!(field(pid, "Seccomp_filters")? == filters, "{filters} filters, and now more");
        strangers_stay_out(&lab)?;
        ensure!(visitor.get("/")?.status == 200);
        // The watchdog's keep-alives are the new one's.
        manager.until(|told| told == "WATCHDOG=1")?;
    }
    first.wait(Duration::from_secs(20))?;

    // 3. Restarted by the service manager, which has kept the sockets: who connects meanwhile is served by the next one.
    let kept = manager.kept();
    ensure!(!kept.is_empty(), "nothing was kept");
    let last = successors.latest().context("nobody has taken over")?;
    successors.signal(last, Signal::SIGTERM)?;
    successors.wait_for_end(last, PATIENCE)?;
    let mut waiting = Raw::connect(&lab.visitor, HTTP).context("nobody queues")?;
    waiting.say("GET /waited HTTP/1.1\r\nHost: example.com\r\n\r\n")?;
    let _second = manager.start(&lab, &config, &kept)?;
    manager.until(|told| told == "READY=1")?;
    wait_for_both(&visitor)?;
    let answer = waiting.answer().context("who waited got no answer")?;
    ensure!(answer.status == 308 && answer.head.contains("/waited"), "{answer:?}");
    strangers_stay_out(&lab)
}

/// What the service manager does, as far as it matters here.
struct Manager {
    path: PathBuf,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    told: Vec<String>,
    kept: Vec<(String, OwnedFd)>,
}

impl Manager {
    fn listen(lab: &Lab) -> anyhow::Result<Self> {
        let path = lab.folder().join("run/notify");
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let heard = Arc::<Mutex<Heard>>::default();
        let wanted = Arc::downgrade(&heard);
        // All the time: a daemon whose words nobody takes waits until somebody does.
        std::thread::spawn(move || {
            while let Some(heard) = wanted.upgrade() {
                // Nothing came for a moment.
                let _ = hear(&socket, &heard);
            }
        });
        Ok(Self { path, heard })
    }

    /// Starts the daemon as the packaged unit does, with the sockets that were kept.
    fn start(&self, lab: &Lab, config: &Path, kept: &[OwnedFd]) -> anyhow::Result<Process> {
        let four = "+net_admin,+net_bind_service,+bpf,+perfmon";
        let mut command = lab.edge.command("setpriv")?;
        command
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()])
            .args([format!("--inh-caps={four}"), format!("--ambient-caps={four}")])
            .args(["sh", "-c", "export LISTEN_PID=$$; exec \"$0\" run \"$1\""])
            .arg(weir::program()?)
            .arg(config)
            .env("LISTEN_FDS", kept.len().to_string())
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "2000000");
        hand_down(&mut command, kept);
        Process::start("weir", command, &lab.folder().join("weir.log"))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is told that wasn't waited for before.
    fn until(&self, is_it: impl Fn(&str) -> bool) -> Done {
        let found = wait::until_true("it is told", PATIENCE * 2, || {
            let mut heard = self.heard();
            let found = heard.told.iter().position(|told| is_it(told));
            if let Some(found) = found {
                heard.told.drain(..=found);
            }
            Ok(found.is_some())
        });
        found.with_context(|| format!("only {:?} is", self.heard().told))
    }

    /// All sockets that it was asked to keep.
    fn kept(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.heard().kept).into_iter().map(|(_, socket)| socket).collect()
    }
}

fn hear(socket: &UnixDatagram, heard: &Mutex<Heard>) -> Done {
    let (mut text, mut space) = ([0; 4096], nix::cmsg_space!([RawFd; 253]));
    let mut into = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let came = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
    let mut sockets = Vec::new();
    for message in came.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made them for this process.
            sockets.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    let length = came.bytes;
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let Heard { told, kept } = &mut *heard;
    if lines.iter().any(|line| line == "FDSTORE=1") {
        // As systemd does: what it has already it keeps once, here by name.
        kept.retain(|(known, _)| known != name);
        kept.extend(sockets.into_iter().map(|socket| (name.to_owned(), socket)));
    } else if lines.iter().any(|line| line == "FDSTOREREMOVE=1") {
        kept.retain(|(known, _)| known != name);
    }
    told.extend(lines);
    Ok(())
}

/// From 3 on, as LISTEN_FDS has it.
fn hand_down(command: &mut Command, kept: &[OwnedFd]) {
    // Out of the way of where they go.
    let away = |socket: &OwnedFd| fcntl(socket, FcntlArg::F_DUPFD_CLOEXEC(500));
    let away: Vec<RawFd> = kept.iter().filter_map(|socket| away(socket).ok()).collect();
    // SAFETY: between fork and exec only plain system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for (number, from) in (3..).zip(&away) {
                if nix::libc::dup2(*from, number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
