//! A lab with everything in place: both servers, the daemon, a visitor. What most tests begin with.

use std::time::Duration;

use anyhow::Context;

use super::{
    Lab,
    client::Browser,
    load::Load,
    namespace::As,
    server::{Server, Which},
    wait,
    weir::{self, Weir},
};

/// How long anything that must happen may take before a test calls it missing.
pub const PATIENCE: Duration = Duration::from_secs(10);

// Dropped from top to bottom: the lab goes last.
#[derive(Debug)]
pub struct Stand {
    /// Asks for the site over HTTPS and HTTP/1.1.
    pub visitor: Browser,
    pub weir: Weir,
    pub one: Server,
    pub two: Server,
    pub lab: Lab,
}

impl Stand {
    /// With the [standard](weir::standard) configuration.
    pub fn up() -> anyhow::Result<Self> {
        Self::up_with(|_, toml| toml)
    }

    /// With the standard configuration, changed.
    pub fn up_with(change: impl FnOnce(&Lab, String) -> String) -> anyhow::Result<Self> {
        Self::up_as(As::Root, change)
    }

    /// With the standard configuration, changed so that the visitor's browser may not get in.
    pub fn up_unseen(change: impl FnOnce(&Lab, String) -> String) -> anyhow::Result<Self> {
        Self::put_up(As::Root, change)
    }

    pub fn up_as(user: As, change: impl FnOnce(&Lab, String) -> String) -> anyhow::Result<Self> {
        let stand = Self::put_up(user, change)?;
        wait_for_both(&stand.visitor).context(stand.weir.log_text())?;
        Ok(stand)
    }

    fn put_up(user: As, change: impl FnOnce(&Lab, String) -> String) -> anyhow::Result<Self> {
        let lab = Lab::build()?;
        let one = Server::start(&lab, Which::One)?;
        let two = Server::start(&lab, Which::Two)?;
        let toml = change(&lab, weir::standard(&lab));
        let weir = Weir::start_as(&lab, &toml, user)?;
        let visitor = Browser::of_site(&lab, &lab.visitor)?;
        Ok(Self { visitor, weir, one, two, lab })
    }

    /// A steady load of GETs from the visitor, which is served when this returns.
    pub fn load(&self, path: &str, per_second: u32) -> anyhow::Result<Load> {
        let load = Load::start(&self.lab.visitor, &self.visitor, path, per_second)?;
        load.wait_for_more(20, PATIENCE)?;
        Ok(load)
    }
}

/// Servers begin as down, until a probe has found them.
pub fn wait_for_both(visitor: &Browser) -> anyhow::Result<()> {
    let mut seen = [false; 2];
    let waited = wait::until_true("both servers answer through the edge", PATIENCE, || {
        if let Ok(reply) = visitor.get("/") {
            match reply.upstream() {
                Some("one") => seen[0] = true,
                Some("two") => seen[1] = true,
                _ => {}
            }
        }
        Ok(seen == [true, true])
    });
    waited.with_context(|| format!("of servers one and two, these were seen: {seen:?}"))
}
