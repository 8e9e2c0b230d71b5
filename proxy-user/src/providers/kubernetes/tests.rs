//! Objects as `kubectl get -o json` prints them → documents, and what the configuration makes of those.

#![expect(clippy::needless_pass_by_value, reason = "values are passed as `json!` makes them")]

use std::fs;

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Kind},
    translate::translate,
};
use crate::config::{
    self, Loaded,
    documents::{DocumentFault, Supplies, Supply},
    model::{Access, Kubernetes, PortOf},
};

const OWN: &str = "[entrypoint.http]\nbind = '127.0.0.1:80'\n[entrypoint.https]\nbind = '127.0.0.1:443'\n\
    tls = { certificates = 'own.pem' }\n[middleware.office]\nclients = { allow = ['192.0.2.0/24'] }\n\
    [provider.k]\nkind = 'kubernetes'\nhttp = 'http'\nhttps = 'https'\n";

fn terms() -> Kubernetes {
    let port = |entrypoint: &str, port| vec![PortOf { entrypoint: entrypoint.into(), port }];
    Kubernetes {
        access: Access::InCluster,
        namespaces: Vec::new(),
        ingress_class: Some("weir".into()),
        gateway_class: Some("weir".into()),
        http: port("http", 80),
        https: port("https", 443),
        passthrough: port("https", 443),
        external_names: false,
        certificates: None,
    }
}

/// A name as metadata, with annotations.
fn named(name: &str, annotations: Value) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": "0f", "resourceVersion": "12", "generation": 1,
        "creationTimestamp": "2026-11-01T10:00:00Z", "annotations": annotations,
        "managedFields": [{ "manager": "kubectl", "operation": "Update" }],
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": named(name, json!({})),
        "spec": {
            "clusterIP": "10.96.0.20", "ipFamilies": ["IPv4"], "type": "ClusterIP", "selector": { "app": name },
            "ports": [
                { "name": "web", "port": 80, "protocol": "TCP", "targetPort": 8080 },
                { "name": "tls", "port": 443, "protocol": "TCP", "targetPort": 8443 },
            ],
        },
        "status": { "loadBalancer": {} },
    })
}

fn slice(service: &str, endpoints: Value) -> Value {
    let mut metadata = named(&format!("{service}-x7k2p"), json!({}));
    metadata["labels"] = json!({ "kubernetes.io/service-name": service });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }, { "name": "tls", "port": 8443, "protocol": "TCP" }],
    })
}

fn ready(address: &str) -> Value {
    json!({
        "addresses": [address], "nodeName": "n1", "zone": "z1",
        "conditions": { "ready": true, "serving": true, "terminating": false },
    })
}

fn ingress(name: &str, annotations: Value, spec: Value) -> (Kind, Value) {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": named(name, annotations), "spec": spec,
        "status": { "loadBalancer": {} },
    });
    (Kind::Ingress, object)
}

fn path(path: &str, kind: &str, service: &str) -> Value {
    json!({ "path": path, "pathType": kind, "backend": { "service": { "name": service, "port": { "number": 80 } } } })
}

fn gateway() -> (Kind, Value) {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": named("edge", json!({})),
        "spec": { "gatewayClassName": "weir", "listeners": [
            { "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "Same" } } },
            { "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example",
              "tls": { "mode": "Terminate", "certificateRefs": [{ "group": "", "kind": "Secret", "name": "web" }] } },
            { "name": "tls", "port": 443, "protocol": "TLS", "tls": { "mode": "Passthrough" } },
        ] },
    });
    (Kind::Gateway, object)
}

fn http_route(name: &str, hosts: Value, rules: Value) -> (Kind, Value) {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": named(name, json!({})),
        "spec": {
            "parentRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
            "hostnames": hosts, "rules": rules,
        },
    });
    (Kind::HttpRoute, object)
}

fn to(name: &str, weight: u32) -> Value {
    json!({ "group": "", "kind": "Service", "name": name, "port": 80, "weight": weight })
}

struct Served {
    loaded: Loaded,
    /// By name.
    texts: std::collections::BTreeMap<String, String>,
    told: Vec<String>,
}

fn served(objects: impl IntoIterator<Item = (Kind, Value)>) -> Served {
    served_as(&terms(), objects)
}

