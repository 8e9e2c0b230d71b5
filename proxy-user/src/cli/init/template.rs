//! The text of a first configuration, with comments that say what to change.

use std::{fmt::Write as _, path::PathBuf};

/// What the host and its operator say.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub interfaces: Vec<String>,
    /// Interfaces that are none of these, with their addresses.
    pub others: Vec<String>,
    pub http: Option<u16>,
    pub https: Option<u16>,
    pub certificates: Option<PathBuf>,
    pub cloudflare: bool,
    pub host: Option<String>,
    pub servers: Vec<String>,
    /// The host has a user `weir`.
    pub user: bool,
}

/// `certificates`: whether there are any. Without them, HTTPS is a comment.
pub(super) fn of(answers: &Answers, certificates: bool) -> String {
    let mut text = String::from(
        "# Weir's configuration. Saved, it is taken over without losing a request; `weir check` looks at it before.\n\
         # Every key is in docs/configuration.md.\n",
    );
    let mut line = |line: &str| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{line}");
    };
    line("\n[kernel]");
    if answers.interfaces.is_empty() {
        line(
            "# The interfaces that visitors come in by (`ip link`). Without any, allowlists are enforced at accept only.",
        );
        if !answers.others.is_empty() {
            line(&format!("# This host has {}.", answers.others.join(", ")));
        }
        line("# interfaces = [\"eth0\"]");
    } else {
        line("# The interfaces that visitors come in by: the gate is attached there.");
        if !answers.others.is_empty() {
            line(&format!("# Others of this host, which it leaves alone: {}.", answers.others.join(", ")));
        }
        line(&format!("interfaces = {}", list(&answers.interfaces)));
    }
    if answers.user {
        line("\n# Started as root, it goes on as this user, with four capabilities: docs/security.md.");
        line("[process]\nuser = \"weir\"");
    }
    let https = answers.https.zip(answers.certificates.as_ref());
    // Without HTTPS, and without anything else, nothing would listen.
    let http = answers.http.or((https.is_none() || !certificates).then_some(80));
    if let Some(port) = http {
        line("\n[entrypoint.http]");
        entrypoint(&mut line, port, answers, "");
        if let (Some((https, _)), true) = (https, certificates) {
            line("# Everybody is sent on to HTTPS.");
            let to = if https == 443 { "https".to_owned() } else { format!("https:{https}") };
            line(&format!("redirect = {}", quoted(&to)));
        }
    }
    if let Some((port, folder)) = https {
        let mark = if certificates { "" } else { "# " };
        line("");
        if !certificates {
            line(
                "# When there is a certificate (NAME.crt with NAME.key, or fullchain.pem with privkey.pem), take the marks off:",
            );
        }
        line(&format!("{mark}[entrypoint.https]"));
        entrypoint(&mut line, port, answers, mark);
        line(&format!("{mark}tls = {{ certificates = {} }}", quoted(&folder.display().to_string())));
    }
    line("\n# Your site. A server gets requests when its first probe has found it well.");
    line("[service.app]");
    line(&format!("servers = {}", list(&answers.servers)));
    line("# A page that is quick and says whether the server is well.");
    line("health = { path = \"/\", every = \"1s\", timeout = \"250ms\", fall = 2, rise = 2 }");
    line("# What visitors get when no server is up: the built-in page, or your own.");
    line("when_all_down = \"page:maintenance\"");
    line("\n# [page.maintenance]\n# html = \"/etc/weir/maintenance.html\"");
    line("\n[[route]]");
    match &answers.host {
        Some(host) => line(&format!("host = {}", quoted(host))),
        None => line("# host = \"www.example.com\"       # without it, for any host"),
    }
    line("service = \"app\"");
    text
}

fn entrypoint(line: &mut impl FnMut(&str), port: u16, answers: &Answers, mark: &str) {
    line(&format!("{mark}bind = [\"0.0.0.0:{port}\", \"[::]:{port}\"]"));
    if answers.cloudflare {
        line(&format!(
            "{mark}allow = [\"cloudflare\"]        # built in, and kept current; everybody else is dropped"
        ));
        line(&format!("{mark}client_ip = {{ header = \"CF-Connecting-IP\", trust = [\"cloudflare\"] }}"));
    } else {
        line(&format!(
            "{mark}# allow = [\"office\"]          # who may come in: names of allowlists; without it, everybody"
        ));
    }
}

fn list(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// As TOML's basic string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
