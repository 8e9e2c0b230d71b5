//! Which of root's powers stay.

use caps::{CapSet, Capability, CapsHashSet};

use super::PrivilegeFault;

/// Load programs and make maps; attach them to interfaces; what the verifier lets programs do with pointers; listen on
/// ports under 1024. Binding and attaching happen at any reload, so these stay.
pub(super) const NEEDED: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_BIND_SERVICE,
];

/// For a daemon that stays root: files are read and written as root does, whoever's they are. It sees in which SSH
/// sessions other processes were started, so that no list locks their operators out; the system calls that could do more
/// with that are refused.
const OF_ROOT: [Capability; 5] = [
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_CHOWN,
    Capability::CAP_SYS_PTRACE,
];

/// Gives up all but what is needed, of what this process has; also for programs that it may start.
pub(super) fn keep_what_is_needed(root: bool) -> Result<(), PrivilegeFault> {
    let fault = |error: caps::errors::CapsError| PrivilegeFault::System {
        doing: "give up capabilities",
        why: error.to_string(),
    };
    let others: &[Capability] = if root { &OF_ROOT } else { &[] };
    let wanted: CapsHashSet = NEEDED.iter().chain(others).copied().collect();
    let has = caps::read(None, CapSet::Permitted).map_err(fault)?;
    let kept: CapsHashSet = has.intersection(&wanted).copied().collect();
    // The bounding set takes SETPCAP to change. Without it, nothing in it can come back either: see NO_NEW_PRIVS below.
    if has.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding).map_err(fault)?;
        for capability in bounding.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(fault)?;
        }
    }
    let ambient = if root { CapsHashSet::new() } else { kept.clone() };
    // What is neither permitted nor inheritable leaves the ambient set by itself.
    caps::set(None, CapSet::Effective, &kept).map_err(fault)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(fault)?;
    caps::set(None, CapSet::Inheritable, &ambient).map_err(fault)?;
    // So that a successor that this process starts has them too.
    for capability in &ambient {
        caps::raise(None, CapSet::Ambient, *capability).map_err(fault)?;
    }
    nix::sys::prctl::set_no_new_privs()
        .map_err(|error| PrivilegeFault::System { doing: "rule out new privileges", why: error.to_string() })
}

/// A change of user clears capabilities; what is permitted outlives this one.
pub(super) fn over_a_change_of_user(
    change: impl FnOnce() -> Result<(), PrivilegeFault>,
) -> Result<(), PrivilegeFault> {
    let fault =
        |why: String| PrivilegeFault::System { doing: "keep capabilities over a change of user", why };
    caps::securebits::set_keepcaps(true).map_err(|error| fault(error.to_string()))?;
    change()?;
    caps::securebits::set_keepcaps(false).map_err(|error| fault(error.to_string()))?;
    let permitted = caps::read(None, CapSet::Permitted).map_err(|error| fault(error.to_string()))?;
    // SETPCAP is needed once more, to clear the bounding set.
    caps::set(None, CapSet::Effective, &permitted).map_err(|error| fault(error.to_string()))
}
