//! Pages in the servers' place: by hand and by the calendar, by a server's own status, from files and from a service.

use std::time::{Duration, Instant};

use anyhow::ensure;
use weir_lab::{
    lab::{
        Lab,
        addresses::{ONE, SERVER_PORT, TWO},
        client::{Browser, Reply, nothing},
        load,
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Ran, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// A client that Cloudflare speaks for.
const OPERATOR: &str = "203.0.113.77";

fn ask(browser: &Browser, method: &str, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Reply> {
    let request = fields
        .iter()
        .fold(browser.request(method, path), |request, (name, value)| request.header(*name, *value));
    browser.send(request.body(nothing())?)
}

fn ordered(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Ran> {
    let ran = weir::run(lab, &[&["maintenance"], arguments].concat())?;
    ensure!(ran.code == 0, "{ran:?}");
    Ok(ran)
}

#[test]
fn maintenance_is_ordered_under_load_outlives_the_daemon_and_ends_by_itself() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up()?;
    let load = stand.load("/", 50)?;

    // On, but for the operator and for a path; nobody gets anything else than an answer or the page.
    let began = Instant::now();
    let said = ordered(
        &stand.lab,
        &["on", "--for", "1h", "--allow", "203.0.113.0/24", "--except", "/health", "--why", "new shop"],
    )?;
    ensure!(said.stdout.starts_with("maintenance of everything: on until "), "{said:?}");
    load.wait_for("the page comes", began, PATIENCE, |record| record.outcome == load::Outcome::Maintenance)?;
    let visitor = &stand.visitor;
    let page = ask(visitor, "GET", "/", &[("accept", "text/html")])?;
    ensure!(page.is_maintenance() && page.text().contains("be back in a moment"), "{page:?}");
    let retry: u64 = page.header("retry-after").unwrap_or_default().parse()?;
    ensure!((3590..=3600).contains(&retry), "visitors are told when it ends: {retry}");
    ensure!(ask(visitor, "GET", "/", &[("cf-connecting-ip", OPERATOR)])?.status == 200);
    ensure!(ask(visitor, "GET", "/health", &[])?.status == 200);
    let json = ask(visitor, "GET", "/", &[("accept", "application/json")])?;
    ensure!(json.is_maintenance() && json.json()?["status"] == 503, "{json:?}");
    let grpc = ask(visitor, "POST", "/", &[("content-type", "application/grpc")])?;
    ensure!(grpc.status == 200 && grpc.header("grpc-status") == Some("14"), "{grpc:?}");
    let head = ask(visitor, "HEAD", "/", &[])?;
    ensure!(
        head.is_maintenance() && head.body.is_empty() && head.header("content-length").is_some(),
        "{head:?}"
    );

    // It is told everywhere.
    let status = stand.weir.status()?;
    ensure!(
        status["maintenance"][0]["on"] == true && status["maintenance"][0]["why"] == "new shop",
        "{status}"
    );
    ensure!(status["entrypoints"][0]["pages"]["maintenance"].as_u64() > Some(0), "{status}");
    let explained = weir::run(&stand.lab, &["explain", "https://example.com/"])?;
    ensure!(
        explained.stdout.contains("503 Service Unavailable, page maintenance: maintenance of everything"),
        "{explained:?}"
    );
    let log = stand.lab.folder().join("access.log");
    wait::until_true("the access log names the reason", PATIENCE, || {
        Ok(std::fs::read_to_string(&log)?.contains(r#""page":"maintenance""#))
    })?;

    // Off again.
    let ended = Instant::now();
    ordered(&stand.lab, &["off"])?;
    load.wait_for("a server answers again", ended, PATIENCE, load::Record::is_served)?;
    let records = load.stop()?;
    ensure!(load::failed(&records) == 0, "{}", load::summary(&records));

    // A daemon that is killed takes it up again before its first answer; then it ends by itself.
    ordered(&stand.lab, &["on", "--route", "example.com", "--for", "5s"])?;
    stand.weir.kill()?;
    stand.weir = Weir::start(&stand.lab, &weir::standard(&stand.lab))?;
    let first = stand.visitor.get("/")?;
    let list = ordered(&stand.lab, &[])?;
    ensure!(first.is_maintenance() || list.stdout == "no maintenance\n", "{first:?} {list:?}");
    wait::until_true("it ends by itself", PATIENCE, || Ok(stand.visitor.get("/")?.status == 200))?;
    ensure!(ordered(&stand.lab, &[])?.stdout == "no maintenance\n");

    // What makes no sense is refused, and changes nothing.
    for (arguments, code, why) in [
        (
            &["on", "--route", "exmple.com"][..],
            2,
            "there is no route `exmple.com`; did you mean `example.com`?",
        ),
        (&["on", "--until", "soon"], 2, "it is not a date and time"),
        (&["on", "--until", "2020-01-01T00:00Z"], 2, "it would have ended already"),
        (&["on", "--allow", "nobody"], 2, "there is no allowlist `nobody`"),
        (&["off"], 1, "no such maintenance was ordered"),
    ] {
        let ran = weir::run(&stand.lab, &[&["maintenance"], arguments].concat())?;
        ensure!(ran.code == code && ran.stderr.contains(why), "{arguments:?}: {ran:?}");
    }
    ensure!(stand.visitor.get("/")?.status == 200);

    // By the configuration, and gone with it.
    let standard = weir::standard(&stand.lab);
    stand
        .weir
        .rewrite_config(&format!("{standard}[[maintenance]]\nhost = 'example.com'\nwhy = 'written'\n"))?;
    wait::until_true("the written one holds", PATIENCE, || Ok(stand.visitor.get("/")?.is_maintenance()))?;
    let off = weir::run(&stand.lab, &["maintenance", "off"])?;
    ensure!(
        off.code == 1 && off.stderr.contains("what stands in the configuration is ended there"),
        "{off:?}"
    );
    stand.weir.rewrite_config(&standard)?;
    wait::until_true("and is gone", PATIENCE, || Ok(stand.visitor.get("/")?.status == 200))?;
    Ok(())
}

#[test]
fn a_servers_own_status_brings_a_page_from_a_file_or_from_a_service() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up_unseen(|lab, toml| {
        let folder = lab.folder();
        std::fs::create_dir_all(folder.join("sorry/img")).unwrap_or_default();
        for (file, text) in [
            (
                "sorry.html",
                "<html lang=en>{{status}} {{reason}} at {{host}}, {{request_id}} <img src=/.weir/page/sorry/img/a.svg>",
            ),
            ("sorry.de.html", "<html>Entschuldigung, {{host}}"),
            ("sorry/img/a.svg", "<svg/>"),
        ] {
            std::fs::write(folder.join(file), text).unwrap_or_default();
        }
        let both = format!("servers = [\"{ONE}:{SERVER_PORT}\", \"{TWO}:{SERVER_PORT}\"]");
        let health = "health = { path = \"/health\", every = \"200ms\", timeout = \"150ms\" }";
        let toml = toml.replace(&both, &format!("servers = [\"{ONE}:{SERVER_PORT}\"]"));
        format!(
            "{toml}pages = {{ \"503\" = \"sorry\", \"500\" = \"live\" }}\n\
             [service.pages]\nservers = [\"{TWO}:{SERVER_PORT}\"]\n{health}\n\
             [page.sorry]\nhtml = \"{folder}/sorry.html\"\nassets = \"{folder}/sorry\"\nlanguages = {{ de = \"{folder}/sorry.de.html\" }}\n\
             [page.live]\nservice = \"pages\"\npath = \"/sorry\"\nretry_after = \"7s\"\n",
            folder = folder.display()
        )
    })?;
    let visitor = stand.visitor.clone();
    wait::until_true("the server answers", PATIENCE, || Ok(visitor.get("/")?.status == 200))?;

    // From a file, in the reader's language, with what lies beside it.
    let id = ("x-request-id", "from-the-test");
    let page = ask(&visitor, "GET", "/status/503", &[("accept", "text/html,*/*;q=0.8"), id])?;
    let wanted = "<html lang=en>503 Service Unavailable at example.com, from-the-test ";
    ensure!(page.is_maintenance() && page.text().starts_with(wanted), "{page:?}");
    let german = ask(&visitor, "GET", "/status/503", &[("accept-language", "de-AT,en;q=0.5")])?;
    ensure!(german.text() == "<html>Entschuldigung, example.com", "{german:?}");
    let asset = visitor.get("/.weir/page/sorry/img/a.svg")?;
    ensure!((asset.status.as_u16(), asset.text().as_str()) == (200, "<svg/>"), "{asset:?}");
    ensure!(
        asset.header("content-type") == Some("image/svg+xml") && asset.header("etag").is_some(),
        "{asset:?}"
    );
    let missing = ask(&visitor, "GET", "/.weir/page/sorry/other.svg", &[("accept", "text/html")])?;
    ensure!(missing.status == 404 && missing.text().contains("There is nothing here"), "{missing:?}");

    // Programs keep what their server says, and so does whatever no page is written for.
    for (path, field, status) in [
        ("/status/503", ("accept", "application/json"), 503),
        ("/status/503", ("sec-fetch-dest", "empty"), 503),
        ("/status/404", ("accept", "text/html"), 404),
    ] {
        let own = ask(&visitor, "GET", path, &[field])?;
        ensure!(own.status == status && own.upstream() == Some("one"), "{field:?}: {own:?}");
    }

    // From a service, while it lives; then what is in memory, at once.
    let live = || ask(&visitor, "GET", "/status/500", &[("accept", "text/html")]);
    wait::until_true("the service makes the page", PATIENCE, || {
        let page = live()?;
        ensure!(page.status == 500 && page.upstream().is_none(), "{page:?}");
        Ok(page.text() == "hello from two\n")
    })?;
    stand.two.hang()?;
    let instead = live()?;
    ensure!(
        instead.status == 500
            && instead.text().contains("<h1>")
            && instead.header("retry-after") == Some("7"),
        "{instead:?}"
    );
    ensure!(instead.took < Duration::from_secs(1), "it took {:?}", instead.took);
    stand.two.resume()?;
    stand.two.kill()?;
    ensure!(live()?.text().contains("<h1>"));

    let status = stand.weir.status()?;
    ensure!(status["entrypoints"][0]["pages"]["status"].as_u64() > Some(4), "{status}");

    // A page is read anew when its file changes; a faulty one changes nothing.
    let file = stand.lab.folder().join("sorry.html");
    std::fs::write(&file, "now {{hots}}")?;
    wait::until_true("the fault is told", PATIENCE, || {
        let error = stand.weir.status()?["configuration"]["last_reload_error"].to_string();
        Ok(error.contains("`{{hots}}` is not a variable of pages"))
    })?;
    ensure!(ask(&visitor, "GET", "/status/503", &[id])?.text().starts_with(wanted));
    std::fs::write(&file, "now {{host}}")?;
    wait::until_true("the page is read anew", PATIENCE, || {
        Ok(visitor.get("/status/503")?.text() == "now example.com")
    })?;
    Ok(())
}
