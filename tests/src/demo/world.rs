//! Everything that is on stage: the lab, the daemon, the servers, the visitor.

use std::time::Duration;

use anyhow::Context;

use crate::lab::{
    Lab,
    client::Browser,
    knock::Witness,
    load::Load,
    server::{Server, Which},
    stand,
    weir::{self, Weir},
};

/// The load, in requests a second.
pub const RATE: u32 = 100;

// Dropped from top to bottom: the lab goes last.
#[derive(Debug)]
pub struct World {
    pub load: Option<Load>,
    pub visitor: Browser,
    pub weir: Weir,
    pub one: Server,
    pub two: Server,
    pub witness: Witness,
    /// The configuration as it stands in the file now.
    pub toml: String,
    pub lab: Lab,
}

impl World {
    pub fn build() -> anyhow::Result<Self> {
        let lab = Lab::build()?;
        let one = Server::start(&lab, Which::One)?;
        let two = Server::start(&lab, Which::Two)?;
        let witness = Witness::open(&lab.edge)?;
        let toml = weir::standard(&lab);
        let weir = Weir::start(&lab, &toml)?.quietly();
        let visitor = Browser::of_site(&lab, &lab.visitor)?;
        let world = Self { load: None, visitor, weir, one, two, witness, toml, lab };
        world.wait_for_both_servers()?;
        Ok(world)
    }

    /// Servers begin as down, until a probe has found them.
    pub fn wait_for_both_servers(&self) -> anyhow::Result<()> {
        stand::wait_for_both(&self.visitor)
    }

    pub fn load(&self) -> anyhow::Result<&Load> {
        self.load.as_ref().context("no load is running")
    }

    pub fn start_load(&mut self) -> anyhow::Result<()> {
        let load = Load::start(&self.lab.visitor, &self.visitor, "/", RATE)?;
        load.wait_for_more(30, Duration::from_secs(5))?;
        self.load = Some(load);
        Ok(())
    }

    pub fn rewrite(&mut self, toml: String) -> anyhow::Result<()> {
        self.weir.rewrite_config(&toml)?;
        self.toml = toml;
        Ok(())
    }

    pub fn weir_log(&self) -> String {
        std::fs::read_to_string(self.lab.folder().join("weir.log")).unwrap_or_default()
    }
}
