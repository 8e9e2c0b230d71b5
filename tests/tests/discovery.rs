//! Servers that nobody has written down: containers whose labels say what they serve.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use weir_lab::{
    lab::{
        Island,
        podman::Podman,
        provided::{Edge, WEB},
        stand::PATIENCE,
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// What the site says; nothing, if it isn't a container that answers.
fn says(edge: &Edge, site: &str) -> anyhow::Result<(u16, Option<String>)> {
    let reply = edge.browser(WEB)?.with_host(&format!("{site}.example")).get("/")?;
    Ok((reply.status.as_u16(), (reply.status == 200).then(|| reply.text())))
}

/// Waits until two requests in a row are answered by these two, in whichever order.
fn until_both(edge: &Edge, site: &str, both: [&str; 2]) -> Done {
    wait::until_true(&format!("{both:?} answer"), PATIENCE, || {
        let mut said = [says(edge, site)?.1, says(edge, site)?.1];
        said.sort();
        Ok(said == both.map(|name| Some(name.to_owned())))
    })
    .with_context(|| edge.process.log_text())
}

#[test]
fn containers_serve_by_their_labels_as_long_as_they_run_and_are_well() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("podman"), Need::Program("crun"), Need::Program("busybox"));
    let island = Arc::new(Island::build()?);
    let mut podman = Podman::start(&island)?;
    let socket = podman.socket().display().to_string();
    let shop = |port: &'static str| {
        ["--label", "weir.enable=true", "--label", "weir.route.shop.host=shop.example", "--label", port]
    };
    podman.say("shop-1", 9001, &shop("weir.service.shop.port=9001"))?;
    let edge = Edge::start(
        island.clone(),
        &format!("[provider.here]\nkind = 'docker'\nendpoint = 'unix://{socket}'\n"),
    )?;
    assert_eq!(says(&edge, "shop")?.1.as_deref(), Some("shop-1"), "it is there when the daemon is");

    // A second one, whose check hasn't gone well yet; one that isn't meant; and one with a label that says nothing.
    let second = shop("weir.service.shop.port=9002");
    podman.say("shop-2", 9002, &[&second[..], &["--health-cmd", "/bin/busybox test -f /well"]].concat())?;
    podman.say("hidden", 9003, &["--label", "weir.route.hidden.host=hidden.example"])?;
    let bad = ["--label", "weir.enable=true", "--label", "weir.route.bad.hots=bad.example"];
    podman.say("bad", 9004, &[&bad[..], &["--label", "weir.service.bad.port=9004"]].concat())?;
    wait::until_true("the label is told", PATIENCE, || {
        let told = edge.provider("here")?["faults"].to_string();
        Ok(told.contains("here:route/bad: label `weir.route.bad.hots`: `hots` is not a key there"))
    })
    .with_context(|| edge.process.log_text())?;
    for _ in 0..4 {
        assert_eq!(says(&edge, "shop")?.1.as_deref(), Some("shop-1"), "the second one isn't well yet");
    }
    assert_eq!(says(&edge, "hidden")?.0, 404);
    podman.run(&["exec", "shop-2", "/bin/busybox", "touch", "/well"])?;
    podman.run(&["healthcheck", "run", "shop-2"])?;
    until_both(&edge, "shop", ["shop-1", "shop-2"])?;

    // Nobody answers about containers: what they serve goes on, also over a restart.
    podman.fall_silent()?;
    wait::until_true("the provider is away", PATIENCE, || Ok(edge.provider("here")?["state"] == "away"))?;
    until_both(&edge, "shop", ["shop-1", "shop-2"])?;
    podman.run(&["rm", "--force", "--time", "0", "bad"])?;
    podman.answer()?;
    wait::until_true("what happened meanwhile is seen", PATIENCE, || {
        let provider = edge.provider("here")?;
        Ok(provider["state"] == "fresh" && provider["faults"] == json!([]))
    })?;

    podman.run(&["stop", "--time", "0", "shop-1"])?;
    wait::until_true("one alone answers", PATIENCE, || {
        let said = [says(&edge, "shop")?, says(&edge, "shop")?];
        anyhow::ensure!(said.iter().all(|(status, _)| *status == 200), "a visitor noticed: {said:?}");
        Ok(said.iter().all(|(_, text)| text.as_deref() == Some("shop-2")))
    })?;
    podman.run(&["stop", "--time", "0", "shop-2"])?;
    wait::until_true("visitors get the page", PATIENCE, || Ok(says(&edge, "shop")?.0 == 503))?;
    podman.run(&["rm", "shop-1", "shop-2"])?;
    wait::until_true("the route is gone", PATIENCE, || Ok(says(&edge, "shop")?.0 == 404))?;
    assert_eq!(edge.provider("here")?["state"], "fresh", "that there is nothing is believed");
    Ok(())
}
