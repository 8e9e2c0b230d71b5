//! TLS towards visitors: which certificate they get, what is spoken, whose clients come in, and what is reported before
//! it hurts. The peers are OpenSSL's and curl.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::sys::signal::Signal;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::json;
use weir_lab::{
    Lab,
    lab::{
        SITE,
        addresses::{EDGE, HTTP, HTTPS},
        certificates::{Authority, Identity},
        client::{Browser, Connection, nothing},
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// `openssl s_client` from the visitor's place; it says one line of HTTP/1.0 and waits for the answer.
fn s_client(stand: &Stand, arguments: &str) -> anyhow::Result<Ran> {
    let script = format!(
        "printf 'GET /headers HTTP/1.0\\r\\nHost: {SITE}\\r\\n\\r\\n' \
         | openssl s_client -connect {HTTPS} -CAfile {} -ign_eof {arguments} 2>&1",
        stand.lab.ca().display()
    );
    let mut shell = stand.lab.visitor.command("bash")?;
    shell.args(["-c", &script]);
    weir::finish(shell)
}

/// The leaf that a client with these settings is shown, as `openssl x509` tells it.
fn shown(stand: &Stand, arguments: &str) -> anyhow::Result<String> {
    let script = format!(
        "openssl s_client -connect {HTTPS} {arguments} </dev/null 2>/dev/null \
         | openssl x509 -noout -subject -fingerprint -sha256 -text | grep -E 'subject=|Fingerprint|Public Key Algorithm'"
    );
    let mut shell = stand.lab.visitor.command("bash")?;
    shell.args(["-c", &script]);
    let ran = weir::finish(shell)?;
    anyhow::ensure!(!ran.stdout.is_empty(), "nothing was shown: {ran:?}");
    Ok(ran.stdout)
}

fn fingerprint(shown: &str) -> String {
    shown.lines().find(|line| line.contains("Fingerprint")).unwrap_or_default().to_owned()
}

/// curl from the visitor's place, to the site's address; status and body.
fn curl(stand: &Stand, arguments: &[&str], url: &str) -> anyhow::Result<Ran> {
    let mut curl = stand.lab.visitor.command("curl")?;
    curl.args(["-sS", "-m", "5", "--cacert"]).arg(stand.lab.ca()).args(arguments);
    for host in [SITE, &format!("pull.{SITE}"), &format!("www.{SITE}")] {
        curl.args(["--resolve", &format!("{host}:443:{EDGE}"), "--resolve", &format!("{host}:80:{EDGE}")]);
    }
    curl.args(["-w", "\n%{http_code}"]).arg(url);
    weir::finish(curl)
}

fn status(ran: &Ran) -> &str {
    ran.stdout.lines().last().unwrap_or_default()
}

fn reported(stand: &Stand) -> anyhow::Result<Vec<String>> {
    let status = stand.weir.status()?;
    let warnings = status["warnings"].as_array().context("no warnings in the status")?;
    Ok(warnings.iter().filter_map(|warning| Some(warning.as_str()?.to_owned())).collect())
}

#[test]
fn a_client_gets_the_certificate_for_its_name_and_its_kind_of_key() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let stand = Stand::up_with(|lab, toml| {
        let issue = |names: &[&str], kind, file: &str| {
            let identity = lab.authority.issue_for(names, kind, (1, 90));
            identity.and_then(|identity| identity.write(&lab.certificates(), file)).expect("certificates");
        };
        issue(&[SITE], &PKCS_RSA_SHA256, "rsa");
        issue(&["app.example.com"], &PKCS_ECDSA_P256_SHA256, "app");
        issue(&["first.example.net"], &PKCS_ECDSA_P256_SHA256, "default");
        toml
    })?;
    for (arguments, subject, kind) in [
        ("-servername example.com", "CN = example.com", "id-ecPublicKey"),
        ("-servername EXAMPLE.com", "CN = example.com", "id-ecPublicKey"),
        ("-servername example.com -sigalgs RSA-PSS+SHA256", "CN = example.com", "rsaEncryption"),
        ("-servername example.com -tls1_2", "CN = example.com", "id-ecPublicKey"),
        (
            "-servername example.com -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256",
            "CN = example.com",
            "rsaEncryption",
        ),
        ("-servername app.example.com", "CN = app.example.com", "id-ecPublicKey"),
        ("-servername other.example.com", "CN = example.com", "id-ecPublicKey"),
        ("-servername a.b.example.com", "CN = first.example.net", "id-ecPublicKey"),
        ("-servername elsewhere.example", "CN = first.example.net", "id-ecPublicKey"),
        ("-noservername", "CN = first.example.net", "id-ecPublicKey"),
    ] {
        let told = shown(&stand, arguments)?;
        assert!(told.contains(&format!("subject={subject}\n")) && told.contains(kind), "{arguments}: {told}");
    }
    Ok(())
}

#[test]
fn an_unknown_host_may_be_refused() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let stand =
        Stand::up_with(|_, toml| toml.replace("/certs\" }", "/certs\", unknown_host = \"refuse\" }"))?;
    assert!(s_client(&stand, "-servername elsewhere.example")?.stdout.contains("alert"));
    assert!(s_client(&stand, "-servername www.example.com")?.stdout.contains("200 OK"));
    assert!(s_client(&stand, "-noservername")?.stdout.contains("200 OK"));
    Ok(())
}

