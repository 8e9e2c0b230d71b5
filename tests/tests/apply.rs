//! Orders over the admin socket: who may give them, and how a configuration is applied, confirmed and taken back.

use std::{
    fs::Permissions,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use nix::unistd::Pid;
use weir_lab::{
    Lab,
    lab::{
        addresses::{EDGE, HTTPS, STRANGER, STRANGER_V6},
        knock::{knock, until_connected, until_silent},
        load,
        namespace::{As, Namespace},
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Ran, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

#[test]
fn orders_are_taken_over_the_socket_from_root_and_from_nobody_else() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let ran = weir::run(&stand.lab, &["reload"])?;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "taken over: generation 2 runs\n"), "{ran:?}");

    let over_tcp = weir::run(&stand.lab, &["reload", "--admin", "127.0.0.1:9190"])?;
    assert_eq!(over_tcp.code, 1, "{over_tcp:?}");
    assert!(over_tcp.stderr.contains("can only be read from"), "{over_tcp:?}");

    // Even where the socket's own permissions would let anybody in.
    let socket = weir::admin_socket(&stand.lab);
    std::fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
    let socket = format!("unix:{}", socket.display());
    let stranger = weir::run_as(&stand.lab, &["reload", "--admin", &socket], As::Nobody)?;
    assert_eq!(stranger.code, 1, "{stranger:?}");
    assert!(stranger.stderr.contains("only root and the user that weir runs as"), "{stranger:?}");
    // To look is free.
    let looked = weir::run_as(&stand.lab, &["status", "--admin", &socket], As::Nobody)?;
    assert_eq!(looked.code, 0, "{looked:?}");
    assert_eq!(stand.weir.status()?["generation"], 2);
    Ok(())
}

#[test]
fn the_daemons_own_user_may_give_orders() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_as(As::Nobody, |lab, toml| {
        toml.replace(&format!("access = \"{}/access.log\"", lab.folder().display()), "access = \"stdout\"")
    })?;
    let socket = format!("unix:{}", weir::admin_socket(&stand.lab).display());
    let ran = weir::run_as(&stand.lab, &["reload", "--admin", &socket], As::Nobody)?;
    assert_eq!(ran.code, 0, "{ran:?}");
    Ok(())
}

#[test]
fn a_reload_by_order_says_what_is_wrong_and_changes_nothing() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let bad = weir::standard(&stand.lab).replace("service = \"app\"", "service = \"nowhere\"");
    stand.weir.rewrite_config(&bad)?;
    let ran = weir::run(&stand.lab, &["reload"])?;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("`nowhere`"), "{ran:?}");
    wait::until_true("it is in the status", PATIENCE, || {
        Ok(stand.weir.status()?["configuration"]["last_reload_ok"] == false)
    })?;
    assert_eq!(stand.weir.status()?["generation"], 1);
    Ok(())
}

/// The standard configuration, with the stranger on a list.
fn with_friends(lab: &Lab) -> String {
    weir::standard(lab).replace("allow = [\"cloudflare\"]", "allow = [\"cloudflare\", \"friends\"]")
        + &format!("\n[allowlist.friends]\nprefixes = [\"{STRANGER}/32\", \"{STRANGER_V6}/128\"]\n")
}

/// Writes a configuration to be applied, outside of the daemon's folder.
fn written(lab: &Lab, toml: &str) -> anyhow::Result<String> {
    let folder = lab.folder().join("drafts");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("new.toml");
    std::fs::write(&file, toml)?;
    Ok(file.display().to_string())
}

fn beside(weir: &Weir, what: &str) -> PathBuf {
    PathBuf::from(format!("{}.{what}", weir.config().display()))
}

fn on_disk(weir: &Weir) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(weir.config())?)
}

/// Applies with a trial of `seconds`, and gives when that is over at the earliest.
fn try_out(stand: &Stand, toml: &str, seconds: u64) -> anyhow::Result<Instant> {
    let begun = Instant::now();
    let file = written(&stand.lab, toml)?;
    let ran = weir::run(&stand.lab, &["apply", &file, "--confirm", &format!("{seconds}s")])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    Ok(begun + Duration::from_secs(seconds))
}

/// The end of a trial can only be waited for.
fn until_passed(end: Instant) -> Done {
    wait::until_true("the time of the trial is over", PATIENCE, || Ok(Instant::now() > end))
}