fn served_as(terms: &Kubernetes, objects: impl IntoIterator<Item = (Kind, Value)>) -> Served {
    let mut cluster = Cluster::default();
    let usual = [
        (Kind::Service, service("web")),
        (Kind::Service, service("api")),
        (Kind::EndpointSlice, slice("web", json!([ready("10.1.0.1"), ready("10.1.0.2")]))),
        (Kind::EndpointSlice, slice("api", json!([ready("10.1.0.9")]))),
    ];
    for (kind, object) in usual.into_iter().chain(objects) {
        cluster.put(kind, object);
    }
    let documents = translate("k", &cluster, terms).composed.documents("k");
    let texts =
        documents.iter().filter_map(|one| Some((one.name.clone(), one.text.as_deref().ok()?.to_owned())));
    let texts = texts.collect();
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["own.example".to_owned()]).unwrap();
    fs::write(folder.path().join("own.pem"), own.cert.pem() + &own.signing_key.serialize_pem()).unwrap();
    let path = folder.path().join("weir.toml");
    fs::write(&path, OWN).unwrap();
    let supply = Supply { wanted: documents, ..Supply::default() };
    let loaded = config::load_with(&path, &Supplies::from([("k".into(), supply)])).unwrap();
    let told = loaded.taken.faults.iter().map(DocumentFault::why).collect();
    Served { loaded, texts, told }
}

impl Served {
    /// What is written for requests of a rule, without what it was made of.
    fn text(&self, document: &str) -> String {
        let Some(text) = self.texts.get(document) else { panic!("{:?} {:?}", self.texts.keys(), self.told) };
        text.lines().map(|line| line.split("  #: ").next().unwrap_or_default().to_owned() + "\n").collect()
    }

    fn fine(self) -> Self {
        assert_eq!(self.told, Vec::<String>::new());
        self
    }

    fn routes(&self) -> Vec<&str> {
        self.loaded.config.routes.iter().map(|route| &*route.name).collect()
    }
}

