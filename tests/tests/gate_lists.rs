//! Lists of every size, asked in the kernel: also while they grow and shrink beyond where the structure changes.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::net::IpAddr;

use aya::{Ebpf, TestRun, TestRunOptions, programs::Xdp};
use ipnet::IpNet;
use proxy_common::names;
use proxy_user::{
    admission::PrefixSet,
    config::model::{KernelMode, SynCookies},
    kernel::{Desired, Guarded, Kernel, NamedList, Protocol},
};
use weir_lab::bench::lists;

#[path = "support/packet.rs"]
mod packet;
#[path = "support/scratch.rs"]
mod scratch;

use packet::{TCP, ipv4, ipv6};
use scratch::{in_scratch, programs_over};

const EDGE: &str = "203.0.113.1";
const EDGE6: &str = "2001:db8:ed9e::1";

#[test]
fn two_million_prefixes_are_judged_in_the_kernel_as_the_prefixes_say() {
    in_scratch("two_million_prefixes_are_judged_in_the_kernel_as_the_prefixes_say", |scratch| {
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let sizes = [0, 1_000_000, 0, 600, 2_000];
        for (generation, size) in (1..).zip(sizes) {
            let prefixes = lists::spread(size);
            kernel.apply(&desired(generation, &prefixes)).unwrap();
            let set = PrefixSet::new(&prefixes);
            let mut programs = programs_over(&scratch.bpffs);
            let gate: &mut Xdp = programs.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
            gate.load().unwrap();
            let mut passed = [0, 0];
            for prefix in prefixes.iter().step_by(prefixes.len() / 2_000 + 1) {
                for address in boundaries(prefix) {
                    let passes = passes(&programs, address);
                    assert_eq!(passes, set.contains(address), "{address} with {size} of each family");
                    passed[usize::from(passes)] += 1;
                }
            }
            assert!(passed[0] > 0 && passed[1] > 0, "both kinds were asked: {passed:?}");
        }
    });
}

fn desired(generation: u64, prefixes: &[IpNet]) -> Desired {
    let lists = vec![NamedList { name: "many".into(), cdn: false, prefixes: prefixes.into() }];
    let bind = vec![format!("{EDGE}:443").parse().unwrap(), format!("[{EDGE6}]:443").parse().unwrap()];
    Desired {
        generation,
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        log: false,
        guarded: vec![Guarded {
            entrypoint: "https".into(),
            bind,
            protocols: vec![Protocol::Tcp],
            lists,
            shadow: false,
            limit: None,
            syn_cookies: SynCookies::OFF,
        }],
    }
}

/// The ends of a prefix, and their neighbours outside.
fn boundaries(prefix: &IpNet) -> Vec<IpAddr> {
    match prefix {
        IpNet::V4(prefix) => {
            let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            all.map(|address| IpAddr::V4(address.into())).to_vec()
        }
        IpNet::V6(prefix) => {
            let (first, last) = (u128::from(prefix.network()), u128::from(prefix.broadcast()));
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            all.map(|address| IpAddr::V6(address.into())).to_vec()
        }
    }
}

fn passes(programs: &Ebpf, source: IpAddr) -> bool {
    let packet = match source {
        IpAddr::V4(source) => ipv4(&source.to_string(), EDGE, TCP),
        IpAddr::V6(source) => ipv6(&source.to_string(), EDGE6, TCP),
    };
    let packet = packet.tcp(443, 0x02);
    let gate: &Xdp = programs.program(names::GATE_XDP).unwrap().try_into().unwrap();
    let ran = gate.test_run(TestRunOptions { data_in: Some(&packet.0), ..TestRunOptions::default() });
    match ran.unwrap().return_value {
        1 => false,
        2 => true,
        other => panic!("XDP returned {other}"),
    }
}
