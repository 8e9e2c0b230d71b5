//! How the server treats whoever asks, which can be changed while it runs, and which orders it has got: so that faults can be
//! brought about at will, and a request that comes twice is found out.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use anyhow::Context;

static MOOD: AtomicU8 = AtomicU8::new(0);
static ORDERS: OnceLock<File> = OnceLock::new();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Fine,
    /// Everything is answered with 503, probes too.
    Unavailable,
    /// Everything waits.
    Hang,
    /// Every connection is reset when something is asked.
    Reset,
}

impl Mood {
    const ALL: [Self; 4] = [Self::Fine, Self::Unavailable, Self::Hang, Self::Reset];

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mood| mood.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unavailable => "503",
            Self::Hang => "hang",
            Self::Reset => "reset",
        }
    }

    pub(super) fn now() -> Self {
        let now = MOOD.load(Ordering::Relaxed);
        Self::ALL.into_iter().find(|mood| *mood as u8 == now).unwrap_or(Self::Fine)
    }

    pub(super) fn set(self) {
        MOOD.store(self as u8, Ordering::Relaxed);
    }

    /// Until nothing need wait any more.
    pub(super) async fn passed() {
        while Self::now() == Self::Hang {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(super) fn begin(mood: Mood, orders: Option<&Path>) -> anyhow::Result<()> {
    mood.set();
    if let Some(path) = orders {
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("can't write {}", path.display()))?;
        // It is set once, here.
        let _ = ORDERS.set(file);
    }
    Ok(())
}

/// In one write, so that no kill leaves half a line.
pub(super) fn note_order(id: u64) -> io::Result<()> {
    match ORDERS.get() {
        Some(mut file) => file.write_all(format!("{id}\n").as_bytes()),
        None => Ok(()),
    }
}