#[test]
fn an_ingress_is_routes_and_its_services_are_their_ready_endpoints() {
    let ending = json!({ "addresses": ["10.1.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } });
    let served = served([
        (Kind::EndpointSlice, slice("web", json!([ready("10.1.0.1"), ending, ready("127.0.0.1"), ready("10.1.0.2")]))),
        ingress(
            "web",
            json!({ "weir/https_redirect": "false", "weir/middleware": "office" }),
            json!({
                "ingressClassName": "weir",
                "tls": [{ "hosts": ["a.example"], "secretName": "web" }],
                "rules": [{ "host": "a.example", "http": { "paths": [
                    path("/", "Prefix", "web"), path("/api", "Exact", "api"), path("/old/", "ImplementationSpecific", "web"),
                ] } }],
            }),
        ),
    ])
    .fine();
    assert_eq!(
        served.text("service/shop/web"),
        "[service.k_shop_web_80]\nservers = [\"10.1.0.1:8080\", \"10.1.0.2:8080\"]\n"
    );
    let text = served.text("ingress/shop/web");
    let first = "[[route]]\nname = \"k_shop_web_0-0\"\nentrypoint = [\"http\", \"https\"]\nhost = \"a.example\"\n\
        middleware = [\"office\"]\npath = \"/\"\nservice = \"k_shop_web_80\"\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("path = { exact = \"/api\" }\nservice = \"k_shop_api_80\"\n"), "{text}");
    assert_eq!(served.routes().len(), 3);
}

#[test]
fn hosts_with_tls_are_served_over_tls_and_sent_there_otherwise() {
    let rule = |host: &str| json!({ "host": host, "http": { "paths": [path("/", "Prefix", "web")] } });
    let spec = json!({
        "ingressClassName": "weir", "tls": [{ "hosts": ["a.example", "*.b.example"] }],
        "rules": [rule("a.example"), rule("x.b.example"), rule("*.c.example")],
    });
    let served = served([ingress("web", json!({}), spec.clone())]).fine();
    let text = served.text("ingress/shop/web");
    assert!(text.contains("entrypoint = [\"https\"]\nhost = \"a.example\"\npath"), "{text}");
    let redirect = "entrypoint = [\"http\"]\nhost = \"a.example\"\nmiddleware = [{ redirect = { scheme = \"https\" } }]\n";
    assert!(text.contains(redirect), "{text}");
    assert_eq!(text.matches("redirect").count(), 2, "{text}");
    // A star is one label, which it isn't elsewhere in Weir.
    assert!(text.contains("host = { regex = \"[^.]+\\\\.c\\\\.example\" }\n"), "{text}");

    let mut without = terms();
    without.https.clear();
    let served = served_as(&without, [ingress("web", json!({}), spec)]);
    assert_eq!(served.told.len(), 1);
    assert!(served.told[0].contains("k:ingress/shop/web: rules[0].http.paths[0]: its host is one with TLS"));
    assert_eq!(served.routes(), ["k_shop_web_2-0"], "it is not served in the clear");
}

#[test]
fn what_an_ingress_wants_and_cannot_have_is_told_and_the_rest_of_it_serves() {
    let served = served([
        ingress(
            "bad",
            json!({}),
            json!({
                "ingressClassName": "weir",
                "defaultBackend": { "service": { "name": "api", "port": { "name": "web" } } },
                "rules": [{ "host": "a.example", "http": { "paths": [
                    path("/", "Prefix", "web"),
                    path("/gone", "Prefix", "gone"),
                    path("/x(/|$)(.*)", "ImplementationSpecific", "web"),
                    path("/", "Prefix", "api"),
                    { "path": "/bucket", "pathType": "Prefix", "backend": { "resource": { "kind": "Bucket", "name": "b" } } },
                ] } }],
            }),
        ),
        ingress(
            "guarded",
            json!({ "weir/midleware": "office" }),
            json!({
                "ingressClassName": "weir", "rules": [{ "host": "b.example", "http": { "paths": [path("/", "Prefix", "web")] } }],
            }),
        ),
        ingress("others", json!({}), json!({ "ingressClassName": "nginx", "rules": [{ "host": 7 }] })),
        ingress("theirs", json!({ "kubernetes.io/ingress.class": "nginx" }), json!({ "rules": [] })),
    ]);
    let told = served.told.join("\n");
    for why in [
        "ingress/shop/bad: rules[0].http.paths[1]: there is no service `shop/gone`; its requests get the page `maintenance`",
        "rules[0].http.paths[2]: \"/x(/|$)(.*)\" looks like a regular expression",
        "rules[0].http.paths[3]: an earlier path of the same host is the same",
        "rules[0].http.paths[4]: its backend is a resource",
        "ingress/shop/guarded: is left out: the annotation `weir/midleware` is none",
        "ingress/shop/others: can't be read: invalid type",
    ] {
        assert!(told.contains(why), "{why}\n{told}");
    }
    assert_eq!(served.routes().len(), 4, "{:?}", served.texts);
    assert!(served.text("ingress/shop/bad").contains("path = \"/gone\"\nservice = \"k_nobody\"\n"));
    assert!(
        !served.texts.contains_key("ingress/shop/guarded"),
        "nobody gets past what was meant to guard it"
    );
}

#[test]
fn an_http_route_is_a_route_for_each_match_with_all_that_its_filters_do() {
    let served = served([
        gateway(),
        http_route("web", json!(["a.example", "other.test"]), json!([
            {
                "matches": [
                    { "path": { "type": "PathPrefix", "value": "/v1" }, "method": "GET",
                      "headers": [{ "type": "Exact", "name": "X-Canary", "value": "1" }, { "name": "x-canary", "value": "2" }] },
                    { "path": { "type": "RegularExpression", "value": "/p/[0-9]+" },
                      "queryParams": [{ "name": "q", "value": "1" }] },
                ],
                "backendRefs": [to("web", 900_000), to("api", 100_000)],
                "timeouts": { "request": "10s" },
            },
            {
                "matches": [{ "path": { "type": "PathPrefix", "value": "/old" } }],
                "filters": [
                    { "type": "RequestHeaderModifier", "requestHeaderModifier": {
                        "set": [{ "name": "X-From", "value": "edge" }], "remove": ["X-Debug"] } },
                    { "type": "URLRewrite", "urlRewrite": {
                        "hostname": "api.internal", "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" } } },
                    { "type": "RequestMirror", "requestMirror": { "backendRef": to("api", 1), "percent": 10 } },
                    { "type": "ResponseHeaderModifier", "responseHeaderModifier": { "add": [{ "name": "X-A", "value": "b" }] } },
                ],
                "backendRefs": [to("web", 1)],
            },
            {
                "matches": [{ "path": { "type": "Exact", "value": "/moved" } }],
                "filters": [{ "type": "RequestRedirect", "requestRedirect": { "hostname": "new.example", "statusCode": 301 } }],
            },
            // Taken already: the first of two the same counts.
            { "matches": [{ "path": { "type": "Exact", "value": "/moved" } }], "backendRefs": [to("web", 1)] },
        ])),
    ])
    .fine();
    let text = served.text("httproute/shop/web");
    // `other.test` comes in at the listener for any host alone.
    assert!(
        text.contains("entrypoint = [\"http\"]\n") && text.contains("host = [\"other.test\"]\n"),
        "{text}"
    );
    let canary = "entrypoint = [\"http\", \"https\"]\nheader = { x-canary = \"1\" }\nhost = [\"a.example\"]\nmethod = \"GET\"\n\
        middleware = [{ timeouts = { total = \"10000ms\" } }]\npath = \"/v1\"\n\
        split = { k_shop_api_80 = 1111, k_shop_web_80 = 10000 }\n";
    assert!(text.contains(canary), "{text}");
    assert!(text.contains("path = { regex = \"/p/[0-9]+\" }\nquery = { q = \"1\" }\n"), "{text}");
    let chain = "middleware = [{ headers = { request = { remove = [\"X-Debug\"], set = { X-From = \"edge\" } } } }, \
        { replace_path = { regex = \"/old(.*)\", to = \"/new${1}\" } }, \
        { headers = { request = { set = { Host = \"api.internal\" } } } }, \
        { headers = { response = { add = { X-A = \"b\" } } } }]\nmirror.share = \"10%\"\nmirror.to = \"k_shop_api_80\"\n";
    assert!(text.contains(chain), "{text}");
    assert!(
        text.contains(
            "middleware = [{ redirect = { host = \"new.example\", status = 301 } }]\npath = { exact"
        ),
        "{text}"
    );
    assert_eq!(served.routes().len(), 8);
}

#[test]
fn a_rule_that_cannot_be_done_keeps_its_requests_from_every_other_rule() {
    let served = served([
        gateway(),
        http_route(
            "web",
            json!(["a.example"]),
            json!([
                { "backendRefs": [to("web", 1)] },
                {
                    "matches": [{ "path": { "value": "/admin" } }],
                    "filters": [{ "type": "ExternalAuth", "externalAuth": { "protocol": "HTTP" } }],
                    "backendRefs": [to("web", 1)],
                },
                { "matches": [{ "path": { "value": "/x" }, "grpc": {} }], "backendRefs": [to("web", 1)] },
                { "matches": [{ "path": { "value": "/y" } }], "backendRefs": [to("web", 0)] },
                { "matches": [{ "path": { "value": "/z" } }], "backendRefs": [to("web", 9), to("gone", 1)], "retry": {} },
            ]),
        ),
    ]);
    let text = served.text("httproute/shop/web");
    for path in ["/admin", "/y"] {
        assert!(text.contains(&format!("path = \"{path}\"\nservice = \"k_nobody\"\n")), "{text}");
    }
    assert!(text.contains("path = \"/z\"\nsplit = { k_nobody = 1, k_shop_web_80 = 9 }\n"), "{text}");
    let told = served.told.join("\n");
    for why in [
        "rules[1]: the filter ExternalAuth is not supported; its requests get the page `maintenance`",
        "rules[2].matches[0] is left out: `grpc` is not supported",
        "rules[3]: it has no backend with a weight",
        "rules[4]: `retry` is not supported, and left out",
        "rules[4]: backendRefs[1]: there is no service `shop/gone`",
    ] {
        assert!(told.contains(why), "{why}\n{told}");
    }
    assert_eq!(served.routes().len(), 4);
}

#[test]
fn a_gateway_opens_nothing_and_lets_in_whom_it_says() {
    let (_, mut closed) = gateway();
    closed["metadata"]["name"] = json!("closed");
    closed["spec"]["listeners"] = json!([
        { "name": "odd", "port": 8080, "protocol": "HTTP" },
        { "name": "udp", "port": 53, "protocol": "UDP" },
        { "name": "mutual", "port": 443, "protocol": "HTTPS", "tls": { "frontendValidation": {} } },
        { "name": "picked", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "Selector" } } },
    ]);
    let (_, mut stranger) =
        http_route("stranger", json!(["b.example"]), json!([{ "backendRefs": [to("web", 1)] }]));
    stranger["metadata"]["namespace"] = json!("elsewhere");
    stranger["spec"]["parentRefs"][0]["namespace"] = json!("shop");
    let (_, mut homeless) =
        http_route("homeless", json!(["c.example"]), json!([{ "backendRefs": [to("web", 1)] }]));
    homeless["spec"]["parentRefs"][0]["name"] = json!("closed");
    let (_, mut theirs) =
        http_route("theirs", json!(["d.example"]), json!([{ "backendRefs": [to("web", 1)] }]));
    theirs["spec"]["parentRefs"][0]["name"] = json!("of-another-class");
    let served = served([
        gateway(),
        (Kind::Gateway, closed),
        (Kind::HttpRoute, stranger),
        (Kind::HttpRoute, homeless),
        (Kind::HttpRoute, theirs),
    ]);
    let told = served.told.join("\n");
    for why in [
        "gateway/shop/closed: listener `mutual` is not served: `tls.frontendValidation` is not supported",
        "listener `odd` is not served: no entrypoint: `http` of the provider names none for port 8080",
        "listener `picked` is not served: `allowedRoutes.namespaces.from` Selector is not supported",
        "listener `udp` is not served: protocol UDP is not supported",
        "httproute/elsewhere/stranger (parentRefs): no listener of gateway `shop/edge` takes it",
        "httproute/shop/homeless (parentRefs): no listener of gateway `shop/closed` takes it",
    ] {
        assert!(told.contains(why), "{why}\n{told}");
    }
    assert!(!told.contains("theirs"), "{told}");
    assert_eq!(served.routes().len(), 0);
}

