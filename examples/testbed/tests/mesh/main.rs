//! What the mesh does while everything is well: traffic, identities, policy, streams.

mod policy;
#[path = "../shared/standard.rs"]
mod standard;
mod streams;
mod traffic;

use std::process::ExitCode;

use meshwright_testbed::{cases, harness};

fn main() -> ExitCode {
    harness::main(
        || standard::settled(standard::world()),
        cases![
            traffic::pods_on_two_nodes_talk_by_mutual_tls,
            traffic::pods_on_one_node_talk_by_mutual_tls,
            traffic::service_address_leads_to_its_pod_by_mutual_tls,
            traffic::pod_of_the_mesh_reaches_a_plain_pod,
            traffic::plain_host_reaches_a_pod_of_the_mesh,
            traffic::app_sees_the_address_of_the_calling_pod,
            traffic::access_log_and_metrics_name_both_identities,
            traffic::pod_reaches_itself_without_the_proxy,
            traffic::two_hundred_connections_at_once_are_served,
            traffic::pod_that_leaves_the_mesh_is_reached_in_plain_text,
            policy::allow_lets_in_only_who_is_named,
            policy::deny_keeps_out_only_who_is_named,
            policy::strict_namespace_refuses_plain_text,
            policy::new_deny_ends_a_live_connection_within_a_second,
            policy::new_deny_ends_a_live_plain_connection_within_a_second,
            policy::change_of_a_workloads_policies_alone_ends_a_live_connection,
            policy::refusal_is_explained_in_the_access_log,
            policy::removed_workload_is_not_admitted_until_it_is_back,
            streams::server_that_speaks_first_is_heard,
            streams::answer_after_half_close_arrives_whole,
            streams::request_after_the_server_finished_arrives_whole,
            streams::reset_of_the_server_reaches_the_client_as_a_reset,
            streams::reset_of_the_client_reaches_the_server_as_a_reset,
            streams::stalled_reader_does_not_stop_its_neighbours,
        ],
    )
}
