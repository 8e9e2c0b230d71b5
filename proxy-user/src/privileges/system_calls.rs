//! System calls that a proxy never makes, refused (seccomp).
//!
//! A list of what is refused, not of what is allowed: allocators, runtimes and TLS libraries change what they call, and
//! a proxy that dies of a new libc is worth less than one that could, say, call `sched_setattr`. What stands here is what
//! turns a hole in the daemon into one in the host. Refused means EPERM, so that a mistake here is an error and no crash.

use std::{collections::BTreeMap, env::consts::ARCH, fmt::Write as _};

use aws_lc_rs::digest;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::PrivilegeFault;

const REFUSED: &[i64] = &[
    // Other processes' memory and files.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // The host's clock and names.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Large, often broken, and of no use here.
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
];

/// What the daemon listens on and connects to. Raw packets, VM and Bluetooth sockets and the kernel's ciphers are not
/// among it.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Refuses them, unless that holds since this process was started: `before` are the digests of the filters that do. Says which hold
/// now. One more for each upgrade would make all system calls slower and slower.
pub(super) fn refuse(before: &[String]) -> Result<Vec<String>, PrivilegeFault> {
    let fault = |why: String| PrivilegeFault::System { doing: "refuse system calls", why };
    let Ok(target) = TargetArch::try_from(ARCH) else {
        tracing::warn!("system calls are not refused: seccomp filters are not written for {ARCH}");
        return Ok(before.to_vec());
    };
    let filter = filter(target).map_err(|error| fault(error.to_string()))?;
    let mut filters = before.to_vec();
    let digest = digest(&filter);
    if filters.contains(&digest) {
        return Ok(filters);
    }
    match apply_filter(&filter) {
        Ok(()) => {
            filters.push(digest);
            Ok(filters)
        }
        // A kernel without it, or a container that allows no further filter.
        Err(seccompiler::Error::Seccomp(error)) => {
            tracing::warn!(%error, "system calls are not refused: this kernel takes no seccomp filter");
            Ok(filters)
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

fn digest(filter: &BpfProgram) -> String {
    let bytes: Vec<u8> = filter
        .iter()
        .flat_map(|step| {
            let [a, b] = step.code.to_ne_bytes();
            let [c, d, e, f] = step.k.to_ne_bytes();
            [a, b, step.jt, step.jf, c, d, e, f]
        })
        .collect();
    let digest = digest::digest(&digest::SHA256, &bytes);
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn filter(target: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_kexec_file_load, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt] {
        rules.insert(call, Vec::new());
    }
    let not = |family: i32| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))
    };
    let foreign = SeccompRule::new(FAMILIES.into_iter().map(not).collect::<Result<_, _>>()?)?;
    rules.insert(libc::SYS_socket, vec![foreign]);
    let errno = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, errno, target)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    use super::*;

    /// A filter is a thread's own, and ends with it.
    #[test]
    fn what_is_on_the_list_is_refused_and_the_rest_goes_on() {
        thread::spawn(|| {
            let filters = refuse(&[]).unwrap();
            assert_eq!(refuse(&filters).unwrap(), filters, "once is enough");
            let chroot = nix::unistd::chroot("/proc");
            assert_eq!(chroot, Err(nix::Error::EPERM));
            let packet = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None);
            assert_eq!(packet.map(drop), Err(nix::Error::EPERM));
            TcpListener::bind("127.0.0.1:0").unwrap();
            std::fs::read("/proc/self/status").unwrap();
        })
        .join()
        .unwrap();
    }
}
