//! `GET /api/v1/maintenance`: where pages stand in the servers' place, and where they soon will.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fleet::shared::{board::Board, switch::window_name},
    maintenance::{About, Maintenance},
};

#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MaintenanceDocument {
    /// In the order in which they are asked.
    pub maintenance: Vec<MaintenanceStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MaintenanceStatus {
    /// It holds now.
    pub on: bool,
    #[serde(flatten)]
    pub about: About,
    /// The host of the fleet at which it was switched, if others were told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

pub fn document(shared: &Maintenance, board: &Board) -> MaintenanceDocument {
    let now = Timestamp::now();
    let plan = shared.plan();
    let windows = plan.all.iter().filter(|about| !about.span.is_over(now));
    let status = |about: &About| MaintenanceStatus {
        on: about.span.holds(now),
        from: about.id.and_then(|_| board.origin(&window_name(about))),
        about: about.clone(),
    };
    MaintenanceDocument { maintenance: windows.map(status).collect() }
}
