//! `weir fleet key`: makes a key that seals secrets in the store.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use clap::Args;

use crate::{
    cli::{Failure, print},
    fleet::seal::{self, FleetKeys},
};

#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Where it is written, readable for its owner alone; a file that is there already is left as it is [default: it is printed]
    file: Option<PathBuf>,
}

pub fn run(args: &KeyArgs) -> Result<(), Failure> {
    let key = seal::new_key().map_err(Failure::Failed)?;
    let Some(path) = &args.file else { return print(&format!("{key}\n")) };
    let unwritable = |error: std::io::Error| {
        Failure::Failed(match error.kind() {
            std::io::ErrorKind::AlreadyExists => format!(
                "{0} exists already, and what its keys seal could not be opened without them; `weir fleet key >> {0}` adds a key \
                 to them",
                path.display()
            ),
            _ => format!("{} can't be written: {error}", path.display()),
        })
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unwritable)?;
    file.write_all(format!("{key}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)?;
    let id = FleetKeys::parse(&key).map_err(Failure::Failed)?.ids();
    print(&format!(
        "{} holds a new key, {id}: bring it to every host of the fleet, and keep a copy\n",
        path.display()
    ))
}
