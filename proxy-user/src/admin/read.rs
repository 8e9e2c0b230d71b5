//! What can be asked: each of these makes its document fresh, from what runs, on the control side's own thread. None of them
//! waits for a worker or makes one wait.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    pace::paced,
    problem::Problem,
    ready::{self, ReadyDocument},
    status::{
        self, EntrypointsDocument, StatusDocument,
        allowlists::{self, AllowlistsDocument},
        blocks::{self, BlocksDocument},
        certificates::{self, CertificatesDocument},
        configuration::{self, ConfigurationDocument},
        drains::{self, DrainsDocument},
        drops::{self, DropsDocument},
        fleet::{self, FleetStatus},
        flows::{self, WantedFlows},
        kernel::{self, KernelDocument},
        maintenance::{self, MaintenanceDocument},
        overview::{self, OverviewDocument},
        routes::{self, RoutesDocument},
        servers::{self, ServersDocument, ServicesDocument},
        splits::{self, SplitsDocument},
    },
};
use crate::{
    control::{splits as weights, state::ControlState},
    explain::{self, Explanation, Question},
    kernel::forward::flows::Flows,
    metrics,
    snapshot::Snapshot,
};

type Answer<T> = Result<Json<T>, Problem>;
type Control = State<Arc<ControlState>>;

fn running(state: &ControlState) -> Result<Arc<Snapshot>, Problem> {
    state.running().map(|running| running.load_full()).ok_or_else(Problem::starting)
}

fn told<T>(document: Option<T>) -> Answer<T> {
    document.map(Json).ok_or_else(Problem::starting)
}

/// Whether this host takes traffic: for load balancers and container checks.
#[utoipa::path(get, path = "/ping", tag = "health", responses(
    (status = 200, description = "It takes traffic.", body = String, content_type = "text/plain"),
    (status = 503, description = "It drains, or ends.", body = String, content_type = "text/plain"),
))]
pub async fn ping(State(state): Control) -> Response {
    if state.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "pong\n".into_response()
    }
}

/// Whether this host can do its work and is meant to, check by check.
#[utoipa::path(get, path = "/ready", tag = "health", responses(
    (status = 200, description = "Every check is well.", body = ReadyDocument),
    (status = 503, description = "Not every check is well.", body = ReadyDocument),
))]
pub async fn ready(State(state): Control) -> Response {
    let document = ready::document(&state);
    let status = if document.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(document)).into_response()
}

/// Everything that is counted, as Prometheus scrapes it.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Prometheus' text format, or what `Accept` says that the asker likes better (docs/metrics.md).",
        content((String = "text/plain"), (String = "application/openmetrics-text"))),
    (status = 503, description = "The daemon is starting.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn metrics(State(state): Control, headers: HeaderMap) -> Result<Response, Problem> {
    let format = metrics::wanted(&headers);
    let text = paced(metrics::scrape(&state, format)).await.ok_or_else(Problem::starting)?;
    let fields = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    Ok((fields, text).into_response())
}

/// How this host stands, in figures that fit on one screen.
#[utoipa::path(get, path = "/overview", tag = "read", responses((status = 200, body = OverviewDocument)))]
pub async fn overview(State(state): Control) -> Answer<OverviewDocument> {
    told(paced(overview::document(&state)).await)
}

/// Everything that `weir status` shows, in one document.
#[utoipa::path(get, path = "/status", tag = "read", responses((status = 200, body = StatusDocument)))]
pub async fn status(State(state): Control) -> Answer<StatusDocument> {
    told(paced(status::of(&state)).await)
}

/// The entrypoints, and what came in there.
#[utoipa::path(get, path = "/entrypoints", tag = "read", responses((status = 200, body = EntrypointsDocument)))]
pub async fn entrypoints(State(state): Control) -> Answer<EntrypointsDocument> {
    told(status::of_entrypoints(&state).await)
}

/// Which requests go where.
#[utoipa::path(get, path = "/routes", tag = "read", responses((status = 200, body = RoutesDocument)))]
pub async fn routes(State(state): Control) -> Answer<RoutesDocument> {
    Ok(Json(routes::document(&*running(&state)?)))
}

/// The services, each with its servers.
#[utoipa::path(get, path = "/services", tag = "read", responses((status = 200, body = ServicesDocument)))]
pub async fn services(State(state): Control) -> Answer<ServicesDocument> {
    Ok(Json(servers::of_services(&*running(&state)?)))
}

/// The servers of all services, and why they are up or down.
#[utoipa::path(get, path = "/servers", tag = "read", responses((status = 200, body = ServersDocument)))]
pub async fn servers(State(state): Control) -> Answer<ServersDocument> {
    Ok(Json(servers::document(&*running(&state)?)))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Also who is on them.
    #[serde(default)]
    prefixes: bool,
}

