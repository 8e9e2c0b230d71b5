//! `backend`, and what `listen` says of servers: services.

use std::time::Duration;

use toml::Value;

use super::{Haproxy, Section, nearest, nearest_of_two, syntax::Line};
use crate::import::{
    convert,
    draft::{Kind, table_of},
};

/// What HAProxy tunes, or does by itself, or what is looked at in another place.
const SILENT: &[&str] = &[
    "acl",
    "balance",
    "bind",
    "compression",
    "cookie",
    "default-server",
    "default_backend",
    "description",
    "errorfile",
    "hash-type",
    "http-check",
    "http-request",
    "http-response",
    "http-reuse",
    "log",
    "log-format",
    "maxconn",
    "mode",
    "monitor-uri",
    "no",
    "option",
    "redirect",
    "retries",
    "retry-on",
    "server",
    "stats",
    "timeout",
    "use_backend",
];

impl<'a> Haproxy<'a> {
    /// The service of a backend, written when it is first asked for. `None`: there is no such backend, or none that
    /// serves HTTP.
    pub(super) fn service(&mut self, name: &str) -> Option<String> {
        self.service_of(name, false)
    }

    /// Likewise of a backend that serves whatever it gets.
    pub(super) fn carrying_service(&mut self, name: &str) -> Option<String> {
        self.service_of(name, true)
    }

    pub(super) fn service_of(&mut self, name: &str, carries: bool) -> Option<String> {
        let (section, defaults) = *self.backends.get(name)?;
        self.unused.remove(name);
        if let Some(known) = self.services.get(name) {
            return Some(known.clone());
        }
        let has_servers = section.lines.iter().any(|line| line.word(0) == "server");
        if super::is_tcp(section, defaults) != carries || !has_servers {
            return None;
        }
        if carries
            && let Some(line) = section.lines.iter().find(|line| line.word(0) == "server" && line.has("ssl"))
        {
            let why = "what is carried is carried as it came: nothing is encrypted on the way";
            self.draft.leave(&line.place, &line.to_string(), why);
            return None;
        }
        let service = self.draft.add(Kind::Service, name, &section.place);
        self.balance(service, section, defaults);
        self.servers(service, section, defaults);
        self.health(service, section, defaults);
        let (waits, longest) = match carries {
            // Of the three that HAProxy has for it, `tunnel` isn't for this, and the others are mostly alike.
            true => ("idle", Duration::from_secs(30 * 86_400)),
            false => ("first_byte", Duration::from_secs(86_400)),
        };
        for (key, second, most) in
            [("connect", "connect", Duration::from_secs(60)), (waits, "server", longest)]
        {
            let time = nearest_of_two(section, defaults, "timeout", second);
            if let Some(time) =
                time.and_then(|time| convert::duration(time.word(2), Duration::from_millis(1)))
            {
                let least = if key == "idle" { Duration::from_secs(1) } else { Duration::from_millis(1) };
                self.draft.put(service, "timeouts", key, convert::shown(time, least, most));
            }
        }
        for line in &section.lines {
            if section.kind == "backend" {
                self.rest(line);
            }
            if line.word(0) == "errorfile" {
                self.draft.leave(
                    &line.place,
                    &line.to_string(),
                    "its file is a whole answer: `[page.NAME] html` takes the HTML of it",
                );
            }
        }
        let written = self.draft.sections[service].name.clone();
        self.services.insert(&section.name, written.clone());
        Some(written)
    }

    fn rest(&mut self, line: &Line) {
        let first = line.word(0);
        match first {
            "http-request" | "http-response" | "redirect" | "reqadd" | "rspadd" | "reqrep" => {
                let why = "rules of a backend belong into the `middleware` of the routes that lead there";
                let guards =
                    matches!(line.word(1), "deny" | "auth" | "reject" | "tarpit" | "silent-drop" | "return");
                if guards {
                    self.draft.leave_guard(&[], &line.place, &line.to_string(), why);
                } else {
                    self.draft.leave(&line.place, &line.to_string(), why);
                }
            }
            "acl" => {}
            first if SILENT.contains(&first) => {}
            _ => self.draft.leave(&line.place, &line.to_string(), "it has no counterpart here"),
        }
    }

    fn balance(&mut self, service: usize, section: &'a Section, defaults: Option<&'a Section>) {
        if let Some(line) = nearest(section, defaults, "balance") {
            let hash = match line.word(1) {
                "roundrobin" | "static-rr" | "first" | "random" | "" => None,
                "leastconn" => {
                    self.draft.set(service, "balance", "least_requests");
                    None
                }
                "source" => Some("client".to_owned()),
                "uri" => Some("path".to_owned()),
                "url_param" => Some(format!("query:{}", line.word(2))),
                algorithm => match algorithm.strip_prefix("hdr(").and_then(|rest| rest.strip_suffix(')')) {
                    Some(header) => Some(format!("header:{header}")),
                    None => {
                        self.draft.leave(&line.place, &line.to_string(), "servers take turns in its place");
                        None
                    }
                },
            };
            if let Some(by) = hash {
                self.draft.set(service, "balance", "hash");
                self.draft.set(service, "hash_by", by);
            }
        }
        if let Some(cookie) = nearest(section, defaults, "cookie") {
            if cookie.has("insert") {
                self.draft.set(service, "sticky", table_of([("name", cookie.word(1).into())]));
            } else {
                self.draft.leave(
                    &cookie.place,
                    &cookie.to_string(),
                    "Weir sets a cookie of its own: `sticky = \"cookie\"`",
                );
            }
        }
    }

