//! `weir docs`: writes what is generated from the code. `cargo xtask docs` calls it.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{Failure, print},
    config,
};

#[derive(Debug, Args)]
pub struct DocsArgs {
    /// The folder: `configuration.md` and `weir.schema.json` in it are renewed
    folder: PathBuf,
}

pub fn run(args: &DocsArgs) -> Result<(), Failure> {
    let folder = args.folder.display();
    config::write_docs(&args.folder)
        .map_err(|error| Failure::Failed(format!("can't renew the pages in {folder}: {error}")))?;
    print(&format!("{folder}/configuration.md\n{folder}/weir.schema.json\n"))
}
