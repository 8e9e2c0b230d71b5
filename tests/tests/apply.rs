//! Orders over the admin socket: who may give them, and what they do.

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use weir_lab::{
    lab::{
        namespace::As,
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

#[test]
fn orders_are_taken_over_the_socket_from_root_and_from_nobody_else() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let ran = weir::run(&stand.lab, &["reload"])?;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "taken over: generation 2 runs\n"), "{ran:?}");

    let over_tcp = weir::run(&stand.lab, &["reload", "--admin", "127.0.0.1:9190"])?;
    assert_eq!(over_tcp.code, 1, "{over_tcp:?}");
    assert!(over_tcp.stderr.contains("can only be read from"), "{over_tcp:?}");

    // Even where the socket's own permissions would let anybody in.
    let socket = weir::admin_socket(&stand.lab);
    std::fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
    let socket = format!("unix:{}", socket.display());
    let stranger = weir::run_as(&stand.lab, &["reload", "--admin", &socket], As::Nobody)?;
    assert_eq!(stranger.code, 1, "{stranger:?}");
    assert!(stranger.stderr.contains("only root and the user that weir runs as"), "{stranger:?}");
    // To look is free.
    let looked = weir::run_as(&stand.lab, &["status", "--admin", &socket], As::Nobody)?;
    assert_eq!(looked.code, 0, "{looked:?}");
    assert_eq!(stand.weir.status()?["generation"], 2);
    Ok(())
}

#[test]
fn the_daemons_own_user_may_give_orders() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_as(As::Nobody, |lab, toml| {
        toml.replace(&format!("access = \"{}/access.log\"", lab.folder().display()), "access = \"stdout\"")
    })?;
    let socket = format!("unix:{}", weir::admin_socket(&stand.lab).display());
    let ran = weir::run_as(&stand.lab, &["reload", "--admin", &socket], As::Nobody)?;
    assert_eq!(ran.code, 0, "{ran:?}");
    Ok(())
}

#[test]
fn a_reload_by_order_says_what_is_wrong_and_changes_nothing() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let bad = weir::standard(&stand.lab).replace("service = \"app\"", "service = \"nowhere\"");
    stand.weir.rewrite_config(&bad)?;
    let ran = weir::run(&stand.lab, &["reload"])?;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("`nowhere`"), "{ran:?}");
    wait::until_true("it is in the status", PATIENCE, || {
        Ok(stand.weir.status()?["configuration"]["last_reload_ok"] == false)
    })?;
    assert_eq!(stand.weir.status()?["generation"], 1);
    Ok(())
}
