//! Programs that other people wrote, against these crates: Envoy, libcurl, Node and gRPC for Python.
//!
//! Everything runs on the loopback interface with certificates of an authority of the test. Each
//! test asks for its peer by name; the peers are found as [`capability::Peer`] says.

mod ads;
mod app;
mod capability;
mod certificates;
mod curl;
mod envoy;
mod envoy_ads;
mod envoy_client;
mod envoy_server;
mod grpc_client;
mod node;
mod process;
mod rig;
mod server;
mod traffic;

use std::{path::Path, process::ExitCode};

use capability::Peer;
use libtest_mimic::{Arguments, Failed, Trial};
use meshwright_testbed::{WorldError, harness};

/// A fact, whom it takes, and what shows it. The path is the program of the peer.
type Case = (&'static str, Peer, fn(&Path) -> Result<(), WorldError>);

macro_rules! cases {
    ($($peer:ident: $case:path),* $(,)?) => {
        [$((stringify!($case), Peer::$peer, $case as fn(&Path) -> Result<(), WorldError>)),*]
    };
}

fn main() -> ExitCode {
    if let Some(code) = process::become_peer() {
        return code;
    }
    let cases: Vec<Case> = cases![
        Envoy: envoy_client::envoy_reaches_an_app_through_our_server,
        Envoy: envoy_client::half_close_through_envoy_and_our_server_is_exact,
        Envoy: envoy_client::refusal_closes_what_envoy_accepted,
        Envoy: envoy_client::envoy_does_not_send_a_request_to_another_identity,
        Envoy: envoy_server::our_client_reaches_an_app_through_envoy,
        Envoy: envoy_server::half_close_of_our_client_through_envoy_is_exact,
        Envoy: envoy_server::end_that_envoy_sends_before_its_reset_is_heard,
        Envoy: envoy_server::two_tunnels_share_a_connection_to_envoy,
        Envoy: envoy_server::envoy_of_another_identity_gets_no_request,
        Envoy: envoy_ads::envoy_accepts_and_refuses_what_our_server_sends,
        Libcurl: curl::libcurl_fetches_through_our_server,
        Libcurl: curl::libcurl_is_told_of_a_refusal,
        Node: node::node_half_closes_both_ways_through_our_server,
        Grpc: grpc_client::grpc_client_follows_our_server_and_resumes,
    ]
    .into();
    let arguments = Arguments::from_args();
    let trials = cases.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial((name, peer, test): Case) -> Trial {
    Trial::ignorable_test(name, move || {
        let program = match peer.find() {
            Ok(program) => program,
            Err(missing) => return harness::unavailable(&missing),
        };
        let _trace = meshwright_testkit::trace();
        match test(&program) {
            Ok(()) => Ok(libtest_mimic::Completion::Completed),
            Err(error) => Err(Failed::from(error.chain())),
        }
    })
}
