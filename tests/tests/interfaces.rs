//! Interfaces that come and go while the daemon runs, and a second daemon.

use serde_json::Value;
use weir_lab::{
    lab::{
        Lab,
        addresses::{EDGE, EDGE_V6},
        ip,
        stand::PATIENCE,
        wait,
        weir::{self, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

fn in_edge(lab: &Lab, script: &str) -> Done {
    ip(&["-n", lab.edge.name(), "-batch", "-"], script)
}

fn gate(weir: &Weir) -> anyhow::Result<Value> {
    Ok(weir.status()?["gate"].clone())
}

fn guarded(gate: &Value) -> Vec<&str> {
    gate["interfaces"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
}

/// The number of the interface that the gate hangs on under a name, by the pins.
fn index(lab: &Lab, name: &str) -> anyhow::Result<Option<u64>> {
    let bpffs = lab.bpffs();
    let ran = weir::run(lab, &["kernel", "status", "--json", "--bpffs", &bpffs.to_string_lossy()])?;
    let status: Value = serde_json::from_str(&ran.stdout)?;
    let interfaces = status["status"]["interfaces"].as_array();
    let found = interfaces.into_iter().flatten().find(|interface| interface["name"] == name);
    Ok(found.and_then(|interface| interface["index"].as_u64()))
}

#[test]
fn the_daemon_follows_an_interface_that_is_recreated() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    in_edge(&lab, "link add spare0 type veth peer name spare1\n")?;
    let toml = weir::standard(&lab).replace("[\"public\"]", "[\"public\", \"spare0\"]");
    let weir = Weir::start(&lab, &toml)?;
    assert_eq!(guarded(&gate(&weir)?), ["public", "spare0"]);
    let before = index(&lab, "spare0")?;
    assert!(before.is_some());

    in_edge(&lab, "link delete spare0\n")?;
    wait::until_true("it is told to be gone", PATIENCE, || Ok(gate(&weir)?["absent"][0] == "spare0"))?;
    assert_eq!(guarded(&gate(&weir)?), ["public"]);
    assert!(weir.log_text().contains("the interface `spare0` is gone"), "{}", weir.log_text());

    in_edge(&lab, "link add spare0 type veth peer name spare1\n")?;
    wait::until_true("it is guarded again", PATIENCE, || Ok(guarded(&gate(&weir)?) == ["public", "spare0"]))?;
    let after = index(&lab, "spare0")?;
    assert!(after.is_some() && after != before, "{before:?} {after:?}");
    Ok(())
}

#[test]
fn a_start_without_its_interface_is_refused_by_name() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    let config = lab.folder().join("weir.toml");
    std::fs::write(&config, weir::standard(&lab).replace("[\"public\"]", "[\"publik\"]"))?;
    let ran = weir::run(&lab, &["run", &config.to_string_lossy()])?;
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("interface `publik` does not exist here"), "{}", ran.stderr);
    Ok(())
}

#[test]
fn a_second_daemon_for_the_same_gate_is_refused() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    let toml = weir::standard(&lab);
    let first = Weir::start(&lab, &toml)?;
    // Other ports, so that nothing but the gate is in dispute.
    let config = lab.folder().join("second.toml");
    let second = toml
        .replace(&format!("\"{EDGE}:443\", \"[{EDGE_V6}]:443\""), &format!("\"{EDGE}:444\""))
        .replace(&weir::ADMIN.to_string(), "127.0.0.1:9191")
        .replace("admin.sock", "second.sock");
    std::fs::write(&config, second)?;
    let ran = weir::run(&lab, &["run", &config.to_string_lossy()])?;
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("another `weir run` looks after the gate pinned below"), "{}", ran.stderr);
    assert_eq!(guarded(&gate(&first)?), ["public"]);
    Ok(())
}
