//! Sampled drops, read from the ring that the gate writes while somebody watches.
//!
//! The gate is told by a time until which it is watched. Each [`Watcher::wait`] renews it when it is due; a watcher that
//! dies stops doing so, and the gate falls silent by itself.

use std::{
    fs::File,
    os::fd::AsFd,
    path::Path,
    time::{Duration, SystemTime},
};

use aya::maps::{Array, Map, MapData, MapError, RingBuf};
use nix::{
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use proxy_common::{
    event::{DropEvent, WATCHED_FOR, Watched},
    names,
    verdict::DropReason,
};

use super::{KernelFault, pins::Pins, tables::Tables};

/// How often the gate is told that somebody watches.
const RENEW: Duration = Duration::from_secs(1);

/// Somebody else's turn is waited for, for a little longer than the daemon takes.
const TRIES: u32 = 14;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// The one reader of sampled drops.
pub struct Watcher {
    ring: RingBuf<MapData>,
    watched: Array<MapData, Watched>,
    renewed: Option<Duration>,
    tables: Tables,
    names: Vec<Option<String>>,
    /// Two readers of one ring would each get half.
    _turn: Flock<File>,
}

/// A packet that was dropped, or would have been.
#[derive(Debug, Clone)]
pub struct Dropped {
    pub at: SystemTime,
    pub interface: u32,
    /// Its name; the number of its slot if it has none.
    pub entrypoint: String,
    pub reason: &'static str,
    /// It passed: its entrypoint is shadowed.
    pub shadow: bool,
    /// Which CPU's sample it is from.
    pub cpu: u16,
    pub length: u32,
    /// Its first bytes.
    pub head: Vec<u8>,
}

/// How much was dropped up to now, for one entrypoint and reason; or would have been, where it is shadowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    pub entrypoint: String,
    pub reason: &'static str,
    pub shadow: bool,
    pub packets: u64,
}

impl Watcher {
    /// `None`: nothing of Weir's is in the kernel.
    pub fn open(bpffs: &Path) -> Result<Option<Self>, KernelFault> {
        let pins = Pins::below(bpffs);
        if !pins.exist()? {
            return Ok(None);
        }
        if !pins.map(names::GATE_EVENTS).exists() {
            return Err(KernelFault::Other {
                doing: "watch the gate".into(),
                why: "the daemon that loaded it can't be watched; restart the daemon with this version"
                    .into(),
            });
        }
        let folder = pins.map("");
        let turn = File::open(&folder)
            .map_err(|error| KernelFault::system(format!("open {}", folder.display()), error))?;
        let turn = our_turn(turn).ok_or_else(|| KernelFault::Other {
            doing: "watch the gate".into(),
            why: "another `weir watch` or `weir top` does, and two would take each other's events".into(),
        })?;
        let mut watcher = Self {
            ring: open(&pins, names::GATE_EVENTS)?,
            watched: open(&pins, names::GATE_WATCHED)?,
            renewed: None,
            names: Vec::new(),
            tables: Tables::open(&pins)?,
            _turn: turn,
        };
        // What a watcher before has left unread is old.
        while watcher.ring.next().is_some() {}
        watcher.renew()?;
        Ok(Some(watcher))
    }

    /// Waits for drops, for at most `patience`, and gives all that have been told.
    pub fn wait(&mut self, patience: Duration) -> Result<Vec<Dropped>, KernelFault> {
        self.renew()?;
        let timeout = PollTimeout::try_from(patience.min(RENEW)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(KernelFault::system("wait for drops", error.into())),
        }
        let (now, wall) = (monotonic()?, SystemTime::now());
        let mut dropped = Vec::new();
        while let Some(bytes) = self.ring.next() {
            // Of another size: of another version.
            if let Some(event) = event(&bytes) {
                dropped.push(event);
            }
        }
        let names = &self.names;
        let in_words = |event: DropEvent| Dropped {
            at: wall - now.saturating_sub(Duration::from_nanos(event.at)),
            interface: event.interface,
            entrypoint: name(names, event.entrypoint),
            reason: event.reason().map_or("?", DropReason::name),
            shadow: event.shadow != 0,
            cpu: event.cpu,
            length: event.length,
            head: event.packet().to_vec(),
        };
        Ok(dropped.into_iter().map(in_words).collect())
    }

    /// What the counters say.
    pub fn totals(&self) -> Result<Vec<Total>, KernelFault> {
        let mut totals = Vec::new();
        for (slot, entrypoint) in self.tables.entrypoint_names()?.into_iter().enumerate() {
            let Some(entrypoint) = entrypoint else { continue };
            let slot = slot as u32;
            for (shadow, counters) in
                [(false, self.tables.counters(slot)?), (true, self.tables.would_drop(slot)?)]
            {
                totals.extend(DropReason::ALL.map(|reason| Total {
                    entrypoint: entrypoint.clone(),
                    reason: reason.name(),
                    shadow,
                    packets: counters.dropped(reason).packets,
                }));
            }
        }
        Ok(totals)
    }

    fn renew(&mut self) -> Result<(), KernelFault> {
        let now = monotonic()?;
        if self.renewed.is_some_and(|renewed| now < renewed + RENEW) {
            return Ok(());
        }
        let until = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).saturating_add(WATCHED_FOR);
        self.tell(Watched { until })?;
        // Entrypoints come and go with configurations.
        self.names = self.tables.entrypoint_names()?;
        self.renewed = Some(now);
        Ok(())
    }

    fn tell(&mut self, watched: Watched) -> Result<(), KernelFault> {
        self.watched
            .set(0, watched, 0)
            .map_err(|error| KernelFault::aya("tell the gate that it is watched", &error))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // If it fails, the time runs out all the same.
        let _ = self.tell(Watched::default());
    }
}

fn name(names: &[Option<String>], slot: u32) -> String {
    names.get(slot as usize).cloned().flatten().unwrap_or_else(|| format!("#{slot}"))
}

fn event(bytes: &[u8]) -> Option<DropEvent> {
    let bytes: &[u8; size_of::<DropEvent>()] = bytes.try_into().ok()?;
    // SAFETY: as many bytes as an event has, which is made of integers and bytes only.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// The clock that the gate reads.
pub(super) fn monotonic() -> Result<Duration, KernelFault> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|error| KernelFault::system("read the clock", error.into()))?;
    Ok(now.into())
}

/// The daemon itself watches for a moment now and then, for its dashboard.
fn our_turn(mut folder: File) -> Option<Flock<File>> {
    for _ in 0..TRIES {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Some(turn),
            Err((back, _)) => folder = back,
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).ok()
}

fn open<T: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<T, KernelFault> {
    MapData::from_pin(pins.map(name))
        .and_then(Map::from_map_data)
        .and_then(T::try_from)
        .map_err(|error| KernelFault::aya(format!("open {name}"), &error))
}
