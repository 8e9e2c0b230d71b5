//! `[admin]`: where it listens, and who gets in there.

use std::{path::PathBuf, sync::Arc};

use super::{balancing, globals::listen_address, merge::Merged};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{Admin, AdminAddr, AdminTls, ClientAuth, Need, Secret},
        source::FileId,
        value::quoted,
        written::{self, At},
    },
    tls::certificates::{self, Certificates, ClientAuthorities},
};

pub fn admin(written: &Merged<'_>, findings: &mut Findings) -> Admin {
    let section = written.admin.map(|(file, section)| (file, &section.value));
    let token = section.and_then(|(file, body)| token(file, body.token_file.as_ref()?, findings));
    let tls = section.and_then(|(file, body)| tls(file, body.tls.as_ref()?, token.is_some(), findings));
    let Some((file, body, list)) = section.and_then(|(file, body)| Some((file, body, body.bind.as_ref()?)))
    else {
        let tcp = default::ADMIN.parse().map(AdminAddr::Tcp);
        let bind = tcp.into_iter().chain([AdminAddr::Unix(default::ADMIN_SOCKET.into())]).collect();
        return Admin { bind, by_default: true, token, tls };
    };
    if list.items.is_empty() && !findings.lost("admin.bind") {
        let message = "admin.bind is an empty list: `weir status` could not reach the daemon";
        findings
            .error(Code::EmptyList, file, &list.span, message)
            .hint(format!("leave the key out for `{}`", default::ADMIN_BIND.join("` and `")));
    }
    let mut bind = Vec::new();
    for item in &list.items {
        let Some(address) = address(file, item, findings) else { continue };
        if bind.contains(&address) {
            let message = format!("admin.bind: {} is written twice", quoted(&item.value));
            findings.error(Code::AddressTaken, file, &item.span, message).hint("keep one of the two");
        }
        exposed(file, item, &address, body, findings);
        bind.push(address);
    }
    Admin { bind, by_default: false, token, tls }
}

fn address(file: FileId, item: &At<String>, findings: &mut Findings) -> Option<AdminAddr> {
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
    listen_address(file, "admin.bind:", item, findings).map(AdminAddr::Tcp)
}

/// What others can reach must ask who they are, and should not let what they say be read on the way.
fn exposed(
    file: FileId,
    item: &At<String>,
    address: &AdminAddr,
    body: &written::Admin,
    findings: &mut Findings,
) {
    let AdminAddr::Tcp(address) = address else { return };
    if address.ip().is_loopback() {
        return;
    }
    let tls = body.tls.as_ref().map(|tls| &tls.value);
    // Whether they can be used, is said elsewhere.
    let asks = body.token_file.is_some() || tls.is_some_and(|tls| tls.client_ca.is_some());
    let lost = findings.lost("admin.token_file") || findings.lost_within("admin.tls");
    if !asks && !lost {
        let message = format!(
            "admin.bind: `{address}` can be reached from other hosts, and nobody is asked who they are"
        );
        findings.error(Code::Missing, file, &item.span, message).hint(
            "add `token_file`, or `tls` with `client_ca`; or bind to `127.0.0.1` or `unix:/run/weir/admin.sock`",
        );
    } else if tls.is_none() && !lost {
        let message =
            format!("the admin interface at `{address}` can be reached from other hosts, without TLS");
        findings
            .warning(Code::AdminExposed, file, &item.span, message)
            .hint("add `tls = { certificates = … }`, or bind to `127.0.0.1` or `unix:/run/weir/admin.sock`");
    }
}

fn token(file: FileId, written: &At<String>, findings: &mut Findings) -> Option<Secret> {
    let secret = balancing::secret(file, "admin.token_file", written, findings)?;
    if !secret.0.iter().all(u8::is_ascii_graphic) {
        let message =
            format!("admin.token_file: {} holds more than printable characters", quoted(&written.value));
        findings.error(Code::BadSecret, file, &written.span, message).hint(
            "a token is one line of ASCII without spaces: `head -c 32 /dev/urandom | base64` makes one",
        );
        return None;
    }
    Some(secret)
}

fn tls(
    file: FileId,
    written: &At<written::AdminTls>,
    with_token: bool,
    findings: &mut Findings,
) -> Option<AdminTls> {
    let clients = written.value.client_ca.as_ref().and_then(|ca| clients(file, ca, with_token, findings));
    let Some(list) = written.value.certificates.as_ref().filter(|list| !list.items.is_empty()) else {
        if !findings.lost("admin.tls.certificates") {
            findings
                .error(Code::Missing, file, &written.span, "admin.tls has no `certificates`")
                .hint("name a PEM file or a folder of them: `certificates = \"/etc/weir/admin.pem\"`");
        }
        return None;
    };
    let paths: Vec<PathBuf> =
        list.items.iter().map(|path| findings.sources.resolve(file, &path.value)).collect();
    let before = findings.admin_certificates_before();
    let (watch, read) = match Certificates::read(&paths, before.as_deref()) {
        Ok(certificates) => (certificates.files.clone(), Some(Arc::new(certificates))),
        Err(unusable) => {
            for fault in unusable.faults {
                let message = format!("admin.tls: {}", fault.sentence);
                findings.error(Code::BadCertificate, file, &list.span, message).maybe_hint(fault.hint);
            }
            (unusable.files, None)
        }
    };
    watch.iter().for_each(|file| findings.watch(file));
    Some(AdminTls { certificates: read?, clients })
}

fn clients(file: FileId, ca: &At<String>, with_token: bool, findings: &mut Findings) -> Option<ClientAuth> {
    let path = findings.sources.resolve(file, &ca.value);
    findings.watch(&path);
    let need = if with_token { Need::Request } else { Need::Require };
    match certificates::read_authorities(&path) {
        Ok(roots) => Some(ClientAuth { authorities: Arc::new(ClientAuthorities(roots)), need }),
        Err(fault) => {
            let message = format!("admin.tls: {}", fault.sentence);
            findings.error(Code::BadAuthority, file, &ca.span, message).maybe_hint(fault.hint);
            None
        }
    }
}
