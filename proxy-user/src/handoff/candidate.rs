//! A binary that is to take over, looked at before it is started: whose it is, which version, and whether it takes the configuration.

use std::{
    fmt::Write as _,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::geteuid,
};
use serde::Deserialize;

use super::{Protocols, SPEAKS};

/// For each question.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of an answer is told.
const LONGEST: usize = 16 << 10;

/// Anybody may write there.
const WRITABLE_FOR_ALL: u32 = 0o002;
const WRITABLE_FOR_GROUP: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// What `version --json` tells.
#[derive(Debug, Deserialize)]
struct Version {
    version: String,
    /// Missing: of a release that knows nothing of taking over.
    take_over: Option<Protocols>,
}

/// The version of a binary that can take over, as far as can be said without starting it. `config`: what it is to read; `None`: its
/// own default.
///
/// # Errors
/// A sentence: why it can't.
pub fn check(program: &Path, config: Option<&Path>) -> Result<String, String> {
    let told = ask(program, &["version".into(), "--json".into()])?;
    let told: Version = serde_json::from_str(&told).map_err(|_| {
        format!("{} is no weir: `version --json` tells no version (`{}`)", program.display(), one_line(&told))
    })?;
    let version = told.version;
    if told.take_over.and_then(|theirs| SPEAKS.agree(theirs)).is_none() {
        return Err(format!(
            "weir {version} ({}) can't take over from weir {}: they are too far apart; restart the daemon instead",
            program.display(),
            env!("CARGO_PKG_VERSION")
        ));
    }
    if let Some(config) = config {
        ask(program, &["check".into(), config.as_os_str().to_owned()])
            .map_err(|why| format!("weir {version} does not take the configuration:\n{why}"))?;
    }
    Ok(version)
}

/// Whether only root, and who this process runs as, can have put a binary there. Whoever may give orders could have anything run with
/// this daemon's rights otherwise.
///
/// # Errors
/// A sentence: what is wrong with it.
pub fn trusted(program: &Path) -> Result<PathBuf, String> {
    if !program.is_absolute() {
        return Err(format!("{} is not an absolute path", program.display()));
    }
    let told = |error: io::Error| format!("{} can't be started: {error}", program.display());
    let place = program.canonicalize().map_err(told)?;
    if !place.metadata().map_err(told)?.is_file() {
        return Err(format!("{} is no file", program.display()));
    }
    for part in place.ancestors() {
        let found = part.metadata().map_err(told)?;
        let owner = found.uid();
        if owner != 0 && owner != geteuid().as_raw() {
            return Err(format!(
                "{} is not taken: {} belongs to neither root nor the user that weir runs as (but to {owner})",
                program.display(),
                part.display()
            ));
        }
        let others = found.mode() & (WRITABLE_FOR_ALL | WRITABLE_FOR_GROUP) != 0;
        // In a folder like /tmp nobody can replace what is somebody else's.
        if others && !(found.is_dir() && found.mode() & STICKY != 0) {
            return Err(format!(
                "{} is not taken: others than its owner may write to {} (`chmod go-w`)",
                program.display(),
                part.display()
            ));
        }
    }
    Ok(program.to_owned())
}

/// What a program says until it ends well.
fn ask(program: &Path, arguments: &[std::ffi::OsString]) -> Result<String, String> {
    let named = || {
        let mut named = program.display().to_string();
        for argument in arguments {
            let _ = write!(named, " {}", argument.display());
        }
        named
    };
    let failed = |error: io::Error| format!("`{}` can't be run: {error}", named());
    let (mut reads, writes) = io::pipe().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(writes.try_clone().map_err(failed)?)
        .stderr(writes);
    let mut child = command.spawn().map_err(failed)?;
    // It holds the other end of the pipe, too.
    drop(command);
    let until = Instant::now() + PATIENCE;
    let said = read_until(&mut reads, until);
    if said.is_none() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    match said {
        None => Err(format!("`{}` took longer than {} s", named(), PATIENCE.as_secs())),
        Some(said) if status.success() => Ok(said),
        Some(said) if said.trim().is_empty() => Err(format!("`{}` failed ({status})", named())),
        Some(said) => Err(said.trim_end().to_owned()),
    }
}

/// `None`: it wasn't all in time.
fn read_until(from: &mut io::PipeReader, until: Instant) -> Option<String> {
    use std::os::fd::AsFd;
    let (mut said, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).ok()?;
        let ready = poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], timeout);
        match ready {
            Err(nix::Error::EINTR) => continue,
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        match from.read(&mut some) {
            Ok(0) => return Some(String::from_utf8_lossy(&said).into_owned()),
            Ok(read) => {
                let room = LONGEST.saturating_sub(said.len());
                said.extend_from_slice(&some[..read.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// A script in a binary's place. Written by a shell, for a file that this process has open for writing can't be started by a
    /// thread of it.
    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        let wrote = Command::new("sh")
            .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"", "-"])
            .args([path.as_os_str(), text.as_ref()])
            .status();
        assert!(wrote.unwrap().success());
        path
    }

    #[test]
    fn a_binary_is_asked_for_its_version_and_about_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let good = "{\"version\":\"7.0.0\",\"ebpf\":true,\"take_over\":{\"oldest\":1,\"newest\":3}}";
        let config = Path::new("/etc/weir/weir.toml");
        for (name, text, told) in [
            ("good", format!("echo '{good}'"), Ok("7.0.0")),
            ("old", "echo '{\"version\":\"0.0.1\",\"ebpf\":true}'".into(), Err("weir 0.0.1")),
            ("far", format!("echo '{}'", good.replace(":1", ":9").replace(":3", ":9")), Err("too far apart")),
            ("other", "echo hello".into(), Err("is no weir: `version --json` tells no version (`hello`)")),
            ("crashes", "exit 3".into(), Err("failed (exit status: 3)")),
            (
                "strict",
                format!("[ $1 = version ] && echo '{good}' && exit; echo \"no $2\" >&2; exit 2"),
                Err("weir 7.0.0 does not take the configuration:\nno /etc/weir/weir.toml"),
            ),
        ] {
            match (check(&script(folder.path(), name, &text), Some(config)), told) {
                (Ok(version), Ok(wanted)) => assert_eq!(version, wanted),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{name}: {why}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
        let missing = check(&folder.path().join("nothing"), None).unwrap_err();
        assert!(missing.contains("can't be run"), "{missing}");
    }

    #[test]
    fn who_may_write_to_a_binary_must_be_root_or_the_daemons_own_user() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "weir", "");
        assert_eq!(trusted(&program).unwrap(), program);
        assert!(trusted(Path::new("weir")).unwrap_err().contains("not an absolute path"));
        assert!(trusted(folder.path()).unwrap_err().contains("is no file"));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(trusted(&program).unwrap_err().contains("chmod go-w"));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(trusted(&program).unwrap_err().contains("chmod go-w"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&program, Some(61777), None).unwrap();
            assert!(trusted(&program).unwrap_err().contains("belongs to neither root"));
        }
    }
}
