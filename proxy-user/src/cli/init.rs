//! `weir init`: writes a first configuration for this host. Asks at a terminal; flags and `--yes` answer beforehand.

mod host;
mod template;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    cli::{Failure, complain, import::write_new, print},
    config::{self, Code, DEFAULT_PATH},
};
use template::Answers;

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to write it; a file that is there already is never overwritten. `-` is standard output
    #[arg(default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// The interface that visitors come in by; several times for several [default: those with a default route]
    #[arg(long)]
    interface: Vec<String>,
    /// A server of your site, as ADDRESS:PORT or NAME:PORT; several times for several
    #[arg(long)]
    server: Vec<String>,
    /// The host that visitors ask for [default: any]
    #[arg(long)]
    host: Option<String>,
    /// The folder of certificates, for HTTPS
    #[arg(long)]
    certificates: Option<PathBuf>,
    /// The port for HTTP
    #[arg(long)]
    http: Option<u16>,
    /// The port for HTTPS
    #[arg(long)]
    https: Option<u16>,
    /// Visitors come through Cloudflare, and nobody else may come in
    #[arg(long)]
    cloudflare: bool,
    /// Ask nothing: what no flag says is as found on this host
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: &InitArgs) -> Result<(), Failure> {
    let to_stdout = args.file == Path::new("-");
    if !to_stdout && args.file.exists() {
        let file = args.file.display();
        return Err(Failure::Failed(format!(
            "{file} is there already, and is not overwritten: `weir check {file}` looks at it"
        )));
    }
    let found = host::found();
    let there = |name: &&String| found.all.is_empty() || found.all.contains(name);
    if let Some(name) = args.interface.iter().find(|name| !there(name)) {
        let all = found.all.join(", ");
        return Err(Failure::Failed(format!("there is no interface `{name}` here, but there are: {all}")));
    }
    let answers = if args.yes {
        from_flags(args, &found)
    } else if io::stdin().is_terminal() {
        ask(args, &found)?
    } else {
        let sentence =
            "there is no terminal to ask at: `weir init --yes` takes what flags say and what it finds";
        return Err(Failure::Failed(sentence.into()));
    };
    let text = valid(&answers, &args.file)?;
    if to_stdout {
        return print(&text);
    }
    if let Some(folder) = args.file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::Failed(format!("{} can't be made: {error}", folder.display())))?;
    }
    write_new(&args.file, &text)?;
    complain(&format!(
        "{file} is written. Next: `weir check {file}`, `weir doctor {file}`, then `systemctl enable --now weir` or `weir run {file}`",
        file = args.file.display()
    ));
    Ok(())
}

fn from_flags(args: &InitArgs, found: &host::Found) -> Answers {
    let interfaces = if args.interface.is_empty() { found.facing.clone() } else { args.interface.clone() };
    Answers {
        http: args.http.or(args.certificates.is_none().then_some(80)).or(Some(80)),
        https: args.certificates.as_ref().map(|_| args.https.unwrap_or(443)),
        certificates: args.certificates.clone(),
        cloudflare: args.cloudflare,
        host: args.host.clone(),
        others: found.others(&interfaces),
        interfaces,
        servers: if args.server.is_empty() { vec!["127.0.0.1:8080".into()] } else { args.server.clone() },
        user: found.has_user,
    }
}

fn ask(args: &InitArgs, found: &host::Found) -> Result<Answers, Failure> {
    let begin = from_flags(args, found);
    if !found.all.is_empty() {
        let all: Vec<_> = found.all.iter().map(|name| found.with_addresses(name)).collect();
        complain(&format!("Interfaces of this host: {}", all.join(", ")));
    }
    let interfaces = question(
        "Visitors come in by (names with commas, or `none`)",
        &or_none(&begin.interfaces),
        |text| {
            let names: Vec<String> = words(text);
            match names.iter().find(|name| !found.all.is_empty() && !found.all.contains(name)) {
                Some(name) => Err(format!("there is no interface {name}")),
                None => Ok(names),
            }
        },
    )?;
    let cloudflare = question(
        "Do visitors come through Cloudflare, and nobody else may come in? (yes or no)",
        yes_or_no(begin.cloudflare),
        |text| match text {
            "yes" | "y" => Ok(true),
            "no" | "n" => Ok(false),
            _ => Err("yes or no?".into()),
        },
    )?;
    let host = question(
        "The site's host, such as www.example.com, or `any`",
        begin.host.as_deref().unwrap_or("any"),
        |text| match text {
            "any" => Ok(None),
            name => config::parse_host(name)
                .map(|_| Some(name.to_owned()))
                .map_err(|refusal| format!("that host {}", refusal.because)),
        },
    )?;
    let servers = question("Its servers, as ADDRESS:PORT with commas", &begin.servers.join(","), |text| {
        let servers = words(text);
        match servers.iter().find(|server| !is_server(server)) {
            Some(server) => Err(format!("{server} is not ADDRESS:PORT")),
            None if servers.is_empty() => Err("at least one".into()),
            None => Ok(servers),
        }
    })?;
    let http = question(
        "Port for HTTP, or `none`",
        &begin.http.map_or("none".into(), |port| port.to_string()),
        port,
    )?;
    let certificates = begin.certificates.clone().or_else(host::certificates);
    let https = question(
        "Port for HTTPS, or `none`",
        &certificates.as_ref().map_or("none".into(), |_| args.https.unwrap_or(443).to_string()),
        port,
    )?;
    let certificates = match https {
        None => None,
        Some(_) => {
            let begin = certificates.unwrap_or_else(|| "/etc/weir/certs".into());
            Some(question("The folder of certificates", &begin.display().to_string(), |text| {
                Ok(PathBuf::from(text))
            })?)
        }
    };
    let others = found.others(&interfaces);
    Ok(Answers { interfaces, others, http, https, certificates, cloudflare, host, servers, user: begin.user })
}

