//! Capture rules of a pod: what shall be, what is, and the steps between.
//!
//! ```text
//!   Spec ──► tables, rules, routes ──┐
//!                                    ├──► Plan ──► execute ──► Receipt
//!   namespace ──► what it holds ─────┘
//! ```
//!
//! Everything goes through netlink, from sockets that live in the pod's namespace; no program is
//! run. All `nf_tables` changes are one transaction for both families, so there is no moment with
//! half of the rules. Rules are compared by meaning after decoding, with their order; a second
//! [`apply`] changes nothing. The whole takes about a millisecond and blocks the thread meanwhile.
//!
//! | you want | use |
//! | --- | --- |
//! | a pod in the mesh | [`apply`] |
//! | to see first what would happen | [`plan`], then [`execute`] |
//! | to take back what was done | [`roll_back`] |
//! | to know whether somebody changed it | [`verify`] |
//! | a pod out of the mesh, open connections kept | [`begin_removal`], wait for [`captured_connections`] to be 0, [`finish_removal`] |
//! | a pod out of the mesh at once | [`remove`] |
//! | to read the rules | [`render_nft`], [`render_iptables`] |

mod kernel;
mod model;
mod plan;
mod render;
mod rows;
mod spec;
#[cfg(test)]
mod tests;

pub use crate::route::Family;
pub use plan::{Drift, Plan, Step};
pub use render::{render_iptables, render_nft};
pub use spec::{
    INBOUND_MARK, InterfaceName, InvalidInterfaceName, MARK_MASK, MAX_VIRTUAL_INTERFACES,
    PROXY_MARK, Ports, ROUTE_TABLE, RULE_PREFERENCE, Spec, TooManyInterfaces,
};

use crate::diag;
use crate::fault::Fault;
use crate::netns::{EnterError, Netns, NetnsError};
use crate::nft::Table;
use kernel::Kernel;
use plan::{Observed, drift, plan_apply, plan_begin_removal, plan_remove, plan_roll_back};
use std::io;

/// Plans again at most this often when somebody else keeps changing the rules.
const ATTEMPTS: usize = 4;

/// The steps that were done, in order; none where everything was as wanted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Each step as it was done.
    pub steps: Vec<Step>,
    /// Our tables as they were before.
    before: Vec<Table>,
}

/// Makes the namespace as `spec` wants it; does nothing where it already is.
///
/// Repairs what differs, removes a table of ours that is not wanted, and leaves everything else in
/// the namespace alone. Every prefix of the steps is safe: traffic is captured by the last of them.
///
/// # Errors
///
/// Returns [`CaptureError`]; what was done is taken back.
pub fn apply(netns: &Netns, spec: &Spec) -> Result<Receipt, CaptureError> {
    let mut kernel = Kernel::open(netns)?;
    let mut receipt = Receipt::default();
    let result = drive(&mut kernel, &mut receipt, |now| plan_apply(spec, now));
    finish(&mut kernel, receipt, result)
}

/// Plans what [`apply`] would do, without doing it.
///
/// # Errors
///
/// Returns [`CaptureError`] when the namespace cannot be read.
pub fn plan(netns: &Netns, spec: &Spec) -> Result<Plan, CaptureError> {
    Ok(plan_apply(spec, &Kernel::open(netns)?.observe()?))
}

/// Does the steps of a plan.
///
/// # Errors
///
/// Returns [`CaptureError::Overtaken`] when `nf_tables` rules were changed since the plan was made,
/// and the step that failed otherwise. What was done is taken back.
pub fn execute(netns: &Netns, plan: &Plan) -> Result<Receipt, CaptureError> {
    let mut kernel = Kernel::open(netns)?;
    let mut receipt = Receipt::default();
    let result = carry_out(&mut kernel, plan, &mut receipt);
    finish(&mut kernel, receipt, result)
}

/// Takes back what a call has done: the namespace is as it was before, as far as the steps of
/// `receipt` go. What is so already is left alone.
///
/// Rules that this crate cannot write and a repair replaced do not come back: the call fails.
///
/// # Errors
///
/// As [`remove`].
pub fn roll_back(netns: &Netns, receipt: &Receipt) -> Result<Receipt, CaptureError> {
    let undo = |now: &Observed| plan_roll_back(&receipt.steps, &receipt.before, now);
    drive_alone(netns, undo)
}

/// Compares the namespace with `spec`: structure, order, who comes before us, and where the kernel
/// would route.
///
/// Rules of `iptables`' older variant are not seen; those of the variant on `nf_tables` are.
///
/// # Errors
///
/// Returns [`CaptureError`] when the namespace cannot be read; a difference is not an error.
pub fn verify(netns: &Netns, spec: &Spec) -> Result<Vec<Drift>, CaptureError> {
    let mut kernel = Kernel::open(netns)?;
    let observed = kernel.observe()?;
    let mut found = drift(spec, &observed);
    let diverted = kernel.diverted(spec, &observed)?;
    found.extend(diverted.into_iter().map(Drift::Diverted));
    found.extend(kernel.ahead()?);
    Ok(found)
}

