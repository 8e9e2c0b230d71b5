//! What there is to tell of a request that is traced: it becomes spans when it is exported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode, Version, uri::PathAndQuery};

use crate::{
    access_log::{attempts::Outcome, ending::Blame, redact::Redaction},
    address::ServerAddr,
    page::why::Why,
};

/// An attempt to have it answered by a server.
#[derive(Debug)]
pub struct Attempt {
    pub begun: Instant,
    /// `None`: it was given up, since another answered first or its time was over.
    pub ended: Option<Instant>,
    /// A connection was opened for it, in that time.
    pub connect: Option<Duration>,
    pub outcome: Option<Outcome>,
    pub server: ServerAddr,
    pub service: Arc<str>,
    pub encrypted: bool,
    pub method: Method,
    pub host: Option<HeaderValue>,
    pub target: Option<PathAndQuery>,
    /// So many came before it.
    pub resends: u32,
}

/// A page in a server's place.
#[derive(Debug)]
pub struct Page {
    pub begun: Instant,
    pub ended: Instant,
    pub why: Why,
}

/// A request that is over.
#[derive(Debug)]
pub struct Record {
    pub trace: u128,
    pub span: u64,
    pub parent: Option<u64>,
    pub began: Instant,
    /// Since 1970.
    pub began_at: Duration,
    pub ended: Instant,
    pub client: HeaderValue,
    pub method: Method,
    pub host: Option<HeaderValue>,
    /// Without what is hidden.
    pub target: Vec<u8>,
    pub encrypted: bool,
    pub port: u16,
    pub version: Version,
    pub user_agent: Option<HeaderValue>,
    pub request_id: HeaderValue,
    pub entrypoint: Arc<str>,
    pub route: Option<Arc<str>>,
    pub variant: Option<Arc<str>>,
    pub status: StatusCode,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// How it ended, where that isn't plain from its status.
    pub why: Option<&'static str>,
    pub blame: Option<Blame>,
    pub attempts: Vec<Attempt>,
    pub page: Option<Page>,
    pub handshake: Option<(Instant, Duration)>,
    /// What is hidden of attempts' targets too.
    pub redact: Arc<Redaction>,
}

impl Record {
    /// How many spans it becomes.
    pub fn spans(&self) -> u64 {
        let connects = self.attempts.iter().filter(|attempt| attempt.connect.is_some()).count();
        let others = usize::from(self.page.is_some()) + usize::from(self.handshake.is_some());
        (1 + self.attempts.len() + connects + others) as u64
    }

    /// A moment near it, in nanoseconds since 1970.
    pub fn nanos(&self, at: Instant) -> u64 {
        let began_at = i128::try_from(self.began_at.as_nanos()).unwrap_or_default();
        let signed = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or_default();
        let since = match at.checked_duration_since(self.began) {
            Some(after) => signed(after),
            None => -signed(self.began.duration_since(at)),
        };
        u64::try_from(began_at + since).unwrap_or_default()
    }
}
