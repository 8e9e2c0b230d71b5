//! Traces and pushed metrics, as a collector gets them: OTLP over gRPC and over HTTP, read by OpenTelemetry's own definitions.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde_json::{Value, json};
use weir_lab::{
    lab::{
        SITE,
        client::{Browser, Reply, nothing},
        process::Process,
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const ONE_OF_APP: &str = "10.0.0.11:8080";

/// A receiver in the edge, and what it has received.
struct Collector {
    #[expect(dead_code, reason = "runs as long as it is held")]
    process: Process,
    file: PathBuf,
    metrics: PathBuf,
}

impl Collector {
    fn start(stand: &Stand) -> anyhow::Result<Self> {
        let (file, metrics) = (stand.lab.folder().join("spans"), stand.lab.folder().join("metrics"));
        let mut python = stand.lab.edge.command(needs::python())?;
        python.args(["-c", include_str!("support/otlp.py"), "127.0.0.1:4317", "127.0.0.1:4318"]);
        python.arg(&file).arg(&metrics);
        let log = stand.lab.folder().join("collector.log");
        let process =
            Process::start_and_wait_for_a_line("the collector", python, &log, Duration::from_secs(20))?;
        Ok(Self { process, file, metrics })
    }

    fn spans(&self) -> Vec<Value> {
        lines(&self.file)
    }

    /// The latest data point of a metric that came over this protocol and has these attributes.
    fn point(&self, over: &str, name: &str, attributes: &Value) -> anyhow::Result<Value> {
        wait::until(&format!("{name} is pushed over {over}"), PATIENCE, || {
            let is_it = |point: &Value| {
                point["over"] == over && point["name"] == name && point["attributes"] == *attributes
            };
            Ok(lines(&self.metrics).into_iter().rfind(is_it))
        })
    }

    /// The spans of the trace of which one is about this path. An attempt may come in a push before the request that it was made for,
    /// or after it.
    fn trace_of(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        wait::until(&format!("the trace of {path} arrives"), PATIENCE, || {
            let spans = self.spans();
            let request = spans.iter().find(|span| span["attributes"]["url.path"] == path);
            let trace = request.map(|span| span["trace"].clone());
            let Some(trace) = trace else { return Ok(None) };
            let spans: Vec<_> = spans.into_iter().filter(|span| span["trace"] == trace).collect();
            Ok(named(&spans, "GET").is_ok().then_some(spans))
        })
    }
}

fn lines(file: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn ask(stand: &Stand, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Reply> {
    let mut request = stand.visitor.request("GET", path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    stand.visitor.send(request.body(nothing())?)
}

fn named<'a>(spans: &'a [Value], name: &str) -> anyhow::Result<&'a Value> {
    let found = spans.iter().find(|span| span["name"] == name);
    found.with_context(|| format!("no span `{name}` among {spans:#?}"))
}

#[test]
fn a_collector_sees_what_became_of_a_request_and_how_many_there_were() -> Done {
    needs!(
        Need::Root,
        Need::Weir,
        Need::Ebpf,
        Need::PythonPackage("grpc, opentelemetry.proto.trace.v1, prometheus_client")
    );
    let tracing = |protocol: &str, port: u16, sample: &str| {
        format!(
            "[tracing]\nendpoint = \"http://127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\nsample = \"{sample}\"\n\
             parent = \"always\"\nservice = \"edge\"\nattributes = {{ \"deployment.environment.name\" = \"lab\" }}\n\
             headers = {{ x-api-key = \"secret\" }}\n\
             [metrics]\nendpoint = \"http://127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\nevery = \"1s\"\n\
             service = \"edge\"\nheaders = {{ x-api-key = \"secret\" }}\n"
        )
    };
    let mut standard = String::new();
    let mut stand = Stand::up_with(|_, toml| {
        standard = toml.replace("[state]", "redact = { query = [\"token\"] }\n\n[state]");
        format!("{}\n{standard}", tracing("grpc", 4317, "0%"))
    })?;
    let collector = Collector::start(&stand)?;

    // Sampling is the caller's decision, and its trace goes on to the server.
    let traceparent = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");
    let unsampled = ask(&stand, "/headers", &[("traceparent", &traceparent("00"))])?.json()?;
    let told = unsampled["traceparent"][0].as_str().context("no traceparent at the server")?.to_owned();
    assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00"), "{told}");
    assert!(!told.contains(PARENT), "{told}");

    let fields = [("traceparent", &*traceparent("01")), ("tracestate", "a=1")];
    let reply = ask(&stand, "/headers?token=abc&id=7", &fields)?;
    let seen = reply.json()?;
    assert_eq!(seen["tracestate"][0], "a=1");
    let spans = collector.trace_of("/headers")?;
    let (request, attempt) = (named(&spans, &format!("GET {SITE}"))?, named(&spans, "GET")?);
    assert_eq!((&request["trace"], &request["parent"]), (&TRACE.into(), &PARENT.into()));
    assert_eq!(
        (&request["kind"], &attempt["kind"]),
        (&"SPAN_KIND_SERVER".into(), &"SPAN_KIND_CLIENT".into())
    );
    assert_eq!(attempt["parent"], request["id"]);
    let told = format!("00-{TRACE}-{}-01", attempt["id"].as_str().unwrap_or_default());
    assert_eq!(seen["traceparent"][0], told, "the server's parent is the attempt");
    assert_eq!((&request["over"], &request["key"]), (&"grpc".into(), &"secret".into()));
    assert_eq!(request["resource"]["service.name"], "edge");
    assert_eq!(request["resource"]["deployment.environment.name"], "lab");
    let of = |span: &Value, name: &str| span["attributes"][name].clone();
    for (name, expected) in [
        ("http.request.method", Value::from("GET")),
        ("http.response.status_code", 200.into()),
        ("http.route", SITE.into()),
        ("url.query", "token=[redacted]&id=7".into()),
        ("url.scheme", "https".into()),
        ("server.address", SITE.into()),
        ("server.port", 443.into()),
        ("client.address", "173.245.48.10".into()),
        ("network.protocol.version", "1.1".into()),
        ("weir.entrypoint", "https".into()),
        ("weir.request_id", reply.header("x-request-id").unwrap_or_default().into()),
    ] {
        assert_eq!(of(request, name), expected, "{name}");
    }
    assert_eq!(of(attempt, "url.full"), format!("http://{SITE}/headers?token=[redacted]&id=7"));
    assert_eq!(of(attempt, "weir.service"), "app");
    assert!(attempt["took"].as_i64() <= request["took"].as_i64(), "{spans:#?}");
    let log = stand.lab.folder().join("access.log");
    wait::until_true("the access log names the trace", PATIENCE, || {
        Ok(std::fs::read_to_string(&log)?.contains(&format!("\"trace_id\":\"{TRACE}\"")))
    })?;

    metrics_are_pushed(&collector, "grpc")?;
    the_trace_is_an_example(&stand)?;

    // Every request, over HTTP, with what goes wrong.
    // Each connection to a server serves one request.
    let unpooled = standard.replace("when_all_down", "pool = { idle = 0 }\nwhen_all_down");
    stand.weir.rewrite_config(&format!("{}\n{unpooled}", tracing("http", 4318, "100%")))?;
    wait::until_true("everything is traced", PATIENCE, || {
        Browser::of_site(&stand.lab, &stand.lab.visitor)?.get("/fresh")?;
        let spans = collector.spans();
        let is_there =
            |name: &&str| spans.iter().any(|span| span["over"] == "http" && span["name"] == **name);
        Ok(["tls handshake", "connect"].iter().all(is_there))
    })?;
    assert_eq!(ask(&stand, "/status/503", &[])?.status, 503);
    let spans = collector.trace_of("/status/503")?;
    let request = named(&spans, &format!("GET {SITE}"))?;
    assert_eq!((&request["over"], &request["parent"]), (&"http".into(), &"".into()));
    assert_eq!(
        (&request["status"], &of(request, "weir.fault")),
        (&"STATUS_CODE_ERROR".into(), &"server".into())
    );
    let resent = |span: &&Value| of(span, "http.request.resend_count") == 1;
    let again = spans.iter().find(resent).with_context(|| format!("nothing was sent again: {spans:#?}"))?;
    assert_eq!((&again["parent"], &of(again, "error.type")), (&request["id"], &"503".into()));
    let attempts: Vec<_> = spans.iter().filter(|span| span["kind"] == "SPAN_KIND_CLIENT").collect();
    assert_eq!(attempts.len(), 2, "{spans:#?}");
    assert_ne!(of(attempts[0], "server.address"), of(attempts[1], "server.address"));

    stand.one.kill()?;
    stand.two.kill()?;
    let page = wait::until("a page is traced", PATIENCE, || {
        ask(&stand, "/page", &[])?;
        Ok(collector.spans().into_iter().find(|span| span["name"] == "page"))
    })?;
    assert_eq!(page["attributes"]["weir.page"], "all_down");
    let status = stand.weir.status()?;
    assert!(status["tracing"]["exported"].as_u64() > Some(0), "{status:#}");
    assert_eq!(status["tracing"]["dropped"], 0);
    metrics_are_pushed(&collector, "http")?;
    let status = stand.weir.status()?;
    assert!(status["metrics_push"]["taken"].as_u64() >= Some(2), "{status:#}");
    what_came_last_is_told_at_the_end(
        &mut stand,
        &collector,
        &format!("{}\n{unpooled}", tracing("http", 4318, "100%")),
    )
}

/// With an hour until the next push.
fn what_came_last_is_told_at_the_end(stand: &mut Stand, collector: &Collector, toml: &str) -> Done {
    stand.weir.rewrite_config(&toml.replace("every = \"1s\"", "every = \"1h\""))?;
    let rare = |configuration: &Value| {
        let sections = configuration["sections"].as_array();
        let metrics = sections.into_iter().flatten().find(|section| section["section"] == "metrics");
        metrics.is_some_and(|metrics| metrics["keys"]["every"] == "1h")
    };
    wait::until_true("pushes are rare", PATIENCE, || {
        Ok(rare(&stand.weir.admin().get("/api/v1/configuration")?.json()?))
    })?;
    ask(stand, "/last", &[])?;
    let text = stand.weir.admin().get("/metrics")?.text();
    let series = "weir_service_requests_total{service=\"app\"} ";
    let counted = text.lines().find_map(|line| line.strip_prefix(series)).context("no such series")?;
    let counted: f64 = counted.parse()?;
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    assert!(stand.weir.terminate()?.success(), "{}", stand.weir.log_text());
    let last = collector.point("http", "weir_service_requests_total", &json!({ "service": "app" }))?;
    assert!(last["at"].as_u64().map(u128::from) > Some(before), "it was pushed before the end: {last}");
    assert_eq!(last["value"].as_f64(), Some(counted), "{last}");
    let spans = collector.spans();
    assert!(spans.iter().any(|span| span["attributes"]["url.path"] == "/last"), "{spans:#?}");
    Ok(())
}

/// One of each kind. The trace of the one request that is sampled is the example of its bucket.
fn metrics_are_pushed(collector: &Collector, over: &str) -> Done {
    let of_app = json!({ "service": "app" });
    let answers = collector.point(over, "weir_service_answer_seconds", &of_app)?;
    assert_eq!((&answers["key"], &answers["resource"]["service.name"]), (&"secret".into(), &"edge".into()));
    assert_eq!((&answers["kind"], &answers["unit"]), (&"histogram".into(), &"s".into()));
    assert_eq!(answers["temporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    let numbers = |name: &str| -> Vec<f64> {
        answers[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let (counts, bounds) = (numbers("counts"), numbers("bounds"));
    assert_eq!(counts.len(), bounds.len() + 1, "{answers}");
    assert_eq!(Some(counts.iter().sum::<f64>()), answers["count"].as_f64());
    assert!(bounds.is_sorted() && answers["since"].as_u64() < answers["at"].as_u64(), "{answers}");
    let examples = answers["exemplars"].as_array().context("no exemplars")?;
    assert!(over == "http" || examples.iter().all(|trace| trace == TRACE), "{answers}");

    let requests = collector.point(over, "weir_service_requests_total", &of_app)?;
    assert_eq!((&requests["kind"], &requests["monotonic"]), (&"sum".into(), &true.into()));
    assert!(requests["value"].as_f64() >= Some(2.0) && requests["described"] == true, "{requests}");
    let up = collector.point(over, "weir_server_up", &json!({ "service": "app", "server": ONE_OF_APP }))?;
    assert_eq!(up["kind"], "gauge");
    // What the kernel counts is older than this daemon.
    let passed = collector.point(over, "weir_gate_passed_bytes_total", &json!({ "entrypoint": "https" }))?;
    assert_eq!((&passed["since"], &passed["unit"]), (&0.into(), &"By".into()));
    Ok(())
}

/// In OpenMetrics, as their reference parser reads them.
fn the_trace_is_an_example(stand: &Stand) -> Done {
    let request = stand.weir.admin().request("GET", "/metrics");
    let request = request.header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    let reply = stand.weir.admin().send(request.body(nothing())?)?;
    assert_eq!(
        reply.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let file = stand.lab.folder().join("open.metrics");
    std::fs::write(&file, reply.text())?;
    let read = Command::new(needs::python())
        .args(["-c", include_str!("support/openmetrics.py")])
        .arg(&file)
        .output()
        .context("python")?;
    let said = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{}\n{}", String::from_utf8_lossy(&read.stderr), reply.text());
    assert!(said.lines().any(|line| line == format!("weir_service_answer_seconds {TRACE}")), "{said}");
    Ok(())
}
