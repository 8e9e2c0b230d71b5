//! Keeps the kernel at what the snapshot wants, or says loudly why it can't.

use std::{
    collections::BTreeSet,
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    config::model::{Carries, Config, KernelMode, SynCookiesMode},
    kernel::{
        self, Applied, Desired, Guarded, Hook, Kernel, KernelFault, NamedList, Protocol,
        blocks::BlockedPrefix,
    },
};

/// The kernel as far as this daemon has to do with it.
#[derive(Default)]
pub struct KernelSide {
    kernel: Option<Arc<Mutex<Kernel>>>,
    bpffs: PathBuf,
    blocked: Arc<[BlockedPrefix]>,
    /// What was last warned of.
    no_syn_cookies: BTreeSet<String>,
    no_log: Option<String>,
    /// What a predecessor holds the pins by.
    handed: Option<File>,
    pub state: State,
}

#[derive(Debug, Clone, Default)]
pub enum State {
    /// Nothing was asked of the kernel: no interface is named, or `mode = "off"`.
    #[default]
    NotWanted,
    /// `mode = "auto"`, and the kernel can't be had here.
    Unavailable {
        why: String,
    },
    On(Applied),
}

impl KernelSide {
    /// Takes over from a predecessor that stands still, if it has something to do with the kernel.
    pub fn after(handed: Option<File>) -> Self {
        Self { handed, ..Self::default() }
    }

    /// What keeps others from the pins, for a successor. Waits until nobody is at work on the kernel any more: probes must not
    /// wait with it.
    pub async fn share_lock(&self) -> Option<File> {
        let kernel = self.kernel.clone()?;
        let share = move || kernel.lock().unwrap_or_else(PoisonError::into_inner).share_lock().ok();
        tokio::task::spawn_blocking(share).await.ok().flatten()
    }

    /// Somebody else may have written to the kernel: what is known of it counts no more, and [`Self::apply`] looks anew.
    pub fn forget(&mut self) {
        self.kernel = None;
    }

