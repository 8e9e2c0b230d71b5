//! What the gate's own programs log, told in the daemon's log: `log.kernel`.
//!
//! They are the programs of the second object, which write a line for each packet that they drop and each connection that they
//! let in, so many a second and CPU, into a ring that lives as long as they do. A thread of its own reads it, tells of so many
//! a second however many CPUs there are, and says what was left out. Who looks at the log sees nobody else's: the ring is not that of `weir watch`.

mod line;

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use nix::{
    net::if_::if_indextoname,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use proxy_common::{
    log::{Outcome, Spoken},
    names,
};

use super::{KernelFault, Protocol, pins::Pins, tables::Tables};

/// So many lines are told in a round.
const LINES: u64 = 100;

/// How often names are read anew, and what was left out is told.
const ROUND: Duration = Duration::from_secs(1);

/// Reads until it is dropped.
pub(super) struct Ears {
    over: Arc<AtomicBool>,
}

/// What becomes of a line.
#[derive(Default)]
struct Lines {
    told: AtomicU64,
    /// Of them, in this round.
    in_round: AtomicU64,
    names: Mutex<Vec<Option<String>>>,
}

/// The logger that aya-log hands lines to.
struct Mouth(Arc<Lines>);

struct Reader {
    ring: EbpfLogger<Mouth>,
    spoken: PerCpuArray<MapData, Spoken>,
    tables: Tables,
    lines: Arc<Lines>,
    /// Of what was left out, so much was said.
    said: u64,
    over: Arc<AtomicBool>,
}

// === impl Ears ===

impl Ears {
    /// Listens to programs that are loaded already: their maps are taken out of `ebpf`.
    pub fn open(ebpf: &mut Ebpf, pins: &Pins) -> Result<Self, KernelFault> {
        let failed =
            |error: &(dyn std::error::Error + 'static)| KernelFault::aya("hear the gate's log", error);
        let lines = Arc::new(Lines::default());
        let ring =
            EbpfLogger::init_with_logger(ebpf, Mouth(lines.clone())).map_err(|error| failed(&error))?;
        let spoken = ebpf.take_map(names::GATE_SPOKEN).map(PerCpuArray::<MapData, Spoken>::try_from);
        let spoken =
            spoken.transpose().map_err(|error| failed(&error))?.ok_or_else(|| KernelFault::Other {
                doing: format!("find the map {}", names::GATE_SPOKEN),
                why: "it is not in the eBPF object".into(),
            })?;
        let over = Arc::new(AtomicBool::new(false));
        let reader = Reader { ring, spoken, tables: Tables::open(pins)?, lines, said: 0, over: over.clone() };
        let thread = thread::Builder::new().name("gate log".into());
        thread
            .spawn(move || reader.read())
            .map_err(|error| KernelFault::system("start a thread for the gate's log", error))?;
        Ok(Self { over })
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

// === impl Reader ===

impl Reader {
    fn read(mut self) {
        let mut due = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            if due <= Instant::now() {
                due = Instant::now() + ROUND;
                self.round();
            }
            let patience = PollTimeout::try_from(ROUND).unwrap_or(PollTimeout::MAX);
            if let Err(error) = poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], patience)
                && error != nix::errno::Errno::EINTR
            {
                tracing::warn!(error = %io::Error::from(error), "the gate's log can't be read any more");
                return;
            }
            self.ring.flush();
        }
    }

    fn round(&mut self) {
        match self.tables.entrypoint_names() {
            Ok(names) => *self.lines.names.lock().unwrap_or_else(PoisonError::into_inner) = names,
            Err(fault) => tracing::debug!(%fault, "entrypoints' names can't be read"),
        }
        // In this order: a line that comes in between is not taken for one that was left out.
        let Ok(spoken) = self.spoken.get(&0, 0) else { return };
        self.ring.flush();
        let all: u64 = spoken.iter().map(|spoken| spoken.all).sum();
        self.lines.in_round.store(0, Ordering::Relaxed);
        let left_out = all.saturating_sub(self.lines.told.load(Ordering::Relaxed));
        if let Some(more) = left_out.checked_sub(self.said).filter(|more| *more > 0) {
            self.said = left_out;
            tracing::debug!(lines = more, "the gate had more to tell than it writes");
        }
    }
}

// === impl Mouth ===

impl Log for Mouth {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let Self(lines) = self;
        if lines.in_round.fetch_add(1, Ordering::Relaxed) >= LINES {
            return;
        }
        lines.told.fetch_add(1, Ordering::Relaxed);
        let text = record.args().to_string();
        let Some(line) = line::parse(&text) else {
            tracing::debug!(line = text, "the gate wrote a line that nobody understands");
            return;
        };
        let line::Line { outcome, entrypoint, reason, interface, protocol, source, destination } = line;
        let name =
            lines.names.lock().unwrap_or_else(PoisonError::into_inner).get(entrypoint).cloned().flatten();
        let entrypoint = name.unwrap_or_else(|| format!("#{entrypoint}"));
        let interface = if_indextoname(interface)
            .map_or_else(|_| format!("#{interface}"), |name| name.to_string_lossy().into_owned());
        let protocol = protocol.map(Protocol::name);
        let reason = reason.map(proxy_common::verdict::DropReason::name);
        match outcome {
            Outcome::Dropped => {
                tracing::debug!(
                    reason,
                    entrypoint,
                    source,
                    destination,
                    protocol,
                    interface,
                    "the gate dropped a packet"
                );
            }
            Outcome::WouldDrop => {
                tracing::debug!(
                    reason,
                    entrypoint,
                    source,
                    destination,
                    protocol,
                    interface,
                    "the gate would have dropped a packet"
                );
            }
            Outcome::LetIn => {
                tracing::debug!(
                    entrypoint,
                    source,
                    destination,
                    protocol,
                    interface,
                    "the gate let a connection in"
                );
            }
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_lines_are_told_in_a_round() {
        let lines = Arc::new(Lines::default());
        let mouth = Mouth(lines.clone());
        let told = || lines.told.load(Ordering::Relaxed);
        let many = || {
            for _ in 0..LINES + 50 {
                mouth.log(&Record::builder().args(format_args!("1 3 1 7 6 ::1 1 ::1 1")).build());
            }
        };
        many();
        assert_eq!(told(), LINES);
        lines.in_round.store(0, Ordering::Relaxed);
        many();
        assert_eq!(told(), 2 * LINES);
    }
}
