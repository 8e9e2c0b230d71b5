//! `weir hand-over`: for service managers that start the daemon without root. They run this before, as root.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{Failure, print},
    config::{
        self, DEFAULT_PATH,
        model::{Config, KernelMode},
    },
    privileges,
    providers::asked,
};

#[derive(Debug, Args)]
pub struct HandOverArgs {
    /// The user that the daemon will run as: a name or a number
    user: String,
    /// Configuration file or folder, which says where the folders are. A faulty one, or none, means the usual places
    #[arg(default_value = DEFAULT_PATH, env = "WEIR_CONFIG")]
    file: PathBuf,
}

pub fn run(args: &HandOverArgs) -> Result<(), Failure> {
    // What is wrong with the configuration is for the daemon to say, which reads it next.
    let config = asked::offline(&args.file)
        .or_else(|_| config::load_bare(&args.file))
        .map_or_else(|_| usual(), |loaded| loaded.config);
    let done =
        privileges::hand_over(&config, &args.user).map_err(|fault| Failure::Failed(fault.to_string()))?;
    let mut text = String::new();
    for path in &done.paths {
        text.push_str(&format!("{} belongs to {} now\n", path.display(), args.user));
    }
    if let Some(mount) = &done.opened {
        text.push_str(&format!(
            "{}: others may pass through now, to what is theirs below (they can't list it)\n",
            mount.display()
        ));
    }
    print(&text)
}

/// The usual places, pins among them.
fn usual() -> Config {
    let mut config = config::embedded_default().config;
    config.kernel.mode = KernelMode::Auto;
    config
}
