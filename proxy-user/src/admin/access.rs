//! Who may ask and order what, decided before anything else is looked at.
//!
//! | at | to read | to change something |
//! |---|---|---|
//! | a unix socket | whoever can open it | root, and the user that the daemon runs as |
//! | TCP from this host | everybody, by a name of this host | the token, or a client certificate |
//! | TCP from elsewhere | the token, or a client certificate | the same |
//!
//! `/ping` and `/ready` are for load balancers, which have no token, and tell next to nothing. The dashboard's own files tell
//! nothing at all: it is their script that asks, with a token that somebody gives it.
//!
//! A browser on this host is a stranger's tool: a page of theirs can have it send requests here. It can't read the answers
//! unless a name of theirs means this host (DNS rebinding), so whoever brings no token must call this host by its own name. And it
//! can't send a token that it doesn't know; but a certificate it sends unasked, so orders over TCP must be JSON and come from
//! nobody else's page.

use std::{net::SocketAddr, sync::Arc};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use nix::unistd::geteuid;

use super::{dashboard, problem::Problem};
use crate::{config::model::Secret, control::state::ControlState};

/// Who is at the other end of an admin connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `certificate`: one of the client's was verified.
    Tcp { from: SocketAddr, certificate: bool },
    /// A process of this user; `None`: the kernel doesn't tell.
    Unix { uid: Option<u32> },
}

/// What came of the token that a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    Right,
    Wrong,
}

/// A request, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    method: &'a Method,
    path: &'a str,
    headers: &'a HeaderMap,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denied {
    WrongToken,
    NoToken,
    OrdersNeedToken,
    NotTheOwner,
    OtherName,
    OtherSite,
    NotJson,
}

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Asked before every handler.
pub async fn check(State(state): State<Arc<ControlState>>, request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Problem::new(StatusCode::FORBIDDEN, "nobody knows where this comes from").into_response();
    };
    let known = state.running().and_then(|running| running.load().config.admin.token.clone());
    let token = token(request.headers(), known.as_ref());
    let ask = Ask { method: request.method(), path: request.uri().path(), headers: request.headers() };
    match may(peer, token, ask, geteuid().as_raw()) {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.into_response(),
    }
}

fn may(peer: Peer, token: Token, ask: Ask<'_>, own: u32) -> Result<(), Denied> {
    if !ask.changes() && (ask.is_for_load_balancers() || dashboard::has(ask.path)) {
        return Ok(());
    }
    let (from, certificate) = match peer {
        Peer::Unix { uid } if ask.changes() && token != Token::Right => {
            return match uid {
                Some(uid) if uid == 0 || uid == own => match ask.is_of_strangers_page() {
                    false => Ok(()),
                    true => Err(Denied::OtherSite),
                },
                _ => Err(Denied::NotTheOwner),
            };
        }
        Peer::Unix { .. } => return Ok(()),
        Peer::Tcp { from, certificate } => (from, certificate),
    };
    if token == Token::Wrong {
        return Err(Denied::WrongToken);
    }
    let known = certificate || token == Token::Right;
    let is_local = from.ip().to_canonical().is_loopback();
    if !known && !is_local {
        return Err(Denied::NoToken);
    }
    if !known && !ask.names_this_host() {
        return Err(Denied::OtherName);
    }
    if ask.changes() {
        if !known {
            return Err(Denied::OrdersNeedToken);
        }
        if !ask.is_of_this_site() {
            return Err(Denied::OtherSite);
        }
        if !ask.is_json() {
            return Err(Denied::NotJson);
        }
    }
    Ok(())
}

/// Compared in constant time, by their digests: how long the right one is doesn't show either.
fn token(headers: &HeaderMap, known: Option<&Secret>) -> Token {
    let Some(sent) = headers.get(header::AUTHORIZATION) else { return Token::None };
    let bearer =
        sent.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    let (Some((_, sent)), Some(known)) = (bearer, known) else { return Token::Wrong };
    let digest = |text: &[u8]| digest::digest(&digest::SHA256, text);
    match verify_slices_are_equal(digest(sent.trim_ascii()).as_ref(), digest(&known.0).as_ref()) {
        Ok(()) => Token::Right,
        Err(_) => Token::Wrong,
    }
}

// === impl Ask ===

impl Ask<'_> {
    fn changes(&self) -> bool {
        !matches!(*self.method, Method::GET | Method::HEAD)
    }

    fn is_for_load_balancers(&self) -> bool {
        let short = self.path.strip_prefix("/api").unwrap_or(self.path);
        matches!(short.strip_prefix("/v1").unwrap_or(short), "/ping" | "/ready")
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// An address on loopback, or `localhost`.
    fn names_this_host(&self) -> bool {
        let Some(host) = self.text(&header::HOST) else { return false };
        if let Ok(address) = host.parse::<SocketAddr>() {
            return address.ip().to_canonical().is_loopback();
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let address = name.parse::<std::net::IpAddr>().ok();
        name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// No page of another site has a browser send it.
    fn is_of_this_site(&self) -> bool {
        let own_origin = match (self.text(&header::ORIGIN), self.text(&header::HOST)) {
            (None, _) => !self.headers.contains_key(header::ORIGIN),
            (Some(origin), Some(host)) => {
                origin.split_once("://").is_some_and(|(_, site)| site.eq_ignore_ascii_case(host))
            }
            (Some(_), None) => false,
        };
        own_origin && matches!(self.text(&FETCH_SITE), None | Some("same-origin" | "none"))
    }

    /// A browser gets at a socket through a tunnel (`ssh -L 9190:/run/weir/admin.sock`), and with it whatever pages it has open.
    /// It names their origin whenever they change something.
    fn is_of_strangers_page(&self) -> bool {
        self.headers.contains_key(header::ORIGIN) && !(self.is_of_this_site() && self.names_this_host())
    }

    fn is_json(&self) -> bool {
        let media = self.text(&header::CONTENT_TYPE).and_then(|value| value.split(';').next());
        media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
    }
}

// === impl Denied ===

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, sentence) = match self {
            Self::WrongToken => (
                StatusCode::UNAUTHORIZED,
                "the token is not the one of `[admin] token_file` (`Authorization: Bearer …`)",
            ),
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "from another host this takes the token (`Authorization: Bearer …`) or a client certificate",
            ),
            Self::OrdersNeedToken => (
                StatusCode::FORBIDDEN,
                "this address can only be read from without the token; commands that change something are taken on the \
                 admin socket (`--admin unix:/run/weir/admin.sock`), or with `[admin] token_file`",
            ),
            Self::NotTheOwner => (
                StatusCode::FORBIDDEN,
                "only root and the user that weir runs as may change what it does: try with sudo",
            ),
            Self::OtherName => (
                StatusCode::FORBIDDEN,
                "without the token this is asked as `localhost` or by an address like 127.0.0.1, and by no other name",
            ),
            Self::OtherSite => (StatusCode::FORBIDDEN, "orders are not taken from the pages of other sites"),
            Self::NotJson => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "orders are JSON: send `Content-Type: application/json`")
            }
        };
        let mut response = Problem::new(status, sentence).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"weir\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests;
