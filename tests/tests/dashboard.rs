//! The dashboard in a real browser: what it shows when a server dies, what it takes to drain one from it, and what it looks like.
//!
//! The pictures in docs/images are made by this test: `WEIR_PICTURES=docs/images cargo xtask test the_dashboard`.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::ensure;
use weir_lab::{
    Lab,
    lab::{
        addresses::{EDGE, HTTPS, ONE, SERVER_PORT, TWO},
        chromium::Chromium,
        client::Browser,
        knock::Knocking,
        load::Load,
        stand::Stand,
        wait,
        weir::{ADMIN, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const TOKEN: &str = "a-token-that-nobody-guesses-0123456789";

/// A page that is drawn every two seconds, on a machine with two cores that runs a browser, takes its time.
const LOOK: Duration = Duration::from_secs(40);

/// What a first look may take over the network.
const FIRST_LOOK: u64 = 100_000;

/// In a fleet whose store nobody reaches. Not on pictures: there all is well.
const FLEET: &str = "
[provider.store]
kind = \"etcd\"
endpoints = [\"127.0.0.1:2379\"]

[fleet]
store = \"store\"
host = \"edge-1\"
";

/// With a token, with a second site whose requests go to two variants, and with something that the kernel carries.
fn configuration(lab: &Lab, toml: &str) -> String {
    let fleet = if std::env::var_os("WEIR_PICTURES").is_some() { "" } else { FLEET };
    let token = lab.folder().join("admin.token");
    std::fs::write(&token, TOKEN).expect("the lab's folder");
    toml.replace("[admin]\n", &format!("[admin]\ntoken_file = \"{}\"\n", token.display()))
        + &format!(
            r#"
[service.shop-v1]
servers = ["{ONE}:{SERVER_PORT}"]
health = {{ path = "/health", every = "200ms", timeout = "150ms" }}

[service.shop-v2]
servers = ["{TWO}:{SERVER_PORT}"]
health = {{ path = "/health", every = "200ms", timeout = "150ms" }}

[[route]]
name = "shop"
host = "shop.example.com"
split = {{ shop-v2 = 20, shop-v1 = 80 }}

[entrypoint.database]
bind = "0.0.0.0:5432"
protocol = "tcp"

[service.database]
servers = ["{ONE}:{SERVER_PORT}", "{TWO}:{SERVER_PORT}"]

[[route]]
entrypoint = "database"
passthrough = "database"
{fleet}"#
        )
}

fn row(server: impl std::fmt::Display) -> String {
    format!("[data-server='app/{server}:{SERVER_PORT}']")
}

fn says(selector: &str, text: &str) -> String {
    format!("document.querySelector({selector:?})?.textContent.includes({text:?}) ?? false")
}

#[test]
fn the_dashboard_shows_and_does_what_an_operator_needs() -> Done {
    needs!(Need::Root, Need::Weir, Need::Ebpf, Need::Program("chromium"));
    let mut stand = Stand::up_with(|lab, toml| configuration(lab, &toml))?;
    let _load = stand.load("/", 40)?;
    let shop = Browser::of_site(&stand.lab, &stand.lab.visitor)?.with_host("shop.example.com");
    let _more = Load::start(&stand.lab.visitor, &shop, "/", 25)?;
    let stranger = Knocking::start(&stand.lab.stranger, HTTPS)?;

    let mut page = Chromium::open(&stand.lab.edge, stand.lab.folder())?;
    page.screen(1280, 900, false)?;
    page.go(&format!("http://{ADMIN}/"))?;
    page.until("document.getElementById('main')?.getAttribute('aria-busy') === 'false'", LOOK)?;
    let transferred = page.transferred()?;
    ensure!((10_000..FIRST_LOOK).contains(&transferred), "{transferred} bytes for a first look");

    // The stranger's packets, by reason and by source.
    page.until(&says("#drops", "not listed"), LOOK)?;
    page.until(&says("#drops", "203.0.113.0/24"), LOOK)?;

    // What the kernel carries: the client is held to the end.
    let database = SocketAddr::from((EDGE, 5432));
    let _client = stand.lab.visitor.run(|| TcpStream::connect_timeout(&database, LOOK))??;
    page.until(&says("#carried", "1 open"), LOOK)?;
    ensure!(page.evaluate("document.getElementById('carried-card').hidden")? == false);

    // The fleet, whose store is away.
    if std::env::var_os("WEIR_PICTURES").is_none() {
        page.until(&says("#fleet-hint", "this is edge-1"), LOOK)?;
        page.until(&says("#fleet", "The store can’t be asked: 127.0.0.1:2379"), LOOK)?;
        page.until(&says("#notices", "The fleet’s store is away, what ran runs on"), LOOK)?;
    }

    // An order takes the token, and says so.
    let one = row(ONE);
    // Pressed again where it moved away, and only while it is closed: one press too many would close it.
    wait::until_true("the service shows its servers", LOOK, || {
        if page.evaluate("document.querySelector('[data-service=app]').open")? == false {
            page.click("[data-service=app] summary")?;
        }
        Ok(page.evaluate(&format!("document.querySelector({one:?}) !== null"))? == true)
    })?;
    begin_order(&mut page, &format!("{one} [data-order=drain]"))?;
    page.click("#go")?;
    page.until(&says("#refused", "token_file"), LOOK)?;
    ensure!(drained_by(&stand)?.is_empty(), "nothing was done without the token");
    page.write(TOKEN)?;
    page.click("#go")?;
    page.until(&says(&one, "drained by dashboard"), LOOK)?;
    ensure!(drained_by(&stand)? == ["dashboard"], "{:?}", drained_by(&stand)?);
    begin_order(&mut page, &format!("{one} [data-order=undrain]"))?;
    page.click("#go")?;
    page.until(&format!("!({})", says(&one, "draining")), LOOK)?;

    // A server dies: the page says so, and why.
    stand.one.kill()?;
    page.until(&says(&one, "the connection was refused"), LOOK)?;
    page.until(&says(".node.bad", &ONE.to_string()), LOOK)?;
    page.until(&says("#events", "is down"), LOOK)?;
    page.until(&says("#notices", "shop-v1"), LOOK)?;

    if let Some(folder) = std::env::var_os("WEIR_PICTURES") {
        // Tests run in their crate's folder.
        pictures(&mut page, &Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder))?;
    }

    // Every way to look at it.
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = page.evaluate(ground)?;
    page.screen(1280, 900, true)?;
    ensure!(page.evaluate(ground)? != light, "dark is not light");
    page.click("#theme")?;
    ensure!(page.evaluate(ground)? == light, "the switch goes before what the system prefers");
    page.screen(360, 740, false)?;
    page.until("document.querySelector('#picture svg').getBoundingClientRect().width <= 360", LOOK)?;
    let widest = page.evaluate("document.documentElement.scrollWidth")?;
    ensure!(widest == 360, "a phone would have to scroll to the side: {widest} pixels");

    // The daemon goes, and comes back: the page tells, keeps what it knew, and goes on by itself.
    let toml = std::fs::read_to_string(stand.weir.config())?;
    stand.weir.kill()?;
    page.until("document.body.classList.contains('lost')", LOOK)?;
    page.until(&says("#notices", "Asking again"), LOOK)?;
    page.until(&says(&one, "down"), LOOK)?;
    stand.weir = Weir::start(&stand.lab, &toml)?;
    page.until("!document.body.classList.contains('lost')", LOOK)?;

    drop(stranger);
    let complaints = page.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

/// Presses a button that asks once more. What is pressed may move away as the page is drawn: then again.
fn begin_order(page: &mut Chromium, selector: &str) -> Done {
    wait::until_true("the page asks whether it should", LOOK, || {
        page.click(selector)?;
        Ok(page.evaluate("document.getElementById('dialog').open")? == true)
    })
}

/// Who has drained the servers of `app`.
fn drained_by(stand: &Stand) -> anyhow::Result<Vec<String>> {
    let drains = stand.weir.admin().get("/api/v1/drains")?.json()?;
    let servers = drains["servers"].as_array().cloned().unwrap_or_default();
    let by = servers.iter().filter_map(|server| server["drain"]["who"].as_str());
    Ok(by.map(str::to_owned).collect())
}

/// Once its charts have something to show.
fn pictures(page: &mut Chromium, folder: &Path) -> Done {
    let patience = Duration::from_secs(120);
    page.until(
        "[...document.querySelectorAll('.when')].some((text) => text.textContent === '−2 min')",
        patience,
    )?;
    page.evaluate("scrollTo(0, 0)")?;
    for (name, width, height, dark) in [
        ("dashboard-light.png", 1400, 1400, false),
        ("dashboard-dark.png", 1400, 1400, true),
        ("dashboard-phone.png", 390, 1400, false),
    ] {
        page.screen(width, 900, dark)?;
        page.until(&format!("Math.abs(innerWidth - {width}) < 2"), LOOK)?;
        page.until(
            "document.querySelector('#picture svg').getBoundingClientRect().width <= innerWidth",
            LOOK,
        )?;
        page.picture(&folder.join(name), width, height)?;
    }
    Ok(())
}
