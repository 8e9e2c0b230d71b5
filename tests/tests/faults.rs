//! What bad input gets: a sentence that names the thing, exit code 2 for a configuration and 1 for the rest, and
//! never a half-applied state.

use weir_lab::{
    Lab,
    lab::{
        addresses::{EDGE, HTTPS, STRANGER},
        knock::knock,
        namespace::As,
        process::Process,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Runs `weir run` with this configuration; it is expected to end by itself.
fn run(lab: &Lab, toml: &str, user: As) -> anyhow::Result<Ran> {
    let file = lab.folder().join("weir.toml");
    std::fs::write(&file, toml)?;
    weir::run_as(lab, &["run", &file.to_string_lossy()], user)
}

/// Nothing pinned, and the port answers for itself.
fn nothing_was_applied(lab: &Lab) -> anyhow::Result<()> {
    let pins: Vec<_> = std::fs::read_dir(lab.bpffs().join("weir/v2/links"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            !path.is_dir() || std::fs::read_dir(path).is_ok_and(|mut inside| inside.next().is_some())
        })
        .collect();
    assert!(pins.is_empty(), "left behind: {pins:?}");
    let knocks = knock(&lab.stranger, HTTPS, 3, std::time::Duration::from_secs(1))?;
    assert_eq!(knocks.refused, 3, "the gate is there: {knocks:?}");
    Ok(())
}

#[test]
fn a_bad_configuration_ends_with_2_and_names_the_fault() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let good = weir::standard(&lab);
    for (name, bad, words) in [
        (
            "unknown key",
            good.replace("when_all_down", "when_al_down"),
            &["when_al_down", "when_all_down"][..],
        ),
        ("not TOML", good.replace("[service.app]", "[service.app"), &["weir.toml:"]),
        (
            "unparsable prefix",
            good.clone() + "\n[allowlist.x]\nprefixes = [\"10.0.0.0/33\"]\n",
            &["10.0.0.0/33"],
        ),
        ("route to nowhere", good.replace("service = \"app\"", "service = \"ap\""), &["`ap`", "app"]),
        (
            "two entrypoints on one port",
            good.clone() + &format!("\n[entrypoint.other]\nbind = [\"{EDGE}:443\"]\n"),
            &["443", "other"],
        ),
        ("no such list", good.replace("[\"cloudflare\"]", "[\"cloudflair\"]"), &["cloudflair", "cloudflare"]),
        (
            "missing certificates",
            good.replace("/certs", "/certificates-not-there"),
            &["certificates-not-there"],
        ),
        ("bad duration", good.replace("\"200ms\"", "\"200 apples\""), &["200 apples"]),
        ("bad address", good.replace("10.0.0.11:8080", "10.0.0.11"), &["10.0.0.11"]),
    ] {
        let file = lab.folder().join("weir.toml");
        std::fs::write(&file, &bad)?;
        let file = file.to_string_lossy().into_owned();
        for command in ["check", "run"] {
            let ran = weir::run(&lab, &[command, &file])?;
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.code, 2, "{name}, weir {command}: {said}");
            for word in words {
                assert!(said.contains(word), "{name}, weir {command}: `{word}` isn't in:\n{said}");
            }
            assert!(said.contains("weir.toml:"), "{name}, weir {command}: no place in:\n{said}");
        }
    }
    nothing_was_applied(&lab)
}

#[test]
fn all_faults_are_told_at_once() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let bad = weir::standard(&lab)
        .replace("when_all_down", "when_al_down")
        .replace("service = \"app\"", "service = \"ap\"")
        .replace("10.0.0.11:8080", "nonsense");
    let file = lab.folder().join("weir.toml");
    std::fs::write(&file, bad)?;
    let ran = weir::run(&lab, &["check", &file.to_string_lossy()])?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for word in ["when_al_down", "`ap`", "nonsense"] {
        assert!(said.contains(word), "`{word}` isn't in:\n{said}");
    }
    Ok(())
}

#[test]
fn a_good_configuration_checks_with_0() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let file = lab.folder().join("weir.toml");
    std::fs::write(&file, weir::standard(&lab))?;
    let ran = weir::run(&lab, &["check", &file.to_string_lossy()])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    Ok(())
}

#[test]
fn a_missing_file_ends_with_2() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    for command in ["check", "run"] {
        let ran = weir::run(&lab, &[command, "/nowhere/weir.toml"])?;
        assert_eq!(ran.code, 2, "weir {command}: {ran:?}");
        assert!(ran.stderr.contains("/nowhere/weir.toml"), "weir {command}: {ran:?}");
    }
    Ok(())
}

#[test]
fn bad_usage_ends_with_2() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    for arguments in [&["dance"][..], &["run", "--sideways"]] {
        assert_eq!(weir::run(&lab, arguments)?.code, 2, "{arguments:?}");
    }
    Ok(())
}

#[test]
fn an_interface_that_does_not_exist_ends_with_1() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let ran = run(&lab, &weir::standard(&lab).replace("\"public\"", "\"outside7\""), As::Root)?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("outside7"), "{ran:?}");
    nothing_was_applied(&lab)
}

#[test]
fn a_taken_port_ends_with_1_and_leaves_no_gate() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let mut other = lab.edge.command(env!("CARGO_BIN_EXE_weir-lab"))?;
    other.args(["upstream", "--name", "squatter", "--listen", &HTTPS.to_string()]);
    let log = lab.folder().join("squatter.log");
    let squatter =
        Process::start_and_wait_for_a_line("squatter", other, &log, std::time::Duration::from_secs(5))?;
    let ran = run(&lab, &weir::standard(&lab), As::Root)?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(&HTTPS.to_string()), "{ran:?}");
    drop(squatter);
    nothing_was_applied(&lab)
}

#[test]
fn a_bpffs_that_is_not_mounted_ends_with_1() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    let plain = lab.folder().join("no-bpffs");
    std::fs::create_dir(&plain)?;
    let toml = weir::standard(&lab)
        .replace(&lab.bpffs().display().to_string(), &plain.display().to_string())
        .replace("[kernel]\n", "[kernel]\nmode = \"tc\"\n");
    let ran = run(&lab, &toml, As::Root)?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("no-bpffs") && ran.stderr.contains("mount"), "{ran:?}");
    nothing_was_applied(&lab)
}

#[test]
fn no_permission_for_a_demanded_gate_ends_with_1() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let toml = weir::standard(&lab)
        .replace("[kernel]\n", "[kernel]\nmode = \"tc\"\n")
        .replace(&format!("access = \"{}/access.log\"", lab.folder().display()), "access = \"off\"");
    let ran = run(&lab, &toml, As::Nobody)?;
    assert_eq!(ran.code, 1, "{ran:?}");
    let said = ran.stderr.to_lowercase();
    assert!(said.contains("permi") || said.contains("privilege") || said.contains("cap_"), "{ran:?}");
    nothing_was_applied(&lab)
}

#[test]
fn a_second_daemon_ends_with_1_and_leaves_the_first_alone() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = weir_lab::lab::stand::Stand::up()?;
    // A second daemon with the same configuration can't have the ports.
    let ran = weir::run(&stand.lab, &["run", &stand.weir.config().to_string_lossy()])?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(stand.visitor.get("/")?.status, 200);
    let knocks = knock(&stand.lab.stranger, HTTPS, 5, std::time::Duration::from_millis(400))?;
    assert_eq!(knocks.silent, 5, "{STRANGER} came in");
    Ok(())
}
