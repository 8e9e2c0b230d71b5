//! Programs that come from the distribution, and how they get here.
//!
//! What is already on the machine is used as it is; only what is absent is installed, and nothing is ever
//! removed for it. Services that a package brings are not started: benchmarks run their own instances.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{progress, root};

pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
    pub purpose: &'static str,
}

/// What building the daemon runs.
pub const FOR_BUILDING: &[Program] = &[
    Program { name: "protoc", package: "protobuf-compiler", purpose: "speaking to etcd" },
    // The well-known types, which the compiler's package only recommends.
    Program {
        name: "/usr/include/google/protobuf/empty.proto",
        package: "libprotobuf-dev",
        purpose: "speaking to etcd",
    },
];

/// What demonstrations, tests and measurements run.
pub const FOR_LABS: &[Program] = &[
    Program { name: "ip", package: "iproute2", purpose: "network namespaces" },
    Program { name: "nsenter", package: "util-linux", purpose: "network namespaces" },
    Program { name: "curl", package: "curl", purpose: "visitors" },
    Program { name: "openssl", package: "openssl", purpose: "visitors" },
    Program { name: "chromium", package: "chromium", purpose: "a visitor that speaks HTTP/3" },
    Program { name: "nginx", package: "nginx", purpose: "servers" },
    Program { name: "pebble", package: "pebble", purpose: "an ACME authority" },
    Program { name: "promtool", package: "prometheus", purpose: "checking metrics" },
    Program { name: "dnsmasq", package: "dnsmasq-base", purpose: "a DNS server" },
    Program { name: "bpftool", package: "bpftool", purpose: "looking at the kernel's maps" },
    Program { name: "haproxy", package: "haproxy", purpose: "a server that reads the PROXY protocol" },
    Program { name: "ethtool", package: "ethtool", purpose: "frames that a veth takes as they are" },
    Program { name: "systemd-analyze", package: "systemd", purpose: "checking the unit" },
    Program { name: "dpkg-deb", package: "dpkg", purpose: "trying the package" },
    Program { name: "adduser", package: "adduser", purpose: "trying the package" },
    Program { name: "script", package: "bsdutils", purpose: "a terminal to ask at" },
    Program { name: "setpriv", package: "util-linux", purpose: "a user with four capabilities" },
    Program { name: "rsyslogd", package: "rsyslog", purpose: "a syslog" },
    // A library, in a folder that each architecture names otherwise: this file tells that it is there.
    Program {
        name: "/usr/share/doc/rsyslog-openssl/copyright",
        package: "rsyslog-openssl",
        purpose: "a syslog that speaks TLS",
    },
    Program { name: "nft", package: "nftables", purpose: "packets that get lost" },
    Program { name: "etcd", package: "etcd-server", purpose: "a fleet's store" },
    Program { name: "etcdctl", package: "etcd-client", purpose: "looking after a fleet's store" },
    Program { name: "keepalived", package: "keepalived", purpose: "an address that two hosts share" },
    Program { name: "podman", package: "podman", purpose: "containers, told of as Docker does" },
    Program { name: "crun", package: "crun", purpose: "containers" },
    Program { name: "/bin/busybox", package: "busybox-static", purpose: "what containers run" },
    Program { name: "tmux", package: "tmux", purpose: "a terminal" },
    Program { name: "jq", package: "jq", purpose: "what the README types" },
];

/// What `bench http` and `bench failover` measure against, and with.
pub const FOR_HTTP_BENCH: &[Program] = &[
    Program { name: "nginx", package: "nginx", purpose: "peer" },
    Program { name: "haproxy", package: "haproxy", purpose: "peer" },
    Program { name: "wrk", package: "wrk", purpose: "load" },
    Program { name: "h2load", package: "nghttp2-client", purpose: "load over HTTP/2" },
];

/// What `bench tls` and `bench memory` measure against.
pub const FOR_TLS_BENCH: &[Program] = &[Program { name: "nginx", package: "nginx", purpose: "peer" }];

/// What `bench passthrough` measures against.
pub const FOR_PASSTHROUGH_BENCH: &[Program] =
    &[Program { name: "haproxy", package: "haproxy", purpose: "peer" }];

