//! The life of a connection, from accept to its end. A table of contents: the stages are elsewhere.

pub mod crowd;
mod date;
pub mod http1;
mod http2;
pub mod http3;

use std::{
    cell::Cell,
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    address::{EntrypointAddr, PeerAddr},
    hygiene::Fault,
    identity::{Trust, TrustedSource, spell_peer},
    passthrough::{self, Came, Onward},
    proxy_protocol,
    request::Caller,
    worker::Worker,
};

/// A client has this long for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A client that has sent a part of HTTP/2's preface is looked at again after this.
const PEEK_AGAIN: Duration = Duration::from_millis(5);

/// A connection as the kernel handed it over.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: PeerAddr,
    pub at: EntrypointAddr,
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted { mut stream, mut peer, at } = accepted;
    // 1. Where did it come in? (A reload may have taken the entrypoint away a moment ago.)
    let snapshot = worker.snapshot();
    let Some(entrypoint) = snapshot.entrypoint(at).cloned() else { return };

    // 2. May it come in? The gate has asked already where it stands; where it doesn't, this is the gate.
    let is_listed = entrypoint.admission.admits(peer.ip());
    let is_blocked = is_listed && snapshot.blocks.refuse(peer.ip(), || entrypoint.cdn.contains(peer.ip()));
    drop(snapshot);
    if !is_listed || is_blocked {
        if !entrypoint.admission.shadow {
            let counters = &entrypoint.counters;
            let turned_away = if is_blocked { &counters.blocked } else { &counters.not_listed };
            turned_away.fetch_add(1, Ordering::Relaxed);
            reset(&stream);
            return;
        }
        entrypoint.counters.would_turn_away.fetch_add(1, Ordering::Relaxed);
    }
    entrypoint.counters.accepted.fetch_add(1, Ordering::Relaxed);
    // Answers are written whole: waiting to fill a segment only delays them. Fails only if the client is gone.
    let _ = stream.set_nodelay(true);

    // 3. Whose is it, and are there too many already?
    if let Some(proxies) = entrypoint.proxies.as_ref().filter(|proxies| proxies.from.contains(peer.ip())) {
        match timeout(proxies.timeout, proxy_protocol::receive(&mut stream)).await {
            Ok(Ok(ends)) => peer = ends.map_or(peer, |ends| PeerAddr(ends.source)),
            Ok(Err(_)) | Err(_) => {
                entrypoint.counters.faults.count(Fault::ProxyHeader);
                return reset(&stream);
            }
        }
    }
    let of_many = TrustedSource::trust(entrypoint.client_ip.as_ref(), peer) == Trust::Believed;
    let place = match entrypoint.crowd.enter(peer.ip(), of_many, &entrypoint.limits) {
        Ok(place) => place,
        Err(fault) => {
            entrypoint.counters.faults.count(fault);
            return turn_away(&stream, fault, entrypoint.tls.is_some());
        }
    };
    let local = if at.0.ip().is_unspecified() { stream.local_addr().unwrap_or(at.0) } else { at.0 };

    // 4. Does it go on untouched?
    let (mut place, mut outage) = (place, None);
    if let Some(routes) = &entrypoint.carried {
        let came = Came { stream, peer, local, place };
        match Box::pin(passthrough::pass(&worker, &entrypoint, routes, came)).await {
            Onward::Over => return,
            Onward::Terminate(came, page) => (stream, place, outage) = (came.stream, came.place, page),
        }
    }

    // 5. TLS, then HTTP.
    let tls = entrypoint.tls.clone();
    let caller = |session, handshake| {
        Rc::new(Caller {
            worker: worker.clone(),
            entrypoint: entrypoint.clone(),
            peer: spell_peer(peer),
            at,
            local,
            session,
            link: Rc::default(),
            requests: Cell::new(0),
            place,
            handshake,
            outage,
        })
    };
    let Some(tls) = tls else {
        let begins = tokio::select! {
            begins = begins_with_http2(&stream, entrypoint.limits.head_time) => begins,
            // Whoever has said nothing yet is not waited for.
            () = worker.closing() => false,
        };
        if begins {
            return Box::pin(http2::speak(stream, caller(None, None))).await;
        }
        return Box::pin(http1::speak(http1::Stream::Plain(stream), caller(None, None))).await;
    };
    // Each stage in a box of its own: an idle connection pays for what it is in, not for all that it went through.
    let traced = worker.snapshot().tracer.is_some().then(Instant::now);
    match timeout(HANDSHAKE, Box::pin(tls.accept(stream))).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some((stream, session)))) => {
            let stream = Box::new(stream);
            let took = traced.map(|begun| (begun, begun.elapsed()));
            if session.http2 {
                Box::pin(http2::speak(stream, caller(Some(session), took))).await;
            } else {
                Box::pin(http1::speak(http1::Stream::Tls(stream), caller(Some(session), took))).await;
            }
        }
        failed @ (Ok(Err(_)) | Err(_)) => {
            entrypoint.counters.handshake_failures.fetch_add(1, Ordering::Relaxed);
            let why = failed.map_or("it took too long".to_owned(), |failed| {
                failed.err().map_or_else(String::new, |error| error.to_string())
            });
            tracing::debug!(entrypoint = %entrypoint.name, why, "a TLS handshake failed");
        }
    }
}

/// Tells a client that there are too many already, in as few words as HTTP has; one that speaks TLS would have to be
/// served a handshake for that, and is reset.
fn turn_away(stream: &TcpStream, fault: Fault, encrypted: bool) {
    if encrypted {
        return reset(stream);
    }
    let status = fault.status();
    let answer =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n");
    // A new connection's buffer has room for that. Whether the client still reads it is its own affair.
    let _ = stream.try_write(answer.as_bytes());
}

/// Whether the client speaks HTTP/2 without having agreed on it (RFC 9113 §3.3). Nothing is taken from the stream.
async fn begins_with_http2(stream: &TcpStream, within: Duration) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let look = async {
        let mut seen = [0; PREFACE.len()];
        loop {
            match stream.peek(&mut seen).await {
                Ok(PREFACE_LENGTH) => return seen == PREFACE,
                // A part of it, which is also how `POST` begins. What was only looked at is ready at once again.
                Ok(length @ 1..) if PREFACE.starts_with(&seen[..length]) => {
                    tokio::time::sleep(PEEK_AGAIN).await;
                }
                _ => return false,
            }
        }
    };
    const PREFACE_LENGTH: usize = PREFACE.len();
    timeout(within, look).await.unwrap_or(false)
}

/// Turns a peer away with a reset, so that it neither waits nor costs a TIME_WAIT.
fn reset(stream: &TcpStream) {
    // Fails only if the peer is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
