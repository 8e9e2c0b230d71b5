//! `[kernel]`, `[shutdown]`, `[upgrade]` and `[state]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    merge::Merged,
    passthrough,
    scalar::{self, HOUR, SECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Cgroup, Kernel, KernelMode, Shutdown, StateFolder, Upgrade},
    source::FileId,
    value::{self, quoted},
    written::{self, At},
};

pub fn kernel(written: &Merged<'_>, findings: &mut Findings) -> Kernel {
    let mut kernel = Kernel {
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        bpffs: PathBuf::from(default::BPFFS),
        cgroup: Cgroup::Auto,
        nat_ports: passthrough::nat_ports(written, findings),
        max_flows: default::MAX_FLOWS,
    };
    let Some((file, section)) = written.kernel else { return kernel };
    let max_flows = section.value.max_flows.as_ref();
    kernel.max_flows =
        scalar::count(file, "kernel.max_flows", max_flows, default::MAX_FLOWS, 1024..=4_194_304, findings);
    for interface in section.value.interfaces.iter().flat_map(|list| &list.items) {
        if let Err(refusal) = value::interface(&interface.value) {
            scalar::refused(file, Code::BadInterface, "kernel.interfaces:", interface, refusal, findings);
        } else if !kernel.interfaces.iter().any(|known| **known == interface.value) {
            kernel.interfaces.push(interface.value.as_str().into());
        }
    }
    kernel.mode = match section.value.mode.as_ref().map(|mode| mode.value) {
        None | Some(written::KernelMode::Auto) => KernelMode::Auto,
        Some(written::KernelMode::Xdp) => KernelMode::Xdp,
        Some(written::KernelMode::Tc) => KernelMode::Tc,
        Some(written::KernelMode::Off) => KernelMode::Off,
    };
    if let Some(bpffs) = &section.value.bpffs {
        kernel.bpffs = PathBuf::from(&bpffs.value);
        if !kernel.bpffs.is_absolute() {
            let message = format!("kernel.bpffs: {} is not an absolute path", quoted(&bpffs.value));
            findings
                .error(Code::BadPlace, file, &bpffs.span, message)
                .hint(format!("BPF file systems are mostly mounted at `{}`", default::BPFFS));
        }
    }
    if let Some(written) = &section.value.cgroup {
        kernel.cgroup = match &*written.value {
            "auto" => Cgroup::Auto,
            "off" => Cgroup::Off,
            path if path.starts_with('/') => Cgroup::At(PathBuf::from(path)),
            other => {
                let message = format!("kernel.cgroup: {} is not an absolute path", quoted(other));
                findings
                    .error(Code::BadPlace, file, &written.span, message)
                    .hint("write `auto`, `off`, or the folder of a control group");
                Cgroup::Auto
            }
        };
    }
    kernel
}

/// An address to listen on.
pub fn listen_address(
    file: FileId,
    what: &str,
    item: &At<String>,
    findings: &mut Findings,
) -> Option<SocketAddr> {
    match value::socket_address(&item.value) {
        Ok(address) if address.port() == 0 && !address.ip().is_loopback() => {
            let message =
                format!("{what} {} has port 0, which is another port at every start", quoted(&item.value));
            findings.error(Code::BadAddress, file, &item.span, message).hint("ports go from 1 to 65535");
            None
        }
        Ok(address) => Some(address),
        Err(refusal) => {
            scalar::refused(file, Code::BadAddress, what, item, refusal, findings);
            None
        }
    }
}

const LONGEST_START: Duration = Duration::from_secs(5 * 60);
const LONGEST_DELAY: Duration = Duration::from_secs(10 * 60);
const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 24 * 3600);

pub fn shutdown(written: &Merged<'_>, findings: &mut Findings) -> Shutdown {
    let Some((file, section)) = written.shutdown else {
        let [delay, grace] = [default::SHUTDOWN_DELAY, default::GRACE].map(value::duration);
        return Shutdown { delay: delay.unwrap_or_default(), grace: grace.unwrap_or_default() };
    };
    let mut duration = |key, written, default, longest| {
        scalar::duration(file, key, written, default, Duration::ZERO..=longest, findings)
    };
    let (delay, grace) = (section.value.delay.as_ref(), section.value.grace.as_ref());
    Shutdown {
        delay: duration("shutdown.delay", delay, default::SHUTDOWN_DELAY, LONGEST_DELAY),
        grace: duration("shutdown.grace", grace, default::GRACE, HOUR),
    }
}

pub fn upgrade(written: &Merged<'_>, findings: &mut Findings) -> Upgrade {
    let Some((file, section)) = written.upgrade else {
        let [ready, drain] = [default::UPGRADE_READY, default::UPGRADE_DRAIN].map(value::duration);
        return Upgrade { ready: ready.unwrap_or_default(), drain: drain.unwrap_or_default() };
    };
    let (ready, drain) = (section.value.ready.as_ref(), section.value.drain.as_ref());
    let mut duration =
        |key, written, default, range| scalar::duration(file, key, written, default, range, findings);
    Upgrade {
        ready: duration("upgrade.ready", ready, default::UPGRADE_READY, SECOND..=LONGEST_START),
        drain: duration("upgrade.drain", drain, default::UPGRADE_DRAIN, Duration::ZERO..=LONGEST_DRAIN),
    }
}

pub fn state(written: &Merged<'_>, findings: &mut Findings) -> StateFolder {
    let mut state = StateFolder { dir: PathBuf::from(default::STATE) };
    if let Some((file, section)) = written.state
        && let Some(dir) = &section.value.dir
    {
        state.dir = PathBuf::from(&dir.value);
        if !state.dir.is_absolute() {
            let message = format!("state.dir: {} is not an absolute path", quoted(&dir.value));
            findings
                .error(Code::BadPlace, file, &dir.span, message)
                .hint(format!("leave the key out for `{}`", default::STATE));
        }
    }
    state
}