/// What `bench fleet` runs.
pub const FOR_FLEET_BENCH: &[Program] = &[
    Program { name: "keepalived", package: "keepalived", purpose: "an address that two hosts share" },
    Program { name: "etcd", package: "etcd-server", purpose: "a fleet's store" },
];

/// What `bench gate` measures against.
pub const FOR_GATE_BENCH: &[Program] = &[
    Program { name: "nft", package: "nftables", purpose: "peer" },
    Program { name: "ipset", package: "ipset", purpose: "peer" },
    Program { name: "iptables", package: "iptables", purpose: "an ipset's rule" },
    Program { name: "ethtool", package: "ethtool", purpose: "frames that a veth takes as they are" },
];

/// Packages that start a service when they are installed.
const SERVICES: [&str; 7] =
    ["nginx", "haproxy", "keepalived", "podman", "prometheus", "rsyslog", "etcd-server"];

/// The path of a program. System folders count even where the user's PATH leaves them out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Installs the packages of those `programs` that are absent.
pub fn ensure(programs: &[Program]) -> Result<()> {
    let absent: Vec<_> = programs.iter().filter(|program| find(program.name).is_none()).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = absent.iter().map(|program| program.package).collect();
    install(&packages)?;
    match absent.iter().find(|program| find(program.name).is_none()) {
        None => Ok(()),
        Some(program) => {
            anyhow::bail!("package {} is installed but brought no `{}`", program.package, program.name)
        }
    }
}

pub fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    anyhow::ensure!(
        find("apt-get").is_some(),
        "these packages (by their Debian names) are missing, and this is no Debian: install them by hand: {names}"
    );
    let masked = mask_services(packages)?;
    let title = format!("installing {names}");
    if !has_package_lists() {
        refresh_package_lists()?;
    }
    let mut installed = progress::step(&title, &mut apt_get_install(packages)?);
    if installed.is_err() {
        // The usual cause: the lists name a version that the server has replaced since.
        refresh_package_lists()?;
        installed = progress::step(&title, &mut apt_get_install(packages)?);
    }
    if masked {
        service_manager("disable", packages)?;
        service_manager("unmask", packages)?;
    }
    installed.with_context(|| format!("try by hand: apt-get update && apt-get install {names}"))
}

fn apt_get_install(packages: &[&str]) -> Result<Command> {
    // `--no-remove`: rather fail than take away what the machine's owner put there.
    let mut command = apt_get(&["install", "--yes", "--no-install-recommends", "--no-remove"])?;
    command.args(packages);
    Ok(command)
}

/// Fresh containers have none.
fn has_package_lists() -> bool {
    let Ok(mut files) = Path::new("/var/lib/apt/lists").read_dir() else { return false };
    files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().contains("_Packages")))
}

pub fn refresh_package_lists() -> Result<()> {
    progress::step("refreshing the package lists", apt_get(&["update"])?.arg("-q"))
}

fn apt_get(arguments: &[&str]) -> Result<Command> {
    let environment = [
        ("DEBIAN_FRONTEND", OsStr::new("noninteractive")),
        // Tells invoke-rc.d that this is no time to start services.
        ("RUNLEVEL", OsStr::new("1")),
    ];
    let mut command = root::command("apt-get", &environment, "install packages")?;
    command.args(arguments);
    Ok(command)
}

/// Where systemd runs, RUNLEVEL means nothing to it; a mask in /run keeps the services from starting.
fn mask_services(packages: &[&str]) -> Result<bool> {
    let brings_service = packages.iter().any(|package| SERVICES.contains(package));
    if !brings_service || !Path::new("/run/systemd/system").exists() {
        return Ok(false);
    }
    service_manager("mask", packages)?;
    Ok(true)
}

fn service_manager(verb: &str, packages: &[&str]) -> Result<()> {
    for service in packages.iter().filter(|package| SERVICES.contains(package)) {
        // Most are called as their package is.
        let service = match *service {
            "etcd-server" => "etcd",
            "podman" => "podman.socket",
            other => other,
        };
        let mut command = root::command("systemctl", &[], "keep services from starting")?;
        command.arg(verb);
        if verb != "disable" {
            command.arg("--runtime");
        }
        progress::step(&format!("systemctl {verb} {service}"), command.arg(service))?;
    }
    Ok(())
}
