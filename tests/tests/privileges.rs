//! As whom the daemon runs and what it can do: started by root and turned into a user, and started as a user with four
//! capabilities, as systemd does it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use anyhow::{Context, ensure};
use weir_lab::{
    Lab,
    lab::{
        addresses::{EDGE, HTTPS},
        client::Browser,
        knock::{knock, until_silent},
        process::Process,
        server::{Server, Which},
        stand::{PATIENCE, Stand, wait_for_both},
        wait,
        weir::{self, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// net_bind_service, net_admin, perfmon and bpf; and nothing else.
const THE_FOUR: &str = "000000c000001400";

/// A field of `/proc/PID/status`, of every thread: they must all say the same.
fn of_all_threads(pid: u32, field: &str) -> anyhow::Result<String> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.push(line.with_context(|| format!("no {field}"))?.trim().to_owned());
    }
    found.dedup();
    ensure!(found.len() == 1, "threads differ in {field}: {found:?}");
    found.pop().context("no threads")
}

fn has_only_the_four(pid: u32) -> Done {
    let uid = of_all_threads(pid, "Uid")?;
    ensure!(uid.split_whitespace().all(|one| one == NOBODY.to_string()), "Uid {uid}");
    for (field, wanted) in [("CapEff", THE_FOUR), ("CapPrm", THE_FOUR), ("NoNewPrivs", "1"), ("Seccomp", "2")]
    {
        let found = of_all_threads(pid, field)?;
        ensure!(found == wanted, "{field} is {found}, not {wanted}");
    }
    Ok(())
}

/// As systemd mounts it.
fn close_bpffs(lab: &Lab) -> Done {
    Ok(fs::set_permissions(lab.bpffs(), fs::Permissions::from_mode(0o700))?)
}

fn strangers_stay_out(lab: &Lab) -> Done {
    let knocks = knock(&lab.stranger, HTTPS, 3, Duration::from_millis(400))?;
    ensure!(knocks.silent == 3, "the gate doesn't stand: {knocks:?}");
    Ok(())
}

#[test]
fn a_daemon_that_root_starts_becomes_its_user_and_still_reloads_restarts_and_guards() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up_with(|lab, toml| {
        close_bpffs(lab).unwrap_or_else(|why| panic!("{why:#}"));
        format!("[process]\nuser = \"{NOBODY}\"\n{toml}")
    })?;
    let toml = fs::read_to_string(stand.weir.config())?;
    has_only_the_four(stand.weir.pid())?;
    strangers_stay_out(&stand.lab)?;
    let status = stand.weir.status()?;
    assert_eq!(status["privileges"]["uid"], NOBODY, "{status}");
    assert!(
        status["privileges"]["may_write"].as_array().is_some_and(|places| !places.is_empty()),
        "{status}"
    );
    assert!(status["gate"]["state"] == "on", "{status}");
    let bounding = of_all_threads(stand.weir.pid(), "CapBnd")?;
    assert_eq!(bounding, THE_FOUR);
    for kept in ["state", "access.log", "bpffs/weir"] {
        assert_eq!(fs::metadata(stand.lab.folder().join(kept))?.uid(), NOBODY, "{kept}");
    }

    // A reload may open a port under 1024, and the gate follows it.
    let more = format!(
        "{toml}\n[entrypoint.http]\nbind = \"{EDGE}:80\"\nallow = [\"cloudflare\"]\nredirect = \"https\"\n"
    );
    stand.weir.rewrite_config(&more)?;
    let http = std::net::SocketAddr::new(HTTPS.ip(), 80);
    wait::until_true("the port of the reload answers", PATIENCE, || {
        Ok(knock(&stand.lab.visitor, http, 1, Duration::from_secs(1))?.connected == 1)
    })?;
    until_silent(&stand.lab.stranger, http, PATIENCE)?;

    // Elsewhere it doesn't write, and says why.
    let elsewhere = tempfile::tempdir()?;
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o777))?;
    let bad_place = elsewhere.path().join("access.log").display().to_string();
    let log = stand.lab.folder().join("access.log").display().to_string();
    stand.weir.rewrite_config(&more.replace(&log, &bad_place))?;
    wait::until_true("the place is refused", PATIENCE, || {
        let why = stand.weir.status()?["configuration"]["last_reload_error"].to_string();
        Ok(why.contains("restart weir for it"))
    })?;

    // The next daemon adopts the pins, whose owner is the user now.
    stand.weir.kill()?;
    strangers_stay_out(&stand.lab)?;
    stand.weir = Weir::start(&stand.lab, &toml)?;
    wait_for_both(&stand.visitor)?;
    has_only_the_four(stand.weir.pid())?;
    strangers_stay_out(&stand.lab)
}

#[test]
fn a_daemon_that_starts_as_a_user_with_four_capabilities_guards_and_serves() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("setpriv"));
    let lab = Lab::build()?;
    let (_one, _two) = (Server::start(&lab, Which::One)?, Server::start(&lab, Which::Two)?);
    close_bpffs(&lab)?;
    let config = lab.folder().join("weir.toml");
    fs::write(&config, weir::standard(&lab))?;
    let handed = weir::run(&lab, &["hand-over", &NOBODY.to_string(), &config.display().to_string()])?;
    assert_eq!(handed.code, 0, "{handed:?}");

    let mut command = lab.edge.command("setpriv")?;
    let four = "+net_admin,+net_bind_service,+bpf,+perfmon";
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()])
        .args([format!("--inh-caps={four}"), format!("--ambient-caps={four}")])
        .arg(weir::program()?)
        .arg("run")
        .arg(&config);
    let notified = Notified::listen(&lab, &mut command)?;
    let daemon = Process::start("weir", command, &lab.folder().join("weir.log"))?;
    notified.until("READY=1")?;
    let visitor = Browser::of_site(&lab, &lab.visitor)?;
    wait_for_both(&visitor).context(daemon.log_text())?;
    has_only_the_four(daemon.pid())?;
    strangers_stay_out(&lab)?;
    // The watchdog is fed, as it asked for.
    notified.until("WATCHDOG=1")
}

#[test]
fn what_root_can_read_and_the_user_cannot_is_told_before_anything_runs() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let key = lab.certificates().join("site.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let config = lab.folder().join("weir.toml");
    for (user, told) in [
        (NOBODY.to_string(), "root can read all of this"),
        ("nobody-of-that-name".to_owned(), "this host has no user `nobody-of-that-name`"),
    ] {
        fs::write(&config, format!("[process]\nuser = \"{user}\"\n{}", weir::standard(&lab)))?;
        let ran = weir::run(&lab, &["run", &config.display().to_string()])?;
        assert!(ran.code != 0 && ran.stderr.contains(told), "{ran:?}");
    }
    assert!(!Path::new(&lab.bpffs().join("weir/v2/maps")).exists());
    Ok(())
}

/// What the daemon tells the service manager.
struct Notified(std::os::unix::net::UnixDatagram);

impl Notified {
    fn listen(lab: &Lab, command: &mut std::process::Command) -> anyhow::Result<Self> {
        let path = lab.folder().join("run/notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
        Ok(Self(socket))
    }

    fn until(&self, told: &str) -> Done {
        let mut buffer = [0; 1024];
        loop {
            let length = self.0.recv(&mut buffer).with_context(|| format!("{told} is never told"))?;
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == told) {
                return Ok(());
            }
        }
    }
}
