//! Certificates that are ordered: from Pebble, the ACME authority that Let's Encrypt tests with.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::Context;
use serde_json::json;
use weir_lab::{
    Lab,
    lab::{
        SITE,
        addresses::{EDGE, HTTP, HTTPS},
        pebble::Pebble,
        process::Process,
        stand::PATIENCE,
        wait,
        weir::{self, ADMIN, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const NAME: &str = "ordered.example.com";

/// Pebble beside the daemon, in the edge: there the name leads to the edge's own address. Its certificates last for so
/// many seconds.
fn pebble(lab: &Lab, seconds: u64) -> anyhow::Result<Process> {
    let pebble = Pebble {
        folder: lab.folder().join("pebble"),
        authority: &lab.authority,
        directory: "127.0.0.1:14000".parse()?,
        management: "127.0.0.1:15000".parse()?,
        http: 80,
        tls: 443,
        seconds,
        hosts: format!("{EDGE} {NAME} www.{NAME}"),
    };
    pebble.start(lab.edge.command("unshare")?)
}

/// A daemon that orders; `tls` are further keys of the entrypoint's, `more` is the rest of the file.
fn ordering(lab: &Lab, challenge: &str, tls: &str, more: &str) -> String {
    let (folder, socket) = (lab.folder().display(), weir::admin_socket(lab).display().to_string());
    format!(
        r#"[kernel]
mode = "off"

[admin]
bind = ["{ADMIN}", "unix:{socket}"]

[log]
access = "{folder}/access.log"

[state]
dir = "{folder}/state"

[acme]
directory = "https://127.0.0.1:14000/dir"
ca = "{}"
contact = ["ops@example.com"]
agree_to_terms = true
challenge = "{challenge}"

[entrypoint.https]
bind = ["{HTTPS}"]
tls = {{ acme = ["{NAME}"]{tls} }}

[service.app]
servers = ["10.0.0.11:8080"]

[[route]]
service = "app"
{more}"#,
        lab.ca().display()
    )
}

/// `openssl x509` of what a client is shown that asks for the name; empty if the handshake is refused.
fn shown(lab: &Lab) -> anyhow::Result<String> {
    let script = format!(
        "openssl s_client -connect {HTTPS} -servername {NAME} </dev/null 2>/dev/null \
         | openssl x509 -noout -issuer -fingerprint -ext subjectAltName 2>/dev/null || true"
    );
    let mut shell = lab.visitor.command("bash")?;
    shell.args(["-c", &script]);
    Ok(weir::finish(shell)?.stdout)
}

fn is_ordered(shown: &str) -> bool {
    shown.contains("Pebble Intermediate") && shown.contains(&format!("DNS:{NAME}"))
}

fn kept(lab: &Lab) -> PathBuf {
    lab.folder().join("state/acme/127.0.0.1_14000_dir")
}

#[test]
fn a_certificate_is_ordered_kept_and_shown() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("pebble"), Need::Program("openssl"));
    let plain = format!("\n[entrypoint.http]\nbind = [\"{HTTP}\"]\nredirect = \"https\"\n");
    for (challenge, more) in [("http-01", plain.as_str()), ("tls-alpn-01", "")] {
        let lab = Lab::build()?;
        let mut authority = pebble(&lab, 90 * 24 * 3600)?;
        let tls = format!(", certificates = \"{}\"", lab.certificates().display());
        let toml = ordering(&lab, challenge, &tls, more);
        let mut weir = Weir::start(&lab, &toml)?;
        wait::until_true(&format!("it is ordered by {challenge}"), PATIENCE, || {
            Ok(is_ordered(&shown(&lab)?))
        })
        .with_context(|| authority.log_text())?;
        let of_name = |weir: &Weir| -> anyhow::Result<serde_json::Value> {
            let status = weir.status()?;
            let all = status["certificates"].as_array().context("no certificates")?;
            Ok(all.iter().find(|one| one["names"] == json!([NAME])).context("it isn't there")?.clone())
        };
        let told = of_name(&weir)?;
        assert_eq!(
            (told["state"].as_str(), &told["order"]["error"]),
            (Some("valid"), &json!(null)),
            "{told}"
        );
        for file in [format!("{NAME}.pem"), "account.json".to_owned()] {
            let mode = fs::metadata(kept(&lab).join(&file))?.permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{file}");
        }

        // It is there from the first handshake on after a restart, also without the authority, and isn't ordered again.
        let before = shown(&lab)?;
        authority.kill()?;
        weir.terminate()?;
        let weir = Weir::start(&lab, &toml)?;
        assert_eq!(shown(&lab)?, before);
        assert_eq!(weir.status()?["warnings"], json!([]));

        // Whoever takes the name out doesn't see it any more.
        weir.rewrite_config(
            &toml.replace(&format!("acme = [\"{NAME}\"], "), "").replace("[acme]", "[acme] # unused"),
        )?;
        wait::until_true("the folder's is shown", PATIENCE, || {
            Ok(shown(&lab)?.contains(&format!("DNS:{SITE}")))
        })?;
    }
    Ok(())
}

#[test]
fn a_certificate_is_renewed_in_time_with_the_same_account() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("pebble"), Need::Program("openssl"));
    let lab = Lab::build()?;
    let _authority = pebble(&lab, 9)?;
    let _weir = Weir::start(&lab, &ordering(&lab, "tls-alpn-01", "", ""))?;
    wait::until_true("it is ordered", PATIENCE, || Ok(is_ordered(&shown(&lab)?)))?;
    let (before, account) = (shown(&lab)?, fs::read(kept(&lab).join("account.json"))?);
    wait::until_true("it is renewed", PATIENCE, || {
        let now = shown(&lab)?;
        Ok(is_ordered(&now) && now != before)
    })?;
    assert_eq!(fs::read(kept(&lab).join("account.json"))?, account);
    Ok(())
}

#[test]
fn an_order_that_fails_says_why_and_harms_nothing() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("pebble"), Need::Program("openssl"));
    let lab = Lab::build()?;
    let authority = pebble(&lab, 3600)?;
    // HTTP-01 without anybody at port 80.
    let weir = Weir::start(&lab, &ordering(&lab, "http-01", "", ""))?;
    let warned = wait::until("the failure is reported", PATIENCE, || {
        let warnings = weir.status()?["warnings"].to_string();
        Ok(warnings.contains("can't be ordered").then_some(warnings))
    })
    .with_context(|| authority.log_text())?;
    assert!(warned.contains(NAME) && warned.contains("connection refused"), "{warned}");
    let status = weir.status()?;
    assert_eq!(status["certificates"][0]["state"], "ordered", "{status}");
    assert!(status["certificates"][0]["order"]["next"].is_string(), "{status}");
    assert_eq!(shown(&lab)?, "", "there is nothing to show, so the handshake is refused");
    let checked = weir::run(&lab, &["check", &weir.config().to_string_lossy()])?;
    assert!(checked.code == 0 && checked.stderr.contains("W058"), "{checked:?}");
    assert!(weir::run(&lab, &["status"])?.stdout.contains("can't be ordered"));
    Ok(())
}
