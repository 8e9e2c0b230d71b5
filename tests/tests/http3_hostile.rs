//! QUIC and HTTP/3 that break off or lie, at every point: nothing is left behind, and nobody else notices.

use anyhow::ensure;
use weir_lab::{
    lab::{
        SITE,
        addresses::EDGE,
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

fn open_files(stand: &Stand) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", stand.weir.pid()))?.count())
}

#[test]
fn what_breaks_off_or_lies_at_any_point_leaves_nothing_behind() -> Done {
    needs!(Need::Root, Need::Weir, Need::PythonPackage("aioquic"));
    let limits = "head_time = '1s', body_idle = '1s', stream_idle = '1s', keep_alive = '1s'";
    let stand = Stand::up_with(|_, toml| {
        toml.replace(
            "[entrypoint.https]\n",
            &format!("[entrypoint.https]\nhttp3 = true\nlimits = {{ {limits} }}\n"),
        )
    })?;
    let sweep = || -> Done {
        let mut python = stand.lab.visitor.command(weir_lab::needs::python())?;
        python.args(["-c", include_str!("support/http3_hostile.py")]);
        python.arg(stand.lab.ca()).args([EDGE.to_string().as_str(), SITE]);
        let ran = weir::finish_within(python, PATIENCE * 6)?;
        ensure!(ran.code == 0 && ran.stdout.trim().ends_with("fine"), "{ran:?}\n{}", stand.weir.log_text());
        assert_eq!(stand.visitor.get("/")?.status, 200);
        // Handshakes that are never finished have ten seconds, as over TCP.
        wait::until_true("the connections are gone", PATIENCE * 2, || {
            let workers = stand.weir.status()?["workers"].clone();
            let open = workers.as_array().map(|each| each.iter().filter_map(serde_json::Value::as_u64).sum());
            Ok(open == Some(0_u64))
        })
    };
    sweep()?;
    let (files, memory) = (open_files(&stand)?, stand.weir.process().memory("VmRSS")?);
    sweep()?;
    wait::until_true("no file is left open", PATIENCE, || Ok(open_files(&stand)? <= files + 4))?;
    let grown = stand.weir.process().memory("VmRSS")?.saturating_sub(memory);
    ensure!(grown < 4 << 20, "it keeps {grown} bytes");
    assert!(!stand.weir.log_text().contains("panicked"), "{}", stand.weir.log_text());
    Ok(())
}
