//! Certificates that hosts of a fleet have from their store: put there by an operator, and ordered by one of them for all.

use std::{fs, net::SocketAddr, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::Context;
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use proxy_user::store::{
    address::StoreAddress,
    etcd::Session,
    layout::{ACME, CERTIFICATES, ORDER},
};
use weir_lab::{
    lab::{
        certificates::Authority,
        etcd::free,
        fleet::{FleetLab, PATIENCE, failed, fine},
        pebble::Pebble,
        process::Process,
        wait,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Two hosts of a fleet with keys, each with an entrypoint that shows what is in the store.
struct Stand {
    lab: FleetLab,
    https: [SocketAddr; 2],
    authority: Authority,
}

impl Stand {
    fn up() -> anyhow::Result<Self> {
        let stand =
            Self { lab: FleetLab::up(2)?, https: [free()?, free()?], authority: Authority::new("lab")? };
        let key = stand.key_file();
        fine(&stand.lab.weir(&["fleet", "key", &key])?);
        failed(&stand.lab.weir(&["fleet", "key", &key])?, 1, "exists already");
        fs::write(stand.folder().join("ca.pem"), stand.authority.pem())?;
        for host in &stand.lab.hosts {
            let text = fs::read_to_string(host.config())?;
            fs::write(host.config(), text.replace("host = ", &format!("key_file = \"{key}\"\nhost = ")))?;
        }
        stand.tell(0, "", &[])?;
        stand.tell(1, "", &[])?;
        Ok(stand)
    }

    fn folder(&self) -> &Path {
        self.lab.as_ref()
    }

    fn key_file(&self) -> String {
        self.folder().join("fleet.key").display().to_string()
    }

    /// Has a host order these names.
    fn tell(&self, host: usize, acme: &str, names: &[&str]) -> Done {
        let path = self.lab.hosts[host].config();
        let text = fs::read_to_string(&path)?;
        let own = text.split("\n[entrypoint.https]").next().unwrap_or_default();
        let ordered = if names.is_empty() { String::new() } else { format!(", acme = {names:?}") };
        let addr = self.https[host];
        let text = format!(
            "{own}\n[entrypoint.https]\nbind = [\"{addr}\"]\ntls = {{ certificates = \"store\"{ordered} }}\n{acme}"
        );
        // As an editor does it: never half there.
        let fresh = path.with_extension("new");
        fs::write(&fresh, text)?;
        Ok(fs::rename(fresh, path)?)
    }

    /// `openssl x509` of what a host shows to a client that asks for `name`; empty if the handshake is refused.
    fn shown(&self, host: usize, name: &str) -> anyhow::Result<String> {
        let script = format!(
            "openssl s_client -connect {} -servername {name} </dev/null 2>/dev/null \
             | openssl x509 -noout -issuer -fingerprint -ext subjectAltName 2>/dev/null || true",
            self.https[host]
        );
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]);
        Ok(weir::finish(shell)?.stdout)
    }

    fn until_shown(&self, host: usize, name: &str) -> anyhow::Result<String> {
        let what = format!("{} shows a certificate for {name}", self.lab.hosts[host].name);
        wait::until(&what, PATIENCE, || {
            let shown = self.shown(host, name)?;
            Ok(shown.contains(&format!("DNS:{name}")).then_some(shown))
        })
        .with_context(|| self.lab.hosts[host].log())
    }

    fn weir(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        self.lab.weir(&[arguments, &["--key-file", &self.key_file()]].concat())
    }

    /// A certificate for this name, in a file of this name.
    fn issue(&self, file: &str, name: &str) -> anyhow::Result<String> {
        self.authority.issue(&[name])?.write(self.folder(), file)?;
        Ok(self.folder().join(format!("{file}.crt")).display().to_string())
    }

    /// All that stands below a key in the store.
    fn stored(&self, below: &str) -> anyhow::Result<Vec<(String, String)>> {
        let store = StoreAddress {
            endpoints: vec![self.lab.etcd.addr().to_string()],
            prefix: "/weir/".into(),
            tls: None,
            login: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(async { Session::open(&store, 0).await?.list(below).await })?.found;
        Ok(found
            .into_iter()
            .map(|(name, stored)| (name, String::from_utf8_lossy(&stored.bytes).into_owned()))
            .collect())
    }

    /// An authority that asks the first host for its challenges, whoever orders.
    fn pebble(&self, directory: SocketAddr, names: &[&str]) -> anyhow::Result<Process> {
        let pebble = Pebble {
            folder: self.folder().join("pebble"),
            authority: &self.authority,
            directory,
            management: free()?,
            http: self.lab.hosts[0].addr.port(),
            tls: self.https[0].port(),
            seconds: 90 * 24 * 3600,
            hosts: names.iter().map(|name| format!("127.0.0.1 {name}\n")).collect(),
        };
        let mut unshare = Command::new("unshare");
        unshare.process_group(0);
        // SAFETY: between fork and exec the closure makes one plain system call, and allocates nothing.
        unsafe {
            unshare.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        pebble.start(unshare)
    }
}

#[test]
fn hosts_show_what_an_operator_has_put_into_their_store() -> Done {
    needs!(Need::Weir, Need::Program("etcd"), Need::Program("openssl"));
    let mut stand = Stand::up()?;

    // 1. Put there, it is shown everywhere, and stands in the store sealed.
    let shop = stand.issue("shop", "shop.example.com")?;
    fine(&stand.weir(&["fleet", "certificate", "add", &shop])?);
    let first = stand.until_shown(0, "shop.example.com")?;
    assert_eq!(stand.until_shown(1, "shop.example.com")?, first);
    for (name, sealed) in stand.stored(CERTIFICATES)? {
        assert!(name == "shop" && sealed.starts_with("weir-seal:1:"), "{name}: {sealed}");
    }

    // 2. A new one takes its place, and what can't be used goes nowhere.
    let renewed = stand.issue("shop", "shop.example.com")?;
    fine(&stand.weir(&["fleet", "certificate", "add", &renewed, "--name", "shop"])?);
    wait::until_true("the new one is shown", PATIENCE, || {
        let now = stand.shown(0, "shop.example.com")?;
        Ok(now != first && now == stand.shown(1, "shop.example.com")?)
    })?;
    failed(&stand.lab.weir(&["fleet", "certificate", "list"])?, 2, "--key-file");
    let key = stand.folder().join("shop.key").display().to_string();
    failed(&stand.weir(&["fleet", "certificate", "add", &key])?, 2, "holds no certificate");
    let document = stand.folder().join("key.toml");
    fs::write(&document, format!("# {}", fs::read_to_string(&key)?))?;
    let document = document.display().to_string();
    failed(&stand.lab.weir(&["push", &document])?, 2, "key.toml:1 is a private key");

    // 3. Another key seals from now on: what is there is sealed anew, and hosts that have both keys notice nothing.
    let other = stand.lab.weir(&["fleet", "key"])?.stdout;
    let both = format!("{other}{}", fs::read_to_string(stand.key_file())?);
    fs::write(stand.key_file(), both)?;
    fine(&stand.weir(&["fleet", "reseal"])?);
    fs::write(stand.key_file(), other)?;
    let listed = stand.weir(&["fleet", "certificate", "list"])?;
    assert!(listed.stdout.contains("shop.example.com") && !listed.stdout.contains("reseal"), "{listed:?}");

    // 4. The store is away: a host that starts anew shows what it had.
    let sealed = stand.stored(CERTIFICATES)?.pop().context("it is gone")?.1;
    let kept = stand.lab.hosts[0].folder.join("state/fleet/sealed.json");
    wait::until_true("it is kept as it is sealed now", PATIENCE, || {
        Ok(fs::read_to_string(&kept).is_ok_and(|kept| kept.contains(&sealed)))
    })?;
    let before = stand.shown(0, "shop.example.com")?;
    stand.lab.etcd.stop()?;
    stand.lab.hosts[0].kill()?;
    stand.lab.hosts[0].begin()?;
    assert_eq!(stand.until_shown(0, "shop.example.com")?, before);
    assert!(!fs::read_to_string(kept)?.contains("PRIVATE KEY"));

    // 5. Taken away, it isn't shown any more.
    stand.lab.etcd.go_on()?;
    fine(&stand.lab.weir(&["fleet", "certificate", "remove", "shop"])?);
    failed(
        &stand.lab.weir(&["fleet", "certificate", "remove", "shop"])?,
        1,
        "there is no certificate `shop`",
    );
    wait::until_true("it is gone", PATIENCE, || Ok(stand.shown(0, "shop.example.com")?.is_empty()))
}

#[test]
fn one_host_orders_and_all_of_them_answer_and_show_what_came() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("etcd"), Need::Program("pebble"), Need::Program("openssl"));
    let mut stand = Stand::up()?;
    let (one, two, directory) = ("one.example.com", "two.example.com", free()?);
    let authority = stand.pebble(directory, &[one, two])?;
    let acme = format!(
        "\n[acme]\ndirectory = \"https://{directory}/dir\"\nca = \"{}\"\nagree_to_terms = true\n",
        stand.folder().join("ca.pem").display()
    );
    let log = || authority.log_text();

    // 1. The second host orders, the authority asks the first, and both show what came. One order was made.
    stand.tell(1, &acme, &[one])?;
    let shown = stand.until_shown(1, one).with_context(log)?;
    assert!(shown.contains("Pebble Intermediate"), "{shown}");
    stand.tell(0, &acme, &[one])?;
    assert_eq!(stand.until_shown(0, one)?, shown);
    let issued = || authority.log_text().matches("Issued certificate serial").count();
    assert_eq!(issued(), 1, "{}", log());
    let stored = stand.stored(ACME)?;
    for (name, sealed) in &stored {
        assert!(sealed.starts_with("weir-seal:1:"), "{name}: {sealed}");
    }
    for kind in ["account".to_owned(), format!("certificates/{one}")] {
        assert!(stored.iter().any(|(name, _)| name.ends_with(&kind)), "{kind} is not in {stored:?}");
    }
    assert!(!stored.iter().any(|(name, _)| name.starts_with("challenges/")), "{stored:?}");

    // 2. The one that orders dies while the authority doesn't answer: the other goes on when its lease is over.
    authority.signal(Signal::SIGSTOP)?;
    stand.tell(1, &acme, &[one, two])?;
    let orders = |host: &str| -> anyhow::Result<bool> {
        Ok(stand.stored(ORDER)?.iter().any(|(_, holder)| holder.contains(host)))
    };
    wait::until_true("the second host orders", PATIENCE, || orders("edge-2"))?;
    stand.tell(0, &acme, &[one, two])?;
    stand.lab.hosts[1].kill()?;
    authority.signal(Signal::SIGCONT)?;
    stand.until_shown(0, two).with_context(|| authority.log_text())?;
    assert_eq!(issued(), 2, "{}", authority.log_text());
    Ok(())
}
