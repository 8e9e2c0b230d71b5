//! How work is spread over the servers of a service.

use std::time::Duration;

use anyhow::Context;
use http_body_util::BodyExt;
use weir_lab::{
    lab::{
        addresses::HTTPS,
        client::{Browser, Connection, nothing},
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Requests that the servers of the first service have under way.
fn under_way(stand: &Stand) -> anyhow::Result<u64> {
    let status = stand.weir.status()?;
    let servers = status["services"][0]["servers"].as_array().context("no servers")?;
    Ok(servers.iter().filter_map(|server| server["active"].as_u64()).sum())
}

fn becomes(stand: &Stand, count: u64, when: &str) -> Done {
    wait::until_true(&format!("{count} under way {when}"), PATIENCE, || Ok(under_way(stand)? == count))
}

#[test]
fn what_a_server_has_under_way_is_counted_however_it_ends() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let target = stand.visitor.target.clone();
    becomes(&stand, 0, "at first")?;

    // An answer that comes in pieces counts until its end, or until the client has left.
    let request = hyper::Request::get("/drip?n=1000&ms=100").body(nothing())?;
    let open = stand.visitor.station().run(async move {
        let mut connection = Connection::open(&target).await?;
        let mut response = connection.begin(request).await?;
        response.body_mut().frame().await.context("no body")??;
        anyhow::Ok((connection, response))
    })??;
    becomes(&stand, 1, "while an answer goes on")?;
    drop(open);
    becomes(&stand, 0, "after the client left in the middle")?;

    // So does one that never begins. Over HTTP/2, since a client of HTTP/1 may end its side and still want its answer.
    let hasty = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &["h2"])?;
    assert!(hasty.with_patience(Duration::from_millis(500)).get("/slow?ms=60000").is_err());
    becomes(&stand, 0, "after the client left before the answer")?;

    // Attempts that fail end with their failure.
    assert!(stand.visitor.get("/reset")?.is_maintenance());
    becomes(&stand, 0, "after the servers broke off")
}
