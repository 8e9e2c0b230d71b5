//! The body of a request that came over HTTP/1: read from the connection when somebody wants it, and no sooner.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    Switch,
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

impl Body {
    pub fn of(wire: &Rc<Wire>) -> Self {
        Self { turn: wire.turn(), wire: wire.clone() }
    }

    /// Where the connection goes if its request is granted a switch.
    pub fn switch(&self) -> Switch {
        Switch(self.wire.clone())
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
