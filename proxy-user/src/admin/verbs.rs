//! The part of the admin API that changes something: POST requests. Who may send them is decided in [`super::access`].
//!
//! A request becomes a [`Verb`] and goes to the control loop; what that answers goes back as JSON, an object of the
//! verb's own or a [`Problem`].

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::StatusCode,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::control::order::{
    Apply, Block, Confirm, Desk, Diff, Drain, EndMaintenance, Maintain, RefreshAllowlists, Refusal, Reload,
    Revert, Split, Unblock, Undrain, Upgrade, Verb,
};

/// What a request may carry at most: a long list of prefixes, never a flood.
const LARGEST_BODY: usize = 4 << 20;

/// So long an order may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The verbs' routes.
pub fn router() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(reload))
        .routes(routes!(apply))
        .routes(routes!(confirm))
        .routes(routes!(revert))
        .routes(routes!(diff))
        .routes(routes!(refresh_allowlists))
        .routes(routes!(block))
        .routes(routes!(unblock))
        .routes(routes!(split))
        .routes(routes!(maintain))
        .routes(routes!(end_maintenance))
        .routes(routes!(drain))
        .routes(routes!(undrain))
        .routes(routes!(upgrade))
}

/// A handler for each verb: they differ in their arguments, and in what the OpenAPI document says of them.
macro_rules! verbs {
    ($($(#[doc = $doc:literal])+ $handler:ident $path:literal $verb:ident;)+) => {
        $(
            $(#[doc = $doc])+
            #[utoipa::path(post, path = $path, tag = "order", request_body = $verb, responses(
                (status = 200, description = "What came of it.", body = Value),
                (status = 400, description = "The request is not understood.", body = Problem, content_type = "application/problem+json"),
                (status = 403, description = "You may not change what the daemon does.", body = Problem, content_type = "application/problem+json"),
                (status = 409, description = "It can't be done as things are.", body = Problem, content_type = "application/problem+json"),
                (status = 422, description = "What was sent is at fault.", body = Problem, content_type = "application/problem+json"),
                (status = 503, description = "The daemon has other orders to follow first.", body = Problem, content_type = "application/problem+json"),
            ))]
            async fn $handler(state: State<Desk>, body: Body) -> Result<Json<Value>, Problem> {
                order::<$verb>(state, whole(body, PATIENCE).await?).await
            }

            impl From<$verb> for Verb {
                fn from(arguments: $verb) -> Self {
                    Self::$verb(arguments)
                }
            }
        )+
    };
}

verbs! {
    /// Read the configuration anew, as after SIGHUP.
    reload "/reload" Reload;
    /// Put a configuration in place of the daemon's own, on trial if that is asked for.
    apply "/apply" Apply;
    /// Keep the configuration that is on trial.
    confirm "/confirm" Confirm;
    /// Take the configuration that is on trial back.
    revert "/revert" Revert;
    /// Tell what a configuration would change. Changes nothing.
    diff "/diff" Diff;
    /// Fetch allowlists now.
    refresh_allowlists "/allowlists/refresh" RefreshAllowlists;
    /// Block a prefix.
    block "/blocks/add" Block;
    /// End a block.
    unblock "/blocks/remove" Unblock;
    /// Set the weights of a split, or its judge to work.
    split "/splits/set" Split;
    /// Put a page in the servers' place.
    maintain "/maintenance/begin" Maintain;
    /// Take pages away again.
    end_maintenance "/maintenance/end" EndMaintenance;
    /// Send no new work to servers, or to this host.
    drain "/drain" Drain;
    /// Send work to them again.
    undrain "/undrain" Undrain;
    /// Give way to another binary, which takes over sockets and all that is known; the old one's connections end by and by.
    upgrade "/upgrade" Upgrade;
}

/// Whoever may give orders may be slow, but not for ever.
async fn whole(body: Body, patience: Duration) -> Result<Bytes, Problem> {
    match timeout(patience, to_bytes(body, LARGEST_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("an order has at most {} MiB", LARGEST_BODY >> 20),
        )),
        Ok(Err(error)) => Err(Problem::bad_request(format!("the order did not come whole: {error}"))),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the order did not come within {} s", patience.as_secs()),
        )),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    matches!(std::error::Error::source(error), Some(cause) if cause.is::<http_body_util::LengthLimitError>())
}

/// Takes an order: the body is its arguments as a JSON object, or empty for none.
async fn order<Arguments>(State(desk): State<Desk>, body: Bytes) -> Result<Json<Value>, Problem>
where
    Arguments: DeserializeOwned + Into<Verb>,
{
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let arguments = serde_json::from_slice::<Arguments>(text)
        .map_err(|error| Problem::bad_request(format!("the request is not understood: {error}")))?;
    let answer = desk.order(arguments.into()).await;
    answer.map(Json).map_err(|refusal| Problem::new(status(&refusal), refusal.to_string()))
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Faulty(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Refused(_) => StatusCode::CONFLICT,
        Refusal::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn an_order_that_does_not_come_is_given_up_and_one_that_is_too_long_is_refused() {
        let patience = Duration::from_millis(50);
        let half = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(whole(half, patience).await.unwrap_err().status, 408);
        let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1 << 16])));
        assert_eq!(whole(Body::from_stream(endless), PATIENCE).await.unwrap_err().status, 413);
        assert_eq!(whole(Body::from("{}"), patience).await.unwrap(), "{}");
    }
}
