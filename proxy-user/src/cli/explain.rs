//! `weir explain`: why the gate passes or drops an address or a packet, which way a request takes, and more about a code that a diagnostic carries.

mod accept;
mod gate;
mod lists;
mod question;
mod url;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    cli::{Failure, admin::AdminArgs, kernel::Place, print},
    config::{Code, DEFAULT_PATH},
    kernel::explain::Explainer,
};

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A source address (203.0.113.9), a URL (https://app.example.com/x), or a code that `weir check` or the log names (W012)
    #[arg(required_unless_present_any = ["packet", "pcap"])]
    what: Option<String>,
    /// The entrypoint that the address connects to; without it, each one that is guarded
    #[arg(long, value_name = "NAME")]
    entrypoint: Option<String>,
    /// The address and port that it connects to, instead of an entrypoint
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "entrypoint")]
    to: Option<SocketAddr>,
    /// It sends UDP (HTTP/3). Without this, to an entrypoint what that guards, and to `--to` TCP
    #[arg(long)]
    udp: bool,
    /// A whole packet in hexadecimal, from its Ethernet header on
    #[arg(long, value_name = "HEX", conflicts_with_all = ["what", "entrypoint", "to", "udp"])]
    packet: Option<String>,
    /// The packets of a pcap or pcapng file, a line for each
    #[arg(long, value_name = "FILE", conflicts_with_all = ["what", "entrypoint", "to", "udp", "packet"])]
    pcap: Option<PathBuf>,
    /// How many packets of the file
    #[arg(long, value_name = "N", default_value_t = 20, requires = "pcap")]
    packets: usize,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    admin: AdminArgs,
    /// Of a URL: the request's method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Of a URL: a field of the request's header; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = url::header)]
    header: Vec<(String, String)>,
    /// Of a URL: who asks
    #[arg(long, value_name = "ADDRESS")]
    client: Option<std::net::IpAddr>,
    /// Configuration to go by where nothing that runs is asked; of a URL, in the place of what runs
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

pub fn run(args: &ExplainArgs) -> Result<(), Failure> {
    if let Some(what) = &args.what {
        if what.contains("://") {
            return url::explain(args, what);
        }
        if what.parse::<std::net::IpAddr>().is_err() {
            return code(what, args.json);
        }
    }
    match Explainer::open(&args.place.bpffs) {
        Ok(Some(explainer)) => gate::explain(args, &explainer),
        Ok(None) => accept::explain(
            args,
            &format!("nothing of Weir's is in the kernel (no pins below {})", args.place.bpffs.display()),
        ),
        // Where the gate can't be had at all, the check at accept is what there is.
        Err(fault) if fault.is_unavailable() => accept::explain(args, &fault.to_string()),
        Err(fault) => Err(Failure::Failed(fault.to_string())),
    }
}

fn code(what: &str, json: bool) -> Result<(), Failure> {
    match Code::parse(what) {
        Some(code) if json => {
            let (code, title, explanation) = (code.to_string(), code.title(), code.explanation());
            print(&format!(
                "{}\n",
                serde_json::json!({ "code": code, "title": title, "explanation": explanation })
            ))
        }
        Some(code) => print(&format!("{}: {}\n\n{}\n", code, code.title(), code.explanation())),
        None => Err(Failure::BadConfig(format!(
            "error: `{what}` is no code of Weir's, and no address; codes look like W012 (docs/configuration.md lists \
             them), addresses like 203.0.113.9 or 2001:db8::9"
        ))),
    }
}