    fn servers(&mut self, service: usize, section: &'a Section, defaults: Option<&'a Section>) {
        for line in section.lines.iter().filter(|line| line.word(0) == "server") {
            let Some(address) = convert::server(line.word(2), 80) else {
                self.draft.leave(
                    &line.place,
                    &line.to_string(),
                    "servers are addresses or names, with a port",
                );
                continue;
            };
            if line.has("disabled") {
                self.draft.leave(&line.place, &line.to_string(), "it is disabled");
                continue;
            }
            let mut table = table_of([("address", address.clone().into())]);
            if let Some(weight) = line.after("weight").and_then(|weight| weight.parse::<i64>().ok()) {
                table.insert("weight".into(), weight.clamp(1, 256).into());
            }
            if line.has("backup") {
                table.insert("tier".into(), 2.into());
            }
            if line.has("ssl") && self.draft.get(service, "tls").is_none() {
                self.tls(service, line, convert::host_of(&address));
            }
            if line.has("send-proxy") {
                self.draft.set(service, "send_proxy", "v1");
            } else if line.has("send-proxy-v2") {
                self.draft.set(service, "send_proxy", "v2");
            }
            let plain = table.len() == 1;
            self.draft.push(service, "servers", if plain { Value::from(address) } else { table.into() });
        }
        let _ = defaults;
    }

    fn tls(&mut self, service: usize, line: &Line, host: &str) {
        let sni = line.after("sni").and_then(|sni| sni.strip_prefix("str(")?.strip_suffix(')'));
        let name = sni.or_else(|| line.after("verifyhost")).unwrap_or(host);
        let mut table = table_of([("server_name", name.trim_matches(['[', ']']).into())]);
        if line.after("verify") == Some("none") {
            table.insert("insecure".into(), true.into());
            self.draft.note(service, "insecure, as `verify none` says: better name a `ca` in its place");
        } else if let Some(ca) = line.after("ca-file").filter(|ca| !ca.starts_with('@')) {
            table.insert("ca".into(), ca.into());
        }
        if let Some(certificate) = line.after("crt") {
            table.insert("client_certificate".into(), certificate.into());
        }
        self.draft.set(service, "tls", table);
    }

    /// `check` of any server, with what `option httpchk` and `http-check` say.
    fn health(&mut self, service: usize, section: &'a Section, defaults: Option<&'a Section>) {
        let lines = |first: &'a str| section.lines.iter().filter(move |line| line.word(0) == first);
        let default_server = nearest(section, defaults, "default-server");
        let of_servers: Vec<&Line> = lines("server").chain(default_server).collect();
        if !of_servers.iter().any(|line| line.has("check")) {
            return;
        }
        let hello = nearest_of_two(section, defaults, "option", "ssl-hello-chk");
        match nearest_of_two(section, defaults, "option", "httpchk") {
            None if let Some(line) = hello => {
                self.draft.put(service, "health", "tcp", true);
                let why = "whether it connects is asked; for a handshake, name a host: `health = { tls = true, host = \"…\" }`";
                self.draft.leave(&line.place, &line.to_string(), why);
            }
            None => self.draft.put(service, "health", "tcp", true),
            Some(check) => {
                let (method, path) = match (check.word(2), check.word(3)) {
                    ("", _) => ("OPTIONS", "/"),
                    (path, "") => ("OPTIONS", path),
                    (method, path) => (method, path),
                };
                let send = nearest_of_two(section, defaults, "http-check", "send");
                let method = send.and_then(|send| send.after("meth")).unwrap_or(method);
                let path = send.and_then(|send| send.after("uri")).unwrap_or(path);
                self.draft.put(service, "health", "path", path);
                if method != "GET" {
                    self.draft.put(service, "health", "method", method);
                }
                if let Some(send) = send
                    && let Some(at) = send.words.iter().position(|word| word == "hdr")
                    && send.word(at + 1).eq_ignore_ascii_case("host")
                {
                    self.draft.put(service, "health", "host", send.word(at + 2));
                }
                let expect = nearest_of_two(section, defaults, "http-check", "expect");
                match expect.map(|expect| (expect, expect.word(2))) {
                    None => {}
                    Some((expect, "status")) => {
                        let statuses = expect.word(3).split(',').map(Value::from).collect();
                        self.draft.put(service, "health", "status", Value::Array(statuses));
                    }
                    Some((expect, "string")) => {
                        self.draft.put(service, "health", "expect_body", expect.word(3));
                    }
                    Some((expect, "rstring")) => {
                        self.draft.put(service, "health", "expect_body_regex", expect.word(3));
                    }
                    Some((expect, _)) => {
                        self.draft.leave(&expect.place, &expect.to_string(), "it has no counterpart here");
                    }
                }
            }
        }
        let said = |key: &str| of_servers.iter().find_map(|line| line.after(key));
        let every = said("inter").and_then(|every| convert::duration(every, Duration::from_millis(1)));
        if let Some(every) = every {
            let shown = convert::shown(every, Duration::from_millis(10), Duration::from_secs(3600));
            self.draft.put(service, "health", "every", shown);
        }
        for key in ["fall", "rise"] {
            if let Some(count) = said(key).and_then(|count| count.parse::<i64>().ok()) {
                self.draft.put(service, "health", key, count.clamp(1, 100));
            }
        }
        if let Some(port) = said("port").and_then(|port| port.parse::<i64>().ok()) {
            self.draft.put(service, "health", "port", port);
        }
    }
}
