//! The body of a request that came over HTTP/1: read from the connection when somebody wants it, and no sooner.

use std::{
    io,
    pin::Pin,
    rc::Rc,
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
    wire: Rc<Wire>,
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
        Self { turn: wire.turn(), wire: wire.clone() }
    }

    /// `None` for a client that knows nothing of informational heads.
    pub fn listener(&self) -> Option<Listener> {
        self.wire.takes_early_heads().then(|| Listener { wire: self.wire.clone(), turn: self.turn })
    }

    /// Where the connection goes if its request is granted a switch.
    pub fn switch(&self) -> Switch {
        Switch(self.wire.clone())
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
        self.wire.poll_body(self.turn, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.wire.left_of_body(self.turn) == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.wire.left_of_body(self.turn).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.wire.is_unwanted(self.turn);
    }
}