    /// Makes the kernel enforce `config` as generation `generation`.
    ///
    /// # Errors
    /// When the kernel refuses; what it enforced before, it still does. In `mode = "auto"` a host where the gate
    /// can't be had at all is no error.
    pub async fn apply(&mut self, config: &Arc<Config>, generation: u64) -> Result<(), KernelFault> {
        let wanted = config.kernel.mode != KernelMode::Off && !config.kernel.interfaces.is_empty();
        if !wanted && self.kernel.is_none() && !pinned(config) {
            self.state = State::NotWanted;
            return Ok(());
        }
        match self.try_apply(config, generation).await {
            Ok(applied) => {
                self.warn_of_no_syn_cookies(config, &applied);
                self.warn_of_no_log(&applied);
                self.state = if wanted { State::On(applied) } else { State::NotWanted };
                Ok(())
            }
            Err(fault) if !wanted => {
                // An earlier daemon left a gate standing that this one was told to do without, and may not touch.
                tracing::warn!(%fault, "a gate from an earlier run is still attached: it goes on judging by its old lists");
                self.state = State::Unavailable { why: fault.to_string() };
                Ok(())
            }
            Err(fault) if self.may_do_without(config, &fault) => {
                self.state = State::Unavailable { why: fault.to_string() };
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// Makes these the prefixes that are blocked: now if there is a gate, and when there will be one.
    ///
    /// # Errors
    /// When the kernel refuses; then those of before are.
    pub async fn block(&mut self, blocked: Vec<BlockedPrefix>) -> Result<(), KernelFault> {
        let blocked: Arc<[_]> = blocked.into();
        if let Some(kernel) = self.kernel.clone() {
            let (wanted, before) = (blocked.clone(), self.blocked.clone());
            blocking(move || {
                let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
                kernel.block(&wanted).inspect_err(|_| {
                    if let Err(fault) = kernel.block(&before) {
                        tracing::error!(%fault, "the gate can't go back to the blocks before");
                    }
                })
            })
            .await?;
        }
        self.blocked = blocked;
        Ok(())
    }

    /// Where SYN cookies are asked for and can't be had. Once: the next configuration may not touch it.
    fn warn_of_no_syn_cookies(&mut self, config: &Config, applied: &Applied) {
        let before = std::mem::take(&mut self.no_syn_cookies);
        self.no_syn_cookies.extend(applied.no_syn_cookies.as_ref().map(|why| format!("nowhere: {why}")));
        let always: Vec<_> = config
            .entrypoints
            .iter()
            .filter(|one| one.syn_cookies.mode == SynCookiesMode::Always)
            .map(|one| format!("`{}`", one.name))
            .collect();
        for interface in applied.interfaces.iter().filter(|one| one.hook != Hook::Xdp && !always.is_empty()) {
            self.no_syn_cookies.insert(format!(
                "not on {} for {}: it is served by {}, and only XDP can send packets back",
                interface.name,
                always.join(", "),
                interface.hook.name()
            ));
        }
        for why in self.no_syn_cookies.difference(&before) {
            tracing::warn!(
                "SYN cookies are asked for, and the gate sends them {why}. Listeners send their own all the same"
            );
        }
    }

    fn warn_of_no_log(&mut self, applied: &Applied) {
        let before = std::mem::replace(&mut self.no_log, applied.no_log.clone());
        if let Some(why) = self.no_log.as_ref().filter(|why| before.as_ref() != Some(why)) {
            tracing::warn!(
                "`log.kernel` asks for a gate that logs, and there can't be one: {why}. It guards all the same; `weir watch` \
                 shows drops"
            );
        }
    }

    /// Whether an interface that is guarded has vanished, come back, or is another one now.
    #[must_use]
    pub fn interfaces_changed(&self) -> bool {
        let kernel = self.kernel.as_ref();
        kernel
            .is_some_and(|kernel| kernel.lock().unwrap_or_else(PoisonError::into_inner).interfaces_changed())
    }

    /// Entrypoints with a flood of SYNs now. `None`: the kernel isn't ours, or is being worked on.
    #[must_use]
    pub fn floods(&self) -> Option<BTreeSet<Arc<str>>> {
        let kernel = self.kernel.as_ref()?.try_lock().ok()?;
        kernel.floods().ok().map(BTreeSet::from_iter)
    }

    /// Only `mode = "auto"` may, and only where no gate of ours stands that would go on with old lists.
    fn may_do_without(&self, config: &Config, fault: &KernelFault) -> bool {
        let cannot_be_had = fault.is_unavailable() || matches!(fault, KernelFault::AttachRefused { .. });
        config.kernel.mode == KernelMode::Auto && cannot_be_had && !matches!(self.state, State::On(_))
    }

    async fn try_apply(&mut self, config: &Arc<Config>, generation: u64) -> Result<Applied, KernelFault> {
        let bpffs = config.kernel.bpffs.clone();
        if self.bpffs != bpffs {
            self.kernel = None;
        }
        let (known, desired) = (self.kernel.clone(), desired(config, generation));
        let blocked = self.blocked.clone();
        let path = bpffs.clone();
        let handed = self.handed.take();
        // Loading and swapping wait for the verifier and for RCU: probes must not wait with them.
        let (kernel, applied) = blocking(move || {
            let kernel = match known {
                Some(kernel) => kernel,
                None => {
                    let mut kernel = Kernel::take_over(&path, handed.as_ref())?;
                    kernel.block(&blocked)?;
                    Arc::new(Mutex::new(kernel))
                }
            };
            let applied = kernel.lock().unwrap_or_else(PoisonError::into_inner).apply(&desired)?;
            Ok((kernel, applied))
        })
        .await?;
        // After each time: other programs may have taken the place of those that were explained.
        in_the_background(kernel.clone());
        self.kernel = Some(kernel);
        self.bpffs = bpffs;
        Ok(applied)
    }
}

/// What need not be there for the first packet, and takes its time.
fn in_the_background(kernel: Arc<Mutex<Kernel>>) {
    tokio::task::spawn_blocking(move || {
        let explainable = kernel.lock().unwrap_or_else(PoisonError::into_inner).make_explainable();
        if let Err(fault) = explainable {
            tracing::warn!(%fault, "`weir explain` can't be answered; the gate judges all the same");
        }
    });
}

/// Whether an earlier daemon left pins behind.
fn pinned(config: &Config) -> bool {
    kernel::stands(&config.kernel.bpffs).unwrap_or(false)
}

fn desired(config: &Config, generation: u64) -> Desired {
    let guarded = config.entrypoints.iter().map(|entrypoint| Guarded {
        entrypoint: entrypoint.name.clone(),
        bind: entrypoint.bind.clone(),
        protocols: match (entrypoint.carries, entrypoint.http3) {
            (Carries::Udp, _) => vec![Protocol::Udp],
            (_, true) => vec![Protocol::Tcp, Protocol::Udp],
            (_, false) => vec![Protocol::Tcp],
        },
        lists: entrypoint.allow.iter().map(|list| &config.allowlists[list.0]).map(named).collect(),
        shadow: entrypoint.shadow,
        limit: entrypoint.source_limit,
        syn_cookies: entrypoint.syn_cookies,
    });
    Desired {
        generation,
        interfaces: config.kernel.interfaces.clone(),
        mode: config.kernel.mode,
        guarded: guarded.collect(),
        log: config.log.kernel,
    }
}

fn named(list: &crate::config::model::Allowlist) -> NamedList {
    NamedList { name: list.name.clone(), cdn: list.cdn, prefixes: list.prefixes.as_slice().into() }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KernelFault> + Send + 'static,
) -> Result<T, KernelFault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(KernelFault::Other { doing: "work on the kernel".into(), why: error.to_string() })
    })
}
