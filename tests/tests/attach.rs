//! Where the gate hangs: on interfaces of all kinds, beside other people's programs, and on interfaces that come and
//! go.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::process::{Command, Stdio};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode, tc::NlOptions, tc::TcAttachOptions,
    },
};
use proxy_common::names;
use proxy_user::{
    config::model::KernelMode,
    kernel::{self, Change, Desired, Hook, Kernel, object_built_in},
};

#[path = "support/edge.rs"]
mod edge;
#[path = "support/scratch.rs"]
mod scratch;

use edge::{Lab, STRANGER, VISITOR, desired};
use scratch::{Neighbour, Scratch, in_scratch, ip, skip, tc_hook};

/// `what` over a cable: made here and, where it needs another end, there.
fn guarded_over(what: &'static str, name: &'static str, lay: fn(&Scratch) -> (Neighbour, &'static str)) {
    in_scratch(name, move |scratch| {
        if !kernel_has(what) {
            return skip(name, &format!("this kernel has no interfaces of the kind `{what}`"));
        }
        let (neighbour, there) = lay(scratch);
        let lab = Lab::between(neighbour, "top0", there);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let wanted = Desired { interfaces: vec!["top0".into()], ..desired(1, &["192.0.2.0/24"]) };
        let applied = kernel.apply(&wanted).unwrap();
        assert_eq!(applied.interfaces[0].hook, tc_hook());
        let status = kernel.status().unwrap();
        assert!(status.interfaces[0].why.contains("made of software"), "{}", status.interfaces[0].why);
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

/// Tries in a namespace that ends with the test.
fn kernel_has(kind: &str) -> bool {
    ip("link add below0 type veth peer name below1");
    let (link, id) = if kind == "vlan" { (" link below0", " id 7") } else { ("", "") };
    let mut command = Command::new("ip");
    command.args(format!("link add trial0{link} type {kind}{id}").split_whitespace()).stderr(Stdio::null());
    let made = command.status().unwrap().success();
    if made {
        ip("link delete trial0");
    }
    ip("link delete below0");
    made
}

#[test]
fn a_bridge_is_guarded() {
    guarded_over("bridge", "a_bridge_is_guarded", |scratch| {
        let neighbour = scratch.neighbour("port0", "outside0");
        ip("link add top0 type bridge");
        ip("link set port0 master top0");
        ip("link set top0 up");
        (neighbour, "outside0")
    });
}

#[test]
#[ignore = "few hosts have the kernel module loaded: `cargo xtask test-kernels`"]
fn a_bond_is_guarded() {
    guarded_over("bond", "a_bond_is_guarded", |scratch| {
        let neighbour = scratch.neighbour("port0", "outside0");
        ip("link add top0 type bond mode active-backup miimon 100");
        ip("link set port0 down");
        ip("link set port0 master top0");
        ip("link set top0 up");
        (neighbour, "outside0")
    });
}

#[test]
#[ignore = "few hosts have the kernel module loaded: `cargo xtask test-kernels`"]
fn a_vlan_is_guarded() {
    guarded_over("vlan", "a_vlan_is_guarded", |scratch| {
        let neighbour = scratch.neighbour("port0", "outside0");
        ip("link add link port0 name top0 type vlan id 7");
        ip("link set top0 up");
        neighbour.run(|| {
            ip("link add link outside0 name seven0 type vlan id 7");
            ip("link set seven0 up");
        });
        (neighbour, "seven0")
    });
}

#[test]
fn an_interface_with_a_dot_in_its_name_is_guarded_and_let_go() {
    in_scratch("an_interface_with_a_dot_in_its_name_is_guarded_and_let_go", |scratch| {
        let lab = Lab::between(scratch.neighbour("edge0.7", "outside0"), "edge0.7", "outside0");
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel
            .apply(&Desired { interfaces: vec!["edge0.7".into()], ..desired(1, &["192.0.2.0/24"]) })
            .unwrap();
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
        assert_eq!(kernel.status().unwrap().interfaces[0].name, "edge0.7");
        assert_eq!(kernel::unload(&scratch.bpffs).unwrap().interfaces, ["edge0.7"]);
        lab.comes_in(STRANGER);
    });
}

#[test]
fn an_interface_that_vanishes_is_guarded_again_when_it_is_back() {
    in_scratch("an_interface_that_vanishes_is_guarded_again_when_it_is_back", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let wanted = desired(1, &["192.0.2.0/24"]);
        kernel.apply(&wanted).unwrap();
        assert!(!kernel.interfaces_changed());

        ip("link delete edge0");
        drop(lab);
        assert!(kernel.interfaces_changed());
        let applied = kernel.apply(&wanted).unwrap();
        assert_eq!((applied.absent, applied.interfaces.len()), (vec!["edge0".to_owned()], 0));
        assert!(!kernel.interfaces_changed());

        let lab = Lab::new(scratch);
        assert!(kernel.interfaces_changed());
        let applied = kernel.apply(&wanted).unwrap();
        assert_eq!((applied.absent.len(), applied.interfaces.len()), (0, 1));
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

#[test]
fn an_interface_that_is_renamed_stays_guarded() {
    in_scratch("an_interface_that_is_renamed_stays_guarded", |scratch| {
        let lab = Lab::new(scratch);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let wanted = desired(1, &["192.0.2.0/24"]);
        kernel.apply(&wanted).unwrap();
        let rename = |from: &str, to: &str| {
            ip(&format!("link set {from} down"));
            ip(&format!("link set {from} name {to}"));
            ip(&format!("link set {to} up"));
            ip(&format!("route replace default dev {to}"));
        };
        rename("edge0", "wan0");
        assert_eq!(kernel.apply(&wanted).unwrap().absent, ["edge0"]);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
        rename("wan0", "edge0");
        assert_eq!(kernel.apply(&wanted).unwrap().interfaces[0].change, Change::Unchanged);

        // The configuration follows.
        rename("edge0", "wan0");
        let applied =
            kernel.apply(&Desired { interfaces: vec!["wan0".into()], ..desired(2, &["192.0.2.0/24"]) });
        assert_eq!(applied.unwrap().interfaces[0].name, "wan0");
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

#[test]
fn an_xdp_program_that_is_there_already_is_named_and_stays() {
    in_scratch("an_xdp_program_that_is_there_already_is_named_and_stays", |scratch| {
        let lab = Lab::new(scratch);
        let mut theirs = foreign();
        let program: &mut Xdp = theirs.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
        program.load().unwrap();
        let id = program.info().unwrap().id();
        program.attach("edge0", XdpMode::Driver).unwrap();

        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        let wanted = Desired { mode: KernelMode::Xdp, ..desired(1, &["192.0.2.0/24"]) };
        let sentence = kernel.apply(&wanted).unwrap_err().to_string();
        let named = format!("another XDP program is attached there and stays: `gate_xdp` (id {id})");
        assert!(sentence.contains(&named), "{sentence}");

        kernel.apply(&desired(2, &["192.0.2.0/24"])).unwrap();
        let status = kernel.status().unwrap();
        assert_eq!(status.interfaces[0].hook, Some(tc_hook()));
        let others: Vec<_> = status.interfaces[0].others.iter().map(|other| (other.hook, other.id)).collect();
        assert_eq!(others, [(Hook::Xdp, id)]);
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());
    });
}

#[test]
fn the_gate_goes_before_others_at_its_hook_and_leaves_them_there() {
    in_scratch("the_gate_goes_before_others_at_its_hook_and_leaves_them_there", |scratch| {
        let lab = Lab::new(scratch);
        let mut theirs = foreign();
        let program: &mut SchedClassifier = theirs.program_mut(names::GATE_TC).unwrap().try_into().unwrap();
        program.load().unwrap();
        let id = program.info().unwrap().id();
        if tc_hook() == Hook::Clsact {
            aya::programs::tc::qdisc_add_clsact("edge0").unwrap();
            let options = TcAttachOptions::Netlink(NlOptions::default());
            program.attach_with_options("edge0", TcAttachType::Ingress, options).unwrap();
        } else {
            program.attach("edge0", TcAttachType::Ingress).unwrap();
        }

        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap();
        let status = kernel.status().unwrap();
        let ours = status.interfaces[0].program_id;
        let others: Vec<_> = status.interfaces[0].others.iter().map(|other| (other.hook, other.id)).collect();
        assert_eq!(others, [(tc_hook(), id)]);
        if tc_hook() == Hook::Tcx {
            let (_, order) = SchedClassifier::query_tcx("edge0", TcAttachType::Ingress).unwrap();
            assert_eq!(order.iter().map(ProgramInfo::id).collect::<Vec<_>>(), [ours, id]);
        }
        lab.comes_in(VISITOR);
        lab.is_dropped(STRANGER, || kernel.status().unwrap());

        // Adopted in its place, and let go alone.
        drop(kernel);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(2, &["192.0.2.0/24"])).unwrap();
        let status = kernel.status().unwrap();
        assert_eq!((status.interfaces.len(), status.interfaces[0].others.len()), (1, 1));
        drop(kernel);
        kernel::unload(&scratch.bpffs).unwrap();
        lab.comes_in(STRANGER);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(3, &["192.0.2.0/24"])).unwrap();
        assert_eq!(kernel.status().unwrap().interfaces[0].others[0].id, id);
    });
}

/// Programs that guard nothing, as somebody else's would: over maps of their own, and pinned nowhere.
fn foreign() -> Ebpf {
    EbpfLoader::new().load(object_built_in().unwrap()).unwrap()
}
