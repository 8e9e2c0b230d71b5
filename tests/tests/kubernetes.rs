//! A cluster's Ingresses and Gateways at the edge, with a server in the API server's place ([`weir_lab::lab::cluster`]).

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_lab::{
    lab::{
        Island,
        certificates::Authority,
        client::Browser,
        cluster::{Cluster, TOKEN},
        ip,
        namespace::As,
        raw::{Raw, serve},
        stand::PATIENCE,
        wait,
        weir::{Weir, run_in},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const API: &str = "127.0.0.1:6443";
const HTTP: &str = "127.0.0.1:80";
const HTTPS: &str = "127.0.0.1:443";

struct Edge {
    weir: Weir,
    island: Island,
    authority: Authority,
    cluster: Arc<Cluster>,
}

fn toml(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "[kernel]\nmode = 'off'\n[admin]\nbind = ['127.0.0.1:9190', 'unix:{folder}/admin.sock']\n[log]\naccess = 'off'\n\
         [state]\ndir = '{folder}/state'\n\
         [entrypoint.http]\nbind = '{HTTP}'\n\
         [entrypoint.https]\nbind = '{HTTPS}'\ntls = {{ certificates = '{folder}/state/kubernetes/cluster' }}\n\
         [provider.cluster]\nkind = 'kubernetes'\naddress = 'http://{API}'\ntoken_file = '{folder}/token'\n\
         http = 'http'\nhttps = 'https'\nsecrets = true\n"
    )
}

/// Pods: what answers says which it is, over HTTP and to whoever begins with TLS.
fn pods(island: &Island) -> Done {
    for name in ["10.1.0.1", "10.1.0.2"] {
        ip(&["-n", island.namespace.name(), "-batch", "-"], &format!("address add {name}/32 dev lo\n"))?;
        serve(&island.namespace, &format!("{name}:8080"), move |_, mut raw| {
            loop {
                let head = raw.head()?;
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                raw.say(format!(
                    "HTTP/1.1 200 OK\r\nX-Upstream: {name}\r\nX-Path: {path}\r\nContent-Length: 0\r\n\r\n"
                ))?;
            }
        })?;
        serve(&island.namespace, &format!("{name}:8443"), move |_, mut raw| {
            raw.say(name)?;
            raw.end()
        })?;
    }
    Ok(())
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "namespace": "shop", "uid": "5d0c", "creationTimestamp": "2026-11-01T10:00:00Z" })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("web"),
        "spec": { "type": "ClusterIP", "clusterIP": "10.96.0.20", "ipFamilies": ["IPv4"], "ports": [
            { "name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP" },
            { "name": "tls", "port": 443, "targetPort": 8443, "protocol": "TCP" },
        ] },
    })
}

fn slice(ready: &[&str]) -> Value {
    let endpoint =
        |address: &&str| json!({ "addresses": [address], "conditions": { "ready": true, "serving": true } });
    let mut metadata = metadata("web-7dk2x");
    metadata["labels"] = json!({ "kubernetes.io/service-name": "web" });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "endpoints": ready.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }, { "name": "tls", "port": 8443, "protocol": "TCP" }],
    })
}

fn ingress(name: &str, host: &str, path: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata(name),
        "spec": {
            "ingressClassName": "weir", "tls": [{ "hosts": [host], "secretName": "web" }],
            "rules": [{ "host": host, "http": { "paths": [{
                "path": path, "pathType": kind, "backend": { "service": { "name": "web", "port": { "name": "web" } } },
            }] } }],
        },
    })
}

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata("edge"),
        "spec": { "gatewayClassName": "weir", "listeners": [
            { "name": "http", "port": 80, "protocol": "HTTP" },
            { "name": "tls", "port": 443, "protocol": "TLS", "tls": { "mode": "Passthrough" } },
        ] },
    })
}

