//! The body of a request that came over HTTP/1: read from the connection when somebody wants it, and no sooner.

use std::{
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{StatusCode, response};
use http_body::{Frame, SizeHint};

use super::{
    Switch, answer,
    wire::{Turn, Wire},
};
use crate::hygiene::Fault;

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    #[error("its client broke a rule: {}", .0.name())]
    Broken(Fault),
    #[error("its client closed in the middle of it")]
    Cut,
    #[error(transparent)]
    Io(io::Error),
    #[error("its request is over")]
    Late,
}

#[derive(Debug)]
pub struct Body {
    /// It may be held by a task that carries it to a server over HTTP/2: that keeps no connection open.
    wire: Weak<Wire>,
    /// The request that it belongs to. Whoever holds a body for longer gets nothing of the next one.
    turn: Turn,
}

/// Where informational heads go that come before the answer.
#[derive(Debug)]
pub struct Listener {
    wire: Rc<Wire>,
    turn: Turn,
}

impl Body {
    pub fn of(wire: &Rc<Wire>) -> Self {
        Self { turn: wire.turn(), wire: Rc::downgrade(wire) }
    }

    /// `None` for a client that knows nothing of informational heads.
    pub fn listener(&self) -> Option<Listener> {
        let wire = self.wire.upgrade()?;
        wire.takes_early_heads().then_some(Listener { wire, turn: self.turn })
    }

    /// Where the connection goes if its request is granted a switch.
    pub fn switch(&self) -> Option<Switch> {
        self.wire.upgrade().map(Switch)
    }

    fn left(&self) -> Option<u64> {
        self.wire.upgrade().map_or(Some(0), |wire| wire.left_of_body(self.turn))
    }
}

impl Listener {
    /// Passes an informational head on, if the client takes it at once or before the answer.
    pub fn hear(&self, head: &response::Parts) {
        // 101 is none, and of 100 its client has heard when it had to.
        if !matches!(head.status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            self.wire.tell_early(self.turn, |out| answer::write_early(out, head));
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.wire.upgrade() {
            Some(wire) => wire.poll_body(self.turn, cx),
            None => Poll::Ready(Some(Err(BodyFault::Late))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.upgrade() {
            wire.is_unwanted(self.turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        connection::http1::{
            stream::Stream,
            wire::{Next, Wire},
        },
        hygiene::http1::HeadLimits,
    };

    /// A connection that has said `sent` and goes on to live, as its server sees it.
    async fn said(sent: &str) -> (TcpStream, Rc<Wire>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let stream = Stream::Plain(listener.accept().await.unwrap().0);
        (client, Wire::new(stream, HeadLimits { fields: 100, size: 65_536 }))
    }

    async fn asked(wire: &Rc<Wire>) -> Body {
        let next = std::future::poll_fn(|cx| wire.poll_next(cx)).await;
        assert!(matches!(next, Next::Request(_)), "{next:?}");
        Body::of(wire)
    }

    fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn whoever_holds_a_body_for_too_long_gets_nothing_of_the_next_request() {
        on_one_thread(async {
            let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
            let (_client, wire) = said(&request.repeat(2)).await;
            let mut late = asked(&wire).await;
            assert_eq!(http_body::Body::size_hint(&late).exact(), Some(5));
            wire.takes_body_back();
            let mut left = 5;
            std::future::poll_fn(|cx| wire.poll_skip(&mut left, cx)).await.unwrap();
            let next = asked(&wire).await;
            assert!(matches!(late.frame().await, Some(Err(BodyFault::Late))));
            drop(late);
            assert_eq!(next.collect().await.unwrap().to_bytes(), "hello");
        });
    }

    #[test]
    fn a_body_keeps_no_connection_open() {
        on_one_thread(async {
            let (_client, wire) = said("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
            let mut body = asked(&wire).await;
            assert!(Wire::switched(wire).is_some(), "it is held");
            assert!(matches!(body.frame().await, Some(Err(BodyFault::Late))));
        });
    }
}