/// The three ways in which certificates are replaced: Kubernetes swaps a link to a folder, certbot renames links to
/// files, and people write over them.
#[test]
fn a_renewed_certificate_is_taken_however_it_is_replaced() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let archive = |lab: &Lab| lab.folder().join("archive");
    let issue = |lab: &Lab, name: &str| -> anyhow::Result<Identity> { lab.authority.issue(&[name]) };
    let certbot = |lab: &Lab, number: u32| -> anyhow::Result<()> {
        let identity = issue(lab, "certbot.example.com")?;
        fs::create_dir_all(archive(lab))?;
        let live = lab.folder().join("live/certbot.example.com");
        fs::create_dir_all(&live)?;
        for (name, text) in [("fullchain", &identity.certificate), ("privkey", &identity.key)] {
            let file = archive(lab).join(format!("{name}{number}.pem"));
            fs::write(&file, text)?;
            symlink(&file, live.join("new"))?;
            fs::rename(live.join("new"), live.join(format!("{name}.pem")))?;
        }
        Ok(())
    };
    let kubernetes = |lab: &Lab, number: u32| -> anyhow::Result<()> {
        let mount = lab.folder().join("secret");
        let data = mount.join(format!("..version{number}"));
        fs::create_dir_all(&data)?;
        let identity = issue(lab, "kubernetes.example.com")?;
        fs::write(data.join("tls.crt"), &identity.certificate)?;
        fs::write(data.join("tls.key"), &identity.key)?;
        symlink(&data, mount.join("..data_tmp"))?;
        fs::rename(mount.join("..data_tmp"), mount.join("..data"))?;
        for name in ["tls.crt", "tls.key"] {
            if !mount.join(name).exists() {
                symlink(Path::new("..data").join(name), mount.join(name))?;
            }
        }
        Ok(())
    };
    let stand = Stand::up_with(|lab, toml| {
        certbot(lab, 1).and_then(|()| kubernetes(lab, 1)).expect("certificates");
        let folders = [lab.certificates(), lab.folder().join("live"), lab.folder().join("secret")];
        toml.replace(
            &format!("certificates = \"{}\"", lab.certificates().display()),
            &format!("certificates = {}", json!(folders)),
        )
    })?;
    let of = |name: &str| -> anyhow::Result<String> {
        Ok(fingerprint(&shown(&stand, &format!("-servername {name}.example.com"))?))
    };
    let all = || -> anyhow::Result<[String; 3]> { Ok([of("certbot")?, of("kubernetes")?, of("site")?]) };
    let before = all()?;
    assert!(before[0] != before[1] && before[1] != before[2], "{before:?}");
    certbot(&stand.lab, 2)?;
    kubernetes(&stand.lab, 2)?;
    stand.lab.authority.issue(&[SITE, "*.example.com"])?.write(&stand.lab.certificates(), "site")?;
    wait::until_true("all three are renewed", PATIENCE, || {
        let now = all()?;
        Ok(now.iter().zip(&before).all(|(now, before)| now != before))
    })
}