fn refused(ran: &Ran, code: i32, sentence: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for part in sentence {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn what_is_applied_runs_and_is_on_disk_and_fails_no_request() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let load = stand.load("/", 200)?;
    let (before, after) = (weir::standard(&stand.lab), with_friends(&stand.lab));
    let ran = weir::run(&stand.lab, &["apply", &written(&stand.lab, &after)?])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("+ allowlist `friends`: 2 prefixes more, 0 fewer"), "{ran:?}");
    assert!(ran.stdout.contains("allow: cloudflare → cloudflare, friends"), "{ran:?}");
    assert!(ran.stdout.contains("generation 2 runs"), "{ran:?}");
    // It runs when the answer is there: no waiting.
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 3, Duration::from_secs(1))?.connected, 3);
    assert_eq!(on_disk(&stand.weir)?, after);
    assert_eq!(std::fs::read_to_string(beside(&stand.weir, "previous"))?, before);
    // Not taken for a change of the file, which would be another reload.
    let again = weir::run(&stand.lab, &["diff", &stand.weir.config().to_string_lossy()])?;
    assert_eq!(again.stdout, "no change to what runs\n");
    assert_eq!(stand.weir.status()?["generation"], 2);
    load::all_served(&load.stop()?)
}

#[test]
fn what_is_not_valid_or_can_not_run_changes_nothing() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let before = weir::standard(&stand.lab);
    let faulty = before.replace("service = \"app\"", "service = \"nowhere\"");
    let ran = weir::run(&stand.lab, &["apply", &written(&stand.lab, &faulty)?])?;
    refused(&ran, 2, &["drafts/new.toml:", "`nowhere`"]);

    let taken = format!("{before}\n[entrypoint.more]\nbind = \"{EDGE}:8088\"\n");
    let squatter = listen(&stand.lab.edge, 8088)?;
    let ran = weir::run(&stand.lab, &["apply", &written(&stand.lab, &taken)?, "--confirm", "10s"])?;
    refused(&ran, 1, &["8088", "taken by another process"]);
    drop(squatter);

    let ran = weir::run(&stand.lab, &["apply", "/nowhere.toml"])?;
    refused(&ran, 2, &["/nowhere.toml"]);
    assert_eq!(on_disk(&stand.weir)?, before);
    assert!(!beside(&stand.weir, "trial").exists());
    assert_eq!(stand.weir.status()?["generation"], 1);
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}

#[test]
fn a_folder_and_the_embedded_default_are_not_replaced() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let folder = lab.folder().join("conf");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("one.toml"), weir::standard(&lab))?;
    let mut command = lab.edge.command(weir::program()?)?;
    command.arg("run").arg(&folder).env("NO_COLOR", "1");
    let process = weir_lab::lab::process::Process::start("weir", command, &lab.folder().join("weir.log"))?;
    wait::until_true("it takes orders", PATIENCE, || Ok(weir::run(&lab, &["ping"])?.code == 0))?;
    let file = written(&lab, &weir::standard(&lab))?;
    refused(&weir::run(&lab, &["apply", &file])?, 1, &["is the folder"]);
    refused(&weir::run(&lab, &["apply", &file, "--confirm", "5s"])?, 1, &["not one file"]);
    drop(process);
    Ok(())
}

#[test]
fn what_nobody_confirms_is_taken_back() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let (before, after) = (weir::standard(&stand.lab), with_friends(&stand.lab));
    let end = try_out(&stand, &after, 3)?;
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 1, Duration::from_secs(1))?.connected, 1);
    let status = stand.weir.status()?;
    let left = status["configuration"]["trial"]["seconds_left"].as_f64().unwrap_or_default();
    assert!(left > 0.0 && left <= 3.0, "{status}");
    let shown = weir::run(&stand.lab, &["status"])?.stdout;
    assert!(shown.contains("ON TRIAL: ") && shown.contains("drafts/new.toml goes again in "), "{shown}");
    let second = weir::run(&stand.lab, &["apply", &written(&stand.lab, &before)?])?;
    refused(&second, 1, &["is still on trial"]);

    let load = stand.load("/", 100)?;
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    assert!(Instant::now() >= end, "it was taken back too soon");
    wait::until_true("the trial is over", PATIENCE, || {
        Ok(stand.weir.status()?["configuration"]["trial"].is_null())
    })?;
    assert_eq!(on_disk(&stand.weir)?, before);
    assert_eq!(std::fs::read_to_string(beside(&stand.weir, "reverted"))?, after);
    assert!(!beside(&stand.weir, "trial").exists());
    refused(&weir::run(&stand.lab, &["confirm"])?, 1, &["no configuration is on trial"]);
    load::all_served(&load.stop()?)
}

