//! Cookies that lead visitors back to the server that they had.
//!
//! A server's cookie is an HMAC over the names of the service and the server, under a key that only Weir knows. So it
//! tells nobody who the server is, nobody can make one for another server, and there is nothing to compute for a
//! request: all cookies are worked out when a snapshot is made. They stay the same as long as the key does.

pub mod key;

use std::collections::HashMap;

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use crate::{address::ServerAddr, config::model, cookies};

/// Of the HMAC's 32 bytes so many are used: what others guess is never one.
const BYTES: usize = 24;

/// In base64.
const LENGTH: usize = BYTES / 3 * 4;

/// By so many of its first letters a cookie is looked up; the rest proves it.
const HANDLE: usize = 8;

type Token = [u8; LENGTH];

/// The cookies of a service's servers.
#[derive(Debug)]
pub struct Sticky {
    name: Box<str>,
    secure: Option<bool>,
    /// A server that is drained keeps its visitors.
    pub keep_drained: bool,
    /// In the order of the servers.
    servers: Vec<Cookie>,
    by_handle: HashMap<[u8; HANDLE], (Token, usize)>,
}

#[derive(Debug)]
struct Cookie {
    token: Token,
    /// The field's value, for a visitor over plain HTTP and for one over HTTPS.
    plain: HeaderValue,
    secure: HeaderValue,
}

impl Sticky {
    pub fn new(
        wanted: &model::Sticky,
        key: &hmac::Key,
        before: Option<&hmac::Key>,
        service: &str,
        servers: impl Iterator<Item = ServerAddr>,
    ) -> Self {
        let addresses: Vec<_> = servers.collect();
        let of_before = before.iter().flat_map(|before| {
            addresses.iter().enumerate().map(|(index, addr)| (token(before, service, *addr), index))
        });
        let servers: Vec<Cookie> =
            addresses.iter().map(|addr| Cookie::new(wanted, token(key, service, *addr))).collect();
        let of_now = servers.iter().enumerate().map(|(index, cookie)| (cookie.token, index));
        let by_handle = of_before.chain(of_now).map(|known| (handle(&known.0), known)).collect();
        Self {
            name: wanted.name.clone(),
            secure: wanted.secure,
            keep_drained: wanted.keep_drained,
            servers,
            by_handle,
        }
    }

    /// The server that a request's cookie names, by index.
    pub fn server(&self, headers: &HeaderMap) -> Option<usize> {
        let given: &Token = cookies::value(headers, &self.name)?.try_into().ok()?;
        let (known, index) = self.by_handle.get(&handle(given))?;
        // How many of its letters are right is nobody's business.
        constant_time::verify_slices_are_equal(given, known).is_ok().then_some(*index)
    }

    /// Gives a visitor the cookie of the server that answered. `asked` is the request's head, as the server got it.
    pub fn mark(&self, index: usize, asked: &HeaderMap, answer: &mut HeaderMap) {
        let Some(cookie) = self.servers.get(index) else { return };
        let over_https = || asked.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        let secure = self.secure.unwrap_or_else(over_https);
        let field = if secure { &cookie.secure } else { &cookie.plain };
        answer.append(header::SET_COOKIE, field.clone());
    }
}

impl Cookie {
    fn new(wanted: &model::Sticky, token: Token) -> Self {
        let text = String::from_utf8_lossy(&token).into_owned();
        let mut field =
            format!("{}={text}; Path={}; SameSite={}", wanted.name, wanted.path, wanted.same_site.name());
        if let Some(max_age) = wanted.max_age {
            field += &format!("; Max-Age={}", max_age.as_secs());
        }
        if wanted.http_only {
            field += "; HttpOnly";
        }
        // Name and path are visible ASCII in a valid configuration, and so is all the rest.
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        Self { token, plain: value(&field), secure: value(&(field.clone() + "; Secure")) }
    }
}

fn token(key: &hmac::Key, service: &str, addr: ServerAddr) -> Token {
    let mut context = hmac::Context::with_key(key);
    // No name holds a zero byte: no two pairs of names read the same.
    for part in ["sticky server", service, &addr.to_string()] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let tag = context.sign();
    let mut token = [0; LENGTH];
    // It fits: the length is that of so many bytes in base64.
    let _ = BASE64_URL_SAFE_NO_PAD.encode_slice(&tag.as_ref()[..BYTES], &mut token);
    token
}

