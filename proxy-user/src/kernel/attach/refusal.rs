//! What an interface's refusal means, and who is there already.

use std::io;

use aya::programs::loaded_programs;
use nix::libc;

use crate::kernel::{
    KernelFault,
    interface::{Candidate, Hook},
    sys::present,
};

pub(super) fn of(candidate: &Candidate, hook: Hook, error: io::Error) -> KernelFault {
    let why = match (hook, error.raw_os_error()) {
        (_, Some(libc::EPERM)) => {
            return KernelFault::system(format!("attach to `{}`", candidate.name), error);
        }
        (Hook::Xdp, Some(libc::EBUSY | libc::EEXIST)) => {
            format!("another XDP program is attached there and stays: {}", xdp_programs(candidate.index))
        }
        (Hook::Xdp, Some(libc::EOPNOTSUPP)) => {
            "its driver has no native XDP; `mode = \"tc\"` works on any interface".into()
        }
        (Hook::Xdp, Some(libc::ERANGE | libc::EINVAL)) => {
            "its driver can't run XDP as it is set up; an MTU above one page is the usual cause".into()
        }
        (Hook::Clsact, Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
            "this kernel has neither tcx (since Linux 6.6) nor clsact with cls_bpf".into()
        }
        (Hook::Clsact, Some(libc::EINVAL)) => {
            "filters of other kinds stand at its ingress at each of the priorities 1 to 8".into()
        }
        (Hook::Xdp | Hook::Tcx | Hook::Clsact, _) => error.to_string(),
    };
    KernelFault::AttachRefused { name: candidate.name.clone(), hook: hook.name(), why }
}

fn xdp_programs(interface: u32) -> String {
    let ids = present::xdp(interface).unwrap_or_default();
    if ids.is_empty() {
        return "`bpftool net` shows it".into();
    }
    let named = ids.iter().map(|id| match program_name(*id) {
        Some(name) => format!("`{name}` (id {id})"),
        None => format!("id {id}"),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// `None`: it has no name, or we may not ask.
pub(in crate::kernel) fn program_name(id: u32) -> Option<String> {
    let mut programs = loaded_programs().map_while(Result::ok);
    let found = programs.find(|program| program.id() == id)?;
    found.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}