#[test]
fn a_half_written_certificate_keeps_the_old_one_and_holds_nothing_up() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let stand = Stand::up()?;
    let served = || -> anyhow::Result<String> { Ok(fingerprint(&shown(&stand, "-servername example.com")?)) };
    let before = served()?;
    let next = stand.lab.authority.issue(&[SITE])?;
    let folder = stand.lab.certificates();
    fs::write(folder.join("site.crt"), &next.certificate)?;
    wait::until_true("the mismatch is reported", PATIENCE, || {
        Ok(reported(&stand)?.iter().any(|one| one.contains("site.crt") && one.contains("stays in use")))
    })?;
    assert_eq!(served()?, before);
    assert_eq!(stand.visitor.get("/")?.status, 200);
    let entry = &stand.weir.status()?["certificates"][0];
    assert!(entry["stale"].as_str().is_some_and(|why| why.contains("don't belong together")), "{entry}");

    // Another certificate comes all the same, and so does a change of the configuration.
    stand.lab.authority.issue(&["other.example.net"])?.write(&folder, "other")?;
    wait::until_true("the other one is served", PATIENCE, || {
        Ok(shown(&stand, "-servername other.example.net")?.contains("CN = other.example.net"))
    })?;
    fs::write(folder.join("site.key"), &next.key)?;
    wait::until_true("the whole one is served", PATIENCE, || Ok(served()? != before))?;
    wait::until_true("nothing is reported any more", PATIENCE, || Ok(reported(&stand)?.is_empty()))?;
    // At a start there is nothing to keep: it is refused.
    fs::write(folder.join("site.key"), "half")?;
    let checked = weir::run(&stand.lab, &["check", &stand.weir.config().to_string_lossy()])?;
    assert_eq!(checked.code, 2, "{checked:?}");
    Ok(())
}

#[test]
fn a_certificate_near_its_end_is_reported_once() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| {
        let issue = |days, file: &str| {
            let identity = lab.authority.issue_for(&["a.example"], &PKCS_ECDSA_P256_SHA256, days);
            identity.and_then(|identity| identity.write(&lab.certificates(), file)).expect("certificates");
        };
        issue((300, 20), "soon");
        issue((300, -2), "over");
        toml
    })?;
    let config = stand.weir.config().to_string_lossy().into_owned();
    let checked = weir::run(&stand.lab, &["check", &config])?;
    assert_eq!(checked.code, 0, "{checked:?}");
    let told = weir::run(&stand.lab, &["status"])?.stdout;
    for words in ["soon.crt` expires within 30 days", "over.crt` expired on"] {
        assert!(checked.stderr.contains(words), "`{words}` isn't in:\n{}", checked.stderr);
        assert!(told.contains("WARNING: ") && told.contains(words), "`{words}` isn't in:\n{told}");
    }
    let states: Vec<_> = stand.weir.status()?["certificates"]
        .as_array()
        .context("no certificates in the status")?
        .iter()
        .map(|entry| entry["state"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(states, ["expired", "valid", "expires_soon"]);

    let generation = stand.weir.status()?["generation"].as_u64();
    stand.weir.signal(Signal::SIGHUP)?;
    wait::until_true("it is reloaded", PATIENCE, || {
        Ok(stand.weir.status()?["generation"].as_u64() > generation)
    })?;
    let log = stand.weir.log_text();
    assert_eq!(log.matches("over.crt` expired on").count(), 1, "{log}");
    assert_eq!(log.matches("soon.crt` expires within").count(), 1, "{log}");
    Ok(())
}

#[test]
fn sessions_are_resumed_by_any_worker_and_after_a_reload() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let stand = Stand::up()?;
    let session = stand.lab.folder().join("session.pem");
    for version in ["-tls1_3", "-tls1_2"] {
        let begin = format!("{version} -servername {SITE} -sess_out {}", session.display());
        let again = format!("{version} -servername {SITE} -sess_in {}", session.display());
        let first = s_client(&stand, &begin)?.stdout;
        assert!(first.contains("\nNew, TLS"), "{version}: {first}");
        for nth in 0..8 {
            let resumed = s_client(&stand, &again)?.stdout;
            assert!(
                resumed.contains("\nReused, TLS") && resumed.contains("200 OK"),
                "{version} {nth}: {resumed}"
            );
        }
        let generation = stand.weir.status()?["generation"].as_u64();
        stand.weir.signal(Signal::SIGHUP)?;
        wait::until_true("it is reloaded", PATIENCE, || {
            Ok(stand.weir.status()?["generation"].as_u64() > generation)
        })?;
        let resumed = s_client(&stand, &again)?.stdout;
        assert!(resumed.contains("\nReused, TLS"), "{version}, after a reload: {resumed}");
        let elsewhere = again.replace(&format!("-servername {SITE}"), "-servername www.example.com");
        let other = s_client(&stand, &elsewhere)?.stdout;
        assert!(other.contains("\nNew, TLS"), "{version}: a ticket is for one host: {other}");
    }
    assert!(!s_client(&stand, "-tls1_3")?.stdout.contains("Max Early Data: 1"), "0-RTT is off");
    Ok(())
}