#[test]
fn a_tls_route_is_carried_by_its_names_and_split_by_weight() {
    let route = |hosts: Value, refs: Value| {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": named("db", json!({})),
            "spec": {
                "parentRefs": [{ "name": "edge", "sectionName": "tls" }], "hostnames": hosts,
                "rules": [{ "backendRefs": refs }],
            },
        });
        (Kind::TlsRoute, object)
    };
    let tls = |name: &str, weight: u32| json!({ "name": name, "port": 443, "weight": weight });
    let one = served([gateway(), route(json!(["db.example"]), json!([tls("web", 1)]))]).fine();
    assert_eq!(
        one.text("tlsroute/shop/db"),
        "[[route]]\nname = \"k_shop_db_0\"\nentrypoint = [\"https\"]\npassthrough = \"k_shop_web_443_tls\"\nsni = [\"db.example\"]\n"
    );
    assert!(
        one.text("service/shop/web").contains("[service.k_shop_web_443_tls]\nservers = [\"10.1.0.1:8443\",")
    );
    let two =
        served([gateway(), route(json!(["db.example"]), json!([tls("web", 80), tls("api", 20)]))]).fine();
    assert!(
        two.text("tlsroute/shop/db").contains("split = { k_shop_api_443_tls = 20, k_shop_web_443_tls = 80 }")
    );
    let nameless = served([gateway(), route(json!([]), json!([tls("web", 1)]))]);
    assert!(nameless.told.join("").contains("it names no host"), "{:?}", nameless.told);
}

