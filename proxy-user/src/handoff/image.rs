//! Which program this process is, so that the same can be started once more: by the path that it was started with, under which
//! another version may lie by then.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone)]
pub struct Image {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Image {
    /// Of this process. To be asked before anybody can have replaced the program. `None`: the system doesn't tell.
    pub fn of_this_process() -> Option<Self> {
        let own = env::current_exe().ok()?;
        let mut arguments = env::args_os();
        let called = PathBuf::from(arguments.next().unwrap_or_default());
        let program = by_name(&called, env::var_os("PATH"), &own).unwrap_or(own);
        Some(Self { program, arguments: arguments.collect() })
    }
}

/// The path by which it was called: a link stays one, since updates may set it to another version.
fn by_name(called: &Path, path: Option<OsString>, own: &Path) -> Option<PathBuf> {
    let is_it = |candidate: &PathBuf| matches!((candidate.canonicalize(), own.canonicalize()), (Ok(it), Ok(own)) if it == own);
    if called.components().count() > 1 {
        return std::path::absolute(called).ok().filter(is_it);
    }
    let folders = path?;
    env::split_paths(&folders).map(|folder| folder.join(called)).filter(|it| it.is_absolute()).find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_as_it_was_called_if_that_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("weir-1"), "").unwrap();
        std::fs::write(at("other"), "").unwrap();
        std::os::unix::fs::symlink("weir-1", at("weir")).unwrap();
        let path = || Some(folder.path().as_os_str().to_owned());
        for (called, named) in [
            (at("weir"), Some(at("weir"))),
            ("weir".into(), Some(at("weir"))),
            (at("other"), None),
            ("other".into(), None),
            ("nothing".into(), None),
        ] {
            assert_eq!(by_name(&called, path(), &at("weir-1")), named, "{}", called.display());
        }
    }
}
