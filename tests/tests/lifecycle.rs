//! How the daemon ends.

use std::time::Duration;

use anyhow::Context;
use http_body_util::BodyExt;
use weir_lab::{
    lab::{
        addresses::HTTPS,
        client::{Browser, Connection, nothing},
        knock::knock,
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

#[test]
fn sigterm_ends_requests_in_flight_first() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    for alpn in ["http/1.1", "h2"] {
        let browser = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &[alpn])?;
        let target = browser.target.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let (done_tell, done) = std::sync::mpsc::channel();
        browser.station().spawn(async move {
            let work = async {
                let mut connection = Connection::open(&target).await?;
                let request = hyper::Request::get("/drip?n=10&ms=50").body(nothing())?;
                let mut response = connection.begin(request).await?;
                let first = response.body_mut().frame().await.context("no body")??;
                let _ = tell.send(());
                let rest = response.into_body().collect().await.context("it broke off")?.to_bytes();
                anyhow::Ok(first.into_data().unwrap_or_default().len() + rest.len())
            };
            let _ = done_tell.send(work.await);
        });
        // The request is under way once its first piece is here.
        told.recv_timeout(PATIENCE)?;
        let status = stand.weir.terminate()?;
        assert!(status.success(), "{alpn}: {status}");
        assert_eq!(done.recv_timeout(PATIENCE)??, 50, "{alpn}");
        assert_eq!(knock(&stand.lab.visitor, HTTPS, 3, Duration::from_secs(1))?.refused, 3);
        stand = Stand::up()?;
    }
    Ok(())
}

#[test]
fn sigterm_without_traffic_ends_at_once() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    // An idle connection is no reason to wait.
    let target = stand.visitor.target.clone();
    let _idle = stand.visitor.station().run(async move {
        let mut connection = Connection::open(&target).await?;
        connection.send(hyper::Request::get("/").body(nothing())?).await?;
        anyhow::Ok(connection)
    })??;
    let begun = std::time::Instant::now();
    assert!(stand.weir.terminate()?.success());
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn a_request_that_never_ends_is_cut_off_after_the_grace() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up_with(|_, toml| toml + "\n[shutdown]\ngrace = \"300ms\"\n")?;
    let visitor = stand.visitor.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let target = visitor.target.clone();
    visitor.station().spawn(async move {
        let work = async {
            let mut connection = Connection::open(&target).await?;
            let request = hyper::Request::get("/drip?n=1000&ms=50").body(nothing())?;
            let mut response = connection.begin(request).await?;
            response.body_mut().frame().await.context("no body")??;
            let _ = tell.send(());
            response.into_body().collect().await?;
            anyhow::Ok(())
        };
        let _ = work.await;
    });
    told.recv_timeout(PATIENCE)?;
    let begun = std::time::Instant::now();
    stand.weir.terminate()?;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    wait::until_true("the port is closed", PATIENCE, || {
        Ok(knock(&stand.lab.visitor, HTTPS, 1, Duration::from_secs(1))?.refused == 1)
    })
}