#[test]
fn old_versions_and_weak_ciphers_are_not_spoken() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let old = "-tls1_1 -cipher DEFAULT:@SECLEVEL=0";
    let cbc = "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA";
    let plain_rsa = "-tls1_2 -cipher AES128-GCM-SHA256";
    let intermediate = "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256";
    for (keys, refused, spoken) in [
        (
            "",
            &[old, cbc, plain_rsa, "-alpn spdy/3"][..],
            &[intermediate, "-tls1_3", "-alpn h2,http/1.1 -tls1_2"][..],
        ),
        (", min_version = \"1.3\"", &[old, intermediate], &["-tls1_3"]),
        (
            ", ciphers = \"modern\"",
            &[old, intermediate],
            &["-tls1_3", "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256"],
        ),
        (", alpn = [\"http/1.1\"]", &["-alpn h2"], &["-alpn h2,http/1.1", ""]),
    ] {
        let stand = Stand::up_with(|_, toml| toml.replace("/certs\" }", &format!("/certs\"{keys} }}")))?;
        for arguments in refused {
            let said = s_client(&stand, &format!("-servername {SITE} {arguments}"))?.stdout;
            assert!(said.contains("alert") && !said.contains("200 OK"), "{keys} {arguments}: {said}");
        }
        for arguments in spoken {
            let said = s_client(&stand, &format!("-servername {SITE} {arguments}"))?.stdout;
            assert!(said.contains("Verify return code: 0 (ok)"), "{keys} {arguments}: {said}");
        }
        assert_eq!(stand.weir.status()?["entrypoints"][0]["handshake_failures"], refused.len());
    }
    Ok(())
}

/// The authority of the CDN, a certificate of its, and one of somebody else's.
struct Clients {
    ca: PathBuf,
    own: [String; 4],
    foreign: [String; 4],
}

fn clients(lab: &Lab) -> anyhow::Result<Clients> {
    let folder = lab.folder().join("clients");
    let (authority, other) = (Authority::new("Origin Pull")?, Authority::new("Somebody else")?);
    authority.issue(&["cdn.example"])?.write(&folder, "own")?;
    other.issue(&["cdn.example"])?.write(&folder, "foreign")?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    let arguments = |name: &str| {
        let file = |extension: &str| folder.join(format!("{name}.{extension}")).display().to_string();
        ["--cert".to_owned(), file("crt"), "--key".to_owned(), file("key")]
    };
    Ok(Clients { ca: folder.join("ca.pem"), own: arguments("own"), foreign: arguments("foreign") })
}

fn with_clients(keys: &str) -> anyhow::Result<(Stand, Clients)> {
    let mut found = None;
    let stand = Stand::up_unseen(|lab, toml| {
        let clients = clients(lab).expect("certificates");
        let keys = keys.replace("CA", &clients.ca.display().to_string());
        found = Some(clients);
        toml.replace("/certs\" }", &format!("/certs\", client_headers = true, {keys} }}"))
            + &format!("\n[[route]]\nhost = \"*.{SITE}\"\nservice = \"app\"\n")
    })?;
    Ok((stand, found.context("no clients")?))
}

