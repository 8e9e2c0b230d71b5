//! `weir import`: another proxy's configuration, as one of Weir's.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    cli::{Failure, complain, print},
    import::{self, Imported, Source},
};

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Whose configuration it is
    from: From,
    /// Its files, which belong together; what they include is read too
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write to this file, which must not be there yet. Without it, to standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    Nginx,
    Haproxy,
    /// Files of the file provider, and the static configuration: YAML or TOML
    Traefik,
}

pub fn run(args: &ImportArgs) -> Result<(), Failure> {
    let sources = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let draft = match args.from {
        From::Nginx => import::nginx::import(&sources),
        From::Haproxy => import::haproxy::import(&sources),
        From::Traefik => import::traefik::import(&sources),
    };
    let draft = draft.map_err(|fault| Failure::BadConfig(format!("error: {fault}")))?;
    let place = args.output.clone().unwrap_or_else(|| PathBuf::from("weir.toml"));
    let imported = import::settle(draft, &place);
    match &args.output {
        Some(file) => write_new(file, &imported.text)?,
        None => print(&imported.text)?,
    }
    complain(&told(&imported));
    Ok(())
}

fn read(file: &Path) -> Result<Source, Failure> {
    let name = file.display().to_string();
    let failed = |why: String| Failure::Failed(format!("{name} can't be read: {why}"));
    let about = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?;
    if !about.is_file() || about.len() > import::LARGEST as u64 {
        return Err(failed("it is not a plain file of at most 4 MiB".into()));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    Ok(Source { name: name.as_str().into(), path: file.to_owned(), text })
}

/// Never over something that is there.
pub(super) fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).open(file);
    made.and_then(|mut made| made.write_all(text.as_bytes())).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Failed(format!("{} is there already, and is not overwritten", file.display()))
        }
        _ => Failure::Failed(format!("{} can't be written: {error}", file.display())),
    })
}

fn told(imported: &Imported) -> String {
    let mut lines: Vec<String> = imported.left_out.iter().map(ToString::to_string).collect();
    for (entrypoint, reasons) in &imported.held_back {
        lines.push(format!(
            "held back: entrypoint `{entrypoint}` listens on loopback until you have looked at this:"
        ));
        lines.extend(reasons.iter().map(|reason| format!("  {reason}")));
    }
    for warning in &imported.warnings {
        lines.push(warning.line());
    }
    lines.push(format!(
        "{} left out, {} entrypoints held back",
        imported.left_out.len(),
        imported.held_back.len()
    ));
    lines.join("\n")
}
