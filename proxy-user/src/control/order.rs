//! What the admin API asks the control loop to do, and what it gets for an answer.
//!
//! An order travels over a channel into `control.rs`'s loop, which does one thing at a time: an order never meets half
//! a reload. A new verb is a variant of [`Verb`] here, a route in `admin/verbs.rs`, and an arm in `control::perform`.
//! Work that waits for others (a fetch, say) takes the [`Order`] along into a task and answers from there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::guard::Session;

/// So many orders may wait for the loop; more are told to come again.
const QUEUE: usize = 16;

#[derive(Debug)]
pub struct Order {
    pub verb: Verb,
    answer: oneshot::Sender<Answer>,
}

/// What can be asked.
#[derive(Debug)]
pub enum Verb {
    /// Read the configuration anew, as after SIGHUP.
    Reload(Reload),
    /// Put a configuration in place of the daemon's own.
    Apply(Apply),
    /// Keep the configuration that is on trial.
    Confirm(Confirm),
    /// Take the configuration that is on trial back.
    Revert(Revert),
    /// Tell what a configuration would change.
    Diff(Diff),
    /// Fetch allowlists now.
    RefreshAllowlists(RefreshAllowlists),
    /// Block a prefix.
    Block(Block),
    /// End a block.
    Unblock(Unblock),
    /// Set the weights of a split, or its judge to work.
    Split(Split),
    /// Put a page in the servers' place.
    Maintain(Maintain),
    /// Take it away again.
    EndMaintenance(EndMaintenance),
    /// Send no new work to servers, or to this host.
    Drain(Drain),
    /// Send work again.
    Undrain(Undrain),
    /// Give way to another binary.
    Upgrade(Upgrade),
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = ReloadOrder)]
#[serde(deny_unknown_fields)]
pub struct Reload {}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = ApplyOrder)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// What the operator calls the configuration: the path of a file.
    pub name: String,
    /// The configuration itself: the daemon may not be able to read what the operator can.
    pub text: String,
    /// On trial for so long.
    #[serde(default)]
    pub confirm_ms: Option<u64>,
    /// By which a watchdog knows its trial.
    #[serde(default)]
    pub id: u64,
    /// Without asking the lock-out guard.
    #[serde(default)]
    pub force: bool,
    /// The operator's `SSH_CONNECTION`.
    #[serde(default)]
    pub ssh: Option<String>,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = ConfirmOrder)]
#[serde(deny_unknown_fields)]
pub struct Confirm {}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = RevertOrder)]
#[serde(deny_unknown_fields)]
pub struct Revert {}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = DiffOrder)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    pub name: String,
    pub text: String,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = RefreshAllowlistsOrder)]
#[serde(deny_unknown_fields)]
pub struct RefreshAllowlists {
    /// This one; without it, all that are fetched.
    pub list: Option<String>,
    /// Take a list also when it has shrunken below its limit.
    #[serde(default)]
    pub accept_shrunken: bool,
    /// Without asking the lock-out guard.
    #[serde(default)]
    pub force: bool,
    /// The operator's `SSH_CONNECTION`.
    #[serde(default)]
    pub ssh: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = BlockOrder)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// An address or a prefix, as somebody wrote it.
    pub prefix: String,
    /// For so long; or, without it, `forever`.
    #[serde(default)]
    pub for_ms: Option<u64>,
    #[serde(default)]
    pub forever: bool,
    pub why: String,
    /// Also of a CDN's sources.
    #[serde(default)]
    pub cdn: bool,
    /// Without asking the lock-out guard.
    #[serde(default)]
    pub force: bool,
    /// The operator's `SSH_CONNECTION`.
    #[serde(default)]
    pub ssh: Option<String>,
    /// For this host alone, whatever fleet it is in.
    #[serde(default)]
    pub here: bool,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = UnblockOrder)]
#[serde(deny_unknown_fields)]
pub struct Unblock {
    pub prefix: String,
    /// For this host alone, whatever fleet it is in.
    #[serde(default)]
    pub here: bool,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = MaintainOrder)]
#[serde(deny_unknown_fields)]
pub struct Maintain {
    /// Names of routes. With no hosts either: everything.
    #[serde(default)]
    pub routes: Vec<String>,
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Who gets through: prefixes, and names of allowlists.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Paths that get through.
    #[serde(default)]
    pub except: Vec<String>,
    /// Without it: now.
    #[serde(default)]
    pub from: Option<Timestamp>,
    /// Without it: until it is ended.
    #[serde(default)]
    pub until: Option<Timestamp>,
    #[serde(default = "maintenance_page")]
    pub page: String,
    #[serde(default)]
    pub why: String,
    /// For this host alone, whatever fleet it is in.
    #[serde(default)]
    pub here: bool,
}

fn maintenance_page() -> String {
    "maintenance".to_owned()
}