fn arguments<'a>(certificate: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    certificate.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn a_client_without_the_right_certificate_is_refused() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let (stand, clients) = with_clients("client_ca = \"CA\"")?;
    let url = format!("https://{SITE}/headers");
    for protocol in ["--http2", "--http1.1", "--tls-max=1.2"] {
        let protocol = match protocol {
            "--tls-max=1.2" => vec!["--tls-max", "1.2"],
            other => vec![other],
        };
        let served = curl(&stand, &arguments(&clients.own, &protocol), &url)?;
        assert_eq!(status(&served), "200", "{protocol:?}: {served:?}");
        for refused in [arguments(&[], &protocol), arguments(&clients.foreign, &protocol)] {
            let refused = curl(&stand, &refused, &url)?;
            assert!(refused.code != 0 && status(&refused) == "000", "{protocol:?}: {refused:?}");
        }
    }
    Ok(())
}

#[test]
fn servers_are_told_of_a_clients_certificate_and_nobody_can_forge_it() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let (stand, clients) = with_clients("client_ca = \"CA\", client_auth = \"request\"")?;
    let url = format!("https://{SITE}/headers");
    let forged = [
        "-H",
        "X-Client-Cert-Verified: SUCCESS",
        "-H",
        "x-client-cert-subject: CN=root",
        "-H",
        "X_Client_Cert_Fingerprint: 00",
        "-H",
        "Connection: X-Client-Cert-Verified",
    ];
    let told = |certificate: &[String]| -> anyhow::Result<serde_json::Value> {
        let ran = curl(&stand, &arguments(certificate, &forged), &url)?;
        let body = ran.stdout.rsplit_once('\n').map_or("", |(body, _)| body);
        serde_json::from_str(body).with_context(|| format!("{ran:?}"))
    };
    let own = told(&clients.own)?;
    assert_eq!(own["x-client-cert-verified"], json!(["SUCCESS"]));
    assert!(
        own["x-client-cert-subject"][0].as_str().is_some_and(|it| it.contains("CN=cdn.example")),
        "{own}"
    );
    let script = format!("openssl x509 -in {} -noout -fingerprint -sha256", clients.own[1]);
    let mut shell = stand.lab.visitor.command("bash")?;
    shell.args(["-c", &script]);
    let expected = weir::finish(shell)?.stdout.rsplit('=').next().unwrap_or_default().trim().replace(':', "");
    assert_eq!(own["x-client-cert-fingerprint"], json!([expected.to_lowercase()]));

    let nobody = told(&[])?;
    assert_eq!(nobody["x-client-cert-verified"], json!(["NONE"]));
    for name in ["x-client-cert-subject", "x-client-cert-fingerprint", "x_client_cert_fingerprint"] {
        assert_eq!(nobody.get(name), None, "{name} was forged: {nobody}");
    }
    let foreign = curl(&stand, &arguments(&clients.foreign, &[]), &url)?;
    assert_ne!(foreign.code, 0, "a certificate of somebody else's is worse than none: {foreign:?}");
    Ok(())
}

#[test]
fn a_resumed_session_is_still_that_of_its_client() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let (stand, clients) = with_clients("client_ca = \"CA\"")?;
    let session = stand.lab.folder().join("session.pem");
    let own = format!("-cert {} -key {}", clients.own[1], clients.own[3]);
    for version in ["-tls1_3", "-tls1_2"] {
        let first =
            s_client(&stand, &format!("{version} -servername {SITE} {own} -sess_out {}", session.display()))?;
        assert!(first.stdout.contains("\"x-client-cert-verified\":[\"SUCCESS\"]"), "{first:?}");
        let again =
            s_client(&stand, &format!("{version} -servername {SITE} {own} -sess_in {}", session.display()))?;
        assert!(again.stdout.contains("\nReused, TLS"), "{version}: {again:?}");
        assert!(again.stdout.contains("CN=cdn.example"), "{version}: {again:?}");
    }
    // Other authorities: what was let in by the old ones has to show itself again.
    let other = Authority::new("The next one")?;
    fs::write(&clients.ca, other.pem())?;
    wait::until_true("the old tickets are worthless", PATIENCE, || {
        let again = s_client(&stand, &format!("-tls1_2 -servername {SITE} -sess_in {}", session.display()))?;
        Ok(again.stdout.contains("alert") && !again.stdout.contains("200 OK"))
    })
}

