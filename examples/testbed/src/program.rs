//! One binary is every program: it starts itself again with a hidden first argument.
//!
//! A binary or test of the testbed calls [`dispatch`] first in `main`. In a process that was
//! started by a world, it runs the program it was started as and never returns; otherwise it
//! returns at once.

use std::{ffi::OsString, process::ExitCode};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::getppid,
};

use crate::{Step, WorldError, apps, sweeper};

/// Marks a process that a world started. Nobody types this by accident.
pub(crate) const HIDDEN: &str = "@meshwright-testbed";

/// What a process of a world is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Program {
    /// An application or client of [`apps`](crate::apps).
    App,
    /// The control plane.
    ControlPlane,
    /// A node proxy.
    Ztunnel,
}

impl Program {
    pub(crate) const fn argument(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::ControlPlane => "control-plane",
            Self::Ztunnel => "ztunnel",
        }
    }

    fn from_argument(text: &str) -> Option<Self> {
        [Self::App, Self::ControlPlane, Self::Ztunnel]
            .into_iter()
            .find(|program| program.argument() == text)
    }
}

/// Runs the program that this process was started as, or returns `None` in a process that was
/// started by a person.
///
/// Call it first in `main`, before any thread, and exit with what it returns.
pub fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let zeroth = args.next()?;
    if args.next()? != HIDDEN {
        return None;
    }
    let role = args.next()?;
    let parent = args.next()?;
    let mut argv = vec![zeroth];
    argv.extend(args);
    Some(
        match start(&role.to_string_lossy(), &parent.to_string_lossy(), argv) {
            Ok(code) => code,
            Err(error) => {
                report(&error);
                ExitCode::FAILURE
            }
        },
    )
}

fn start(role: &str, parent: &str, argv: Vec<OsString>) -> Result<ExitCode, WorldError> {
    if role == sweeper::ROLE {
        return sweeper::main();
    }
    die_with(parent)?;
    match Program::from_argument(role) {
        Some(Program::App) => apps::main(&argv),
        Some(Program::ControlPlane) => Ok(meshwright_control_plane::run(argv)),
        Some(Program::Ztunnel) => Ok(meshwright_ztunnel::run(argv)),
        None => Err(WorldError::new(format!("start as `{role}`"))),
    }
}

/// The kernel ends this process with the thread that started it, also after a kill -9.
fn die_with(parent: &str) -> Result<(), WorldError> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask to end with the parent")?;
    if getppid().to_string() == parent {
        Ok(())
    } else {
        Err(WorldError::new("start before the parent ended"))
    }
}

#[expect(
    clippy::print_stderr,
    reason = "stderr is the log file of this process"
)]
fn report(error: &WorldError) {
    eprintln!("error: {}", error.chain());
}
