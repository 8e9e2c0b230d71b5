//! A draft becomes a configuration that Weir takes, whatever the draft holds.
//!
//! The text is checked as `weir check` does it. What it blames is written as a comment instead, with the reason, and the
//! rest is checked again, until nothing is blamed. An entrypoint is never taken away, since routes name it: it becomes one
//! on loopback. Nor is a route at first, since its requests would find another one, which may be open where this one wasn't:
//! it goes on taking them, and refuses them all. Only where its conditions can't be asked it goes, and the entrypoints that it
//! was for are held back. So one file that is missing costs what it was for, and nothing else.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use toml::Value;

use super::{
    Draft, LeftOut, Place,
    draft::{Kind, Section},
};
use crate::config::{
    self, Diagnostic, Severity,
    inline::{line_of, quoted},
};

/// Where entrypoints that are held back listen.
const HELD_BACK_PORT: u16 = 8443;

/// The least that is valid.
const NOTHING: &str = "[entrypoint.http]\nbind = \"127.0.0.1:8080\"\n";

/// Keys without which a section does the same, only worse: they may go alone. No other may, since it could let in or send
/// on what was kept out.
const DISPENSABLE: &[&str] = &[
    "balance",
    "hash_by",
    "health",
    "hsts",
    "limits",
    "pages",
    "pool",
    "priority",
    "retry",
    "slow_start",
    "sticky",
    "timeouts",
    "when_all_down",
];

/// The service of routes that refuse everything, since a route has one.
const NOBODY: &str = "not-imported";

/// A configuration that is valid here and now.
#[derive(Debug)]
pub struct Imported {
    pub text: String,
    pub left_out: Vec<LeftOut>,
    /// Entrypoints that listen on loopback until somebody has looked, with the reasons.
    pub held_back: Vec<(String, Vec<String>)>,
    pub warnings: Vec<Diagnostic>,
}

/// What a route does with what it takes; all else says what that is.
const LEADS: &[&str] = &["middleware", "mirror", "pages", "service", "split", "sticky", "fall_over"];

/// What has become of each section so far.
struct Fate {
    /// Why it is a comment.
    gone: Option<String>,
    /// Of a route: why it refuses everything.
    closed: Option<String>,
    keys_gone: BTreeSet<String>,
}

/// Writes the draft as it would stand in `place`.
#[must_use]
pub fn settle(mut draft: Draft, place: &Path) -> Imported {
    draft.sections.sort_by_key(|section| section.kind);
    if !draft.sections.iter().any(|section| section.kind == Kind::Entrypoint) {
        let nowhere = Place { file: draft.from.into(), line: 0 };
        let section = draft.add(Kind::Entrypoint, "http", &nowhere);
        draft.set(section, "bind", "127.0.0.1:8080");
        draft.note(section, "nothing that was imported listens anywhere: this keeps the file valid");
        draft.sections.sort_by_key(|section| section.kind);
    }
    let mut fates: Vec<Fate> = draft
        .sections
        .iter()
        .map(|_| Fate { gone: None, closed: None, keys_gone: BTreeSet::new() })
        .collect();
    let mut desperate = false;
    // Each round takes something away, so there are no more of them than that.
    loop {
        let (text, lines) = write(&draft, &fates);
        let report = match config::load_text(place, &text) {
            Ok(loaded) => {
                let held_back = draft
                    .sections
                    .iter()
                    .filter(|section| section.kind == Kind::Entrypoint)
                    .filter_map(|section| Some((section.name.clone(), reasons(&draft, section)?)))
                    .collect();
                return Imported { text, left_out: draft.left_out, held_back, warnings: loaded.warnings };
            }
            Err(report) => report,
        };
        let faults = report.diagnostics.iter().filter(|fault| fault.severity == Severity::Error);
        let mut progress = false;
        for fault in faults {
            progress |= blame(&mut draft, &mut fates, &lines, fault);
        }
        if !progress && std::mem::replace(&mut desperate, true) {
            let text =
                format!("# Nothing of this {} configuration could be made valid.\n{NOTHING}", draft.from);
            return Imported { text, left_out: draft.left_out, held_back: Vec::new(), warnings: Vec::new() };
        }
        if !progress {
            // Nobody to blame, or blamed already: all that is left is to go on without any of it.
            for (section, fate) in draft.sections.iter().zip(&mut fates) {
                if section.kind != Kind::Entrypoint {
                    fate.gone.get_or_insert_with(|| report.lines());
                }
            }
            draft.hold_back_all("what belongs to it could not be made valid");
        }
    }
}