#[test]
fn what_is_confirmed_stays() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let after = with_friends(&stand.lab);
    let end = try_out(&stand, &after, 2)?;
    let ran = weir::run(&stand.lab, &["confirm"])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("drafts/new.toml stays"), "{ran:?}");
    // Past what the watchdog would have waited, too.
    until_passed(end + Duration::from_secs(2))?;
    assert_eq!(on_disk(&stand.weir)?, after);
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 3, Duration::from_secs(1))?.connected, 3);
    assert_eq!(stand.weir.status()?["generation"], 2);
    Ok(())
}

#[test]
fn a_revert_is_at_once() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    try_out(&stand, &with_friends(&stand.lab), 600)?;
    let ran = weir::run(&stand.lab, &["revert"])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    let knocks = knock(&stand.lab.stranger, HTTPS, 3, Duration::from_millis(400))?;
    assert_eq!(knocks.silent, 3, "{ran:?}");
    assert_eq!(on_disk(&stand.weir)?, weir::standard(&stand.lab));
    refused(&weir::run(&stand.lab, &["revert"])?, 1, &["no configuration is on trial"]);
    Ok(())
}

#[test]
fn an_edit_during_the_trial_is_taken_over_and_goes_with_it() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    try_out(&stand, &weir::standard(&stand.lab), 3)?;
    let edited = with_friends(&stand.lab);
    stand.weir.rewrite_config(&edited)?;
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    wait::until_true("the edit is kept", PATIENCE, || Ok(beside(&stand.weir, "reverted").exists()))?;
    assert_eq!(std::fs::read_to_string(beside(&stand.weir, "reverted"))?, edited);
    assert_eq!(on_disk(&stand.weir)?, weir::standard(&stand.lab));
    Ok(())
}

#[test]
fn the_gate_judges_by_the_previous_lists_after_the_trial_though_the_daemon_was_killed() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up()?;
    let end = try_out(&stand, &with_friends(&stand.lab), 2)?;
    // A session of its own: no hang-up of the operator's reaches it.
    let watchdog = watchdog_of(&stand.lab)?;
    assert_eq!(nix::unistd::getsid(Some(watchdog))?, watchdog);
    stand.weir.kill()?;
    // Let through by the gate, and refused by a port on which nobody listens.
    let knocks = knock(&stand.lab.stranger, HTTPS, 1, Duration::from_secs(1))?;
    assert_eq!(knocks.refused, 1, "the gate has gone back before the end");
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    assert!(Instant::now() >= end, "it was taken back too soon");
    assert_eq!(knock(&stand.lab.visitor, HTTPS, 1, Duration::from_secs(1))?.refused, 1);
    wait::until_true("the trial is over", PATIENCE, || Ok(!beside(&stand.weir, "trial").exists()))?;
    assert_eq!(on_disk(&stand.weir)?, weir::standard(&stand.lab));
    wait::until_true("the watchdog has ended", PATIENCE, || Ok(watchdog_of(&stand.lab).is_err()))?;
    let said = std::fs::read_to_string(beside(&stand.weir, "watchdog.log"))?;
    assert!(said.contains("no daemon answers") && said.contains("previous configuration"), "{said}");
    Ok(())
}

#[test]
fn a_daemon_that_is_started_during_the_trial_goes_on_waiting() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up()?;
    let after = with_friends(&stand.lab);
    let end = try_out(&stand, &after, 4)?;
    stand.weir.kill()?;
    let weir = Weir::start(&stand.lab, &after)?;
    assert!(!weir.status()?["configuration"]["trial"].is_null());
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 1, Duration::from_secs(1))?.connected, 1);
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    assert!(Instant::now() >= end, "it was taken back too soon");
    assert_eq!(on_disk(&weir)?, weir::standard(&stand.lab));
    let said = std::fs::read_to_string(beside(&weir, "watchdog.log"))?;
    assert_eq!(said, "", "the daemon was there, and the watchdog interfered");
    Ok(())
}

/// The process that looks after the trial in this lab.
fn watchdog_of(lab: &Lab) -> anyhow::Result<Pid> {
    let config = lab.folder().join("weir.toml").display().to_string();
    let is_it = |process: &i32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        words.iter().any(|word| word == "watchdog") && words.iter().any(|word| *word == config)
    };
    let mut processes =
        std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.find(is_it).map(Pid::from_raw).context("no watchdog runs")
}

