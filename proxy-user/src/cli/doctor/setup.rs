//! What one configuration needs of the host: its interfaces, ports and files.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

use super::Finding;
use crate::{
    admin::client,
    cli::block_on,
    config::{
        Loaded, Report,
        model::{AdminAddr, Carries, Config, Entrypoint, KernelMode},
    },
    kernel, privileges,
};

/// The smallest packets that IPv6 asks of a link (RFC 8200 §5).
const LEAST_MTU: u32 = 1280;

pub fn configuration(file: &Path, loaded: &Result<Loaded, Report>) -> Finding {
    let file = file.display();
    match loaded {
        Ok(loaded) if loaded.warnings.is_empty() => {
            Finding::well("configuration", format!("{file} is valid"))
        }
        Ok(loaded) => {
            let count = loaded.warnings.len();
            let remedy = format!("`weir check {file}` names them");
            Finding::poor("configuration", format!("{file} is valid, with {count} warnings"), remedy)
        }
        Err(report) => {
            let count = report.diagnostics.len();
            let remedy = format!("`weir check {file}` shows each with its place");
            Finding::ill("configuration", format!("{file} has {count} faults or can't be read"), remedy)
        }
    }
}

pub fn look(config: &Config) -> Vec<Finding> {
    let mut findings = interfaces(config);
    findings.extend([user(config), sandbox(config)]);
    let running = runs(config);
    if running {
        findings.push(Finding::well("daemon", "one runs, so its ports are not tried"));
    } else {
        findings.extend(ports(config));
    }
    findings
}

fn user(config: &Config) -> Finding {
    match &config.process.user {
        None => Finding::well("user", "who starts it (`[process] user` makes root somebody else)"),
        Some(user) if user.parse::<u32>().is_ok() || privileges::host_has_user(user) => {
            Finding::well("user", format!("{user}, with four capabilities"))
        }
        Some(user) => Finding::ill(
            "user",
            format!("this host has no user `{user}` (process.user)"),
            format!("adduser --system --group --no-create-home {user}"),
        ),
    }
}

fn sandbox(config: &Config) -> Finding {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    match (config.process.sandbox, modules.as_str()) {
        (false, _) => Finding::poor("sandbox", "off (process.sandbox)", "take the key out"),
        (true, "") => Finding::well("sandbox", "on; `weir status` says what the kernel has of it"),
        (true, modules) if modules.trim().split(',').any(|module| module == "landlock") => {
            Finding::well("sandbox", "seccomp and Landlock")
        }
        (true, _) => Finding::poor(
            "sandbox",
            "seccomp alone: this kernel has no Landlock",
            "add `landlock` to the kernel's `lsm=`",
        ),
    }
}

fn interfaces(config: &Config) -> Vec<Finding> {
    if config.kernel.mode == KernelMode::Off {
        return vec![Finding::well("interfaces", "none is asked for (`mode = \"off\"`)")];
    }
    if config.kernel.interfaces.is_empty() {
        return vec![Finding::poor(
            "interfaces",
            "none is named, so nothing is guarded in the kernel",
            "`[kernel] interfaces` names those that visitors come in by; `ip link` lists what there is",
        )];
    }
    let of = |name: &std::sync::Arc<str>| {
        let subject = format!("interface {name}");
        let mtu = kernel::mtu(name);
        match kernel::preview(name, config.kernel.mode) {
            Err(fault) => Finding::ill(subject, fault.to_string(), "`[kernel] interfaces` names it"),
            Ok((hook, why)) => match mtu {
                Some(mtu) if mtu < LEAST_MTU => Finding::poor(
                    subject,
                    format!("{} ({why}); its MTU is {mtu}", hook.name()),
                    format!("an MTU of {LEAST_MTU} or more: IPv6 doesn't work below"),
                ),
                Some(mtu) => Finding::well(subject, format!("{} ({why}); MTU {mtu}", hook.name())),
                None => Finding::well(subject, format!("{} ({why})", hook.name())),
            },
        }
    };
    config.kernel.interfaces.iter().map(of).collect()
}

fn runs(config: &Config) -> bool {
    let answers = |addr: &AdminAddr| block_on(client::answers(addr)).unwrap_or(false);
    config.admin.bind.iter().any(answers)
}

/// Whether each address can be listened on. Bound and let go again; nobody gets in meanwhile, since nobody accepts.
fn ports(config: &Config) -> Vec<Finding> {
    let of = |entrypoint: &Entrypoint| {
        let (datagrams, floating) = (entrypoint.carries == Carries::Udp, entrypoint.floating);
        entrypoint.bind.iter().map(move |address| (*address, datagrams, floating)).collect::<Vec<_>>()
    };
    let addresses: BTreeSet<_> = config.entrypoints.iter().flat_map(of).collect();
    addresses
        .into_iter()
        .map(|(address, datagrams, floating)| {
            let bound = match datagrams {
                true => UdpSocket::bind(address).map(drop),
                false => TcpListener::bind(address).map(drop),
            };
            let port = format!("port {address}");
            match bound {
                Ok(()) => Finding::well(port, "free"),
                Err(error) if floating && error.kind() == io::ErrorKind::AddrNotAvailable => {
                    Finding::well(port, "not an address of this host now, and it may come (`floating`)")
                }
                Err(error) => Finding::ill(port, error.to_string(), remedy(&error, address)),
            }
        })
        .collect()
}

fn remedy(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("`ss -lntup 'sport = :{}'` says who has it", address.port()),
        io::ErrorKind::PermissionDenied => "ports under 1024 take root or CAP_NET_BIND_SERVICE".into(),
        io::ErrorKind::AddrNotAvailable => "`ip address` lists the addresses that this host has".into(),
        _ => "another address in the entrypoint's `bind`".into(),
    }
}