fn handle(token: &Token) -> [u8; HANDLE] {
    std::array::from_fn(|index| token[index])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::model::SameSite;

    fn wanted() -> model::Sticky {
        model::Sticky {
            name: "lb".into(),
            max_age: None,
            secure: None,
            http_only: true,
            same_site: SameSite::Lax,
            path: "/".into(),
            keep_drained: true,
            key: None,
        }
    }

    fn sticky(wanted: &model::Sticky, secret: &[u8], service: &str, servers: &[&str]) -> Sticky {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Sticky::new(wanted, &key, None, service, servers.iter().map(|addr| ServerAddr(addr.parse().unwrap())))
    }

    /// The cookie that a visitor of the server gets.
    fn given(sticky: &Sticky, index: usize, proto: &'static str) -> String {
        let asked =
            HeaderMap::from_iter([("x-forwarded-proto".parse().unwrap(), HeaderValue::from_static(proto))]);
        let mut answer = HeaderMap::new();
        sticky.mark(index, &asked, &mut answer);
        answer[header::SET_COOKIE].to_str().unwrap().to_owned()
    }

    fn sent(cookie: &str) -> HeaderMap {
        let pair = cookie.split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&format!("a=b; {pair}; c=d")).unwrap())])
    }

    const TWO: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];

    #[test]
    fn a_cookie_leads_back_to_its_server_also_when_others_come_and_go() {
        let sticky_now = sticky(&wanted(), b"secret", "app", &TWO);
        let cookie = given(&sticky_now, 1, "http");
        assert_eq!(sticky_now.server(&sent(&cookie)), Some(1));
        let later = sticky(&wanted(), b"secret", "app", &["10.0.0.9:80", "10.0.0.2:80", "10.0.0.1:80"]);
        assert_eq!(later.server(&sent(&cookie)), Some(1));
        assert_eq!(sticky(&wanted(), b"secret", "app", &["10.0.0.1:80"]).server(&sent(&cookie)), None);
    }

    #[test]
    fn what_weir_has_not_signed_leads_nowhere() {
        let now = sticky(&wanted(), b"secret", "app", &TWO);
        let cookie = given(&now, 0, "http");
        assert_eq!(sticky(&wanted(), b"another", "app", &TWO).server(&sent(&cookie)), None);
        assert_eq!(sticky(&wanted(), b"secret", "shop", &TWO).server(&sent(&cookie)), None);
        let token = cookie.split(';').next().unwrap().to_owned();
        for place in 3..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(now.server(&sent(std::str::from_utf8(&forged).unwrap())), None, "letter {place}");
        }
        for wrong in ["lb=", "lb=10.0.0.1:80", &format!("{token}A"), &token[..token.len() - 1], "other=1"] {
            assert_eq!(now.server(&sent(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn a_cookie_of_the_key_before_still_leads_to_its_server() {
        let key = |secret: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, secret);
        let made = |secret: &[u8], before: Option<&hmac::Key>| {
            let servers = TWO.iter().map(|addr| ServerAddr(addr.parse().unwrap()));
            Sticky::new(&wanted(), &key(secret), before, "app", servers)
        };
        let old = given(&made(b"old", None), 1, "http");
        let now = made(b"new", Some(&key(b"old")));
        assert_eq!(now.server(&sent(&old)), Some(1));
        assert_eq!(now.server(&sent(&given(&now, 1, "http"))), Some(1));
        assert_ne!(given(&now, 1, "http"), old);
        assert_eq!(made(b"newest", Some(&key(b"new"))).server(&sent(&old)), None);
    }

    #[test]
    fn a_cookie_says_what_was_configured_and_nothing_of_the_server() {
        let now = sticky(&wanted(), b"secret", "app", &TWO);
        let (plain, secure) = (given(&now, 0, "http"), given(&now, 0, "https"));
        assert!(plain.ends_with("; Path=/; SameSite=Lax; HttpOnly"), "{plain}");
        assert_eq!(secure, format!("{plain}; Secure"));
        assert!(!plain.contains("10.0") && !plain.contains("app"), "{plain}");

        let other = model::Sticky {
            max_age: Some(Duration::from_secs(60)),
            secure: Some(true),
            http_only: false,
            same_site: SameSite::None,
            path: "/shop".into(),
            ..wanted()
        };
        let field = given(&sticky(&other, b"secret", "app", &TWO), 0, "http");
        assert!(field.ends_with("; Path=/shop; SameSite=None; Max-Age=60; Secure"), "{field}");
    }
}