#[test]
fn a_host_may_ask_for_certificates_that_others_dont() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let (stand, clients) = with_clients(&format!("host.\"pull.{SITE}\" = {{ client_ca = \"CA\" }}"))?;
    let (open, guarded) = (format!("https://{SITE}/headers"), format!("https://pull.{SITE}/headers"));
    let served = curl(&stand, &[], &open)?;
    assert_eq!(status(&served), "200", "{served:?}");
    let refused = curl(&stand, &[], &guarded)?;
    assert!(refused.code != 0 && status(&refused) == "000", "{refused:?}");
    let served = curl(&stand, &arguments(&clients.own, &[]), &guarded)?;
    assert!(status(&served) == "200" && served.stdout.contains("CN=cdn.example"), "{served:?}");

    // In through the open host's door, and then on to the guarded one.
    for protocol in ["--http1.1", "--http2"] {
        let host = format!("Host: PULL.{SITE}:443");
        let sneaked = curl(&stand, &[protocol, "-H", &host], &open)?;
        assert_eq!(status(&sneaked), "421", "{protocol}: {sneaked:?}");
        let back =
            curl(&stand, &arguments(&clients.own, &[protocol, "-H", &format!("Host: {SITE}")]), &guarded)?;
        assert_eq!(status(&back), "421", "{protocol}, the other way round: {back:?}");
    }
    Ok(())
}

#[test]
fn who_came_in_by_the_old_rules_has_to_come_in_again() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let toml = weir::standard(&stand.lab);
    let ca = clients(&stand.lab)?.ca;
    for alpn in ["h2", "http/1.1"] {
        let browser = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &[alpn])?;
        let target = browser.target.clone();
        let ask = |mut connection: Connection| {
            browser.station().run(async move {
                let reply = connection.send(hyper::Request::builder().uri("/").body(nothing())?).await?;
                anyhow::Ok((reply.status.as_u16(), connection))
            })?
        };
        let connection = browser.station().run(async move { Connection::open(&target).await })??;
        let (status, connection) = ask(connection)?;
        assert_eq!(status, 200, "{alpn}");
        let required = format!("/certs\", client_ca = \"{}\" }}", ca.display());
        let generation = stand.weir.status()?["generation"].as_u64();
        stand.weir.rewrite_config(&toml.replace("/certs\" }", &required))?;
        wait::until_true("it is reloaded", PATIENCE, || {
            Ok(stand.weir.status()?["generation"].as_u64() > generation)
        })?;
        let (status, _) = ask(connection)?;
        assert_eq!(status, 421, "{alpn}");
        let generation = stand.weir.status()?["generation"].as_u64();
        stand.weir.rewrite_config(&toml)?;
        wait::until_true("it is reloaded", PATIENCE, || {
            Ok(stand.weir.status()?["generation"].as_u64() > generation)
        })?;
    }
    Ok(())
}

