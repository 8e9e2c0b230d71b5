//! `weir check`

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{Failure, block_on, colour_on_stderr, complain, print},
    config::{DEFAULT_PATH, Diagnostic, Loaded},
    providers::asked,
};

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file or folder
    #[arg(default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// Ask no provider: with the documents that ran here last
    #[arg(long)]
    offline: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let looked = if args.offline {
        asked::offline_with_troubles(&args.file)
    } else {
        block_on(asked::online(&args.file))?
    };
    if !args.json {
        looked.troubles.iter().for_each(|trouble| complain(&format!("warning: {trouble}")));
    }
    match looked.outcome {
        // The daemon would go on without such a document. Whoever checks wants to know before.
        Ok(loaded) if !loaded.taken.faults.is_empty() => {
            let report = loaded.report();
            if args.json {
                print(&json(false, &report.diagnostics, &looked.troubles))?;
                return Err(Failure::BadConfig(String::new()));
            }
            let faulty: Vec<_> =
                loaded.taken.faults.iter().map(|fault| format!("error: {}\n", fault.sentence())).collect();
            Err(Failure::BadConfig(format!("{}{}", report.render(colour_on_stderr()), faulty.concat())))
        }
        Ok(loaded) if args.json => print(&json(true, &loaded.warnings, &looked.troubles)),
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                complain(&loaded.report().render(colour_on_stderr()));
            }
            print(&valid(args, &loaded))
        }
        Err(report) if args.json => {
            print(&json(false, &report.diagnostics, &looked.troubles))?;
            Err(Failure::BadConfig(String::new()))
        }
        Err(report) => Err(Failure::BadConfig(report.render(colour_on_stderr()))),
    }
}

fn valid(args: &CheckArgs, loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text = format!(
        "{} is valid: {}, {}, {}",
        args.file.display(),
        count(config.entrypoints.len(), "entrypoint"),
        count(config.routes.len(), "route"),
        count(config.services.len(), "service"),
    );
    if !config.providers.is_empty() {
        let documents = loaded.taken.documents.values().map(Vec::len).sum();
        let providers = count(config.providers.len(), "provider");
        text.push_str(&format!(", with {} of {providers}", count(documents, "document")));
    }
    text.push('\n');
    text
}

fn json(valid: bool, diagnostics: &[Diagnostic], troubles: &[String]) -> String {
    let document = serde_json::json!({ "valid": valid, "diagnostics": diagnostics, "troubles": troubles });
    format!("{document}\n")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
