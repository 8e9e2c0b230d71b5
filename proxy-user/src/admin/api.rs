//! The API as a whole: what can be asked, what can be ordered, and the OpenAPI document that is made of the very same
//! routes, so that it can't tell of something else.
//!
//! Everything is below `/api/v1`; `/api/…` is short for it. `/ping`, `/ready` and `/metrics` are where others look for them.

use std::sync::Arc;

use axum::{Json, Router, http::StatusCode, middleware, response::IntoResponse, routing::get};
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{access, dashboard, events, problem::Problem, read, verbs};
use crate::control::{order::Desk, state::ControlState};

/// All routes, but for who may ask them: see [`super::access`].
pub fn router(state: Arc<ControlState>, desk: Desk) -> Router {
    let below_v1: Router = Router::from(reads()).with_state(state.clone());
    let below_v1 = below_v1.merge(Router::from(verbs::router()).with_state(desk));
    let below_v1 = below_v1.route("/openapi.json", get(|| async { Json(document()) }));
    Router::from(at_the_root())
        .with_state(state.clone())
        .merge(dashboard::router())
        .nest("/api/v1", below_v1.clone())
        .nest("/api", below_v1)
        .fallback(nothing_here)
        .method_not_allowed_fallback(another_method)
        .layer(middleware::from_fn_with_state(state, access::check))
}

/// The OpenAPI document.
pub fn document() -> OpenApi {
    let whole = OpenApiRouter::with_openapi(frame()).merge(at_the_root()).nest("/api/v1", reads());
    // Their states differ, and the document knows nothing of states.
    let mut document = whole.into_openapi();
    document.merge(OpenApiRouter::new().nest("/api/v1", verbs::router()).into_openapi());
    document
}

/// As it is kept in docs/.
pub fn document_text() -> String {
    document().to_pretty_json().unwrap_or_default() + "\n"
}

fn frame() -> OpenApi {
    let about = "What a running Weir tells and takes. Everything below `/api/v1` is also there below `/api`. docs/api.md has \
                 examples, and says who may ask what.";
    let info = InfoBuilder::new()
        .title("Weir admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()))
        .build();
    OpenApiBuilder::new().info(info).build()
}

fn at_the_root() -> OpenApiRouter<Arc<ControlState>> {
    OpenApiRouter::new()
        .routes(routes!(read::ping))
        .routes(routes!(read::ready))
        .routes(routes!(read::metrics))
}

fn reads() -> OpenApiRouter<Arc<ControlState>> {
    OpenApiRouter::new()
        .routes(routes!(read::ping))
        .routes(routes!(read::ready))
        .routes(routes!(read::overview))
        .routes(routes!(read::status))
        .routes(routes!(read::entrypoints))
        .routes(routes!(read::routes))
        .routes(routes!(read::services))
        .routes(routes!(read::servers))
        .routes(routes!(read::allowlists))
        .routes(routes!(read::kernel))
        .routes(routes!(read::drops))
        .routes(routes!(read::flows))
        .routes(routes!(read::certificates))
        .routes(routes!(read::configuration))
        .routes(routes!(read::explained))
        .routes(routes!(read::blocks))
        .routes(routes!(read::splits))
        .routes(routes!(read::maintenance))
        .routes(routes!(read::drains))
        .routes(routes!(read::fleet))
        .routes(routes!(events::events))
}

async fn nothing_here() -> impl IntoResponse {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing here: /api/v1/openapi.json lists what there is")
}

async fn another_method() -> impl IntoResponse {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this is asked with another method: /api/v1/openapi.json lists which",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Vec<String> {
        document().paths.paths.keys().cloned().collect()
    }

    #[test]
    fn the_document_has_every_path_once_and_whole() {
        let paths = paths();
        for path in ["/ping", "/ready", "/metrics", "/api/v1/overview", "/api/v1/events", "/api/v1/drain"] {
            assert!(paths.iter().any(|known| known == path), "{path} is not in {paths:?}");
        }
    }

    #[test]
    fn the_document_is_openapi_3_1_and_everything_it_refers_to_is_in_it() {
        let document = serde_json::to_value(document()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer} is referred to, and not there");
        }
    }

    #[test]
    fn every_operation_says_what_it_is_and_how_it_can_fail() {
        let document = serde_json::to_value(document()).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let summary = operation["summary"].as_str().unwrap_or_default();
                assert!(summary.len() > 10, "{method} {path} says nothing of itself: {operation}");
                assert!(operation["responses"]["200"].is_object(), "{method} {path} has no good answer");
            }
        }
    }
}
