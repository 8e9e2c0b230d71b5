//! What is in force, asked of the kernel rather than remembered.

use std::{fmt, fs};

use caps::{CapSet, Capability};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::{account::Tables, capabilities::NEEDED, places::Places};

/// For `weir status` and the admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PrivilegeReport {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    /// What is in effect, by the kernel's names.
    pub capabilities: Vec<String>,
    /// Programs that it starts get no more than it has itself.
    pub no_new_privileges: bool,
    /// System calls are filtered.
    pub seccomp: bool,
    /// Where it may write; `None`: wherever its user may.
    pub may_write: Option<Vec<String>>,
}

pub(super) fn read(places: Option<&Places>) -> PrivilegeReport {
    let (uid, gid) = (geteuid(), getegid());
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    PrivilegeReport {
        user: Tables::read().name_of(uid),
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        capabilities: capabilities(),
        no_new_privileges: field("NoNewPrivs:") == Some("1"),
        // 2: by a filter. It may be a container's, which is as good.
        seccomp: field("Seccomp:") == Some("2"),
        may_write: places
            .map(|places| places.folders.iter().map(|folder| folder.display().to_string()).collect()),
    }
}

fn capabilities() -> Vec<String> {
    let mut effective: Vec<Capability> =
        caps::read(None, CapSet::Effective).unwrap_or_default().into_iter().collect();
    effective.sort_by_key(Capability::index);
    effective.iter().map(ToString::to_string).collect()
}

impl fmt::Display for PrivilegeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.user)?;
        let extra = self.capabilities.len() > NEEDED.len();
        let short: Vec<_> =
            self.capabilities.iter().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
        match short.len() {
            0 => write!(f, ", no capabilities")?,
            count if count > 10 => write!(f, ", {count} CAPABILITIES")?,
            _ => write!(f, ", {}", short.join(" "))?,
        }
        if self.uid == 0 && extra {
            write!(f, " (`[process] user` gives up more)")?;
        }
        let on = |on: bool| if on { "on" } else { "OFF" };
        write!(f, "; seccomp {}, Landlock {}", on(self.seccomp), on(self.may_write.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_in_force() {
        let report = PrivilegeReport {
            user: "weir".into(),
            uid: 990,
            gid: 990,
            capabilities: vec!["CAP_NET_BIND_SERVICE".into(), "CAP_BPF".into()],
            no_new_privileges: true,
            seccomp: true,
            may_write: None,
        };
        assert_eq!(report.to_string(), "user weir, net_bind_service bpf; seccomp on, Landlock OFF");
    }
}
