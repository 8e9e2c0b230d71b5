//! What readers get of a page.

use super::*;
use http::HeaderMap;

static ID: HeaderValue = HeaderValue::from_static("<id>&1");
static TOLD: Told<'_> = Told { request_id: &ID, host: None, at: SystemTime::UNIX_EPOCH };

fn model(html: &str) -> model::Page {
    model::Page {
        name: "maintenance".into(),
        html: Bytes::copy_from_slice(html.as_bytes()),
        languages: Vec::new(),
        status: None,
        retry_after: Duration::from_secs(30),
        live: None,
        assets: Vec::new(),
    }
}

fn page(html: &str) -> Page {
    Page::new(&model(html))
}

fn reader(name: header::HeaderName, value: &'static str) -> Reader {
    Reader::of(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
}

fn body(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

#[test]
fn the_answer_is_never_stored_and_says_when_to_come_back() {
    let answer = page("x {{request_id}}").answer(&Reader::default(), TOLD, Occasion::default());
    assert_eq!((answer.status(), body(&answer)), (StatusCode::SERVICE_UNAVAILABLE, "x &lt;id&gt;&amp;1"));
    assert_eq!(answer.headers()[header::RETRY_AFTER], "30");
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers()["x-request-id"], ID);
    assert!(
        !answer.headers().contains_key(header::CONTENT_SECURITY_POLICY),
        "an author's page may load what it likes"
    );
}

#[test]
fn an_end_that_is_known_is_told_and_browsers_look_sooner() {
    let page = page("{{retry_after}} {{refresh}}");
    for (left, header, html) in
        [(7_200_000, "7200", "7200 30"), (12_001, "13", "13 13"), (1, "1", "1 1"), (0, "1", "1 1")]
    {
        let occasion = Occasion { left: Some(Duration::from_millis(left)), ..Occasion::default() };
        let answer = page.answer(&Reader::default(), TOLD, occasion);
        assert_eq!(answer.headers()[header::RETRY_AFTER], header);
        assert_eq!(body(&answer), html);
    }
}

#[test]
fn a_page_keeps_the_status_that_it_stands_for_but_what_cdns_replace() {
    let mut of = model("x");
    for (stands_for, own, expected) in [
        (None, None, 503),
        (Some(500), None, 500),
        (Some(404), None, 404),
        (Some(502), None, 503),
        (Some(504), None, 503),
        (Some(500), Some(503), 503),
        (None, Some(502), 502),
    ] {
        of.status = own.map(|own| StatusCode::from_u16(own).unwrap());
        let status = stands_for.map(|status| StatusCode::from_u16(status).unwrap());
        let answer = Page::new(&of).answer(&Reader::default(), TOLD, Occasion { status, left: None });
        assert_eq!(answer.status(), expected, "{stands_for:?} {own:?}");
        assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), expected >= 500);
    }
}

#[test]
fn browsers_get_html_programs_get_json_terminals_text_and_grpc_its_status() {
    for (name, value, expected) in [
        (header::ACCEPT, "text/html,application/json;q=0.9", "text/html; charset=utf-8"),
        (header::ACCEPT, "*/*", "text/html; charset=utf-8"),
        (header::ACCEPT, "application/json", "application/problem+json"),
        (header::ACCEPT, "text/plain", "text/plain; charset=utf-8"),
        (header::CONTENT_TYPE, "application/grpc+proto", "application/grpc+proto"),
    ] {
        let answer = page("x").answer(&reader(name, value), TOLD, Occasion::default());
        assert_eq!(answer.headers()[header::CONTENT_TYPE], expected, "{value}");
    }
    let grpc = page("x").answer(&reader(header::CONTENT_TYPE, "application/grpc"), TOLD, Occasion::default());
    assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (StatusCode::OK, &"14".parse().unwrap()));
    let json = page("x").answer(&reader(header::ACCEPT, "application/json"), TOLD, Occasion::default());
    let document: serde_json::Value = serde_json::from_slice(json.body()).unwrap();
    assert_eq!((&document["status"], &document["request_id"]), (&503.into(), &"<id>&1".into()));
}

#[test]
fn own_refusals_are_pages_for_browsers_and_lines_for_the_rest() {
    let error = page(ERROR_HTML);
    let refused =
        |status, reader: &Reader| refusal(StatusCode::from_u16(status).unwrap(), &error, reader, TOLD);
    let html = refused(404, &reader(header::ACCEPT, "text/html"));
    assert!(
        body(&html).contains("<title>404 Not Found</title>") && body(&html).contains("There is nothing here")
    );
    assert!(body(&html).contains("&lt;id&gt;&amp;1") && !body(&html).contains("{{"));
    assert_eq!(html.headers()[header::CONTENT_SECURITY_POLICY], STRICT);
    assert_eq!(body(&refused(404, &Reader::default())), "404 Not Found\n");
    assert_eq!(body(&refused(431, &reader(header::ACCEPT, "*/*"))), "431 Request Header Fields Too Large\n");
    let json = refused(403, &reader(header::ACCEPT, "application/json"));
    assert_eq!(
        (json.status(), json.headers()[header::CONTENT_TYPE].as_bytes()),
        (StatusCode::FORBIDDEN, &b"application/problem+json"[..])
    );
    let grpc = refused(404, &reader(header::CONTENT_TYPE, "application/grpc"));
    assert_eq!(
        (grpc.status(), grpc.headers()["grpc-status"].as_bytes()),
        (StatusCode::NOT_FOUND, &b"12"[..])
    );
    let redirect = refused(308, &reader(header::ACCEPT, "text/html"));
    assert_eq!(body(&redirect), "308 Permanent Redirect\n");
}

#[test]
fn a_page_speaks_its_readers_language() {
    let mut of = model("<!doctype html>\n<html class='x' lang=\"en\">en");
    of.languages =
        vec![("de".into(), Bytes::from_static(b"de")), ("fr-CH".into(), Bytes::from_static(b"fr"))];
    let page = Page::new(&of);
    for (wanted, expected, told) in [
        ("de-DE,de;q=0.9,en;q=0.8", "de", Some("de")),
        ("en-GB,de;q=0.5", "<!doctype", Some("en")),
        ("fr", "fr", Some("fr-CH")),
        ("ja", "<!doctype", Some("en")),
    ] {
        let answer = page.answer(&reader(header::ACCEPT_LANGUAGE, wanted), TOLD, Occasion::default());
        assert!(body(&answer).starts_with(expected), "{wanted}");
        let language = answer.headers().get(header::CONTENT_LANGUAGE).map(|value| value.to_str().unwrap());
        assert_eq!(language, told, "{wanted}");
    }
}

#[test]
fn a_page_says_its_language_itself() {
    for (html, expected) in [
        ("<html lang=\"de-AT\">", Some("de-AT")),
        ("<!doctype html>\n<html class=x lang=pt>", Some("pt")),
        ("<html>", None),
        ("<html lang=\"\">", None),
        ("<html", None),
        ("<body lang=de>", None),
    ] {
        assert_eq!(language_of(html.as_bytes()).as_deref(), expected, "{html}");
    }
}
