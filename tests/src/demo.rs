//! The demonstration.

#[derive(Debug)]
pub struct Options {
    pub once: bool,
    pub json: bool,
}

pub fn run(_: &Options) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}

pub fn lab() -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
