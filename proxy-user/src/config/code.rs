//! The codes of diagnostics: the one place where a code has its number, its title and its explanation.
//!
//! Operators search for these numbers and scripts match on them: a number is never given to another fault,
//! also when its own is gone.

use std::fmt;

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal, $explanation:literal;)+) => {
        /// What kind of fault or warning a diagnostic is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $name,)+
        }

        impl Code {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $number,)+ }
            }

            /// What is wrong, in a few words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// Why it is wrong and what to do, for `weir explain` and the documentation. Markdown.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$name => $explanation,)+ }
            }
        }
    };
}

codes! {
    Unreadable = 1, "a configuration file can't be read",
        "The file or folder that was named doesn't exist, isn't readable for the user that Weir runs as, is not \
         UTF-8 text, or is a folder without any `*.toml` in it. `weir run` without a file uses \
         `/etc/weir/weir.toml`, and an embedded default only where that file doesn't exist at all.";
    Syntax = 2, "not TOML",
        "The text breaks the rules of TOML, so what it means is not known. The usual reasons: text without quotes, or \
         a quote or bracket that is never closed. What such a line would have said is left out of the other checks, \
         so mending it may bring further faults to light.";
    UnknownKey = 3, "unknown key",
        "No such key exists at this place. Weir refuses unknown keys instead of ignoring them, because an ignored \
         key is a setting that somebody believes in. Mostly it is a typing error, or a key of another section: the \
         reference lists what each section takes.";
    NotYetSupported = 4, "not yet supported in this version",
        "The key or value is part of Weir's design but not of this version. It is refused instead of ignored, so \
         that nobody relies on something that doesn't happen. Take it out, or use a version that has it.";
    WrongValue = 5, "a value of the wrong kind",
        "The key exists, but not with such a value: text where a number belongs, or a word that is none of the \
         words to choose from. Durations and addresses are written as strings, with quotes.";
    DefinedTwice = 6, "defined twice",
        "The same key, section or name is written in two places. Neither of them wins, and files of a folder are merged, \
         never laid over each other: which one is meant is not for Weir to guess. Keep one of the two.";
    BadName = 7, "a name that can't be used",
        "Names of entrypoints, services, allowlists, pages and routes appear in metrics, logs and the kernel's \
         maps. They have 1 to 64 characters. All but a route's consist of letters, digits, `-` and `_`; a route's \
         may hold any printable character.";
    BadDuration = 8, "not a duration, or out of range",
        "A duration is a whole number with a unit, in quotes: `\"250ms\"`, `\"1s\"`, `\"5m\"`, `\"1h\"`. Each \
         setting has a range, which the reference states; the message says it too.";
    BadAddress = 9, "not a usable address",
        "An address is an IP address and a port: `192.0.2.7:443`, or `[2001:db8::7]:443` with brackets for IPv6. \
         `0.0.0.0` and `[::]` listen on every address of their family. A server may be a name and a port, \
         `app.internal:8080`; whatever is listened on may not. Port 0 (any free port) is for tests and works on loopback only.";
    BadPrefix = 10, "not a prefix",
        "A prefix is an address with a length, `198.51.100.0/24` or `2001:db8::/32`; a plain address means that \
         one host. Bits behind the length must be zero: `10.1.2.3/8` could mean one host or sixteen million, and \
         Weir doesn't guess which when it is about who comes in.";
    BadListFile = 11, "an allowlist's file can't be used",
        "The file that `file = …` of an allowlist names must exist, be readable, and hold one prefix a line; empty \
         lines and what follows a `#` don't count. Relative paths are relative to the file that names them.";
    NoSuchService = 12, "no such service",
        "A route sends to a service that no `[service.NAME]` defines. Names are compared exactly, also in case.";
    NoSuchEntrypoint = 13, "no such entrypoint",
        "A route is limited to an entrypoint that no `[entrypoint.NAME]` defines.";
    NoSuchAllowlist = 14, "no such allowlist",
        "`allow` or `trust` names a list that no `[allowlist.NAME]` defines. `cloudflare` is built in and needs no \
         definition.";
    NoSuchPage = 15, "no such page",
        "`when_all_down` names a page that no `[page.NAME]` defines. `maintenance` is built in and needs no \
         definition.";
    Missing = 16, "something required is missing",
        "The section can't work without this key: an entrypoint needs an address to listen on, a service at least \
         one server, a route the service it leads to.";
    NoEntrypoint = 17, "no entrypoint at all",
        "A configuration without any `[entrypoint.NAME]` would listen nowhere. If that is what you want, don't \
         run Weir; mostly it means that the wrong file or folder was given.";
    AddressTaken = 18, "two listeners on one address and port",
        "Every address and port belongs to one entrypoint (or to the admin interface). `0.0.0.0:443` is every IPv4 \
         address, so it overlaps with `10.0.0.1:443`; `[::]:443` is every IPv6 address. IPv4 and IPv6 don't \
         overlap: Weir's IPv6 listeners take IPv6 only.";
    DuplicateServer = 19, "a server that is listed twice",
        "A service lists the same server twice. It would get twice the probes. List it once; a `weight` \
         gives a server a larger share.";
    DuplicateRoute = 20, "two routes for the same requests",
        "Two routes match the same host and the same path at the same entrypoint, under the same conditions and with the \
         same priority, so one of them could never be taken. A route without `entrypoint` matches at all of them.";
    BadCertificate = 21, "a certificate or key can't be used",
        "`certificates` names a PEM file that holds chain and key, or a folder of `NAME.crt` or `NAME.pem` with \
         `NAME.key` beside each. Every file must be readable, every key must belong to its certificate. The leaf \
         comes first in a chain.";
    BadAuthority = 22, "an authority file can't be used",
        "`ca` and `client_ca` name a PEM file with at least one CA certificate.";
    BadPage = 23, "a page's file can't be used",
        "The file of a page is read when the configuration is loaded and kept in memory, so that it can be served \
         when nothing else works. It must exist, be readable, not empty and not larger than 1 MiB.";
    OutOfRange = 24, "a number out of range",
        "The number is outside of what the setting allows; the message and the reference state the range.";
    BadHost = 25, "not a host name",
        "A route's `host` is a name such as `app.example.com`, or `*.example.com` for every name below it, at any \
         depth. Ports, schemes, paths and other wildcards don't belong there. International names are written in \
         their ASCII form (`xn--…`).";
    BadPath = 26, "not a path",
        "A route's `path` is a prefix of whole segments and begins with `/`: `/shop` matches `/shop` and \
         `/shop/cart`, never `/shopping`. It holds no wildcard, no query, no `.` or `..` segment. A health check's \
         `path` may carry a query.";
    Contradiction = 27, "two settings that contradict each other",
        "Each of the two would be fine alone. The message says which two and why they don't go together.";
    BadHeader = 28, "not a header",
        "A header's name consists of letters, digits and `-`; a header's value of visible ASCII characters.";
    EmptyList = 29, "an empty list",
        "The list is there but holds nothing, and an empty list means something else than no list: an allowlist \
         without prefixes would keep everybody out.";
    BadInterface = 30, "not a network interface name",
        "An interface's name has 1 to 15 characters, without `/`, `:` or spaces. Whether it exists on this host is \
         found out when the configuration is applied.";
    BadServerName = 31, "not a TLS server name",
        "`server_name` is the DNS name (or IP address) that the server's certificate is issued for. It is sent as \
         SNI and checked.";
    BadPlace = 32, "a path that must be absolute",
        "Weir's place in bpffs, and its state, are shared between runs that may start in different folders, so a \
         relative path would mean different things.";
    BadUrl = 35, "not a usable URL",
        "A list's `url` is `https://HOST/PATH`, with a port and a query if need be. User names, passwords and \
         fragments don't belong there, and IPv6 addresses stand in brackets.";
    BadPointer = 36, "not a JSON pointer",
        "A JSON pointer says where in a document something stands: `/result/ipv4_cidrs` is `ipv4_cidrs` within \
         `result`. It begins with `/`; in keys, `~1` is a slash and `~0` a tilde. `*` stands for every element of \
         a list.";
    BadRate = 37, "not a rate, or out of range",
        "A rate is a whole number per second or minute, in quotes: `\"50/s\"`, `\"600/m\"`. It goes from 1 to \
         1000000 per second or minute.";
    BadSize = 39, "not a size, or out of range",
        "A size is a whole number with a unit, in quotes: `\"512B\"`, `\"64KiB\"`, `\"1MiB\"`. `K` and `kB` mean 1000 to \
         some and 1024 to others, so they are not taken. Each setting has a range, which the reference states; the \
         message says it too.";
    Unused = 40, "defined but never used",
        "A warning. No route leads to this service, or no entrypoint refers to this allowlist, or no service to \
         this page. It does no harm (its servers are not probed either), but mostly a name is wrong somewhere.";
    NoRoute = 41, "nothing leads anywhere",
        "A warning. There is an entrypoint that no route applies to: every request to it is answered with 404.";
    CertificateWarning = 42, "a certificate that clients will not accept",
        "A warning. The certificate is whole and matches its key, but it has expired or is not valid yet. Weir \
         starts all the same: refusing would turn an expired certificate into an outage.";
    Insecure = 43, "server certificates are not checked",
        "A warning, as long as `insecure = true` stands there. Whoever can answer on the server's address can read \
         and change everything. `ca` with the server's own authority is as easy and safe.";
    AdminExposed = 44, "the admin interface is reachable from other hosts",
        "A warning. Only who knows the token gets in there, but the token and all that is told can be read by whoever is \
         on the way. `[admin] tls` keeps it to the two ends; or bind to loopback or to a Unix socket, and come by SSH.";
    PlainList = 46, "a list is fetched without TLS",
        "A warning. Whoever is on the way to the list's server can put any prefix on the list, and with it let anybody \
         in. Use `https://`; `ca` names the authority of a server of your own.";
    Shadowed = 48, "an entrypoint that only rehearses its allowlists",
        "A warning, as long as `shadow = true` stands there. Everybody comes in at this entrypoint; whoever `allow` \
         would keep out is counted, by reason and by where it came from, and `weir status` and `weir kernel status` \
         show it. Take `shadow` out to turn them away from then on.";
    NeverApplies = 49, "a limit that nobody would ever meet",
        "A warning. A CDN's sources are spared by `source_limit`, each being many visitors; where an entrypoint allows \
         nobody else, the limit does nothing. Nor does it where the gate is attached nowhere: packets and connections \
         are counted by the gate alone.";
    UnansweredChallenge = 58, "a challenge that nobody would answer",
        "A warning. The ACME authority proves a name by HTTP-01, which asks port 80 of that name over plain HTTP, and no \
         entrypoint speaks that. Whatever else listens there would have to pass `/.well-known/acme-challenge/` on.";
    BadPattern = 60, "not a regular expression",
        "Regular expressions are those of Rust's `regex` crate: Perl's syntax without look-around and \
         back-references, so that no text can make one slow. They must match the whole of what they are held against; \
         begin and end with `.*` to look for a part. The longest has 1000 characters.";
    BadMethod = 61, "not a method",
        "HTTP's methods are compared exactly, also in case: `GET`, `POST`. A method of your own is taken as well, in \
         upper case.";
    UnreachableRoute = 62, "a route that no request can take",
        "A warning. Another route matches everything that this one matches and goes before it, by its `priority` or since \
         a regular expression goes before a prefix. Or connections for its host are carried away untouched, by a route with `sni`, \
         before there is a request. `docs/routing.md` has the order in which routes are tried. Not \
         every route that can't be taken is found: what two regular expressions have in common is not worked out.";
    NoSuchMiddleware = 63, "no such middleware",
        "`middleware` of a route or an entrypoint names one that no `[middleware.NAME]` defines.";
    BadUsers = 64, "users that can't be used",
        "A user is written `NAME:HASH`, where the hash is one of bcrypt (`$2b$…`, as `htpasswd -B` writes it) or Argon2 \
         (`$argon2id$…`). Hashes that can be tried out by the billion (MD5, SHA, crypt) are refused. `weir \
         hash-password` makes one.";
    BadSecret = 70, "a secret that can't be used",
        "The file that `key_file` names must exist, be readable, and hold at least 32 bytes. White space at its ends doesn't \
         count. `head -c 32 /dev/urandom | base64` makes a secret.";
    BadPercent = 72, "not a whole number of percent, or out of range",
        "A share is a whole number of percent, in quotes: `\"50%\"`. Each setting has a range, which the reference states.";
    BadStatus = 73, "not a status",
        "HTTP's statuses go from 100 to 599. One is written `\"204\"`, a range `\"200-299\"`, both in quotes.";
    BadText = 74, "a text with an escape that doesn't exist",
        "In what a probe sends and expects, a backslash begins an escape: `\\r`, `\\n`, `\\t`, `\\0`, `\\\\`, or `\\x` and two \
         hexadecimal digits for any byte. In TOML's basic strings (`\"…\"`) a backslash itself is written twice.";
    ServiceCycle = 80, "a service that leads to itself",
        "A service that is made of others (`split`, `failover`, `mirror`) may have parts that are made of others too, at \
         most eight deep, but none of them may lead back to it: a request would never arrive.";
    BadWeights = 81, "weights that share nothing out",
        "The weights of a split are whole numbers from 0 to 10000, and at least one of them is more than 0. Only their \
         ratio counts: `{ app = 1, old = 4 }` is the same as `{ app = 20, old = 80 }`. A split has 1 to 64 variants.";
    BadShare = 82, "not a percentage, or out of range",
        "A percentage is a number with `%` in quotes, with at most two digits after the point: `\"10%\"`, `\"0.5%\"`. Each \
         setting has a range, which the reference states.";
    BadStick = 83, "not a way to keep visitors",
        "`sticky` is `cookie`, or `cookie:` and the cookie's name: 1 to 64 letters, digits, `-` and `_`. The cookie holds the \
         variant's name with a signature, and lasts as long as the browser runs.";
    BadVariable = 84, "a variable that pages don't have",
        "Between double braces stands what Weir fills in: `{{request_id}}`, `{{host}}`, `{{status}}`, `{{reason}}`, \
         `{{time}}`, `{{retry_after}}` and `{{refresh}}`. Anything else that looks like one would be shown to visitors as it \
         stands there, which nobody wants in the middle of an outage.";
    BadPageStatus = 85, "not a status that a page can stand in for",
        "`pages` names statuses of servers' answers: one (`\"503\"`), some (`\"502-504\"`) or a class (`\"5xx\"`), from 400 to \
         599. Answers below 400 are what visitors came for.";
    BadTime = 86, "not a time",
        "A date and time says in which zone it is meant: `2026-12-01T22:00[Europe/Berlin]`, `2026-12-01T21:00Z` or \
         `2026-12-01T22:00+01:00`. A time of day is written `02:00`, days `mon` to `sun`. Zones are those of the host's time \
         zone database (the package `tzdata`).";
    NoSuchRoute = 87, "no such route",
        "`[[maintenance]]` names a route that no `[[route]]` has for its name. Routes without `name` are called by their host \
         and path; `weir explain URL` tells what a route is called.";
    NotFromElsewhere = 100, "a section that only the host's own configuration may have",
        "A document that a provider gives says what is served, not who serves it: `[kernel]`, `[admin]`, `[log]`, \
         `[access_log.NAME]`, `[process]`, `[state]`, `[provider.NAME]` and `[fleet]` belong to the file or folder that `weir run` was started with. \
         Whoever may write documents could otherwise have a host write files of their choice, or lock its operator out.";
    NameTaken = 101, "a name that another document has already",
        "A warning. Two documents define the same name, and the one that comes first counts: the host's own files, then \
         providers by their `order` and name, then documents by name. What the later one says of it is left out. Give one \
         of the two another name, or take it out.";
    PlainProvider = 102, "configuration that is fetched without TLS",
        "A warning. Whoever is on the way to that source can write any configuration for this host. Use `https://`; `ca` \
         names the authority of a server of your own.";
    NoSuchProvider = 110, "no such provider",
        "`[fleet]` names a provider that no `[provider.NAME]` is. A fleet's store is a provider of kind `etcd`, in the host's own \
         configuration.";
    BadFleetKey = 111, "keys of a fleet that can't be used",
        "`[fleet] key_file` names a file with one key a line, 32 bytes in base64 each; `weir fleet key` makes them. What follows a `#` \
         is a note. The first key seals, all of them open. The daemon must be able to read the file, and others must not.";
}

impl Code {
    /// The code that is written as `text`: `W012`, `w12` or `12`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().trim_start_matches(['W', 'w']);
        let number: u16 = digits.parse().ok()?;
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{:03}", self.number())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_are_unique() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number(), "{} before {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for text in ["W012", "w012", "12", " W12 "] {
            assert_eq!(Code::parse(text), Some(Code::NoSuchService), "{text}");
        }
        assert_eq!(Code::parse("W999"), None);
        assert_eq!(Code::parse("twelve"), None);
    }

    #[test]
    fn every_code_explains_itself() {
        for code in Code::ALL {
            assert!(code.explanation().len() > 60 && code.explanation().ends_with('.'), "{code}");
            assert!(!code.title().ends_with('.'), "{code}");
        }
    }
}