/// Without anything: all that was ordered.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = EndMaintenanceOrder)]
#[serde(deny_unknown_fields)]
pub struct EndMaintenance {
    #[serde(default)]
    pub id: Option<u64>,
    /// Those that are about exactly these.
    #[serde(default)]
    pub routes: Vec<String>,
    #[serde(default)]
    pub hosts: Vec<String>,
    /// For this host alone, whatever fleet it is in.
    #[serde(default)]
    pub here: bool,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = DrainOrder)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// `SERVICE/SERVER` or `SERVICE/*`, as somebody wrote it.
    #[serde(default)]
    pub servers: Vec<String>,
    /// This host.
    #[serde(default)]
    pub host: bool,
    /// Also where that leaves a service without any server.
    #[serde(default)]
    pub force: bool,
    /// `weir roll` says so.
    #[serde(default)]
    pub roll: bool,
    #[serde(default)]
    pub who: Option<String>,
    #[serde(default)]
    pub why: Option<String>,
    /// For this host alone, whatever fleet it is in; that the host itself drains always is.
    #[serde(default)]
    pub here: bool,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = UndrainOrder)]
#[serde(deny_unknown_fields)]
pub struct Undrain {
    #[serde(default)]
    pub servers: Vec<String>,
    /// Only what `weir roll` has drained.
    #[serde(default)]
    pub roll: bool,
    #[serde(default)]
    pub host: bool,
    /// For this host alone, whatever fleet it is in.
    #[serde(default)]
    pub here: bool,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = UpgradeOrder)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// The whole path of the new binary. Without it: what lies where the running one was started from.
    #[serde(default)]
    pub binary: Option<String>,
}

/// One of: weights, `reset`, `stop`, `judge`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = SplitOrder)]
#[serde(deny_unknown_fields)]
pub struct Split {
    pub name: String,
    /// One for each variant.
    #[serde(default)]
    pub weights: BTreeMap<String, u32>,
    /// Back to the configured weights.
    #[serde(default)]
    pub reset: bool,
    /// The judge.
    #[serde(default)]
    pub stop: bool,
    #[serde(default)]
    pub judge: Option<JudgeOrder>,
    /// For this host alone, whatever fleet it is in.
    #[serde(default)]
    pub here: bool,
}

/// What is missing is as the configuration has it, or as by default. Percentages in hundredths of a percent.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeOrder {
    pub variant: Option<String>,
    pub steps: Option<Vec<u32>>,
    pub every_ms: Option<u64>,
    pub margin_errors: Option<u32>,
    pub margin_latency: Option<u32>,
    pub confidence: Option<u32>,
    pub min_samples: Option<u64>,
}

/// A JSON object, whose shape is the verb's own, or why not.
pub type Answer = Result<Value, Refusal>;

/// Why an order was not followed, in a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What was sent is at fault: a configuration that isn't valid, an argument that makes no sense.
    #[error("{0}")]
    Faulty(String),
    /// It can't be done as things are.
    #[error("{0}")]
    Refused(String),
    /// The daemon ends, or has more to do than it can.
    #[error("{0}")]
    Busy(String),
}

/// Where orders are given. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk(mpsc::Sender<Order>);

/// A desk, and the end at which its orders come out.
pub fn desk() -> (Desk, mpsc::Receiver<Order>) {
    let (send, receive) = mpsc::channel(QUEUE);
    (Desk(send), receive)
}

// === impl Apply ===

impl Apply {
    pub fn session(&self) -> Option<Session> {
        Session::from_ssh(self.ssh.as_deref()?)
    }
}

// === impl Block ===

impl Block {
    pub fn session(&self) -> Option<Session> {
        Session::from_ssh(self.ssh.as_deref()?)
    }
}

// === impl Order ===

impl Order {
    /// The one verb that ends this daemon, with what the answer is given with; or the order as it was.
    pub fn for_upgrade(self) -> Result<(Upgrade, oneshot::Sender<Answer>), Box<Self>> {
        match self.verb {
            Verb::Upgrade(wanted) => Ok((wanted, self.answer)),
            verb => Err(Box::new(Self { verb, answer: self.answer })),
        }
    }

    /// The verb, and what the answer is given with: for arms that take the verb apart.
    pub fn open(self) -> (Verb, oneshot::Sender<Answer>) {
        (self.verb, self.answer)
    }
}

// === impl Desk ===

impl Desk {
    /// Gives an order, and waits until it is followed or refused.
    ///
    /// # Errors
    /// Why it was not followed.
    pub async fn order(&self, verb: Verb) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Order { verb, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::Busy("the daemon has other orders to follow first: try again".into())
            }
            mpsc::error::TrySendError::Closed(_) => ends(),
        })?;
        answered.await.unwrap_or_else(|_| Err(ends()))
    }
}

fn ends() -> Refusal {
    Refusal::Busy("the daemon is ending, and takes no more orders".into())
}
