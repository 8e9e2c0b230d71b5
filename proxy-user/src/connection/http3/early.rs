//! Informational heads that a server sends before its answer, on their way to a client of HTTP/3.

use http::{Response, StatusCode, response};
use tokio::sync::mpsc;

/// So many wait for a client that takes them slowly. Further ones are left out: none is needed to understand the answer.
const WAITING: usize = 8;

/// Where they come from.
#[derive(Debug, Clone)]
pub struct Listener(mpsc::Sender<Response<()>>);

/// Where they go.
#[derive(Debug)]
pub struct Heard(mpsc::Receiver<Response<()>>);

pub fn heads() -> (Listener, Heard) {
    let (says, hears) = mpsc::channel(WAITING);
    (Listener(says), Heard(hears))
}

impl Listener {
    pub fn hear(&self, head: &response::Parts) {
        // 101 is none, and of 100 its client has heard when it had to.
        if !matches!(head.status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            let mut early = Response::new(());
            *early.status_mut() = head.status;
            early.headers_mut().clone_from(&head.headers);
            let _ = self.0.try_send(early);
        }
    }
}

impl Heard {
    pub async fn next(&mut self) -> Option<Response<()>> {
        self.0.recv().await
    }

    /// One that is there already.
    pub fn waiting(&mut self) -> Option<Response<()>> {
        self.0.try_recv().ok()
    }
}
