//! Why a packet passes or is dropped, asked of the kernel itself.
//!
//! The verdict is the *live* program's: the pinned one that judges real packets, run on this one with
//! BPF_PROG_TEST_RUN. It only says pass or drop, so `gate_explain`, which was loaded after it from the same object and
//! reads the same maps, is asked for the rest. Both must say the same; when a change of configuration falls in between,
//! the question is put again.
//!
//! The live program counts what it is tried out on like any packet. `gate_explain` counts the same in GATE_TRIED, and
//! what reads the counters takes that off ([`super::Tables::counters`]). It also spends what the source may send: that is
//! given back.
//!
//! Absent here: which list and prefix let a source in. The kernel's tables hold membership only.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData, MapError};
use nix::libc;
use proxy_common::{
    answer::{Answer, Outcome},
    limit::{SourceKey, Spent},
    names,
    verdict::DropReason,
};
use serde::Serialize;

use super::{
    Hook, KernelFault, Protocol,
    pins::Pins,
    status,
    sys::program::Program,
    tables::{self, Tables},
};
use crate::packet;

const XDP_PASS: u32 = 2;
const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;

/// The kernel tries programs out on no more than fits a page; the gate reads headers.
const LONGEST: usize = 2048;
/// An Ethernet header: less is no packet to the kernel.
pub const SHORTEST: usize = 14;
/// How long a daemon that has just started may take to load `gate_explain`.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the question is put again while the configuration changes.
const ATTEMPTS: usize = 5;

/// The pinned programs and maps, opened.
pub struct Explainer {
    tables: Tables,
    xdp: Program,
    tc: Program,
    explain: Program,
    /// What sources have spent of their limits.
    sources: RefCell<HashMap<MapData, SourceKey, Spent>>,
    /// Whether all that is attached is attached at XDP.
    lives_at_xdp: bool,
    interfaces: Vec<String>,
}

/// All that the kernel has to say about a packet.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub verdict: Verdict,
    /// The name of the program that gave the verdict, and its number.
    pub program: &'static str,
    pub program_id: u32,
    pub generation: u64,
    #[serde(serialize_with = "outcome_name")]
    pub outcome: Outcome,
    #[serde(serialize_with = "reason_name")]
    pub reason: Option<DropReason>,
    pub entrypoint: Option<String>,
    /// Packets that explaining added to the live counters, which `weir kernel status` takes off again.
    pub added: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Drop,
    /// Sent back as the gate's own answer.
    Answer,
}

/// An address, protocol and port that the kernel guards, and for which entrypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub entrypoint: String,
    pub address: SocketAddr,
    pub protocol: Protocol,
}

struct Ran {
    verdict: Verdict,
    program: &'static str,
    program_id: u32,
}

// === impl Explainer ===

