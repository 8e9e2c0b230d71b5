//! `weir check`

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{Failure, colour_on_stderr, complain, print},
    config::{self, DEFAULT_PATH, Diagnostic},
};

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file or folder
    #[arg(default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    match config::load(&args.file) {
        Ok(loaded) if args.json => print(&json(true, &loaded.warnings)),
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                complain(&loaded.report().render(colour_on_stderr()));
            }
            let config = &loaded.config;
            print(&format!(
                "{} is valid: {}, {}, {}\n",
                args.file.display(),
                count(config.entrypoints.len(), "entrypoint"),
                count(config.routes.len(), "route"),
                count(config.services.len(), "service"),
            ))
        }
        Err(report) if args.json => {
            print(&json(false, &report.diagnostics))?;
            Err(Failure::BadConfig(String::new()))
        }
        Err(report) => Err(Failure::BadConfig(report.render(colour_on_stderr()))),
    }
}

fn json(valid: bool, diagnostics: &[Diagnostic]) -> String {
    format!("{}\n", serde_json::json!({ "valid": valid, "diagnostics": diagnostics }))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