/// Takes away what a fault is about. False: that was done before.
fn blame(
    draft: &mut Draft,
    fates: &mut [Fate],
    lines: &[(usize, Option<String>)],
    fault: &Diagnostic,
) -> bool {
    let Some((nth, key)) = fault.line.and_then(|line| lines.get(line.checked_sub(1)?)) else { return false };
    let (nth, section) = (*nth, &draft.sections[*nth]);
    let (kind, place, title) = (section.kind, section.place.clone(), section.title());
    let why = format!("weir check would say: {}", fault.message);
    if fates[nth].gone.is_some() {
        return false;
    }
    if let Some(key) = key
        && DISPENSABLE.contains(&key.as_str())
    {
        if !fates[nth].keys_gone.insert(key.clone()) {
            return false;
        }
        draft.leave(&place, &format!("{key} of {title}"), &why);
        return true;
    }
    if kind == Kind::Entrypoint {
        if without_a_certificate(draft, nth, &fault.message) {
            return true;
        }
        let name = draft.sections[nth].name.clone();
        let known = draft.held_back.entry(name).or_default();
        return known.insert(why);
    }
    if kind == Kind::Route {
        let carries = section.keys.iter().any(|(key, _)| key == "passthrough");
        if !carries && fates[nth].closed.is_none() {
            draft.leave(&place, &title, &format!("{why}; it refuses what it takes until that is mended"));
            fates[nth].closed = Some(why);
            return true;
        }
        let reason =
            format!("{place}: {title} could not be made valid, and what it takes would take other routes");
        match draft.get(nth, "entrypoint").map(names) {
            Some(entrypoints) => {
                entrypoints.iter().for_each(|entrypoint| draft.hold_back(entrypoint, &reason));
            }
            None => draft.hold_back_all(&reason),
        }
    }
    draft.leave(&place, &title, &why);
    fates[nth].gone = Some(why);
    true
}

/// Goes on without the certificate that is blamed, as long as there is another one.
fn without_a_certificate(draft: &mut Draft, entrypoint: usize, blame: &str) -> bool {
    let section = &mut draft.sections[entrypoint];
    let tls = section.keys.iter_mut().find(|(key, _)| key == "tls").and_then(|(_, tls)| tls.as_table_mut());
    let Some(Value::Array(files)) = tls.and_then(|tls| tls.get_mut("certificates")) else { return false };
    let blamed = |file: &Value| file.as_str().is_some_and(|file| blame.contains(file));
    let (gone, left): (Vec<Value>, Vec<Value>) = std::mem::take(files).into_iter().partition(blamed);
    if gone.is_empty() || left.is_empty() {
        *files = gone.into_iter().chain(left).collect();
        return false;
    }
    *files = left;
    let place = section.place.clone();
    for file in gone.iter().filter_map(Value::as_str) {
        draft.leave(&place, &format!("the certificate {file}"), &format!("weir check would say: {blame}"));
    }
    true
}