fn route(kind: &str, host: &str, port: u16, rewrite: bool) -> Value {
    let version = if kind == "TLSRoute" { "v1alpha2" } else { "v1" };
    let mut rule = json!({ "backendRefs": [{ "name": "web", "port": port }] });
    if rewrite {
        rule["matches"] = json!([{ "path": { "type": "PathPrefix", "value": "/old" } }]);
        rule["filters"] = json!([{ "type": "URLRewrite", "urlRewrite": {
            "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" } } }]);
    }
    json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind, "metadata": metadata(host),
        "spec": { "parentRefs": [{ "name": "edge" }], "hostnames": [host], "rules": [rule] },
    })
}

impl Edge {
    fn up() -> anyhow::Result<Self> {
        let island = Island::build()?;
        pods(&island)?;
        let authority = Authority::new("the shop's own")?;
        let identity = authority.issue(&["a.example"])?;
        let cluster = Cluster::open(&island.namespace, API)?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata("web"), "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": BASE64_STANDARD.encode(&identity.certificate), "tls.key": BASE64_STANDARD.encode(&identity.key),
            },
        });
        let objects = [
            service(),
            slice(&["10.1.0.1", "10.1.0.2"]),
            secret,
            ingress("web", "a.example", "/", "Prefix"),
            ingress("regex", "x.example", "/a(.*)", "ImplementationSpecific"),
            gateway(),
            route("HTTPRoute", "b.example", 80, true),
            route("TLSRoute", "db.example", 443, false),
        ];
        objects.into_iter().for_each(|object| cluster.put(object));
        cluster.without("tlsroutes");
        fs::write(island.folder().join("token"), format!("{TOKEN}\n"))?;
        let weir = Weir::start_in(&island.namespace, island.folder(), &toml(island.folder()), As::Root)?;
        Ok(Self { weir, island, authority, cluster })
    }

    fn over_http(&self, host: &str) -> anyhow::Result<Browser> {
        let at: SocketAddr = HTTP.parse()?;
        Ok(Browser::plain(&self.island.namespace, at)?.with_host(host))
    }

    /// Who answers over TLS, with the certificate of the Secret.
    fn answers(&self) -> anyhow::Result<Option<String>> {
        let tls = self.authority.client_config(&["http/1.1"])?;
        let browser = Browser::with_tls(&self.island.namespace, HTTPS.parse()?, tls)?.with_host("a.example");
        Ok(browser.get("/")?.upstream().map(str::to_owned))
    }

    fn until_only(&self, pod: &str) -> Done {
        // Twice, since two take turns.
        wait::until_true(&format!("{pod} alone answers"), PATIENCE, || {
            Ok(self.answers()?.as_deref() == Some(pod) && self.answers()?.as_deref() == Some(pod))
        })
    }

    /// What the pod says to a hello with this name, that passes untouched; nothing, if TLS is ended here or refused.
    fn carried(&self, name: &'static str) -> anyhow::Result<String> {
        let config = self.authority.client_config(&[])?;
        let mut hello = Vec::new();
        rustls::ClientConnection::new(config, name.try_into()?)?.write_tls(&mut hello)?;
        let mut raw = Raw::connect(&self.island.namespace, HTTPS.parse()?)?;
        raw.say(hello)?;
        raw.end()?;
        Ok(String::from_utf8_lossy(&raw.rest()?).into_owned())
    }

    fn provider(&self) -> anyhow::Result<Value> {
        Ok(self.weir.status()?["providers"][0].clone())
    }

    fn until_state(&self, state: &str) -> Done {
        wait::until_true(&format!("the cluster is {state}"), PATIENCE, || {
            Ok(self.provider()?["state"] == state)
        })
    }
}

