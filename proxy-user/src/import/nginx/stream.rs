//! `stream`: entrypoints of TCP and UDP, with a passthrough route for each server that is asked; by the names in TLS's hello
//! where a `map` of `$ssl_preread_server_name` says which.

use std::{collections::BTreeMap, time::Duration};

use super::{Directive, Nginx, Scope, guard};
use crate::import::{convert, draft::Kind};

/// Looked at here.
const KNOWN: &[&str] = &[
    "allow",
    "deny",
    "listen",
    "map",
    "proxy_connect_timeout",
    "proxy_pass",
    "proxy_protocol",
    "proxy_timeout",
    "server",
    "ssl_preread",
    "upstream",
];

/// It tunes nginx itself, or says what is done here anyway.
const OF_NGINX: &[&str] = &[
    "preread_buffer_size",
    "preread_timeout",
    "proxy_buffer_size",
    "proxy_half_close",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_responses",
    "proxy_socket_keepalive",
];

/// What is known while the block is looked at.
struct Stream<'a> {
    /// Names here are not those of `http`.
    upstreams: BTreeMap<&'a str, &'a Directive>,
    /// Of the name in the hello, by the variable that they make.
    maps: BTreeMap<&'a str, &'a Directive>,
    /// Services that are written, by what is asked and how it is spoken to.
    services: BTreeMap<(String, bool), String>,
}

impl<'a> Nginx<'a> {
    pub(super) fn stream(&mut self, block: &'a [Directive]) {
        let mut stream =
            Stream { upstreams: BTreeMap::new(), maps: BTreeMap::new(), services: BTreeMap::new() };
        for directive in block {
            match directive.name.as_str() {
                "upstream" => _ = stream.upstreams.insert(directive.first(), directive),
                "map" if directive.first() == "$ssl_preread_server_name" => {
                    stream.maps.insert(directive.arguments.get(1).map_or("", String::as_str), directive);
                }
                "map" => {
                    let why = "of a connection, only the name in its hello is asked for";
                    self.draft.leave(&directive.place, &directive.to_string(), why);
                }
                other => self.tell_if_unknown_in_stream(other, directive),
            }
        }
        let outer = Scope(vec![block]);
        for server in block.iter().filter(|directive| directive.name == "server") {
            if let Some(inner) = server.block.as_deref() {
                self.stream_server(server, &outer.within(inner), &mut stream);
            }
        }
    }

    fn tell_if_unknown_in_stream(&mut self, name: &str, directive: &Directive) {
        if !KNOWN.contains(&name) && !OF_NGINX.contains(&name) {
            self.tell_if_unknown(name, directive);
        }
    }

    fn stream_server(&mut self, server: &'a Directive, scope: &Scope<'a>, stream: &mut Stream<'a>) {
        let ends = scope.find("proxy_ssl").filter(|ssl| ssl.first() == "on");
        let decrypts = |listen: &&Directive| listen.arguments.iter().any(|word| word == "ssl");
        let odd = ends.or_else(|| scope.own().iter().filter(|one| one.name == "listen").find(decrypts));
        if let Some(odd) = odd {
            let why = "what is carried is carried as it came: nothing is decrypted or encrypted on the way";
            self.draft.leave(&odd.place, &odd.to_string(), why);
            return;
        }
        let Some(pass) = scope.own().iter().find(|directive| directive.name == "proxy_pass") else {
            self.draft.leave(&server.place, "server of stream", "it has no `proxy_pass`");
            return;
        };
        for directive in scope.own() {
            self.tell_if_unknown_in_stream(&directive.name, directive);
        }
        let entrypoints = self.stream_listens(scope);
        for (entrypoint, protocol) in &entrypoints {
            self.stream_guards(scope, entrypoint);
            let ways = match pass.first().strip_prefix('$') {
                None => vec![(Vec::new(), pass.first(), pass)],
                Some(_) if *protocol == "udp" => Vec::new(),
                Some(_) => self.ways(pass, stream),
            };
            for (names, target, place) in ways {
                let Some(service) = self.stream_service(target, pass, scope, stream) else {
                    let why = "where it leads can't be said";
                    self.draft.leave(&place.place, &place.to_string(), why);
                    continue;
                };
                let route = self.draft.add(Kind::Route, &format!("{entrypoint}-{service}"), &place.place);
                let name = self.draft.sections[route].name.clone();
                self.draft.set(route, "name", name);
                self.draft.set(route, "entrypoint", entrypoint.as_str());
                if !names.is_empty() {
                    self.draft.set(route, "sni", guard::strings(&names));
                }
                self.draft.set(route, "passthrough", service);
            }
        }
    }