/// Of a list, or one alone.
fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(name) => vec![name.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Why an entrypoint is held back, if it is.
fn reasons(draft: &Draft, section: &Section) -> Option<Vec<String>> {
    let of = |name: &str| draft.held_back.get(name).into_iter().flatten();
    let reasons: Vec<String> = of(&section.name).chain(of("")).cloned().collect();
    (!reasons.is_empty()).then_some(reasons)
}

/// The text; and for each of its lines the section it belongs to, and the key.
fn write(draft: &Draft, fates: &[Fate]) -> (String, Vec<(usize, Option<String>)>) {
    let mut page = Page::default();
    page.comment(
        0,
        &format!("Imported from {}. `weir check` takes it; have a look before it runs.", draft.from),
    );
    if !draft.left_out.is_empty() {
        page.comment(0, "");
        page.comment(0, "Left out:");
        for left in &draft.left_out {
            page.comment(0, &format!("- {left}"));
        }
    }
    let mut port = HELD_BACK_PORT;
    let mut refused = false;
    let mut nobody = NOBODY.to_owned();
    while draft.find(Kind::Service, &nobody).is_some() {
        nobody.push('-');
    }
    for (nth, (section, fate)) in draft.sections.iter().zip(fates).enumerate() {
        page.line(nth, None, "");
        if section.place.line > 0 {
            page.comment(nth, &format!("from {}", section.place));
        }
        for note in &section.notes {
            page.comment(nth, note);
        }
        let keys = section.keys.iter().filter(|(key, _)| !fate.keys_gone.contains(key));
        if let Some(why) = &fate.gone {
            page.comment(nth, why);
            page.comment(nth, &section.header());
            for (key, value) in keys {
                page.comment(nth, &format!("{key} = {value}"));
            }
            continue;
        }
        let held_back = if section.kind == Kind::Entrypoint { reasons(draft, section) } else { None };
        if let Some(reasons) = held_back {
            page.comment(nth, "HELD BACK: it listens on loopback until you have looked at this:");
            for reason in reasons {
                page.comment(nth, &format!("- {reason}"));
            }
            page.comment(nth, "Then write this in its place:");
            for (key, value) in keys {
                page.comment(nth, &format!("{key} = {value}"));
            }
            page.line(nth, None, &section.header());
            page.line(nth, None, &format!("bind = \"127.0.0.1:{port}\""));
            // What it is of, the routes that name it count on.
            if let Some(protocol) = draft.get(nth, "protocol") {
                page.line(nth, None, &format!("protocol = {}", line_of(protocol)));
            }
            // The admin interface has 9190.
            port = if port == 9189 { 9191 } else { port.saturating_add(1) };
            continue;
        }
        page.line(nth, None, &section.header());
        if let Some(why) = &fate.closed {
            refused = true;
            page.comment(nth, why);
            page.comment(nth, "REFUSES everything until you have looked at that. Then write this in the place of the last two lines:");
            let (ask, does): (Vec<_>, Vec<_>) = keys.partition(|(key, _)| !LEADS.contains(&key.as_str()));
            for (key, value) in does {
                page.comment(nth, &format!("{key} = {}", line_of(value)));
            }
            for (key, value) in ask {
                page.line(nth, Some(key), &format!("{key} = {}", line_of(value)));
            }
            page.line(nth, None, "middleware = [{ clients = { deny = [\"0.0.0.0/0\", \"::/0\"] } }]");
            page.line(nth, None, &format!("service = {}", quoted(&nobody)));
            continue;
        }
        for (key, value) in keys {
            page.line(nth, Some(key), &format!("{key} = {}", line_of(value)));
        }
    }
    if refused {
        page.line(0, None, "");
        page.comment(0, "of routes that refuse everything; nobody is ever asked there");
        page.line(0, None, &format!("[service.{nobody}]"));
        page.line(0, None, "servers = [\"127.0.0.1:9\"]");
    }
    (page.text, page.lines)
}

#[derive(Default)]
struct Page {
    text: String,
    lines: Vec<(usize, Option<String>)>,
}

impl Page {
    fn line(&mut self, section: usize, key: Option<&str>, line: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{line}");
        self.lines.push((section, key.map(str::to_owned)));
    }

    fn comment(&mut self, section: usize, text: &str) {
        for line in text.lines().chain(text.is_empty().then_some("")) {
            // TOML takes no control characters in comments, and a carriage return would end nothing.
            let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
            self.line(section, None, format!("# {line}").trim_end());
        }
    }
}

impl Section {
    fn header(&self) -> String {
        match self.kind {
            Kind::Kernel => "[kernel]".to_owned(),
            Kind::Acme => "[acme]".to_owned(),
            Kind::Route => "[[route]]".to_owned(),
            kind => format!("[{}.{}]", kind.word(), self.name),
        }
    }

    fn title(&self) -> String {
        format!("{} `{}`", self.kind.word(), self.name)
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Acme => "acme",
            Self::Allowlist => "allowlist",
            Self::Entrypoint => "entrypoint",
            Self::Service => "service",
            Self::Page => "page",
            Self::Middleware => "middleware",
            Self::Route => "route",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { file: "nginx.conf".into(), line: 7 }
    }

    fn draft() -> Draft {
        let mut draft = Draft::new("nginx");
        let web = draft.add(Kind::Entrypoint, "web", &place());
        draft.set(web, "bind", "0.0.0.0:80");
        let app = draft.add(Kind::Service, "app", &place());
        draft.push(app, "servers", "10.0.0.1:80");
        let route = draft.add(Kind::Route, "all", &place());
        draft.set(route, "service", "app");
        draft
    }

    #[test]
    fn a_good_draft_is_written_as_it_is() {
        let imported = settle(draft(), Path::new("weir.toml"));
        assert!(imported.left_out.is_empty() && imported.held_back.is_empty(), "{imported:?}");
        assert!(
            imported.text.contains("# from nginx.conf:7\n[entrypoint.web]\nbind = \"0.0.0.0:80\"\n"),
            "{}",
            imported.text
        );
    }

    #[test]
    fn what_is_only_worse_without_goes_alone() {
        let mut draft = draft();
        draft.put(1, "health", "path", "no path");
        let imported = settle(draft, Path::new("weir.toml"));
        assert!(imported.held_back.is_empty(), "{}", imported.text);
        assert!(
            imported.text.contains("[service.app]") && !imported.text.contains("\nhealth"),
            "{}",
            imported.text
        );
        assert_eq!(imported.left_out.len(), 1);
    }

    #[test]
    fn an_entrypoint_without_its_certificate_waits_on_loopback() {
        let mut draft = draft();
        draft.put(0, "tls", "certificates", "/nowhere/site.pem");
        let imported = settle(draft, Path::new("weir.toml"));
        assert_eq!(imported.held_back.len(), 1);
        assert!(imported.text.contains("[entrypoint.web]\nbind = \"127.0.0.1:8443\"\n"), "{}", imported.text);
        assert!(imported.text.contains("# tls = { certificates"), "{}", imported.text);
    }

    #[test]
    fn a_missing_file_costs_what_it_was_for_and_nothing_else() {
        let mut draft = draft();
        let admin = draft.add(Kind::Route, "admin", &place());
        draft.set(admin, "path", "/admin");
        draft.set(admin, "service", "app");
        let users = super::super::draft::table_of([("file", Value::from("/nowhere/htpasswd"))]);
        let guard = super::super::draft::table_of([("basic_auth", users.into())]);
        draft.push(admin, "middleware", Value::from(guard));
        let page = draft.add(Kind::Page, "sorry", &place());
        draft.set(page, "html", "/nowhere/sorry.html");
        draft.set(1, "when_all_down", "page:sorry");
        let imported = settle(draft, Path::new("weir.toml"));
        assert!(imported.held_back.is_empty(), "{}", imported.text);
        let refuses = "path = \"/admin\"\nmiddleware = [{ clients = { deny = [\"0.0.0.0/0\", \"::/0\"] } }]\nservice = \"not-imported\"\n";
        assert!(imported.text.contains(refuses), "{}", imported.text);
        assert!(imported.text.contains("bind = \"0.0.0.0:80\"\n"), "{}", imported.text);
        assert!(imported.text.contains("[service.app]\nservers"), "{}", imported.text);
        assert_eq!(imported.left_out.len(), 3, "{:?}", imported.left_out);
    }

    #[test]
    fn one_certificate_that_is_missing_leaves_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let file = folder.path().join("a.pem");
        std::fs::write(&file, own.cert.pem() + &own.signing_key.serialize_pem()).unwrap();
        let mut draft = draft();
        let files = ["/nowhere/b.pem", file.to_str().unwrap()].map(Value::from).to_vec();
        draft.put(0, "tls", "certificates", Value::Array(files));
        let imported = settle(draft, Path::new("weir.toml"));
        assert!(imported.held_back.is_empty(), "{}", imported.text);
        assert!(
            imported.left_out.iter().any(|left| left.what.contains("/nowhere/b.pem")),
            "{:?}",
            imported.left_out
        );
        assert!(imported.text.contains("a.pem\"]"), "{}", imported.text);
    }

    #[test]
    fn where_a_route_is_lost_nothing_is_open() {
        let mut draft = draft();
        let admin = draft.add(Kind::Route, "admin", &place());
        draft.set(admin, "path", "no path");
        draft.set(admin, "service", "app");
        draft.push(
            admin,
            "middleware",
            Value::from(super::super::draft::table_of([("basic_auth", Value::from("odd"))])),
        );
        let imported = settle(draft, Path::new("weir.toml"));
        assert!(!imported.text.contains("\npath = "), "{}", imported.text);
        assert!(imported.text.contains("bind = \"127.0.0.1:8443\""), "{}", imported.text);
    }

    proptest::proptest! {
        #[test]
        fn whatever_text_comes_in_the_result_is_valid(
            names in proptest::collection::vec(".{0,12}", 1..5),
            values in proptest::collection::vec("(\\PC|[\"'\\\\\n\r\t]){0,20}", 1..8),
        ) {
            let mut draft = draft();
            for (name, value) in names.iter().zip(values.iter().cycle()) {
                let route = draft.add(Kind::Route, name, &place());
                draft.set(route, "host", value.as_str());
                draft.set(route, "path", value.as_str());
                draft.set(route, "service", name.as_str());
                let service = draft.add(Kind::Service, name, &place());
                draft.push(service, "servers", value.as_str());
                draft.note(service, value.as_str());
                draft.leave(&place(), value, value);
            }
            // That it ends, and that its end is valid, is what `settle` returns by.
            let imported = settle(draft, Path::new("weir.toml"));
            proptest::prop_assert!(config::load_text(Path::new("weir.toml"), &imported.text).is_ok());
        }
    }
}