/// This host in its fleet, and the fleet as its store knows it.
#[utoipa::path(get, path = "/fleet", tag = "read", responses(
    (status = 200, body = FleetStatus),
    (status = 404, description = "This host is in no fleet.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn fleet(State(state): Control) -> Answer<FleetStatus> {
    let snapshot = running(&state)?;
    fleet::document(&state, &snapshot).await.map(Json)
}

/// The allowlists: how old they are, and who keeps them current.
#[utoipa::path(get, path = "/allowlists", tag = "read", params(Wanted), responses(
    (status = 200, body = AllowlistsDocument),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
pub async fn allowlists(
    State(state): Control,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Answer<AllowlistsDocument> {
    let Query(wanted) = wanted.map_err(not_understood)?;
    told(allowlists::document(&state, wanted.prefixes))
}

/// What the gate in the kernel enforces and counts.
#[utoipa::path(get, path = "/kernel", tag = "read", responses((status = 200, body = KernelDocument)))]
pub async fn kernel(State(state): Control) -> Answer<KernelDocument> {
    told(kernel::document(&state).await)
}

/// Where the packets come from that the gate drops now. Takes half a second, in which the gate is listened to.
#[utoipa::path(get, path = "/drops", tag = "read", responses((status = 200, body = DropsDocument)))]
pub async fn drops(State(state): Control) -> Answer<DropsDocument> {
    told(drops::document(&state).await)
}

/// Passthrough connections that the kernel carries by port.
#[utoipa::path(get, path = "/flows", tag = "read", params(WantedFlows), responses(
    (status = 200, body = Flows),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
pub async fn flows(
    State(state): Control,
    wanted: Result<Query<WantedFlows>, QueryRejection>,
) -> Answer<Flows> {
    let Query(wanted) = wanted.map_err(not_understood)?;
    let flows = flows::document(&state, wanted).await;
    flows.map(Json).map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))
}

/// The certificates that clients are shown, and when they expire.
#[utoipa::path(get, path = "/certificates", tag = "read", responses((status = 200, body = CertificatesDocument)))]
pub async fn certificates(State(state): Control) -> Answer<CertificatesDocument> {
    Ok(Json(certificates::document(&*running(&state)?)))
}

/// The configuration that is in force, with every default and without secrets.
#[utoipa::path(get, path = "/configuration", tag = "read", responses((status = 200, body = ConfigurationDocument)))]
pub async fn configuration(State(state): Control) -> Answer<ConfigurationDocument> {
    told(configuration::document(&state))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// A question as JSON: `{"url": "https://app.example.com/x"}`, with `method`, `headers`, `client` and `entrypoint` if they
    /// matter.
    #[param(example = json!("{\"url\":\"http://127.0.0.1/\"}"))]
    question: String,
}

/// What would become of a request, and why.
#[utoipa::path(get, path = "/explain", tag = "read", params(Asked), responses(
    (status = 200, body = Explanation),
    (status = 400, description = "The question makes no sense.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn explained(
    State(state): Control,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answer<Explanation> {
    let Query(asked) = asked.map_err(not_understood)?;
    let snapshot = running(&state)?;
    let question: Question = serde_json::from_str(&asked.question)
        .map_err(|error| Problem::bad_request(format!("the question is not understood: {error}")))?;
    let mut explanation = explain::explain(&snapshot.config, Some(snapshot.generation), &question)
        .map_err(Problem::bad_request)?;
    explain::pages::of_snapshot(&mut explanation, &snapshot, &question);
    Ok(Json(explanation.with_weights(|split, variant| weights::weight(&snapshot, split, variant))))
}

/// Who is blocked, and what that has kept out.
#[utoipa::path(get, path = "/blocks", tag = "read", responses((status = 200, body = BlocksDocument)))]
pub async fn blocks(State(state): Control) -> Answer<BlocksDocument> {
    told(blocks::document(&state).await)
}

/// How requests are shared out between services, and what became of them.
#[utoipa::path(get, path = "/splits", tag = "read", responses((status = 200, body = SplitsDocument)))]
pub async fn splits(State(state): Control) -> Answer<SplitsDocument> {
    told(splits::document(&state))
}

/// Where pages stand in the servers' place, and where they soon will.
#[utoipa::path(get, path = "/maintenance", tag = "read", responses((status = 200, body = MaintenanceDocument)))]
pub async fn maintenance(State(state): Control) -> Json<MaintenanceDocument> {
    Json(maintenance::document(&state.maintenance, &state.shared))
}

/// Who is drained, and how much each server still has to do.
#[utoipa::path(get, path = "/drains", tag = "read", responses((status = 200, body = DrainsDocument)))]
pub async fn drains(State(state): Control) -> Answer<DrainsDocument> {
    told(drains::document(&state))
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
pub(super) fn not_understood(rejection: QueryRejection) -> Problem {
    Problem::bad_request(format!("the query is not understood: {}", rejection.body_text()))
}