#[test]
fn services_say_more_in_annotations_and_external_names_want_leave() {
    let mut object = service("web");
    object["metadata"]["annotations"] = json!({ "weir/health.path": "/up", "weir/health.rise": "3", "weir/tls.ca": "/etc/shadow", "other/x": "y" });
    let mut outside = service("outside");
    outside["spec"] = json!({ "type": "ExternalName", "externalName": "legacy.example.com", "ports": [] });
    let objects = || {
        let spec = json!({ "ingressClassName": "weir", "rules": [{ "host": "a.example", "http": { "paths": [
            path("/", "Prefix", "web"), path("/outside", "Prefix", "outside"),
        ] } }] });
        [(Kind::Service, object.clone()), (Kind::Service, outside.clone()), ingress("web", json!({}), spec)]
    };
    let strict = served(objects());
    let told = strict.told.join("\n");
    assert!(
        told.contains("service/shop/web: the annotation `weir/tls.ca` is none that a Service may have"),
        "{told}"
    );
    assert!(told.contains("service `shop/outside` is an ExternalName"), "{told}");
    assert!(strict.text("service/shop/web").contains("health.path = \"/up\"\nhealth.rise = 3\n"));
    let lenient = served_as(&Kubernetes { external_names: true, ..terms() }, objects());
    assert!(lenient.text("service/shop/outside").contains("servers = [\"legacy.example.com:80\"]"));
}

#[test]
fn while_nobody_is_ready_those_that_end_serve_on_and_then_nobody() {
    let ending = json!({ "addresses": ["10.1.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } });
    let ended = json!({ "addresses": ["10.1.0.3"], "conditions": { "ready": false, "serving": false, "terminating": true } });
    let spec = json!({ "ingressClassName": "weir", "defaultBackend": { "service": { "name": "web", "port": { "number": 80 } } } });
    for (endpoints, servers) in
        [(json!([ending]), "[\"10.1.0.3:8080\"]"), (json!([ended]), "[]"), (Value::Null, "[]")]
    {
        let served =
            served([(Kind::EndpointSlice, slice("web", endpoints)), ingress("web", json!({}), spec.clone())])
                .fine();
        assert!(served.text("service/shop/web").contains(&format!("servers = {servers}")));
        assert_eq!(served.routes(), ["k_shop_web_default"]);
    }
}
