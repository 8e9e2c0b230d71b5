//! Three requests of the Docker API: the list of containers, one of them, and the stream of events. Paths carry no version, so
//! that the daemon answers in its own: what is read here has been the same for ten years.

use std::{io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::pki_types::ServerName;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::container::{Container, Listed};
use crate::{
    config::model::{Docker, DockerEndpoint, ServerProtocol, ServiceTls},
    fetch::{self, Driver, Question},
    tls::{
        certificates::{ServerAuthorities, read_authorities, read_pair},
        server::ServerTls,
    },
};

/// An answer is no larger than this: thousands of containers.
const LARGEST: usize = 32 << 20;

/// An event is no larger than this: it carries the container's labels.
const LARGEST_EVENT: usize = 1 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Containers, and who connects them to networks.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";

/// What changes nothing that matters here. Health checks alone make some of these again and again.
const UNINTERESTING: [&str; 9] =
    ["exec", "attach", "detach", "resize", "top", "copy", "archive", "export", "commit"];

pub struct Client {
    endpoint: DockerEndpoint,
    tls: Option<ServerTls>,
}

/// The events, as they come.
pub struct Events {
    body: Incoming,
    read: BytesMut,
    _connection: Driver,
}

/// Something happened to a container.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub container: String,
}

/// As the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    action: String,
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    attributes: Option<Attributes>,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    /// Of a network's event.
    #[serde(default)]
    container: String,
}

// === impl Client ===

impl Client {
    pub fn new(source: &Docker) -> Result<Self, String> {
        let tls = match (&source.tls, &source.endpoint) {
            (Some(files), DockerEndpoint::Tcp { host, .. }) => {
                let authorities = match &files.ca {
                    Some(ca) => {
                        ServerAuthorities::Own(read_authorities(ca).map_err(|fault| fault.to_string())?)
                    }
                    None => ServerAuthorities::System,
                };
                let pair = files.certificate.as_ref().map(|(chain, key)| read_pair(chain, key));
                let tls = ServiceTls {
                    server_name: ServerName::try_from(host.clone()).map_err(|error| error.to_string())?,
                    authorities,
                    certificate: pair.transpose().map_err(|fault| fault.to_string())?.map(Into::into),
                };
                Some(ServerTls::new(&tls).map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        Ok(Self { endpoint: source.endpoint.clone(), tls })
    }

    pub async fn list(&self) -> Result<Vec<Listed>, String> {
        self.json("/containers/json?all=true")
            .await?
            .ok_or_else(|| "there is no list of containers".to_owned())
    }

    /// None: it is gone.
    pub async fn inspect(&self, id: &str) -> Result<Option<Container>, String> {
        self.json(&format!("/containers/{id}/json")).await
    }

    pub async fn events(&self) -> Result<Events, String> {
        let late = |_| "it doesn't answer".to_owned();
        let (response, connection) = timeout(PATIENCE, self.ask(EVENTS)).await.map_err(late)??;
        match response.status() {
            StatusCode::OK => {
                Ok(Events { body: response.into_body(), read: BytesMut::new(), _connection: connection })
            }
            other => Err(format!("it answered {other} when asked for events")),
        }
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, String> {
        let asked = async {
            let (response, _connection) = self.ask(path).await?;
            fetch::whole(response, LARGEST).await.map_err(|fault| fault.to_string())
        };
        let answer = timeout(PATIENCE, asked).await.map_err(|_| "it doesn't answer".to_owned())??;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            other => return Err(format!("it answered {other}")),
        }
        let read = serde_json::from_slice(answer.body());
        read.map(Some).map_err(|error| format!("what it says of containers makes no sense: {error}"))
    }

    async fn ask(&self, path: &str) -> Result<(Response<Incoming>, Driver), String> {
        let authority = match &self.endpoint {
            DockerEndpoint::Unix(_) => "docker".to_owned(),
            tcp @ DockerEndpoint::Tcp { .. } => tcp.to_string().trim_start_matches("tcp://").to_owned(),
        };
        let url: Uri = format!("http://{authority}{path}").parse().map_err(|error| format!("{error}"))?;
        let (headers, authorities) = (HeaderMap::new(), ServerAuthorities::System);
        let question = Question {
            url: &url,
            known: None,
            headers: &headers,
            authorities: &authorities,
            largest: LARGEST,
        };
        let exchanged = match &self.endpoint {
            DockerEndpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| no_socket(&error))?;
                fetch::exchange(stream, question).await
            }
            DockerEndpoint::Tcp { host, port } => {
                let stream = fetch::connect(host, *port).await.map_err(|fault| fault.to_string())?;
                match &self.tls {
                    Some(tls) => {
                        let stream = tls.connect(stream, ServerProtocol::Http1).await;
                        fetch::exchange(stream.map_err(|error| format!("no TLS: {error}"))?, question).await
                    }
                    None => fetch::exchange(stream, question).await,
                }
            }
        };
        exchanged.map_err(|fault| fault.to_string())
    }
}

fn no_socket(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied: the user that Weir runs as must be in the socket's group".to_owned()
        }
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        _ => format!("no connection: {error}"),
    }
}