/// What is no TLS at all, or breaks off, is no trouble of anybody else's.
#[test]
fn nonsense_is_refused_and_harms_nobody() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    for keys in ["", ", host.\"pull.example.com\" = { client_auth = \"none\" }"] {
        let stand = Stand::up_with(|_, toml| toml.replace("/certs\" }", &format!("/certs\"{keys} }}")))?;
        // How many connections came in, and how many of them failed.
        let tally = || -> anyhow::Result<(u64, u64)> {
            let entrypoint = &stand.weir.status()?["entrypoints"][0];
            let number = |key: &str| entrypoint[key].as_u64().with_context(|| format!("no {key}"));
            Ok((number("accepted")?, number("handshake_failures")?))
        };
        let (accepted, failed) = tally()?;
        let before = stand.weir.process().memory("VmRSS")?;
        let nonsense = [
            "GET / HTTP/1.1\\r\\nHost: example.com\\r\\n\\r\\n",
            // The header of a handshake record, and half of what it promises.
            "\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03",
            // A hello that claims to be 16 MB long.
            "\\x16\\x03\\x01\\x40\\x00\\x01\\xff\\xff\\xff",
            "\\x80\\x2e\\x01\\x00\\x02",
            "",
        ];
        let script: String = nonsense
            .iter()
            // A shell for each: one that is killed while it writes, because the other end has gone, is not the last.
            .map(|bytes| format!("(exec 3<>/dev/tcp/{EDGE}/443; printf '{bytes}' >&3) 2>/dev/null\n"))
            .collect();
        let mut shell = stand.lab.visitor.command("bash")?;
        shell.args(["-c", &format!("for round in $(seq 20); do {script} done; true")]);
        weir::finish(shell)?;
        wait::until_true("all that came in have failed", PATIENCE, || {
            let (now, failures) = tally()?;
            Ok(now >= accepted + 20 * nonsense.len() as u64 && now - accepted == failures - failed)
        })
        .with_context(|| format!("{:?} after {:?}", tally(), (accepted, failed)))?;
        assert_eq!(stand.visitor.get("/")?.status, 200);
        let grown = stand.weir.process().memory("VmRSS")?.saturating_sub(before);
        assert!(grown < 16 << 20, "it has grown by {grown} bytes");
        // Renegotiation doesn't exist in rustls: the client is told so, or goes unheard.
        let script = format!(
            "(sleep 0.3; echo R; sleep 0.3) | openssl s_client -tls1_2 -connect {HTTPS} -servername {SITE} 2>&1"
        );
        let mut shell = stand.lab.visitor.command("bash")?;
        shell.args(["-c", &script]);
        let said = weir::finish(shell)?.stdout;
        assert!(
            said.contains("RENEGOTIATING") && (said.contains("no renegotiation") || said.contains("alert")),
            "{said}"
        );
        assert_eq!(stand.visitor.get("/")?.status, 200);
    }
    Ok(())
}

#[test]
fn a_connection_is_for_the_names_of_its_certificate() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = Stand::up_with(|_, toml| {
        toml + &format!("\n[[route]]\nservice = \"app\"\n\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n")
    })?;
    for protocol in ["--http1.1", "--http2"] {
        for (host, expected) in [
            (SITE, "200"),
            ("www.example.com", "200"),
            ("www.example.com:443", "200"),
            ("EXAMPLE.com.", "200"),
            ("a.b.example.com", "421"),
            ("elsewhere.example", "421"),
        ] {
            let header = format!("Host: {host}");
            let answered = curl(&stand, &[protocol, "-H", &header], &format!("https://{SITE}/"))?;
            assert_eq!(status(&answered), expected, "{protocol} {host}: {answered:?}");
        }
    }
    // Plain connections are for nobody in particular.
    let plain = Browser::plain(&stand.lab.visitor, HTTP)?.with_host("elsewhere.example");
    assert_eq!(plain.get("/")?.status, 200);
    Ok(())
}

#[test]
fn plain_requests_are_sent_on_to_https_which_stays() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = Stand::up_with(|_, toml| {
        toml.replace(
            "[service.app]",
            "hsts = { max_age = \"1y\", include_subdomains = true }\n\n[service.app]",
        ) + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\nredirect = \"https\"\nredirect_except = [\"/health\"]\n"
        )
    })?;
    let plain = Browser::plain(&stand.lab.visitor, HTTP)?;
    let sent = plain.get("/a/b?c=d")?;
    assert_eq!(sent.status, 308);
    assert_eq!(sent.header("location"), Some(&*format!("https://{SITE}/a/b?c=d")));
    assert_eq!(sent.header("strict-transport-security"), None, "it says nothing over plain HTTP");
    assert_eq!(plain.get("/health")?.status, 200);

    let followed = curl(&stand, &["-L", "-X", "POST", "-d", "kept"], &format!("http://{SITE}/echo"))?;
    assert_eq!(followed.stdout, "kept\n200", "{followed:?}");
    for path in ["/", "/status/404", "/nowhere"] {
        let reply = stand.visitor.get(path)?;
        let strict = reply.header("strict-transport-security");
        assert_eq!(strict, Some("max-age=31536000; includeSubDomains"), "{path}");
    }
    Ok(())
}
