//! `[kernel]`, `[admin]`, `[log]`, `[shutdown]` and `[state]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    merge::Merged,
    passthrough,
    scalar::{self, HOUR},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{
        AccessLog, AccessLogFormat, AccessLogTarget, Admin, AdminAddr, Cgroup, Kernel, KernelMode, Log,
        Shutdown, StateFolder,
    },
    source::FileId,
    value::{self, nearest, quoted},
    written::{self, At},
};

pub fn kernel(written: &Merged<'_>, findings: &mut Findings) -> Kernel {
    let mut kernel = Kernel {
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        bpffs: PathBuf::from(default::BPFFS),
        cgroup: Cgroup::Auto,
        nat_ports: passthrough::nat_ports(written, findings),
    };
    let Some((file, section)) = written.kernel else { return kernel };
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

pub fn admin(written: &Merged<'_>, findings: &mut Findings) -> Admin {
    let list = written.admin.and_then(|(file, section)| Some((file, section.value.bind.as_ref()?)));
    let Some((file, list)) = list else {
        let tcp = default::ADMIN.parse().map(AdminAddr::Tcp);
        let bind = tcp.into_iter().chain([AdminAddr::Unix(default::ADMIN_SOCKET.into())]).collect();
        return Admin { bind, by_default: true };
    };
    if list.items.is_empty() && !findings.lost("admin.bind") {
        let message = "admin.bind is an empty list: `weir status` could not reach the daemon";
        findings
            .error(Code::EmptyList, file, &list.span, message)
            .hint(format!("leave the key out for `{}`", default::ADMIN_BIND.join("` and `")));
    }
    let mut bind = Vec::new();
    for item in &list.items {
        let Some(address) = admin_address(file, item, findings) else { continue };
        if bind.contains(&address) {
            let message = format!("admin.bind: {} is written twice", quoted(&item.value));
            findings.error(Code::AddressTaken, file, &item.span, message).hint("keep one of the two");
        }
        bind.push(address);
    }
    Admin { bind, by_default: false }
}

fn admin_address(file: FileId, item: &At<String>, findings: &mut Findings) -> Option<AdminAddr> {
    if let Some(path) = item.value.strip_prefix("unix:") {
        let path = findings.sources.resolve(file, path);
        // What the kernel takes in sun_path, with the zero at its end.
        if path.as_os_str().len() > 107 || item.value.len() <= "unix:".len() {
            let message = format!("admin.bind: {} is not a usable socket path", quoted(&item.value));
            findings
                .error(Code::BadAddress, file, &item.span, message)
                .hint("a socket's path has 1 to 107 bytes: `unix:/run/weir/admin.sock`");
            return None;
        }
        return Some(AdminAddr::Unix(path));
    }
    let address = listen_address(file, "admin.bind:", item, findings)?;
    if !address.ip().is_loopback() {
        let message = format!("the admin interface at `{address}` is reachable from other hosts");
        findings
            .warning(Code::AdminExposed, file, &item.span, message)
            .hint("write `127.0.0.1` and the port, or `unix:/run/weir/admin.sock`");
    }
    Some(AdminAddr::Tcp(address))
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

pub fn log(written: &Merged<'_>, findings: &mut Findings) -> Log {
    let mut access = AccessLog { to: AccessLogTarget::Stdout, format: AccessLogFormat::Json };
    let Some((file, section)) = written.log else { return Log { access } };
    if let Some(to) = &section.value.access {
        access.to = match &*to.value {
            "stdout" => AccessLogTarget::Stdout,
            "off" => AccessLogTarget::Off,
            // A bare word is a typing error rather than a file's name.
            word if !word.contains('/') => {
                let message =
                    format!("log.access is {}, which is neither `stdout` nor `off` nor a path", quoted(word));
                let finding = findings.error(Code::WrongValue, file, &to.span, message);
                match nearest(word, ["stdout", "off"]) {
                    Some(near) => finding.suggest(Some(near)),
                    None => finding.hint(format!("for a file beside this one, write `./{word}`")),
                };
                AccessLogTarget::Off
            }
            path => AccessLogTarget::File(findings.sources.resolve(file, path)),
        };
    }
    if let Some(written::LogFormat::Combined) = section.value.format.as_ref().map(|format| format.value) {
        access.format = AccessLogFormat::Combined;
    }
    Log { access }
}

pub fn shutdown(written: &Merged<'_>, findings: &mut Findings) -> Shutdown {
    let grace = match written.shutdown {
        Some((file, section)) => {
            let grace = section.value.grace.as_ref();
            scalar::duration(file, "shutdown.grace", grace, default::GRACE, Duration::ZERO..=HOUR, findings)
        }
        None => value::duration(default::GRACE).unwrap_or_default(),
    };
    Shutdown { grace }
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
