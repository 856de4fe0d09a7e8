//! A running control plane, seen by real clients over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "tests"
)]

#[path = "serving/rig.rs"]
mod rig;

use std::fs;

use meshwright_control_plane::ControlPlane;
use meshwright_identity::rotation::IssueErrorKind;
use meshwright_xds_client::proto::{ADDRESS, AUTHORIZATION};
use rig::{APP, DEADLINE, Happened, NODE_A, Rig, has_pod, http, pod, status, status_says};

#[tokio::test(flavor = "multi_thread")]
async fn node_gets_all_workloads_services_and_policies() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    let mut node = rig.node(&control_plane, Some(NODE_A));
    let snapshot = node
        .sees("four workloads", |s| s.workload_count() == 4)
        .await;
    assert_eq!(snapshot.service_count(), 1);
    let rule = "the status page tells what the node accepted";
    let status = status_says(&control_plane, rule, |s| {
        s["nodes"][0]["types"][AUTHORIZATION]["accepted"] == 1
    })
    .await;
    assert_eq!(
        node.policies.names(),
        [
            "default/helloworld",
            "istio-system/istio_converted_static_strict"
        ]
    );
    assert_eq!(status["nodes"][0]["types"][ADDRESS]["accepted"], 1);
    assert_eq!(status["nodes"][0]["streams"], 1);
    assert_eq!(status["manifests"]["addresses"], 5);
    assert_eq!(status["errors"], serde_json::json!([]));
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn change_of_a_file_sends_what_differs_and_nothing_else() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    let mut node = rig.node(&control_plane, Some(NODE_A));
    settled(&control_plane).await;
    drop(node.log.0.take());
    rig.put("late.yaml", &pod("late", "10.244.1.9"));
    node.sees_pod("late").await;
    accepted(&control_plane, 2).await;
    assert_eq!(node.log.0.take(), [received(ADDRESS, 1, 0)]);
    rig.put("late.yaml", &pod("later", "10.244.1.9"));
    let snapshot = node.sees_pod("later").await;
    accepted(&control_plane, 3).await;
    assert!(!has_pod(&snapshot, "late"));
    assert_eq!(node.log.0.take(), [received(ADDRESS, 1, 1)]);
    rig.remove("late.yaml");
    node.sees("the pod is gone", |s| !has_pod(s, "later")).await;
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_file_leaves_the_last_good_set_in_force_and_is_reported() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    let mut node = rig.node(&control_plane, Some(NODE_A));
    settled(&control_plane).await;
    drop(node.log.0.take());
    // A good pod beside a bad one in one file, and a policy with a bad address in another.
    rig.put(
        "late.yaml",
        &format!("{}---\nkind: Pod\n", pod("late", "10.244.1.9")),
    );
    rig.put(
        "policy.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  action: DENY\n  rules:\n  - from:\n    - \
         source: {ipBlocks: [10.0.0.300]}\n",
    );
    let rule = "both faults are on the status page";
    let both = status_says(&control_plane, rule, |s| {
        s["errors"].as_array().unwrap().len() == 2
    })
    .await;
    let errors: Vec<_> = both["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e.as_str().unwrap())
        .collect();
    assert!(
        errors
            .iter()
            .any(|e| e.starts_with("late.yaml:6:1: no `apiVersion`")),
        "{errors:?}"
    );
    assert!(
        errors
            .iter()
            .any(|e| e.starts_with("policy.yaml:1:1: ") && e.contains("10.0.0.300")),
        "{errors:?}"
    );
    assert_eq!(
        both["manifests"]["generation"], 1,
        "nothing of a faulty set is applied"
    );
    rig.remove("policy.yaml");
    rig.put("late.yaml", &pod("late", "10.244.1.9"));
    node.sees_pod("late").await;
    accepted(&control_plane, 2).await;
    status_says(&control_plane, "the errors are gone", |s| {
        s["errors"] == serde_json::json!([])
    })
    .await;
    assert_eq!(node.log.0.take(), [received(ADDRESS, 1, 0)]);
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_resumes_after_a_restart_without_a_full_push() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    rig.put("late.yaml", &pod("late", "10.244.1.9"));
    let control_plane = rig.start().await;
    let (address, root) = (control_plane.address(), control_plane.root_pem().to_owned());
    let mut node = rig.node(&control_plane, Some(NODE_A));
    node.sees_pod("late").await;
    settled(&control_plane).await;
    control_plane.shutdown().await;
    drop(node.log.0.take());
    rig.put("late.yaml", &pod("later", "10.244.1.9"));
    let control_plane = rig.start_on(&address.to_string()).await;
    assert_eq!(control_plane.root_pem(), root, "the kept root is the same");
    let snapshot = node.sees_pod("later").await;
    assert!(
        !has_pod(&snapshot, "late"),
        "what vanished meanwhile is removed"
    );
    assert_eq!(snapshot.workload_count(), 5);
    settled(&control_plane).await;
    let sent: usize = node
        .log
        .0
        .take()
        .iter()
        .map(|happened| match happened {
            Happened::Received { resources, .. } => *resources,
            _ => 0,
        })
        .sum();
    assert_eq!(sent, 1, "only the new pod is sent");
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_gets_certificates_of_its_own_pods_only() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    let svid = rig
        .certificate(&control_plane, Some(NODE_A), "ns/default/sa/sleep")
        .await
        .unwrap();
    assert_eq!(
        svid.id().as_str(),
        "spiffe://cluster.local/ns/default/sa/sleep"
    );
    let lifetime = svid.not_after().duration_since(svid.not_before()).unwrap();
    assert!(
        lifetime.as_secs() <= 3_700,
        "a day was asked for, an hour is the most: {lifetime:?}"
    );
    for (token, id, why) in [
        (Some(NODE_A), "ns/default/sa/nobody", "no such pod"),
        (
            Some(NODE_A),
            "ns/kube-system/sa/sleep",
            "a pod of another namespace",
        ),
        (
            Some("an-unknown-token-0009"),
            "ns/default/sa/sleep",
            "an unknown token",
        ),
        (None, "ns/default/sa/sleep", "no token"),
        (
            Some(APP),
            "ns/default/sa/sleep",
            "another workload's identity",
        ),
    ] {
        let error = rig
            .certificate(&control_plane, token, id)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), IssueErrorKind::Denied, "{why}: {error}");
    }
    rig.certificate(&control_plane, Some(APP), "ns/default/sa/app")
        .await
        .unwrap();
    let status = status(&control_plane).await;
    assert_eq!(
        status["certificates"],
        serde_json::json!({"issued": 2, "refused": 5})
    );
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_can_be_asked_for_as_soon_as_its_pod_is_seen() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    let mut node = rig.node(&control_plane, Some(NODE_A));
    node.sees_pod("sleep").await;
    for round in 0..5 {
        let name = format!("late-{round}");
        rig.put("late.yaml", &pod(&name, "10.244.1.9"));
        node.sees_pod(&name).await;
        rig.certificate(
            &control_plane,
            Some(NODE_A),
            &format!("ns/default/sa/{name}"),
        )
        .await
        .unwrap();
    }
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_without_a_known_token_gets_no_resources() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    for token in [None, Some("an-unknown-token-0009")] {
        let node = rig.node(&control_plane, token);
        let log = node.log.clone();
        tokio::task::spawn_blocking(move || {
            log.0.wait_for(DEADLINE, "the stream is refused", |happened| {
                matches!(happened, Happened::Ended(why) if why.contains("no known bearer token"))
            });
        })
        .await
        .unwrap();
        assert_eq!(node.policies.names().len(), 0);
    }
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_read_again_and_a_faulty_list_is_reported() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    let (new, id) = ("a-new-token-of-node-a", "ns/default/sa/sleep");
    fs::write(
        rig.path("tokens.yaml"),
        "tokens: [{token: short, node: node-a}]\n",
    )
    .unwrap();
    status_says(&control_plane, "the fault is on the status page", |s| {
        s["errors"][0]
            .as_str()
            .is_some_and(|e| e.starts_with("tokens: entry 1"))
    })
    .await;
    rig.certificate(&control_plane, Some(NODE_A), id)
        .await
        .unwrap();
    fs::write(
        rig.path("tokens.yaml"),
        format!("tokens: [{{token: {new}, node: node-a}}]\n"),
    )
    .unwrap();
    status_says(&control_plane, "the fault is gone", |s| {
        s["errors"] == serde_json::json!([])
    })
    .await;
    rig.certificate(&control_plane, Some(new), id)
        .await
        .unwrap();
    assert!(
        rig.certificate(&control_plane, Some(NODE_A), id)
            .await
            .is_err(),
        "the old token is no longer known"
    );
    control_plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_page_is_for_this_machine_and_for_reading_only() {
    let _trace = meshwright_testkit::trace();
    let rig = Rig::new();
    let control_plane = rig.start().await;
    let address = control_plane.status_address();
    for (request, code) in [
        (
            "GET /healthz/ready HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
            "200",
        ),
        ("GET /status HTTP/1.1\r\nhost: evil.example\r\n\r\n", "403"),
        ("GET /status HTTP/1.1\r\n\r\n", "403"),
        (
            "POST /status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n",
            "405",
        ),
        ("GET /secrets HTTP/1.1\r\nhost: localhost\r\n\r\n", "404"),
    ] {
        let answer = http(address, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{request}: {answer}"
        );
    }
    let text = status(&control_plane).await.to_string();
    assert!(!text.contains(NODE_A), "no token is shown");
    control_plane.shutdown().await;
}

/// Waits until the first node has accepted so many messages of addresses; the node notes a message
/// before it accepts it.
async fn accepted(control_plane: &ControlPlane, count: u64) {
    status_says(control_plane, "addresses are accepted", |status| {
        status["nodes"][0]["types"][ADDRESS]["accepted"] == count
    })
    .await;
}

/// Waits until the first node has accepted both types.
async fn settled(control_plane: &ControlPlane) {
    let rule = "both types are accepted";
    status_says(control_plane, rule, |status| {
        let types = &status["nodes"][0]["types"];
        types[ADDRESS]["accepted"] == 1 && types[AUTHORIZATION]["accepted"] == 1
    })
    .await;
}

fn received(type_url: &str, resources: usize, removed: usize) -> Happened {
    Happened::Received {
        type_url: type_url.to_owned(),
        resources,
        removed,
    }
}
