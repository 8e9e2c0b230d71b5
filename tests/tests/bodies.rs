//! Bodies: they stream, both ways, whatever their size.

use std::time::Duration;

use anyhow::Context;
use http_body_util::BodyExt;
use weir_lab::{
    lab::{
        SITE,
        addresses::EDGE,
        client::{Connection, nothing},
        stand::Stand,
        weir,
    },
    needs,
    needs::Need,
    upstream::Zeros,
};

type Done = anyhow::Result<()>;

const MIB: u64 = 1 << 20;

#[test]
fn bodies_stream_both_ways() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    // The memory that it takes to be warm.
    stand.visitor.download(&format!("/bytes?n={}", 8 * MIB))?;
    let before = stand.weir.process().memory("VmHWM")?;

    let size = 96 * MIB;
    assert_eq!(stand.visitor.download(&format!("/bytes?n={size}"))?, size);
    assert_eq!(stand.visitor.download(&format!("/chunked?n={size}"))?, size);
    for told in [true, false] {
        let upload = stand.visitor.request("POST", "/count").body(Zeros { left: size, told }.boxed())?;
        assert_eq!(stand.visitor.send(upload)?.text(), size.to_string(), "length told: {told}");
    }
    let echo = stand.visitor.request("POST", "/echo").body(Zeros { left: 4 * MIB, told: true }.boxed())?;
    assert_eq!(stand.visitor.send(echo)?.body.len() as u64, 4 * MIB);

    let grown = stand.weir.process().memory("VmHWM")? - before;
    assert!(grown < 32 * MIB, "the daemon grew by {} MiB over bodies of {} MiB", grown / MIB, size / MIB);
    Ok(())
}

#[test]
fn a_body_is_passed_on_while_it_is_being_made() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let target = stand.visitor.target.clone();
    // The server makes a piece only every two seconds: the first one must not wait for the others.
    let request = hyper::Request::get("/drip?n=3&ms=2000").body(nothing())?;
    let (first, took) = stand.visitor.station().run(async move {
        let mut connection = Connection::open(&target).await?;
        let mut response = connection.begin(request).await?;
        let begun = std::time::Instant::now();
        let first = response.body_mut().frame().await.context("no body")??;
        anyhow::Ok((first.into_data().unwrap_or_default(), begun.elapsed()))
    })??;
    assert_eq!(&first[..], b"drop\n");
    assert!(took < Duration::from_millis(3500), "the first piece came after {took:?}");
    Ok(())
}

#[test]
fn an_early_answer_to_an_upload_is_passed_on() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    // A server that says no before it has read everything, and goes on reading.
    let upload =
        stand.visitor.request("POST", "/early").body(Zeros { left: 64 * MIB, told: true }.boxed())?;
    let reply = stand.visitor.send(upload)?;
    assert_eq!((reply.status.as_u16(), reply.upstream().is_some()), (413, true));
    Ok(())
}

#[test]
fn a_large_upload_by_curl_is_told_to_continue() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = Stand::up()?;
    let file = stand.lab.folder().join("upload");
    std::fs::write(&file, vec![b'u'; 3 << 20])?;
    // HTTP/2 doesn't ask: there, the client's window does the same.
    for flags in [&["--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "10"][..], &["--http2"]]
    {
        let mut curl = stand.lab.visitor.command("curl")?;
        // Without the answer to its `Expect` it would wait for ten seconds.
        curl.args(["-sS", "-m", "5"])
            .args(flags)
            .args(["--resolve", &format!("{SITE}:443:{EDGE}"), &format!("https://{SITE}/count")])
            .arg("--cacert")
            .arg(stand.lab.ca())
            .arg("--data-binary")
            .arg(format!("@{}", file.display()));
        let ran = weir::finish(curl)?;
        assert_eq!((ran.stdout.as_str(), ran.code), ("3145728", 0), "{flags:?}: {}", ran.stderr);
    }
    Ok(())
}