/// What is left of a trial when the host has died during it.
fn leave_a_trial(lab: &Lab, previous: &str, deadline: i64) -> Done {
    let trial = serde_json::json!({
        "id": 1, "name": "new.toml", "milliseconds": 60_000, "deadline": deadline, "previous": previous,
    });
    Ok(std::fs::write(lab.folder().join("weir.toml.trial"), trial.to_string())?)
}

fn in_a_minute() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())? + 60_000)
}

#[test]
fn a_trial_that_ended_while_the_host_was_down_is_taken_back_before_anything_runs() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    let before = weir::standard(&lab);
    leave_a_trial(&lab, &before, in_a_minute()? - 61_000)?;
    let weir = Weir::start(&lab, &with_friends(&lab))?;
    assert_eq!(knock(&lab.stranger, HTTPS, 3, Duration::from_millis(400))?.silent, 3);
    assert_eq!(on_disk(&weir)?, before);
    assert_eq!(weir.status()?["generation"], 1, "the configuration on trial never ran");
    assert!(!beside(&weir, "trial").exists());
    assert!(weir.log_text().contains("nobody confirmed"), "{}", weir.log_text());
    Ok(())
}

#[test]
fn a_trial_with_which_no_daemon_starts_is_taken_back_at_once() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let before = weir::standard(&lab);
    leave_a_trial(&lab, &before, in_a_minute()?)?;
    let weir = Weir::start(&lab, &before.replace("[service.app]", "[service.app"))?;
    assert_eq!(on_disk(&weir)?, before);
    assert!(weir.status()?["configuration"]["trial"].is_null());
    Ok(())
}

/// A program that is no Weir, in a namespace.
fn listen(namespace: &Namespace, port: u16) -> anyhow::Result<TcpListener> {
    Ok(namespace.run(|| TcpListener::bind((EDGE, port)))??)
}

/// Both ends of a connection from another namespace to the edge.
fn session(
    lab: &Lab,
    from: &Namespace,
    sshd: &TcpListener,
) -> anyhow::Result<(TcpStream, TcpStream, String)> {
    let at: SocketAddr = sshd.local_addr()?;
    let client = from.run(|| TcpStream::connect_timeout(&at, PATIENCE))??;
    let (server, remote) = lab.edge.run(|| sshd.accept())??;
    Ok((client, server, format!("{} {} {} {}", remote.ip(), remote.port(), at.ip(), at.port())))
}

/// Runs `weir` in a shell that sshd has started.
fn run_over_ssh(lab: &Lab, ssh: &str, arguments: &[&str]) -> anyhow::Result<Ran> {
    run_in_ssh_shell(lab, ssh, "\"$0\" \"$@\"; exit $?", arguments)
}

fn run_in_ssh_shell(lab: &Lab, ssh: &str, script: &str, arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut command = lab.edge.command("sh")?;
    let admin = format!("unix:{}", weir::admin_socket(lab).display());
    command.args(["-c", script]).arg(weir::program()?).args(arguments);
    command.env("NO_COLOR", "1").env("WEIR_ADMIN", admin).env("SSH_CONNECTION", ssh);
    weir::finish(command)
}

#[test]
fn the_operators_own_session_is_not_cut_off_unless_forced() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let lab = &stand.lab;
    let guarding = weir::standard(lab)
        + &format!("\n[entrypoint.ssh]\nbind = \"{EDGE}:2222\"\nallow = [\"cloudflare\"]\n");
    let file = written(lab, &guarding)?;
    let sshd = listen(&lab.edge, 2222)?;
    let (_strangers, _server, ssh) = session(lab, &lab.stranger, &sshd)?;
    let (_visitors, _server_too, listed) = session(lab, &lab.visitor, &sshd)?;

    // While sshd listens: whoever asks, and also by an edit of the file.
    let ran = weir::run(lab, &["apply", &file])?;
    let service = ["`ssh` would guard", ":2222", "another program listens", &STRANGER.to_string(), "--force"];
    refused(&ran, 1, &service);
    stand.weir.rewrite_config(&guarding)?;
    wait::until_true("the edit is refused", PATIENCE, || {
        let status = stand.weir.status()?;
        Ok(status["configuration"]["last_reload_error"]
            .as_str()
            .is_some_and(|why| why.contains("another program")))
    })?;
    stand.weir.rewrite_config(&weir::standard(lab))?;
    wait::until_true("the mended file is taken over", PATIENCE, || {
        Ok(stand.weir.status()?["configuration"]["last_reload_ok"] == true)
    })?;

    // sshd has moved to another port, and the session is still here.
    drop(sshd);
    let ran = run_over_ssh(lab, &ssh, &["apply", &file])?;
    let own =
        ["`ssh` would guard", ":2222", "your own SSH session", &format!("add \"{STRANGER}\""), "--force"];
    refused(&ran, 1, &own);
    // As through sudo, which clears the environment.
    let ran = run_in_ssh_shell(lab, &ssh, "env -u SSH_CONNECTION \"$0\" \"$@\"; exit $?", &["apply", &file])?;
    refused(&ran, 1, &own);
    assert_eq!(on_disk(&stand.weir)?, weir::standard(lab));
    let ran = run_over_ssh(lab, &listed, &["diff", &file])?;
    assert_eq!(ran.code, 0, "{ran:?}");

    let ran = run_over_ssh(lab, &ssh, &["apply", &file, "--force"])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    // Who has forced it is not asked again.
    assert_eq!(weir::run(lab, &["reload"])?.code, 0);
    Ok(())
}

