//! `weir apply`, `confirm`, `revert` and `diff`, and the watchdog that `apply --confirm` leaves behind.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    admin::{client::Address, status::StatusDocument},
    cli::{
        Failure,
        admin::{AdminArgs, Unfollowed},
        block_on, complain, print,
    },
    config::{
        self,
        diff::{Change, How},
        model::AdminAddr,
    },
    control::{guard::Session, watchdog::Watch},
};

/// So many prefixes of a list are shown one by one.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The new configuration: a file, or `-` for standard input. Relative paths in it begin where the daemon's own
    /// configuration is
    file: PathBuf,
    /// Take it back by itself unless `weir confirm` comes within this time: 1s to 24h
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    confirm: Option<Duration>,
    /// Even if it would cut off your own session, or another program's clients
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct TrialArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The configuration to compare with what runs: a file, or `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct WatchdogArgs {
    #[arg(long)]
    config: PathBuf,
    #[arg(long)]
    id: u64,
    #[arg(long)]
    admin: Address,
}

pub fn run(args: &ApplyArgs) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let id = fastrand::u64(1..);
    // Before the order: whatever becomes of this session, somebody looks after the trial.
    let here = args.admin.for_orders().local();
    // A daemon on another host looks after its trials itself, and nobody here could do it for it.
    let watchdog = args.confirm.and(here).map(|at| start_watchdog(&args.admin, &at, id)).transpose()?;
    let order = json!({
        "name": name(&args.file),
        "text": text,
        "confirm_ms": args.confirm.map(|time| time.as_millis() as u64),
        "id": id,
        "force": args.force,
        "ssh": ssh(),
    });
    let answer = match args.admin.order("/api/v1/apply", &order) {
        Ok(answer) => answer,
        Err(Unfollowed::Refused(failure)) => {
            if let Some(mut watchdog) = watchdog {
                // There is nothing to watch. It fails only for a process that is gone.
                let _ = watchdog.kill();
                let _ = watchdog.wait();
            }
            return Err(failure);
        }
        // It may have been followed all the same: the watchdog stays.
        Err(Unfollowed::Unanswered(failure)) => return Err(failure),
    };
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let mut text = changes(&answer);
    let _ = writeln!(
        text,
        "applied: generation {} runs, and is in {}",
        answer["generation"],
        answer["path"].as_str().unwrap_or_default()
    );
    if let Some(time) = args.confirm {
        let _ = writeln!(text, "on trial: it goes again in {time:?}, unless you say `weir confirm`");
    }
    print(&text)
}

pub fn confirm(args: &TrialArgs) -> Result<(), Failure> {
    let answer = args.admin.order("/api/v1/confirm", &json!({}))?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    print(&format!(
        "confirmed: {} stays (generation {}), with {:.0} s left\n",
        answer["confirmed"].as_str().unwrap_or_default(),
        answer["generation"],
        answer["seconds_left"].as_f64().unwrap_or_default(),
    ))
}

pub fn revert(args: &TrialArgs) -> Result<(), Failure> {
    let answer = args.admin.order("/api/v1/revert", &json!({}))?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    print(&format!(
        "taken back: {} (it is kept in {}); generation {} runs\n",
        answer["reverted"].as_str().unwrap_or_default(),
        answer["kept"].as_str().unwrap_or_default(),
        answer["generation"],
    ))
}

pub fn diff(args: &DiffArgs) -> Result<(), Failure> {
    let order = json!({ "name": name(&args.file), "text": read(&args.file)? });
    let answer = args.admin.order("/api/v1/diff", &order)?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    print(&changes(&answer))
}

/// What the watchdog's own process does.
pub fn watchdog(args: WatchdogArgs) -> Result<(), Failure> {
    // A session of its own: the operator's may end.
    nix::unistd::setsid().map_err(|error| Failure::Failed(format!("no session of its own: {error}")))?;
    let _ = std::env::set_current_dir("/");
    let mut log = args.config.clone().into_os_string();
    log.push(".watchdog.log");
    let log = std::fs::File::create(&log).map_err(|error| {
        Failure::Failed(format!("can't write {}: {error}", PathBuf::from(&log).display()))
    })?;
    print("watching\n")?;
    let admin =
        args.admin.local().ok_or_else(|| Failure::Failed("the daemon is on another host".to_owned()))?;
    let watch = Watch { config: args.config, id: args.id, admin };
    let outcome = block_on(watch.run(&log))?;
    if let Err(why) = outcome {
        let _ = writeln!(&log, "failed: {why}");
        return Err(Failure::Failed(why));
    }
    Ok(())
}

fn start_watchdog(admin: &AdminArgs, at: &AdminAddr, id: u64) -> Result<Child, Failure> {
    let failed =
        |why: String| Failure::Failed(format!("the watchdog can't be started, nothing was applied: {why}"));
    let (_, body) = admin.get_for_orders("/api/v1/status")?;
    let status: StatusDocument = serde_json::from_slice(&body)
        .map_err(|error| failed(format!("the daemon's status is not understood: {error}")))?;
    let Some(config) = status.configuration.place else {
        return Err(Failure::Failed(
            "the daemon's configuration is not one file, so none can be applied: change its files, they are taken over \
             at once"
                .into(),
        ));
    };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut child = Command::new(program)
        .args(["watchdog", "--config", &config, "--id", &id.to_string(), "--admin", &written(at)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut line = String::new();
    let told = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    if !matches!(told, Some(Ok(_))) || line.trim() != "watching" {
        let mut why = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut why);
        }
        let _ = child.wait();
        return Err(failed(why.trim().to_owned()));
    }
    Ok(child)
}

fn written(at: &AdminAddr) -> String {
    match at {
        AdminAddr::Tcp(addr) => addr.to_string(),
        AdminAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| Failure::BadConfig(format!("error: can't read {}: {error}", name(file))))
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "<standard input>".to_owned() } else { file.display().to_string() }
}

/// For people: what changes, and what is to be said about it.
fn changes(answer: &Value) -> String {
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        complain(&format!("warning: {}", warning["message"].as_str().unwrap_or_default()));
    }
    let changes: Vec<Change> = serde_json::from_value(answer["changes"].clone()).unwrap_or_default();
    changes_text(&changes)
}

/// For people: what changes.
pub(super) fn changes_text(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "no change to what runs\n".to_owned();
    }
    changes.iter().map(change).collect()
}

fn change(change: &Change) -> String {
    let mut text = String::new();
    let sign = match change.how {
        How::Added => '+',
        How::Removed => '-',
        How::Changed => '~',
    };
    let (added, removed) = (&change.prefixes_added, &change.prefixes_removed);
    // Writing to a String can't fail.
    let _ = write!(text, "{sign} {}", change.section);
    if !change.name.is_empty() {
        let _ = write!(text, " `{}`", change.name);
    }
    if !added.is_empty() || !removed.is_empty() {
        let _ = write!(text, ": {} prefixes more, {} fewer", added.len(), removed.len());
    }
    text.push('\n');
    for (sign, prefixes) in [('+', added), ('-', removed)] {
        for prefix in prefixes.iter().take(SHOWN) {
            let _ = writeln!(text, "    {sign} {prefix}");
        }
        if prefixes.len() > SHOWN {
            let _ = writeln!(text, "    {sign} and {} more (--json has them all)", prefixes.len() - SHOWN);
        }
    }
    for key in &change.keys {
        let _ = match (&key.before, &key.after) {
            (Some(before), Some(after)) => writeln!(text, "    {}: {before} → {after}", key.key),
            (Some(one), None) => writeln!(text, "    - {}: {one}", key.key),
            (None, one) => writeln!(text, "    + {}: {}", key.key, one.as_deref().unwrap_or_default()),
        };
    }
    text
}
/// The operator's session, for the lock-out guard: as sshd writes it.
pub(super) fn ssh() -> Option<String> {
    Session::of_this_process().map(Session::to_ssh)
}
