//! `weir docs`: writes what is generated from the code. `cargo xtask docs` calls it.

use std::path::PathBuf;

use clap::Args;

use crate::{
    admin::api,
    cli::{Failure, print},
    config,
};

#[derive(Debug, Args)]
pub struct DocsArgs {
    /// The folder: `configuration.md`, `weir.schema.json` and `openapi.json` in it are renewed
    folder: PathBuf,
}

pub fn run(args: &DocsArgs) -> Result<(), Failure> {
    let folder = args.folder.display();
    config::write_docs(&args.folder)
        .and_then(|()| std::fs::write(args.folder.join("openapi.json"), api::document_text()))
        .map_err(|error| Failure::Failed(format!("can't renew the pages in {folder}: {error}")))?;
    print(&format!("{folder}/configuration.md\n{folder}/weir.schema.json\n{folder}/openapi.json\n"))
}
