//! `GET /api/v1/flows`: the connections that the kernel carries by port.

use serde::Deserialize;
use utoipa::IntoParams;

use super::forwarding;
use crate::{control::state::ControlState, kernel::forward::flows::Flows};

/// Which flows are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WantedFlows {
    /// Only those of this service.
    pub service: Option<String>,
    /// Those with the latest packets, so many; default 100.
    pub most: Option<usize>,
}

/// # Errors
/// In words, when the kernel can't be asked.
pub async fn document(state: &ControlState, wanted: WantedFlows) -> Result<Flows, String> {
    forwarding::flows(state, wanted.service, wanted.most).await
}
