//! What the kernel's verifier has to do for each program: it gives up at a million instructions, and kernels differ in how
//! many they look at for the same program. Whoever adds to the gate sees here what is left, on each kernel that it is
//! run on.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use aya::{
    Ebpf,
    programs::{ProgramError, SchedClassifier, SockOps, Xdp},
};
use proxy_common::names;
use proxy_user::kernel::Kernel;

#[path = "support/scratch.rs"]
mod scratch;

use scratch::{in_scratch, programs_over, telling_programs_over};

/// The verifier's own limit is a million.
const ROOM: u32 = 600_000;

#[test]
fn every_program_loads_and_leaves_the_verifier_room() {
    in_scratch("every_program_loads_and_leaves_the_verifier_room", |scratch| {
        // It makes the maps; whether it can load the programs is told below, in more words.
        let _ = Kernel::open(&scratch.bpffs);
        let refused = [
            look(programs_over(&scratch.bpffs), "", &[&GATE[..], &OTHERS].concat()),
            look(telling_programs_over(&scratch.bpffs), " (log)", &GATE),
        ]
        .concat();
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    });
}

const GATE: [&str; 4] = [names::GATE_XDP, names::GATE_PROVE, names::GATE_TC, names::GATE_EXPLAIN];
const OTHERS: [&str; 3] = [names::FORWARD_TC, names::UPSTREAM_WATCH, names::TRANSLATE_TC];

/// Loads these programs. What the verifier has against them.
fn look(mut programs: Ebpf, which: &str, names: &[&str]) -> Vec<String> {
    let mut refused = Vec::new();
    for &name in names {
        let program = programs.program_mut(name).unwrap();
        let loaded = match name {
            names::GATE_TC | names::FORWARD_TC | names::TRANSLATE_TC => {
                <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load)
            }
            names::UPSTREAM_WATCH => <&mut SockOps>::try_from(program).and_then(SockOps::load),
            _ => <&mut Xdp>::try_from(program).and_then(Xdp::load),
        };
        match loaded.and_then(|()| programs.program(name).unwrap().info()) {
            Ok(info) => {
                let verified = info.verified_instruction_count().unwrap_or(0);
                println!("{name}{which}: {verified} instructions verified");
                if verified > ROOM {
                    refused.push(format!("{name}{which} leaves too little room: {verified} of 1,000,000"));
                }
            }
            Err(error) => refused.push(format!("{name}{which}: {}", why(&error))),
        }
    }
    refused
}

/// The end of what the verifier says: all of it can be megabytes.
fn why(error: &ProgramError) -> String {
    let ProgramError::LoadError { verifier_log, io_error } = error else { return error.to_string() };
    let log = verifier_log.to_string();
    let lines: Vec<_> = log.lines().collect();
    format!("{io_error}\n{}", lines[lines.len().saturating_sub(60)..].join("\n"))
}
