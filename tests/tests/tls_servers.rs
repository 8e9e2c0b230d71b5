//! TLS towards servers: whom Weir trusts, as whom it shows itself, and that sessions are resumed. The server is nginx.

use std::{fs, time::Duration};

use weir_lab::{
    Lab,
    lab::{
        addresses::ONE,
        certificates::Authority,
        client::Browser,
        process::Process,
        stand::PATIENCE,
        wait,
        weir::{self, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const PORT: u16 = 9443;

/// An nginx that closes each connection after its answer, and lets in only who shows a certificate of `clients`.
fn nginx(lab: &Lab, clients: &Authority) -> anyhow::Result<Process> {
    let folder = lab.folder().join("nginx");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("clients.pem"), clients.pem())?;
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|module| format!("{module}_temp_path {}/{module};\n", folder.display()))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
         events {{}}
         http {{
             {places}
             log_format tls '$request_uri reused=$ssl_session_reused verified=$ssl_client_verify sni=$ssl_server_name';
             access_log {folder}/access.log tls;
             keepalive_timeout 0;
             server {{
                 listen {ONE}:{PORT} ssl;
                 ssl_certificate {server}/server.crt;
                 ssl_certificate_key {server}/server.key;
                 ssl_client_certificate {folder}/clients.pem;
                 ssl_verify_client on;
                 ssl_session_cache shared:tls:1m;
                 location / {{ return 200 'served'; }}
             }}
         }}",
        folder = folder.display(),
        server = lab.folder().join("server").display(),
    );
    fs::write(folder.join("nginx.conf"), text)?;
    let mut command = lab.one.command("nginx")?;
    command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
    Process::start("nginx", command, &folder.join("stderr.log"))
}

/// The standard configuration with nginx behind it.
fn in_front_of_nginx(lab: &Lab, tls: &str) -> String {
    let toml = weir::standard(lab).replace("10.0.0.11:8080\", \"10.0.0.12:8080", &format!("{ONE}:{PORT}"));
    toml.replace(
        "[service.app]\n",
        &format!("[service.app]\ntls = {{ server_name = \"app.internal\", {tls} }}\n"),
    )
}

#[test]
fn a_server_is_shown_the_certificate_that_it_asks_for_and_sessions_are_resumed() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("nginx"));
    let lab = Lab::build()?;
    let clients = Authority::new("Clients of the server")?;
    let folder = lab.folder().join("own");
    clients.issue(&["weir"])?.write(&folder, "weir")?;
    let server = nginx(&lab, &clients)?;
    let ca = format!("ca = \"{}\"", lab.ca().display());
    let own = format!("{ca}, client_certificate = \"{}\"", folder.join("weir.crt").display());
    let weir = Weir::start(&lab, &in_front_of_nginx(&lab, &own))?;
    let visitor = Browser::of_site(&lab, &lab.visitor)?;
    wait::until_true("nginx is up", PATIENCE, || Ok(visitor.get("/")?.status == 200))?;
    for nth in 0..10 {
        assert_eq!(visitor.get(&format!("/counted/{nth}"))?.text(), "served", "{}", server.log_text());
    }
    let log = fs::read_to_string(lab.folder().join("nginx/access.log"))?;
    let counted: Vec<_> = log.lines().filter(|line| line.starts_with("/counted/")).collect();
    assert!(counted.iter().all(|line| line.ends_with("verified=SUCCESS sni=app.internal")), "{log}");
    let resumed = counted.iter().filter(|line| line.contains("reused=r")).count();
    assert!(resumed >= 8, "{resumed} of {} were resumed:\n{log}", counted.len());

    // Sessions are kept over a reload that changes nothing about them.
    weir.rewrite_config(
        &(in_front_of_nginx(&lab, &own) + "\n[[route]]\nhost = \"new.example.com\"\nservice = \"app\"\n"),
    )?;
    wait::until_true("it is reloaded", PATIENCE, || Ok(weir.status()?["generation"] == 2))?;
    visitor.get("/after")?;
    let log = fs::read_to_string(lab.folder().join("nginx/access.log"))?;
    assert!(log.lines().any(|line| line.starts_with("/after reused=r")), "{log}");

    // Without the certificate nginx answers 400 to all, also to probes.
    weir.rewrite_config(&in_front_of_nginx(&lab, &ca))?;
    wait::until_true("it is out", PATIENCE, || Ok(visitor.get("/")?.status == 503))
}

#[test]
fn an_unknown_server_is_not_spoken_to_unless_that_is_wanted_loudly() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("nginx"));
    let lab = Lab::build()?;
    let clients = Authority::new("Clients of the server")?;
    let folder = lab.folder().join("own");
    clients.issue(&["weir"])?.write(&folder, "weir")?;
    fs::write(lab.folder().join("other.pem"), Authority::new("Another")?.pem())?;
    let _server = nginx(&lab, &clients)?;
    let own =
        format!("client_certificate = \"{0}/weir.crt\", client_key = \"{0}/weir.key\"", folder.display());
    let wrong = format!("ca = \"{}/other.pem\", {own}", lab.folder().display());
    let weir = Weir::start(&lab, &in_front_of_nginx(&lab, &wrong))?;
    let visitor = Browser::of_site(&lab, &lab.visitor)?.with_patience(Duration::from_secs(5));
    assert_eq!(visitor.get("/")?.status, 503);
    assert!(
        weir.status()?["services"][0]["servers"][0]["why"].as_str().is_some_and(|why| why.contains("TLS"))
    );

    let insecure = in_front_of_nginx(&lab, &format!("insecure = true, {own}"));
    weir.rewrite_config(&insecure)?;
    wait::until_true("it is served", PATIENCE, || Ok(visitor.get("/")?.status == 200))?;
    let warned = "certificates are not checked";
    assert!(weir.log_text().contains(warned));
    assert!(weir::run(&lab, &["status"])?.stdout.contains(warned));
    assert!(weir::run(&lab, &["check", &weir.config().to_string_lossy()])?.stderr.contains(warned));
    // It is no reason to accept a server that can't prove the key of the certificate it shows, and says so still later.
    weir.rewrite_config(&insecure.replace("200ms", "250ms"))?;
    wait::until_true("it is warned of again", PATIENCE, || Ok(weir.log_text().matches(warned).count() >= 2))
}