impl Explainer {
    /// `None`: nothing of Weir's is in the kernel.
    pub fn open(bpffs: &Path) -> Result<Option<Self>, KernelFault> {
        let pins = Pins::below(bpffs);
        if !pins.exist()? {
            return Ok(None);
        }
        // A daemon that has just started loads this program last.
        let begun = Instant::now();
        while !pins.program(names::GATE_EXPLAIN).exists() {
            if begun.elapsed() > PATIENCE {
                return Err(KernelFault::Other {
                    doing: "ask the gate".into(),
                    why: "the daemon that loaded it has loaded no program for that: it is of another version, or ended \
                          too soon; start the daemon of this version"
                        .into(),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let program = |name| {
            Program::open(&pins.program(name))
                .map_err(|error| KernelFault::system(format!("open the program `{name}`"), error))
        };
        let (xdp, tc) = (program(names::GATE_XDP)?, program(names::GATE_TC)?);
        let explain = program(names::GATE_EXPLAIN)?;
        let tables = Tables::open(&pins)?;
        let attached = status::read(&pins, &tables, 0)?.interfaces.into_iter();
        let attached: Vec<_> = attached.filter(|interface| interface.index.is_some()).collect();
        Ok(Some(Self {
            tables,
            xdp,
            tc,
            explain,
            sources: RefCell::new(tables::typed(tables::map(&pins, names::GATE_SOURCES)?)?),
            lives_at_xdp: !attached.is_empty()
                && attached.iter().all(|interface| interface.hook == Some(Hook::Xdp)),
            interfaces: attached.into_iter().map(|interface| interface.name).collect(),
        }))
    }

    /// Interfaces that the gate is attached to.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// What is guarded, in the order of entrypoints' slots.
    pub fn guards(&self) -> Result<Vec<Guard>, KernelFault> {
        let names = self.tables.entrypoint_names()?;
        let Some(scope) = self.tables.running()? else { return Ok(Vec::new()) };
        let mut guards: Vec<_> = tables::slots(&scope)
            .filter(|slot| !slot.key.is_whole())
            .filter_map(|slot| {
                let protocol = Protocol::of_number(slot.key.protocol)?;
                let entrypoint = names.get(slot.policy.entrypoint as usize)?.clone()?;
                let address = SocketAddr::new(Ipv6Addr::from(slot.key.address).to_canonical(), slot.key.port);
                Some((slot.policy.entrypoint, Guard { entrypoint, address, protocol }))
            })
            .collect();
        guards.sort_by_key(|(slot, guard)| (*slot, guard.protocol, guard.address));
        Ok(guards.into_iter().map(|(_, guard)| guard).collect())
    }

    /// Tries the gate out on a frame, Ethernet header included.
    pub fn explain(&self, frame: &[u8]) -> Result<Explanation, KernelFault> {
        let frame = &frame[..frame.len().min(LONGEST)];
        let mut added = 0;
        for attempt in 1.. {
            let (answer, outcome) = self.ask(frame)?;
            let ran = self.run_live_for_nothing(frame, answer.entrypoint)?;
            added += u32::from(matches!(outcome, Outcome::Admitted | Outcome::Dropped | Outcome::Shadowed));
            // Whether a step of a handshake is proved, only the live program can say.
            let agree = outcome == Outcome::Unproved
                || (ran.verdict == Verdict::Drop) == (outcome == Outcome::Dropped);
            if agree && self.generation()? == answer.generation {
                return self.put_in_words(&ran, &answer, outcome, added);
            }
            if attempt == ATTEMPTS {
                break;
            }
        }
        Err(KernelFault::Other {
            doing: "explain the gate's verdict".into(),
            why: "the program that judges and the one that explains disagree, again and again; is the configuration \
                  changing all the time? If not, please report this"
                .into(),
        })
    }

    fn generation(&self) -> Result<u64, KernelFault> {
        Ok(self.tables.running()?.map_or(0, |scope| scope.generation))
    }

    /// The live program takes a packet, and perhaps a connection, off what the source may send: asking must not. What comes in
    /// from it in the moment in between is forgiven too.
    fn run_live_for_nothing(&self, frame: &[u8], entrypoint: u32) -> Result<Ran, KernelFault> {
        let source = packet::parse(frame).map(|headers| source_key(headers.source, entrypoint as u16));
        let Some(source) = source else { return self.run_live(frame) };
        let spent = || match self.sources.borrow().get(&source, 0) {
            Ok(spent) => Ok(Some(spent)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(tables::failed("read", names::GATE_SOURCES, &error)),
        };
        let before = spent()?;
        let ran = self.run_live(frame)?;
        if spent()? != before {
            let mut sources = self.sources.borrow_mut();
            let given_back = match before {
                Some(before) => sources.insert(source, before, 0),
                None => sources.remove(&source),
            };
            match given_back {
                // It gave way to another by itself.
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(tables::failed("write", names::GATE_SOURCES, &error)),
            }
        }
        Ok(ran)
    }

    fn run_live(&self, frame: &[u8]) -> Result<Ran, KernelFault> {
        let failed =
            |name: &str, error| Err(KernelFault::system(format!("try out the program `{name}`"), error));
        if !self.lives_at_xdp {
            match self.tc.try_out(frame, &mut []) {
                Ok(returned) => return ran(&self.tc, names::GATE_TC, returned),
                // The kernel tries out tc programs on no packet that is shorter than its IP header.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return failed(names::GATE_TC, error),
            }
        }
        match self.xdp.try_out(frame, &mut []) {
            Ok(returned) => ran(&self.xdp, names::GATE_XDP, returned),
            Err(error) => failed(names::GATE_XDP, error),
        }
    }

    fn ask(&self, frame: &[u8]) -> Result<(Answer, Outcome), KernelFault> {
        let not_understood = || KernelFault::Other {
            doing: "ask `gate_explain`".into(),
            why: "its answer is not understood: another version of Weir loaded it".into(),
        };
        let mut after = vec![0; frame.len() + Answer::BYTES];
        let returned = self.explain.try_out(frame, &mut after);
        let returned = returned.map_err(|error| KernelFault::system("ask `gate_explain`", error))?;
        let answer = after.first_chunk().map(Answer::from_bytes).filter(|_| returned == XDP_PASS);
        let answer = answer.ok_or_else(not_understood)?;
        let outcome = Outcome::of_number(answer.outcome).ok_or_else(not_understood)?;
        Ok((answer, outcome))
    }

    fn put_in_words(
        &self,
        ran: &Ran,
        answer: &Answer,
        outcome: Outcome,
        added: u32,
    ) -> Result<Explanation, KernelFault> {
        let mut explanation = Explanation {
            verdict: ran.verdict,
            program: ran.program,
            program_id: ran.program_id,
            generation: answer.generation,
            outcome,
            reason: match outcome {
                Outcome::Dropped | Outcome::Shadowed => DropReason::of_number(answer.reason),
                Outcome::Unproved if ran.verdict == Verdict::Drop => Some(DropReason::BadCookie),
                _ => None,
            },
            entrypoint: None,
            added,
        };
        if matches!(outcome, Outcome::Admitted | Outcome::Dropped | Outcome::Shadowed | Outcome::Unproved) {
            explanation.entrypoint =
                self.tables.entrypoint_names()?.get(answer.entrypoint as usize).cloned().flatten();
        }
        Ok(explanation)
    }
}

fn source_key(source: IpAddr, entrypoint: u16) -> SourceKey {
    match source {
        IpAddr::V4(v4) => SourceKey::v4(u32::from_ne_bytes(v4.octets()), entrypoint),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.octets();
            SourceKey::v6([u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])], entrypoint)
        }
    }
}

/// What a program returned, as a verdict.
fn ran(program: &Program, name: &'static str, returned: u32) -> Result<Ran, KernelFault> {
    let verdict = match (name, returned) {
        (names::GATE_XDP, XDP_PASS) | (names::GATE_TC, TC_ACT_UNSPEC) => Verdict::Pass,
        (names::GATE_XDP, XDP_DROP) | (names::GATE_TC, TC_ACT_SHOT) => Verdict::Drop,
        (names::GATE_XDP, XDP_TX) => Verdict::Answer,
        (_, other) => {
            return Err(KernelFault::Other {
                doing: format!("try out the program `{name}`"),
                why: format!("it gave {other}, which is no verdict of the gate's"),
            });
        }
    };
    let id = program.id();
    let program_id =
        id.map_err(|error| KernelFault::system(format!("look at the program `{name}`"), error))?;
    Ok(Ran { verdict, program: name, program_id })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn outcome_name<S: serde::Serializer>(outcome: &Outcome, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(outcome.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn reason_name<S: serde::Serializer>(reason: &Option<DropReason>, to: S) -> Result<S::Ok, S::Error> {
    reason.map(DropReason::name).serialize(to)
}