/// Asks until the answer will do. An empty one is the default.
fn question<T>(asked: &str, default: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
    // Nobody who keeps answering wrongly is there.
    for _ in 0..10 {
        let _ = write!(anstream::stderr(), "{asked} [{default}]: ");
        let mut line = String::new();
        let length = io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|error| Failure::Failed(format!("can't read the answer: {error}")))?;
        if length == 0 {
            return Err(Failure::Failed("that was the end of the answers; nothing was written".into()));
        }
        let answer = line.trim();
        match read(if answer.is_empty() { default } else { answer }) {
            Ok(value) => return Ok(value),
            Err(why) => complain(&format!("  {why}")),
        }
    }
    Err(Failure::Failed("ten answers didn't do; nothing was written".into()))
}

fn port(text: &str) -> Result<Option<u16>, String> {
    match text {
        "none" => Ok(None),
        number => match number.parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err("a port is a number from 1 to 65535".into()),
        },
    }
}

fn words(text: &str) -> Vec<String> {
    let words = text.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty() && *word != "none");
    words.map(str::to_owned).collect()
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(",") }
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn is_server(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host.trim_matches(['[', ']']);
        port.parse::<u16>().is_ok_and(|port| port > 0)
            && (bare.parse::<IpAddr>().is_ok() || config::parse_host(host).is_ok())
    })
}

/// The text, which `weir check` takes. Without certificates that can be read there, HTTPS stays a comment.
fn valid(answers: &Answers, place: &Path) -> Result<String, Failure> {
    let text = template::of(answers, true);
    let Err(report) = config::load_text(place, &text) else { return Ok(text) };
    let only_certificates = report
        .diagnostics
        .iter()
        .all(|fault| fault.code == Code::BadCertificate || fault.severity == config::Severity::Warning);
    if only_certificates && answers.https.is_some() {
        let without = template::of(answers, false);
        if config::load_text(place, &without).is_ok() {
            for fault in &report.diagnostics {
                complain(&fault.message);
            }
            complain("so HTTPS stands in the file as a comment, until there is a certificate");
            return Ok(without);
        }
    }
    Err(Failure::BadConfig(format!(
        "with these answers there is no valid configuration:\n{}",
        report.lines()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            interfaces: vec!["eth0".into()],
            others: vec!["eth1 (10.0.0.5)".into()],
            http: Some(80),
            https: None,
            certificates: None,
            cloudflare: true,
            host: Some("www.example.com".into()),
            servers: vec!["10.0.0.11:8080".into(), "app.internal:80".into()],
            user: true,
        }
    }

    #[test]
    fn every_combination_of_answers_is_valid() {
        for bits in 0..64_u32 {
            let is = |bit: u32| bits & (1 << bit) != 0;
            let mut answers = answers();
            answers.cloudflare = is(0);
            answers.user = is(1);
            if is(2) {
                answers.interfaces.clear();
            }
            if is(3) {
                answers.host = None;
            }
            if is(4) {
                (answers.https, answers.certificates) = (Some(443), Some("/nowhere/certs".into()));
            }
            if is(5) {
                answers.http = None;
            }
            let text = valid(&answers, Path::new("weir.toml"));
            let text = text.unwrap_or_else(|failure| panic!("{bits:b}: {failure:?}"));
            config::load_text(Path::new("weir.toml"), &text).unwrap();
        }
    }

    #[test]
    fn answers_that_would_break_out_of_their_quotes_are_refused() {
        let mut odd = answers();
        odd.servers = vec!["10.0.0.1:80\"]\n[admin]\nbind = [\"0.0.0.0:1".into()];
        assert!(valid(&odd, Path::new("weir.toml")).is_err());
        assert!(
            !is_server("10.0.0.1") && !is_server("a b:80") && is_server("[::1]:80") && is_server("app:80")
        );
    }
}
