//! `weir docs`: writes what is generated from the code. `cargo xtask docs` calls it.

use std::{fs, path::PathBuf};

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
    for (name, text) in [("weir.schema.json", config::schema())] {
        let path = args.folder.join(name);
        fs::write(&path, text)
            .map_err(|error| Failure::Failed(format!("can't write {}: {error}", path.display())))?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}