#[test]
fn a_cluster_is_served_at_the_edge_and_goes_on_while_its_api_server_is_away() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut edge = Edge::up()?;

    // 1. What its objects say. The daemon has waited for them, and for the certificate.
    assert!(edge.answers()?.is_some_and(|pod| pod.starts_with("10.1.0.")));
    let reply = edge.over_http("a.example")?.get("/cart")?;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (308, Some("https://a.example/cart")));
    let reply = edge.over_http("b.example")?.get("/old/x")?;
    assert_eq!((reply.status.as_u16(), reply.header("x-path")), (200, Some("/new/x")));
    assert_eq!(edge.over_http("c.example")?.get("/")?.status.as_u16(), 404);

    // 2. An object that can't be served is told, and takes nothing else with it.
    let provider = edge.provider()?;
    assert_eq!((&provider["state"], &provider["kind"]), (&json!("fresh"), &json!("kubernetes")));
    let faults = provider["faults"].to_string();
    assert!(
        faults.contains("ingress/shop/regex") && faults.contains("looks like a regular expression"),
        "{faults}"
    );
    assert_eq!(provider["faults"].as_array().map(Vec::len), Some(1), "{faults}");

    // 3. Endpoints come and go.
    edge.cluster.put(slice(&["10.1.0.2"]));
    edge.until_only("10.1.0.2")?;

    // 4. A server that forgot what happened is asked for everything anew. What was installed meanwhile is found.
    let before = edge.cluster.counts();
    edge.cluster.forget(|cluster| cluster.put(slice(&["10.1.0.1"])));
    edge.until_only("10.1.0.1")?;
    let after = edge.cluster.counts();
    assert!(after.gone > before.gone && after.lists > before.lists, "{before:?} {after:?}");
    assert_eq!(after.refused, 0);

    // 5. While it is away all goes on; what goes wrong with it then is told, and nothing else.
    edge.cluster.away(true);
    edge.until_state("away")?;
    assert_eq!(edge.answers()?.as_deref(), Some("10.1.0.1"));

    // 6. A host that starts meanwhile starts with what ran last, certificates included.
    edge.weir.signal(Signal::SIGTERM)?;
    edge.weir.wait(PATIENCE)?;
    edge.cluster.install("tlsroutes");
    edge.weir =
        Weir::start_in(&edge.island.namespace, edge.island.folder(), &toml(edge.island.folder()), As::Root)?;
    assert_eq!(edge.answers()?.as_deref(), Some("10.1.0.1"));
    assert_eq!(edge.over_http("b.example")?.get("/old")?.header("x-path"), Some("/new"));
    assert!(edge.weir.log_text().contains("provider `cluster` is away"));
    assert_ne!(edge.carried("db.example")?, "10.1.0.1", "it was not installed yet");

    // 7. And it is back, with what was installed and removed meanwhile.
    edge.cluster.remove(&ingress("regex", "x.example", "/", "Prefix"));
    edge.cluster.put(slice(&["10.1.0.2"]));
    edge.cluster.away(false);
    edge.until_only("10.1.0.2")?;
    wait::until_true(
        "TLS is carried to the pod",
        PATIENCE,
        || Ok(edge.carried("db.example")? == "10.1.0.2"),
    )?;
    wait::until_true("nothing is wrong any more", PATIENCE, || Ok(edge.provider()?["faults"] == json!([])))?;
    edge.until_state("fresh")?;
    let socket = edge.island.folder().join("admin.sock");
    let status = run_in(&edge.island.namespace, &socket, &["status"], As::Root)?;
    assert!(status.stdout.contains("provider `cluster` (kubernetes)"), "{status:?}");

    // 8. A Secret that is gone takes its file along, and the hosts of others stay.
    let folder = edge.island.folder().join("state/kubernetes/cluster");
    assert!(folder.join("shop.web.pem").is_file());
    edge.cluster.remove(&ingress("web", "a.example", "/", "Prefix"));
    wait::until_true("the certificate is gone", PATIENCE, || Ok(!folder.join("shop.web.pem").exists()))?;
    assert_eq!(edge.over_http("b.example")?.get("/old")?.status.as_u16(), 200);
    let kept =
        fs::read_to_string(edge.island.folder().join("state/providers/cluster.json")).context("kept")?;
    assert!(!kept.contains("PRIVATE KEY"));
    Ok(())
}
