//! What every configuration needs of the host: its kernel, its clock, its limits.

use std::{fs, path::Path};

use nix::sys::{
    resource::{Resource, getrlimit},
    utsname::uname,
};

use super::Finding;
use crate::{
    config::model::{Config, KernelMode},
    kernel::{self, KernelFault},
};

/// The oldest kernel that the tests are run on.
const OLDEST: (u32, u32) = (6, 1);

/// Each client of a terminated connection takes two descriptors.
const FEW_FILES: u64 = 16_384;

/// `timex.status`: the clock is not synchronised (adjtimex(2)).
const STA_UNSYNC: i32 = 0x40;

pub fn look(config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![version(), types(), just_in_time(), privileges(config)];
    let bpffs = config.map_or(Path::new("/sys/fs/bpf"), |config| &config.kernel.bpffs);
    findings.push(match kernel::observe(bpffs) {
        Err(KernelFault::BpffsNotMounted { path }) => {
            let path = path.display();
            let remedy = format!("mount -t bpf bpf {path}");
            without_gate(config, "bpffs", format!("not mounted at {path}"), remedy)
        }
        _ => Finding::well("bpffs", format!("mounted at {}", bpffs.display())),
    });
    findings.extend([clock(), open_files(), syn_cookies()]);
    findings
}

/// What keeps the gate away is an illness only where the configuration insists on it.
fn without_gate(
    config: Option<&Config>,
    subject: &str,
    found: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    match config.map(|config| config.kernel.mode) {
        Some(KernelMode::Off) => Finding::well(subject, found),
        Some(KernelMode::Xdp | KernelMode::Tc) => Finding::ill(subject, found, remedy),
        Some(KernelMode::Auto) | None => {
            let found = format!("{}; lists would be enforced at accept only", found.into());
            Finding::poor(subject, found, remedy)
        }
    }
}

fn version() -> Finding {
    let release = uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    match number(&release) {
        Some(number) if number < OLDEST => Finding::poor(
            "kernel",
            format!("Linux {release}, older than the {}.{} that Weir is tested on", OLDEST.0, OLDEST.1),
            "a newer kernel, if the gate is refused here",
        ),
        _ => Finding::well("kernel", format!("Linux {release}")),
    }
}

fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn types() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        Finding::well("kernel types", path)
    } else {
        Finding::poor(
            "kernel types",
            format!("there is no {path}"),
            "a kernel with CONFIG_DEBUG_INFO_BTF; Debian's have it",
        )
    }
}

fn just_in_time() -> Finding {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => Finding::poor(
            "eBPF compiler",
            "off: the kernel interprets the gate, at many times the cost",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Finding::well("eBPF compiler", "on"),
        // Built so that it can't be off, or not ours to read.
        Err(_) => Finding::well("eBPF compiler", "not told"),
    }
}

fn privileges(config: Option<&Config>) -> Finding {
    if kernel::object_built_in().is_none() {
        return without_gate(
            config,
            "kernel programs",
            "this binary was built without them",
            "`cargo xtask build`",
        );
    }
    match kernel::permitted() {
        Ok(()) => Finding::well("privileges", "enough to load and attach the gate"),
        Err(_) => without_gate(
            config,
            "privileges",
            "this user may not load the gate",
            "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON as packaging's weir.service does",
        ),
    }
}

fn clock() -> Finding {
    // SAFETY: adjtimex fills a `timex`; all zeroes is one that asks and sets nothing.
    let status = unsafe {
        let mut timex: nix::libc::timex = std::mem::zeroed();
        (nix::libc::adjtimex(&raw mut timex) >= 0).then_some(timex.status)
    };
    match status {
        Some(status) if status & STA_UNSYNC != 0 => Finding::poor(
            "clock",
            "not synchronised: certificates, blocks and tickets end by it",
            "a time service, such as systemd-timesyncd or chrony",
        ),
        Some(_) => Finding::well("clock", "synchronised"),
        None => Finding::well("clock", "not told"),
    }
}

fn open_files() -> Finding {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        // The daemon raises the soft limit to the hard one by itself.
        Ok((_, hard)) if hard < FEW_FILES => Finding::poor(
            "open files",
            format!("at most {hard}, and each visitor takes two"),
            "a higher limit: LimitNOFILE= in the unit, `ulimit -n` in a shell",
        ),
        Ok((_, hard)) => Finding::well("open files", format!("up to {hard}")),
        Err(error) => Finding::well("open files", format!("not told: {error}")),
    }
}

fn syn_cookies() -> Finding {
    match fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").as_deref().map(str::trim) {
        Ok("0") => Finding::poor(
            "SYN cookies",
            "off: a flood of SYNs fills the queues of listeners, and the gate can't answer it either",
            "sysctl net.ipv4.tcp_syncookies=1",
        ),
        _ => Finding::well("SYN cookies", "on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_its_number_in_front() {
        assert_eq!(number("6.1.0-56-amd64"), Some((6, 1)));
        assert_eq!(number("5.10.0"), Some((5, 10)));
        assert!(number("6.12+deb13").is_some_and(|number| number >= OLDEST));
        assert_eq!(number("odd"), None);
    }
}
