//! The control group that the daemon's connections to servers are watched from.
//!
//! Never the host's root: from there the program would see every connection of the host. A daemon that finds itself in
//! the root moves to a group of its own below it; under systemd it is in its unit's already. A socket belongs to the group
//! that its process was in when it was made, so this comes before the first connection.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::KernelFault;
use crate::config::model::Cgroup;

/// The group that a daemon in the root makes.
const OWN: &str = "weir";

/// A group, and the way back.
#[derive(Debug)]
pub(super) struct Group {
    pub path: PathBuf,
    /// Where the process was before, if it moved.
    before: Option<PathBuf>,
}

impl Group {
    /// Finds or makes the group that was asked for, and moves there. `None`: none was asked for.
    pub(super) fn enter(choice: &Cgroup) -> Result<Option<Self>, KernelFault> {
        let path = match choice {
            Cgroup::Off => return Ok(None),
            Cgroup::At(path) => path.clone(),
            Cgroup::Auto => {
                let (path, is_root) = present()?;
                if !is_root {
                    // One that a predecessor has made: whoever ends last takes it away.
                    let root = path.parent().filter(|above| !above.join("cgroup.events").exists());
                    let before = root.filter(|_| path.ends_with(OWN)).map(Path::to_owned);
                    return Ok(Some(Self { path, before }));
                }
                path.join(OWN)
            }
        };
        let before = present().ok().map(|(path, _)| path);
        if before.as_ref() == Some(&path) {
            return Ok(Some(Self { path, before: None }));
        }
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(KernelFault::system(format!("make the control group {}", path.display()), error));
            }
            _ => {}
        }
        if !path.join("cgroup.procs").exists() {
            return Err(KernelFault::Other {
                doing: format!("use the control group {}", path.display()),
                why: "it is none of version 2 (cgroup2)".into(),
            });
        }
        move_to(&path)?;
        Ok(Some(Self { path, before }))
    }

    pub(super) fn open(&self) -> Result<File, KernelFault> {
        File::open(&self.path)
            .map_err(|error| KernelFault::system(format!("open {}", self.path.display()), error))
    }
}

impl Drop for Group {
    /// Goes back. The group goes too if nobody else is in it.
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        if move_to(before).is_ok() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Removes the group that a daemon which was killed has left below the root, unless somebody is in it.
pub(super) fn remove_left_behind() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = Path::new(mounted(&mounts)?.place).join(OWN);
    fs::remove_dir(&own).is_ok().then_some(own)
}

/// The group that this process is in, and whether that is the host's root.
fn present() -> Result<(PathBuf, bool), KernelFault> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|error| KernelFault::system(format!("read {path}"), error))
    };
    let none = |why: &str| KernelFault::Unsupported { why: why.to_owned() };
    let mounts = read("/proc/self/mountinfo")?;
    let mounted = mounted(&mounts)
        .ok_or_else(|| none("no control groups of version 2 (cgroup2) are mounted where it can see them"))?;
    let groups = read("/proc/self/cgroup")?;
    let group = group_of(&groups).ok_or_else(|| none("it is in no control group of version 2 (cgroup2)"))?;
    let path = mounted
        .path_of(group)
        .ok_or_else(|| none("its control group lies outside of what is mounted here"))?;
    // In a container the group that looks like the root is the container's. The host's has no such file.
    let is_root = !path.join("cgroup.events").exists();
    Ok((path, is_root))
}

fn move_to(group: &Path) -> Result<(), KernelFault> {
    fs::write(group.join("cgroup.procs"), "0")
        .map_err(|error| KernelFault::system(format!("move to the control group {}", group.display()), error))
}

/// Where cgroup2 is mounted, and which group is to be seen there.
#[derive(Debug, PartialEq, Eq)]
struct Mounted<'a> {
    root: &'a str,
    place: &'a str,
}

impl Mounted<'_> {
    fn path_of(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(self.root).ok()?;
        // `..` leads out of what this namespace may see.
        let inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| {
            if below == Path::new("") { self.place.into() } else { Path::new(self.place).join(below) }
        })
    }
}

/// `… - cgroup2 …` behind `ID PARENT DEVICE ROOT PLACE …`.
fn mounted(mounts: &str) -> Option<Mounted<'_>> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        after.starts_with("cgroup2 ").then_some(Mounted { root, place })
    })
}

/// `0::/system.slice/weir.service`; the lines of version 1 have other numbers.
fn group_of(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_among_the_first() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        let at = mounted(mounts).unwrap();
        assert_eq!(at, Mounted { root: "/", place: "/sys/fs/cgroup/unified" });
        assert_eq!(mounted("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"), None);
        assert_eq!(
            group_of("4:memory:/a\n0::/system.slice/weir.service\n"),
            Some("/system.slice/weir.service")
        );
        assert_eq!(group_of("4:memory:/a\n"), None);
    }

    #[test]
    fn a_group_is_found_below_what_is_mounted_and_nowhere_else() {
        for (root, group, path) in [
            ("/", "/", Some("/cg")),
            ("/", "/system.slice/weir.service", Some("/cg/system.slice/weir.service")),
            ("/docker/1", "/docker/1", Some("/cg")),
            ("/docker/1", "/docker/1/edge", Some("/cg/edge")),
            ("/docker/1", "/docker/2", None),
            ("/", "/../..", None),
        ] {
            let found = Mounted { root, place: "/cg" }.path_of(group);
            assert_eq!(found.as_deref(), path.map(Path::new), "{group} in {root}");
        }
    }
}
