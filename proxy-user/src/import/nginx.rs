//! nginx: `http` with its `upstream`, `server` and `location` blocks.
//!
//! The precedence of hosts and paths is the same there and here (exact, wildcard, regular expression, prefix), so a server's
//! locations become routes one by one. What lies in `stream` becomes passthrough ([`stream`]).

mod guard;
mod listen;
mod location;
mod server;
mod stream;
pub mod syntax;
mod upstream;

use std::collections::BTreeMap;

pub use syntax::{Directive, parse, parse_text};

use super::{Draft, ImportFault, Source};

/// Imports files that nginx would read together.
///
/// # Errors
/// When one of them isn't of nginx's syntax.
pub fn import(sources: &[Source]) -> Result<Draft, ImportFault> {
    let mut all = Vec::new();
    for source in sources {
        all.extend(parse(source)?);
    }
    Ok(convert(&all))
}

/// What is known while directives are looked at.
pub(crate) struct Nginx<'a> {
    draft: Draft,
    upstreams: BTreeMap<&'a str, &'a Directive>,
    /// `limit_req_zone`, by name.
    zones: BTreeMap<&'a str, &'a Directive>,
    /// Sections of services, by what is asked of which servers.
    services: BTreeMap<(String, bool), String>,
    listeners: listen::Listeners,
}

/// The blocks around a directive, the outermost first: what an inner one doesn't say holds as the outer one says it.
#[derive(Clone)]
pub(crate) struct Scope<'a>(Vec<&'a [Directive]>);

