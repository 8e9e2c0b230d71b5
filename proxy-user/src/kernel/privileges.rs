//! Whether this process may do what the gate needs.
//!
//! Asked beforehand, because without privileges the kernel answers questions about its own abilities with "no",
//! and everything after that fails for reasons that aren't the reason.

use std::fs;

use super::KernelFault;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

pub(super) fn check() -> Result<(), KernelFault> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match effective(&status) {
        Some(effective) if !suffice(effective) => {
            Err(KernelFault::NotPermitted { doing: "load the gate".into() })
        }
        // Where it can't be asked, the kernel says.
        _ => Ok(()),
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn suffice(effective: u64) -> bool {
    let has = |capability: u32| effective & (1 << capability) != 0;
    // The administrator of everything may also do what the two younger capabilities are for.
    let bpf = has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON));
    bpf && has(CAP_NET_ADMIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_three_capabilities_suffice_and_less_does_not() {
        let of = |capabilities: &[u32]| capabilities.iter().fold(0, |all, one| all | 1 << one);
        assert!(suffice(u64::MAX));
        assert!(suffice(of(&[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON])));
        assert!(suffice(of(&[CAP_SYS_ADMIN, CAP_NET_ADMIN])));
        assert!(!suffice(of(&[CAP_BPF, CAP_NET_ADMIN])));
        assert!(!suffice(of(&[CAP_SYS_ADMIN])));
        assert!(!suffice(0));
    }

    #[test]
    fn capabilities_are_read_as_the_kernel_writes_them() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000001000\n"), Some(0xc0_0000_1000));
        assert_eq!(effective(""), None);
    }
}