// === impl Events ===

impl Events {
    /// The next one that may matter. Safe to cancel.
    pub async fn next(&mut self) -> Result<Event, String> {
        loop {
            while let Some(event) = taken(&mut self.read) {
                if let Some(event) = event? {
                    return Ok(event);
                }
            }
            if self.read.len() > LARGEST_EVENT {
                return Err("an event has no end".to_owned());
            }
            let frame = self.body.frame().await.ok_or("the stream of events has ended")?;
            let frame = frame.map_err(|error| format!("the stream of events broke off: {error}"))?;
            self.read.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        }
    }
}

/// Takes a whole line off what has been read. Nothing inside: it is an event that doesn't matter.
fn taken(read: &mut BytesMut) -> Option<Result<Option<Event>, String>> {
    let end = read.iter().position(|byte| *byte == b'\n')?;
    let line = read.split_to(end);
    read.advance(1);
    if line.trim_ascii().is_empty() {
        return Some(Ok(None));
    }
    let told = serde_json::from_slice::<Told>(&line);
    Some(told.map(Told::matters).map_err(|error| format!("an event makes no sense: {error}")))
}

impl Told {
    fn matters(self) -> Option<Event> {
        let container = match self.kind.as_str() {
            "container" if UNINTERESTING.iter().any(|action| self.action.starts_with(action)) => return None,
            "container" => self.actor.id,
            "network" => self.actor.attributes.unwrap_or_default().container,
            _ => return None,
        };
        (!container.is_empty()).then_some(Event { container })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_and_only_those_count_that_may_change_something() {
        // As Docker and podman write them, shortened.
        let lines = [
            r#"{"status":"start","id":"a1","Type":"container","Action":"start","Actor":{"ID":"a1","Attributes":{"name":"shop"}},"time":1}"#,
            r#"{"Type":"container","Action":"exec_create: /bin/true","Actor":{"ID":"a1","Attributes":{}}}"#,
            r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"a2","Attributes":{}}}"#,
            r#"{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"a3","name":"edge"}}}"#,
            r#"{"Type":"network","Action":"create","Actor":{"ID":"n1","Attributes":{"name":"edge"}}}"#,
            "",
            r#"{"status":"died","Type":"container","Action":"died","Actor":{"ID":"a4","Attributes":null}}"#,
        ];
        let mut read = BytesMut::from(lines.join("\n").as_bytes());
        let mut seen = Vec::new();
        while let Some(event) = taken(&mut read) {
            seen.extend(event.unwrap_or(None).map(|event| event.container));
        }
        assert_eq!(seen, ["a1", "a2", "a3"]);
        assert!(read.ends_with(b"null}}"), "an event without its end waits for it");
        read.extend_from_slice(b"\n{\n");
        let a4 = taken(&mut read).and_then(Result::ok).flatten();
        assert_eq!(a4, Some(Event { container: "a4".to_owned() }));
        assert!(taken(&mut read).is_some_and(|event| event.is_err()), "what can't be read is no event");
    }
}