/// Makes a draft of parsed directives. Pure.
#[must_use]
pub fn convert(all: &[Directive]) -> Draft {
    let mut nginx = Nginx {
        draft: Draft::new("nginx"),
        upstreams: BTreeMap::new(),
        zones: BTreeMap::new(),
        services: BTreeMap::new(),
        listeners: listen::Listeners::default(),
    };
    // A file of sites-enabled has servers without the `http` around them.
    let mut scopes = vec![Scope(vec![all])];
    for directive in all {
        match (directive.name.as_str(), &directive.block) {
            ("http", Some(block)) => scopes.push(Scope(vec![block])),
            ("mail", Some(_)) => {
                let why = "a proxy that speaks for mail servers has no counterpart here";
                nginx.draft.leave(&directive.place, "mail { … }", why);
            }
            _ => {}
        }
    }
    for scope in &scopes {
        nginx.gather(scope.0[0]);
    }
    let servers: Vec<(&Directive, Scope<'_>)> = scopes
        .iter()
        .flat_map(|scope| {
            let servers = scope.0[0].iter().filter(|directive| directive.name == "server");
            servers.filter_map(|server| {
                let mut inner = scope.clone();
                inner.0.push(server.block.as_deref()?);
                Some((server, inner))
            })
        })
        .collect();
    for (server, scope) in &servers {
        nginx.listen(server, scope);
    }
    for (server, scope) in &servers {
        nginx.server(server, scope);
    }
    nginx.write_listeners();
    for block in
        all.iter().filter(|directive| directive.name == "stream").filter_map(|one| one.block.as_deref())
    {
        nginx.stream(block);
    }
    nginx.draft
}

/// Without a counterpart and without a loss: it tunes nginx itself, or says what Weir does anyway.
const OF_NGINX: &[&str] = &[
    "access_log",
    "charset",
    "client_body_buffer_size",
    "client_header_buffer_size",
    "daemon",
    "default_type",
    "error_log",
    "etag",
    "events",
    "gzip_buffers",
    "gzip_comp_level",
    "gzip_disable",
    "gzip_http_version",
    "gzip_min_length",
    "gzip_proxied",
    "gzip_static",
    "gzip_types",
    "gzip_vary",
    "http2",
    "ignore_invalid_headers",
    "index",
    "keepalive",
    "keepalive_requests",
    "keepalive_timeout",
    "large_client_header_buffers",
    "limit_req_log_level",
    "limit_req_status",
    "load_module",
    "log_format",
    "log_not_found",
    "merge_slashes",
    "open_file_cache",
    "pcre_jit",
    "pid",
    "port_in_redirect",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_headers_hash_max_size",
    "proxy_http_version",
    "proxy_redirect",
    "proxy_request_buffering",
    "proxy_socket_keepalive",
    "proxy_ssl_server_name",
    "proxy_ssl_session_reuse",
    "reset_timedout_connection",
    "resolver",
    "resolver_timeout",
    "root",
    "send_timeout",
    "sendfile",
    "server_name_in_redirect",
    "server_names_hash_bucket_size",
    "server_names_hash_max_size",
    "server_tokens",
    "ssl_buffer_size",
    "ssl_ciphers",
    "ssl_dhparam",
    "ssl_ecdh_curve",
    "ssl_prefer_server_ciphers",
    "ssl_protocols",
    "ssl_session_cache",
    "ssl_session_tickets",
    "ssl_session_timeout",
    "ssl_stapling",
    "ssl_stapling_verify",
    "tcp_nodelay",
    "tcp_nopush",
    "types",
    "types_hash_bucket_size",
    "types_hash_max_size",
    "underscores_in_headers",
    "user",
    "variables_hash_bucket_size",
    "variables_hash_max_size",
    "worker_connections",
    "worker_processes",
    "worker_rlimit_nofile",
    "zone",
];

impl<'a> Nginx<'a> {
    /// What servers refer to, and what has no counterpart at this level.
    fn gather(&mut self, level: &'a [Directive]) {
        for directive in level {
            let name = directive.arguments.first().map_or("", String::as_str);
            match directive.name.as_str() {
                "upstream" => _ = self.upstreams.insert(name, directive),
                "limit_req_zone" => {
                    let zone = directive.arguments.iter().find_map(|word| word.strip_prefix("zone="));
                    let zone = zone.and_then(|zone| zone.split(':').next()).unwrap_or_default();
                    self.zones.insert(zone, directive);
                }
                "http" | "server" | "stream" | "mail" => {}
                other => self.tell_if_unknown(other, directive),
            }
        }
    }

    /// Names a directive that nothing here looks at.
    fn tell_if_unknown(&mut self, name: &str, directive: &Directive) {
        if OF_NGINX.contains(&name) || server::KNOWN.contains(&name) || location::KNOWN.contains(&name) {
            return;
        }
        let why = match name {
            "include" => "the file is not here: name it too, if it holds anything for Weir",
            "map" | "geo" | "split_clients" | "set" | "if" => "Weir has no variables of its own",
            name if name.starts_with("proxy_cache") => "Weir has no cache",
            name if name.starts_with("fastcgi") || name.starts_with("uwsgi") => "Weir speaks HTTP to servers",
            _ => "it has no counterpart here",
        };
        self.draft.leave(&directive.place, &directive.to_string(), why);
    }
}

impl<'a> Scope<'a> {
    /// The nearest of this name.
    fn find(&self, name: &str) -> Option<&'a Directive> {
        self.0.iter().rev().find_map(|level| level.iter().rev().find(|directive| directive.name == name))
    }

    /// All of this name at the nearest level that has any: a level that says something says all of it.
    fn all(&self, name: &str) -> Vec<&'a Directive> {
        self.any_of(&[name])
    }

    fn any_of(&self, names: &[&str]) -> Vec<&'a Directive> {
        let of = |level: &&'a [Directive]| -> Vec<&'a Directive> {
            level.iter().filter(|directive| names.contains(&directive.name.as_str())).collect()
        };
        self.0.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The innermost block.
    fn own(&self) -> &'a [Directive] {
        self.0.last().copied().unwrap_or_default()
    }

    fn within(&self, block: &'a [Directive]) -> Self {
        let mut inner = self.clone();
        inner.0.push(block);
        inner
    }
}

impl Directive {
    fn first(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }
}

impl std::fmt::Display for Directive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)?;
        for argument in &self.arguments {
            write!(f, " {argument}")?;
        }
        Ok(())
    }
}

/// nginx's variables that Weir fills in too; `None` if there is another one.
fn with_variables(text: &str) -> Option<String> {
    const KNOWN: [(&str, &str); 6] = [
        ("$remote_addr", "{client_ip}"),
        ("$realip_remote_addr", "{client_ip}"),
        ("$http_host", "{host}"),
        ("$host", "{host}"),
        ("$scheme", "{scheme}"),
        ("$request_id", "{request_id}"),
    ];
    if text.contains(['{', '}']) {
        return None;
    }
    let filled = KNOWN.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    (!filled.contains('$')).then_some(filled)
}