#[test]
fn a_session_that_is_listed_is_no_reason_to_refuse() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let lab = &stand.lab;
    let sshd = listen(&lab.edge, 2222)?;
    let (_client, _server, ssh) = session(lab, &lab.visitor, &sshd)?;
    drop(sshd);
    let guarding = weir::standard(lab)
        + &format!("\n[entrypoint.ssh]\nbind = \"{EDGE}:2222\"\nallow = [\"cloudflare\"]\n");
    let ran = run_over_ssh(lab, &ssh, &["apply", &written(lab, &guarding)?])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    Ok(())
}

#[test]
fn a_start_over_ssh_does_not_cut_its_own_session_off() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    let file = written(&lab, &weir::standard(&lab))?;
    let ran = run_over_ssh(&lab, &format!("{STRANGER} 50000 {EDGE} 443"), &["run", &file])?;
    refused(&ran, 1, &["`https` would guard", "your own SSH session", "--force"]);
    until_refused(&lab)?;

    let mut forced = lab.edge.command(weir::program()?)?;
    forced.args(["run", &file]).env("NO_COLOR", "1").env("WEIR_FORCE", "1");
    forced.env("SSH_CONNECTION", format!("{STRANGER} 50000 {EDGE} 443"));
    let _forced = weir_lab::lab::process::Process::start("weir", forced, &lab.folder().join("weir.log"))?;
    wait::until_true("it runs all the same", PATIENCE, || Ok(weir::run(&lab, &["ping"])?.code == 0))
}

/// Nothing is guarded: the stranger reaches the edge, where nobody listens.
fn until_refused(lab: &Lab) -> Done {
    wait::until_true("the stranger is refused, not ignored", PATIENCE, || {
        Ok(knock(&lab.stranger, HTTPS, 1, Duration::from_secs(1))?.refused == 1)
    })
}

#[test]
fn a_diff_tells_what_would_change_and_changes_nothing() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let next = with_friends(&stand.lab).replace("fall = 2", "fall = 3").replace(
        "[allowlist.friends]",
        "[page.sorry]\nhtml = \"sorry.html\"\n[[route]]\nhost = \"a.example\"\nservice = \"app\"\n\n[allowlist.friends]",
    );
    // Relative paths begin where the daemon's own configuration is, not where this one is.
    std::fs::write(stand.lab.folder().join("sorry.html"), "sorry")?;
    let file = written(&stand.lab, &next)?;
    let ran = weir::run(&stand.lab, &["diff", &file])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in [
        "+ allowlist `friends`: 2 prefixes more, 0 fewer\n",
        &format!("    + {STRANGER}/32\n"),
        "~ entrypoint `https`\n    allow: cloudflare → cloudflare, friends\n",
        "~ service `app`\n    health.fall: 2 → 3\n",
        "+ page `sorry`\n",
        "+ route `a.example`\n",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    let json = weir::run(&stand.lab, &["diff", &file, "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(json["changes"].as_array().map(Vec::len), Some(5), "{json}");
    assert_eq!(json["changes"][0]["prefixes_added"][0], format!("{STRANGER}/32"));
    assert_eq!(stand.weir.status()?["generation"], 1);

    let faulty = written(&stand.lab, "entrypoint = 1")?;
    refused(&weir::run(&stand.lab, &["diff", &faulty])?, 2, &["new.toml:1:"]);
    Ok(())
}