    /// The entrypoints of a server, one for each protocol.
    fn stream_listens(&mut self, scope: &Scope<'a>) -> Vec<(String, &'static str)> {
        let mut made: Vec<(usize, &'static str)> = Vec::new();
        for listen in scope.own().iter().filter(|directive| directive.name == "listen") {
            let Some(address) = convert::listen(listen.first()) else {
                let why = "only addresses and ports can be listened on";
                self.draft.leave(&listen.place, &listen.to_string(), why);
                continue;
            };
            let has = |word: &str| listen.arguments.iter().any(|argument| argument == word);
            let protocol = if has("udp") { "udp" } else { "tcp" };
            let number = match made.iter().find(|(_, known)| *known == protocol) {
                Some((number, _)) => *number,
                None => {
                    let name = format!("{protocol}-{}", address.port());
                    let number = self.draft.add(Kind::Entrypoint, &name, &listen.place);
                    made.push((number, protocol));
                    number
                }
            };
            self.draft.push(number, "bind", address.to_string());
            self.draft.set(number, "protocol", protocol);
            if has("proxy_protocol") {
                let why =
                    "name the proxies in an allowlist, and that in `proxy_protocol = { from = [\"…\"] }`";
                let only = [self.draft.sections[number].name.clone()];
                self.draft.leave_guard(&only, &listen.place, &listen.to_string(), why);
            }
        }
        made.into_iter()
            .map(|(number, protocol)| (self.draft.sections[number].name.clone(), protocol))
            .collect()
    }

    /// `allow` and `deny`: who may come in is an entrypoint's own list here.
    fn stream_guards(&mut self, scope: &Scope<'a>, entrypoint: &str) {
        let rules = scope.any_of(&["allow", "deny"]);
        let Some(first) = rules.first() else { return };
        let (allowed, rest): (Vec<&Directive>, Vec<&Directive>) =
            rules.iter().copied().partition(|rule| rule.name == "allow" && rule.first() != "all");
        let prefixes: Option<Vec<String>> =
            allowed.iter().map(|rule| convert::prefix(rule.first())).collect();
        let closed = matches!(rest.as_slice(), [last] if last.name == "deny" && last.first() == "all");
        match (prefixes, self.draft.find(Kind::Entrypoint, entrypoint)) {
            (Some(prefixes), Some(number)) if closed && !prefixes.is_empty() => {
                let list = self.draft.add(Kind::Allowlist, &format!("{entrypoint}-clients"), &first.place);
                self.draft.set(list, "prefixes", guard::strings(&prefixes));
                let name = self.draft.sections[list].name.clone();
                self.draft.push(number, "allow", name);
            }
            _ => {
                let why = "write who may come in as an allowlist, and its name in the entrypoint's `allow`";
                self.draft.leave_guard(&[entrypoint.to_owned()], &first.place, &first.to_string(), why);
            }
        }
    }

    /// Names of a `map`, by where they lead; without names, all others.
    fn ways(
        &mut self,
        pass: &'a Directive,
        stream: &Stream<'a>,
    ) -> Vec<(Vec<String>, &'a str, &'a Directive)> {
        let Some(map) = stream.maps.get(pass.first()) else {
            let why = "no `map` of `$ssl_preread_server_name` makes this variable";
            self.draft.leave(&pass.place, &pass.to_string(), why);
            return Vec::new();
        };
        let mut ways: Vec<(Vec<String>, &'a str, &'a Directive)> = Vec::new();
        for entry in map.block.as_deref().unwrap_or_default() {
            let target = entry.first();
            let names = match entry.name.as_str() {
                "hostnames" | "volatile" if target.is_empty() => continue,
                "default" => Vec::new(),
                name => {
                    match listed(name).iter().map(|name| convert::host(name)).collect::<Option<Vec<_>>>() {
                        Some(names) => names,
                        None => {
                            let why = "names are listed here, or `*.` and a name: no other patterns";
                            self.draft.leave(&entry.place, &entry.to_string(), why);
                            continue;
                        }
                    }
                }
            };
            match ways.iter_mut().find(|(known, at, _)| *at == target && known.is_empty() == names.is_empty())
            {
                Some((known, ..)) => known.extend(names),
                None => ways.push((names, target, entry)),
            }
        }
        ways
    }

    fn stream_service(
        &mut self,
        target: &'a str,
        pass: &'a Directive,
        scope: &Scope<'a>,
        stream: &mut Stream<'a>,
    ) -> Option<String> {
        let tells = scope.find("proxy_protocol").is_some_and(|tells| tells.first() == "on");
        let key = (target.to_owned(), tells);
        if let Some(known) = stream.services.get(&key) {
            return Some(known.clone());
        }
        let section = match stream.upstreams.get(target).copied() {
            Some(upstream) => self.of_upstream(upstream)?,
            None => {
                // A port is never left out there.
                let server = convert::server(target, 0).filter(|server| !server.ends_with(":0"))?;
                let section = self.draft.add(Kind::Service, convert::host_of(&server), &pass.place);
                self.draft.push(section, "servers", server);
                section
            }
        };
        if tells {
            self.draft.set(section, "send_proxy", "v1");
        }
        let second = Duration::from_secs(1);
        for (directive, key, least, most) in [
            ("proxy_connect_timeout", "connect", Duration::from_millis(1), 60 * second),
            ("proxy_timeout", "idle", second, 30 * 86_400 * second),
        ] {
            let time = scope.find(directive).and_then(|time| convert::duration(time.first(), second));
            if let Some(time) = time {
                self.draft.put(section, "timeouts", key, convert::shown(time, least, most));
            }
        }
        let name = self.draft.sections[section].name.clone();
        stream.services.insert(key, name.clone());
        Some(name)
    }
}

/// Names as a `map` has them: with a dot before them, with all below; as patterns, where these are a list of names or all names
/// below one. Others stay as they are, and are no names.
fn listed(name: &str) -> Vec<String> {
    if let Some(base) = name.strip_prefix('.') {
        return vec![base.to_owned(), format!("*.{base}")];
    }
    let pattern = name.strip_prefix("~*").or_else(|| name.strip_prefix('~'));
    let whole = pattern.and_then(|pattern| pattern.strip_prefix('^')?.strip_suffix('$'));
    whole.and_then(of_pattern).unwrap_or_else(|| vec![name.to_owned()])
}

fn of_pattern(pattern: &str) -> Option<Vec<String>> {
    if let Some(rest) =
        [".+\\.", ".*\\.", "(.+)\\.", "(.*)\\."].iter().find_map(|any| pattern.strip_prefix(any))
    {
        return Some(vec![format!("*.{}", literal(rest)?)]);
    }
    match pattern.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        None => Some(vec![literal(pattern)?]),
        Some((choice, rest)) => {
            let rest = literal(rest)?;
            choice.split('|').map(|one| Some(format!("{}{rest}", literal(one)?))).collect()
        }
    }
}

/// What means nothing but itself.
fn literal(pattern: &str) -> Option<String> {
    let plain = pattern.replace("\\.", "\u{1}");
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '\u{1}');
    plain.chars().all(is_name).then(|| plain.replace('\u{1}', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_are_names_become_names() {
        for (name, expected) in [
            ("a.example", &["a.example"][..]),
            (".a.example", &["a.example", "*.a.example"]),
            ("~^(auth|cloud)\\.a\\.example$", &["auth.a.example", "cloud.a.example"]),
            ("~*^.+\\.a\\.example$", &["*.a.example"]),
            ("~^b\\.example$", &["b.example"]),
            // A dot that is any letter, an end that is open: not guessed.
            ("~^b.example$", &["~^b.example$"]),
            ("~.+\\.b\\.example", &["~.+\\.b\\.example"]),
            ("~^(a|b+)\\.example$", &["~^(a|b+)\\.example$"]),
        ] {
            assert_eq!(listed(name), expected, "{name}");
        }
    }
}
