//! `weir doctor` on a host that is well, on one that isn't, and beside a running daemon.

use std::{net::TcpListener, path::PathBuf};

use weir_lab::{
    Lab,
    lab::{
        addresses::HTTPS,
        namespace::As,
        stand::Stand,
        station::Station,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

fn doctor(lab: &Lab, toml: &str, user: As) -> anyhow::Result<Ran> {
    let file: PathBuf = lab.folder().join("doctor.toml");
    std::fs::write(&file, toml)?;
    weir::run_as(lab, &["doctor", &file.display().to_string()], user)
}

#[test]
fn a_host_that_is_well_is_found_well_and_one_that_is_not_is_told_what_to_do() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    let toml = weir::standard(&lab);
    let ran = doctor(&lab, &toml, As::Root)?;
    assert_eq!(ran.code, 0, "{ran:?}");
    for found in ["ok    interface public", "tcx (any XDP program on a veth", &format!("ok    port {HTTPS}")]
    {
        assert!(ran.stdout.contains(found), "{found}: {ran:?}");
    }

    let ran = doctor(&lab, &toml.replace("\"public\"", "\"outside7\""), As::Root)?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("interface `outside7` does not exist here"), "{ran:?}");

    let squatter = Station::open(&lab.edge)?.run(async { TcpListener::bind(HTTPS) })??;
    let ran = doctor(&lab, &toml, As::Root)?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("`ss -lntup 'sport = :443'` says who has it"), "{ran:?}");
    drop(squatter);

    let ran = doctor(&lab, "[servise.app]", As::Root)?;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("ILL   configuration"), "{ran:?}");

    // Without privileges lists are enforced at accept, which is worse, but serves.
    let ran = doctor(&lab, &toml, As::Nobody)?;
    assert!(ran.stdout.contains("poor  privileges"), "{ran:?}");
    Ok(())
}

#[test]
fn beside_a_running_daemon_its_ports_are_not_tried() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let ran = weir::run(&stand.lab, &["doctor", &stand.weir.config().display().to_string()])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("ok    daemon") && !ran.stdout.contains("port "), "{ran:?}");
    Ok(())
}
