//! What the mesh does when something goes wrong: programs that die, certificates that expire,
//! input that nobody should send.

mod certificates;
mod control_plane;
mod input;
mod proxies;
#[path = "../shared/standard.rs"]
mod standard;

use std::process::ExitCode;

use meshwright_testbed::{cases, harness};

fn main() -> ExitCode {
    harness::main(
        // Short-lived certificates: every fault happens while they rotate.
        || standard::settled(standard::world().proxy_env("SECRET_TTL", certificates::TTL)),
        cases![
            control_plane::restart_loses_no_connection_and_sends_nothing_again,
            control_plane::change_during_an_outage_is_applied_after_it,
            control_plane::malformed_manifest_is_named_and_changes_nothing,
            proxies::killed_proxy_fails_closed_and_comes_back,
            proxies::replaced_proxy_loses_no_connection,
            proxies::proxy_that_is_asked_twice_to_end_ends,
            proxies::enrolment_leaves_open_connections_alone,
            proxies::pod_whose_port_is_taken_waits_and_harms_nobody,
            certificates::short_lived_certificates_rotate_under_load,
            input::malformed_handover_never_ends_the_proxy,
            input::wrong_root_is_never_ready,
            input::unreadable_token_is_named,
            input::unknown_token_is_never_ready,
            input::unreachable_control_plane_is_never_ready,
            input::unknown_variable_of_ours_stops_the_start,
            input::every_unreadable_value_is_named_at_once,
        ],
    )
}
