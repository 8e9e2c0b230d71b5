//! Where the daemon may write (Landlock).
//!
//! Only writing is confined. Reading isn't, since a reload may name files anywhere, and what may be read is for users and
//! groups to say. What may be written is in the configuration; a reload that names a new place has to wait for a restart,
//! and is refused with a sentence rather than half applied.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use landlock::{ABI, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules};

use super::PrivilegeFault;
use crate::{
    config::{
        DEFAULT_PATH,
        model::{AdminAddr, Cgroup, Config, KernelMode},
    },
    control::state::Source,
};

/// The kernel's rights to files as of Linux 6.2; older kernels confine what they know.
const KNOWN: ABI = ABI::V3;

/// Below which folders the daemon may write.
#[derive(Debug)]
pub(super) struct Places {
    pub folders: Vec<PathBuf>,
}

/// Confines this process, as far as the kernel can.
pub(super) fn confine(config: &Config, source: &Source) -> Result<Option<Places>, PrivilegeFault> {
    let folders = folders(config, source);
    let ruleset = || {
        let writing = AccessFs::from_write(KNOWN);
        Ruleset::default()
            .handle_access(writing)?
            .create()?
            .add_rules(path_beneath_rules(&folders, writing))?
            .restrict_self()
    };
    let status = ruleset().map_err(|error| PrivilegeFault::System {
        doing: "confine where it may write",
        why: error.to_string(),
    })?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => None,
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Some(Places { folders }),
    })
}

/// What exists of it now: a folder that doesn't can't be written to later.
fn folders(config: &Config, source: &Source) -> Vec<PathBuf> {
    let mut folders = BTreeSet::from([config.state.dir.clone()]);
    let configuration = match source {
        Source::Path(path) => path,
        Source::Embedded => Path::new(DEFAULT_PATH),
    };
    // `weir apply` puts configurations there, by renaming.
    folders.extend(
        if configuration.is_dir() { Some(configuration) } else { parent(configuration) }.map(Path::to_owned),
    );
    folders.extend(written(config).into_iter().filter_map(|file| parent(file).map(Path::to_owned)));
    if config.kernel.mode != KernelMode::Off {
        folders.insert(config.kernel.bpffs.clone());
        // The kernel's switches for the network; they stay its own to allow.
        folders.insert(PathBuf::from("/proc/sys/net"));
    }
    match &config.kernel.cgroup {
        Cgroup::Off => {}
        Cgroup::Auto => _ = folders.insert(PathBuf::from("/sys/fs/cgroup")),
        Cgroup::At(path) => folders.extend(parent(path).map(Path::to_owned)),
    }
    // It is made when it is first needed, which would be too late.
    let _ = std::fs::create_dir_all(&config.state.dir);
    for socket in config.admin.bind.iter().filter_map(|addr| match addr {
        AdminAddr::Unix(path) => parent(path),
        AdminAddr::Tcp(_) => None,
    }) {
        let _ = std::fs::create_dir(socket);
    }
    folders.into_iter().filter_map(|folder| folder.canonicalize().ok()).collect()
}

/// Files that the daemon makes, beside those of its state.
fn written(config: &Config) -> Vec<&Path> {
    let mut files: Vec<&Path> = config
        .admin
        .bind
        .iter()
        .filter_map(|addr| match addr {
            AdminAddr::Unix(path) => Some(path.as_path()),
            AdminAddr::Tcp(_) => None,
        })
        .collect();
    files.extend(config.log.files().map(|(_, path)| path));
    files
}

/// Of a relative path without a folder, the one that the process is in.
fn parent(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

// === impl Places ===

impl Places {
    pub(super) fn allow(&self, next: &Config) -> Result<(), String> {
        let outside = |file: &Path| {
            // A link leads to where it is written in the end.
            let place = file.canonicalize().ok().or_else(|| parent(file)?.canonicalize().ok());
            place.is_none_or(|place| !self.folders.iter().any(|folder| place.starts_with(folder)))
        };
        let sockets = next.admin.bind.iter().filter_map(|addr| match addr {
            AdminAddr::Unix(path) => Some(path.as_path()),
            AdminAddr::Tcp(_) => None,
        });
        // One that is missing by default is missing still.
        if !next.admin.by_default
            && let Some(path) = sockets.into_iter().find(|path| outside(path))
        {
            return Err(format!(
                "the admin socket {} is in a folder that nothing was written to when weir started, and the sandbox doesn't let \
                 it be made there now: restart weir for it",
                path.display()
            ));
        }
        if let Some((log, path)) = next.log.files().find(|(_, path)| outside(path)) {
            return Err(format!(
                "the access log `{}` is {}, in a folder that nothing was written to when weir started, and the sandbox doesn't \
                 let it write there now: restart weir for it, or choose a file in one of: {}",
                log.name,
                path.display(),
                self.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::config::load_text;

    fn config(folder: &Path, log: &str) -> Config {
        let folder = folder.display();
        let text = format!(
            "[kernel]\nmode = 'off'\n[state]\ndir = '{folder}/state'\n[log]\naccess = '{folder}/{log}'\n\
             [entrypoint.web]\nbind = '127.0.0.1:8080'\n[admin]\nbind = '127.0.0.1:9190'\n"
        );
        load_text(&Path::new(&folder.to_string()).join("etc/weir.toml"), &text).unwrap().config
    }

    #[test]
    fn writing_elsewhere_is_refused_reading_is_not_and_a_reload_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["etc", "log", "elsewhere"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let root = folder.path().to_owned();
        // Confined is the thread, and it ends.
        thread::spawn(move || {
            let running = config(&root, "log/access.log");
            let source = Source::Path(root.join("etc/weir.toml"));
            let Some(places) = confine(&running, &source).unwrap() else {
                assert!(std::env::var_os("CI").is_none(), "this kernel has no Landlock");
                return;
            };
            std::fs::write(root.join("state/kept"), "").unwrap();
            std::fs::write(root.join("log/access.log"), "").unwrap();
            let denied = std::fs::write(root.join("elsewhere/file"), "").unwrap_err();
            assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied);
            std::fs::read_dir(root.join("elsewhere")).unwrap();

            places.allow(&config(&root, "log/other.log")).unwrap();
            let told = places.allow(&config(&root, "elsewhere/access.log")).unwrap_err();
            assert!(told.contains("restart weir for it"), "{told}");
        })
        .join()
        .unwrap();
    }
}