/// Removes everything that [`apply`] made, whichever specification it was for.
///
/// Captured connections that are still open are reset: their translation ends with the tables.
///
/// # Errors
///
/// Returns [`CaptureError`]; what was done before stays, and another call goes on from there.
pub fn remove(netns: &Netns) -> Result<Receipt, CaptureError> {
    drive_alone(netns, plan_remove)
}

/// Stops capturing new connections; those that are captured continue.
///
/// [`finish_removal`] must follow, when [`captured_connections`] is 0 or patience ends.
///
/// # Errors
///
/// As [`remove`].
pub fn begin_removal(netns: &Netns) -> Result<Receipt, CaptureError> {
    drive_alone(netns, plan_begin_removal)
}

/// Removes what [`begin_removal`] left; the same as [`remove`].
///
/// # Errors
///
/// As [`remove`].
pub fn finish_removal(netns: &Netns) -> Result<Receipt, CaptureError> {
    remove(netns)
}

/// Counts the connections that still run through the proxy's ports in the namespace.
///
/// # Errors
///
/// Returns [`CaptureError::Observe`] where the kernel has no socket diagnostics.
pub fn captured_connections(netns: &Netns, spec: &Spec) -> Result<usize, CaptureError> {
    let ports = [spec.ports.outbound, spec.ports.inbound, spec.ports.tunnel];
    diag::connections(netns, &ports).map_err(|source| CaptureError::Observe {
        what: "connections",
        source,
    })
}

/// Reads the namespace's rules, back into the text that [`render_nft`] writes.
///
/// Only tables of the family `inet` are read. What this crate does not write appears as a comment.
///
/// # Errors
///
/// Returns [`CaptureError`] when the namespace cannot be read.
pub fn dump_nft(netns: &Netns) -> Result<String, CaptureError> {
    let observed = Kernel::open(netns)?.observe()?;
    Ok(render::tables_text(&observed.nft.tables))
}

/// Observes, plans and does; what was done before a failure stays.
fn drive_alone(netns: &Netns, plan: impl Fn(&Observed) -> Plan) -> Result<Receipt, CaptureError> {
    let mut receipt = Receipt::default();
    drive(&mut Kernel::open(netns)?, &mut receipt, plan).map(|()| receipt)
}

/// Observes, plans and does; again when somebody else was faster.
fn drive(
    kernel: &mut Kernel,
    receipt: &mut Receipt,
    plan: impl Fn(&Observed) -> Plan,
) -> Result<(), CaptureError> {
    for _attempt in 1..ATTEMPTS {
        let plan = plan(&kernel.observe()?);
        match carry_out(kernel, &plan, receipt) {
            Err(CaptureError::Overtaken) => (),
            result => return result,
        }
    }
    let plan = plan(&kernel.observe()?);
    carry_out(kernel, &plan, receipt)
}

/// Does the steps of a plan. After a failure the receipt ends with the step that failed, unless it
/// was certainly not done.
fn carry_out(kernel: &mut Kernel, plan: &Plan, receipt: &mut Receipt) -> Result<(), CaptureError> {
    receipt.before.clone_from(&plan.before);
    for step in plan.steps() {
        receipt.steps.push(step.clone());
        if let Err(error) = kernel.do_step(step, plan.generation) {
            if matches!(error, CaptureError::Overtaken) {
                receipt.steps.pop();
            }
            return Err(error);
        }
        tracing::debug!(%step, "capture");
    }
    Ok(())
}

/// Gives the receipt, or takes back what it says: a pod is captured wholly or not at all.
fn finish(
    kernel: &mut Kernel,
    receipt: Receipt,
    result: Result<(), CaptureError>,
) -> Result<Receipt, CaptureError> {
    let Err(error) = result else {
        return Ok(receipt);
    };
    let undo = |now: &Observed| plan_roll_back(&receipt.steps, &receipt.before, now);
    if let Err(error) = drive(kernel, &mut Receipt::default(), undo) {
        tracing::warn!(%error, "a half-done capture could not be taken back");
    }
    Err(error)
}

/// The rules of a namespace could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The namespace could not be entered.
    #[error("could not work in the namespace")]
    Enter {
        /// Why not.
        source: EnterError,
    },
    /// The process's own namespace could not be identified.
    #[error("could not tell the namespace from our own")]
    Inspect {
        /// Why not.
        source: NetnsError,
    },
    /// The kernel did not tell what is there: `nf_tables` or socket diagnostics may be missing.
    #[error("could not read {what}")]
    Observe {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody else changed the rules again and again; look for a second agent.
    #[error("the rules were changed by somebody else meanwhile")]
    Overtaken,
    /// The namespace is this process's or that of process 1: rules there would capture the node.
    #[error("refusing to capture the namespace of this process or of process 1")]
    OwnNamespace,
    /// The kernel refused a step. When it is a commit, nothing of that commit was done.
    #[error("could not do a step: {step}")]
    Step {
        /// The step; of a commit, the change that was refused.
        step: Step,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CaptureError {
    /// Returns whether the same call may be tried again: every call goes on from what it finds, so
    /// always, but for the own namespace.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        !matches!(self, Self::OwnNamespace)
    }

    /// Returns whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::OwnNamespace => Fault::Caller,
            Self::Enter { .. }
            | Self::Inspect { .. }
            | Self::Observe { .. }
            | Self::Overtaken
            | Self::Step { .. } => Fault::Local,
        }
    }
}
