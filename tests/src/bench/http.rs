//! CPU per proxied request.

#[derive(Debug)]
pub struct Options {
    pub json: bool,
    pub rounds: usize,
    pub seconds: u64,
}

pub fn run(_: &Options) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
