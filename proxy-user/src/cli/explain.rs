//! `weir explain`: more about a code that a diagnostic carries.

use clap::Args;

use crate::{
    cli::{Failure, print},
    config::Code,
};

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A code, like W012
    code: String,
}

pub fn run(args: &ExplainArgs) -> Result<(), Failure> {
    match Code::parse(&args.code) {
        Some(code) => print(&format!("{}: {}\n\n{}\n", code, code.title(), code.explanation())),
        None => Err(Failure::BadConfig(format!(
            "error: `{}` is no code of Weir's; codes look like W012 (docs/configuration.md lists them)",
            args.code
        ))),
    }
}
