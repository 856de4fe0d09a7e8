//! A whole mesh on one machine, in one command, with proof of each thing it does.
//!
//! Builds two nodes and four pods in network namespaces, lets `sleep` and `notsleep` call
//! `helloworld` in plain text, takes the running pods into the mesh, and shows what changed.

mod explain;
mod figures;
mod mesh;
mod poke;
mod show;
mod steps;

use std::process::ExitCode;

use clap::Parser;
use meshwright_testbed::{WorldError, dispatch, privilege};

use crate::{mesh::Mesh, show::Show};

/// Status where the machine allows no network namespaces at all.
const IMPOSSIBLE: u8 = 77;

/// Shows a mesh on this machine: two nodes, four pods, a control plane.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Options {
    /// Leave the mesh running at the end and say how to poke at it; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Keep the folder with logs and manifests.
    #[arg(long)]
    logs: bool,
}

fn main() -> ExitCode {
    if let Some(code) = dispatch() {
        return code;
    }
    let options = Options::parse();
    // Before anything else: a user namespace can be made only by a process with one thread.
    let privilege = match privilege::obtain() {
        Ok(privilege) => privilege,
        Err(error) => {
            show::line(format!(
                "the demo needs network namespaces, and cannot have them: {}",
                error.chain()
            ));
            return ExitCode::from(IMPOSSIBLE);
        }
    };
    match run(&options, privilege) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show::line(format!("\nthe demo failed: {}", error.chain()));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, privilege: privilege::Privilege) -> Result<(), WorldError> {
    let mut show = Show::new(7);
    let mesh = steps::build(&mut show, options.logs, privilege)?;
    let outcome = tell(&mut show, &mesh, options, privilege);
    if outcome.is_err() {
        let dir = mesh.world.keep_files();
        show::line(format!("\nlogs and manifests: {}", dir.display()));
    }
    outcome
}

fn tell(
    show: &mut Show,
    mesh: &Mesh,
    options: &Options,
    privilege: privilege::Privilege,
) -> Result<(), WorldError> {
    let before = steps::plaintext(show, mesh)?;
    steps::enrolment(show, mesh, before.open)?;
    let after = steps::encrypted(show, mesh)?;
    steps::policy(show, mesh)?;
    steps::rotation(show, mesh)?;
    figures::print(show, mesh, &before.figures, &after)?;
    show.end("every step proved what it claims");
    if options.logs {
        show::line(format!(
            "logs and manifests: {}",
            mesh.world.dir().display()
        ));
    }
    if options.keep {
        poke::explain(mesh, privilege)?;
        loop {
            std::thread::park();
        }
    }
    Ok(())
}
