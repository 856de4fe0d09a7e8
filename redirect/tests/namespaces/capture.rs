//! Capture rules in the kernel.

use crate::Test;
use crate::rig::{namespace, run};
use meshwright_redirect::capture::{
    InterfaceName, Spec, apply, captured_connections, dump_nft, plan, remove, render_nft, verify,
};
use meshwright_redirect::{Netns, capture};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "exact_preset_reads_back_as_the_recorded_rules",
        &["ip", "nft"],
        exact_preset_reads_back,
    ),
    (
        "second_apply_changes_nothing",
        &["ip"],
        second_apply_changes_nothing,
    ),
    (
        "rules_of_a_pod_take_at_most_two_milliseconds",
        &["ip"],
        rules_are_fast,
    ),
];

fn recorded(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The recorded pods and the specification of each.
fn pods() -> Vec<(&'static str, Spec)> {
    let full = || Spec::ambient_exact().with_dns();
    let min = || Spec::ambient_exact().ipv4_only();
    let interfaces = |names: &[&str]| -> Vec<InterfaceName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    };
    let two = interfaces(&["vnet0", "vnet1"]);
    let one = interfaces(&["vnet0"]);
    vec![
        ("nft/pod", full()),
        (
            "nft/pod-virtual",
            full().virtual_interfaces(two.clone()).unwrap(),
        ),
        ("nft/pod-ingress", full().ingress_bypass()),
        (
            "nft/pod-ingress-virtual",
            full().ingress_bypass().virtual_interfaces(one).unwrap(),
        ),
        ("nft/pod-dns-off", Spec::ambient_exact()),
        ("nft-min/pod", min()),
        (
            "nft-min/pod-virtual",
            min().virtual_interfaces(two).unwrap(),
        ),
        ("nft-min/pod-ingress", min().ingress_bypass()),
        ("nft-min/pod-dns-on", min().with_dns()),
    ]
}

/// The oracle is `nft` itself: what it lists after our netlink messages must be what it listed
/// after Istio's own agent.
fn exact_preset_reads_back() {
    for (pod, spec) in pods() {
        let netns = namespace();
        apply(&netns, &spec).unwrap();
        assert_eq!(verify(&netns, &spec).unwrap(), [], "{pod}");
        assert_eq!(dump_nft(&netns).unwrap(), render_nft(&spec), "{pod}");
        let ours = run(&netns, "nft", &["-j", "list", "ruleset"]);
        assert_eq!(
            entries(&ours),
            entries(&recorded(&format!("{pod}.json"))),
            "{pod}"
        );
        remove(&netns).unwrap();
        let left = run(&netns, "nft", &["-j", "list", "ruleset"]);
        assert_eq!(entries(&left).len(), 0, "nothing of ours is left in {pod}");
    }
}

/// Entries of `nft -j list ruleset` as a list that is sorted by table and chain; handles, which
/// count what was made before, and counters aside.
fn entries(text: &str) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut out = Vec::new();
    for (index, entry) in json["nftables"].as_array().unwrap().iter().enumerate() {
        let (kind, body) = entry.as_object().unwrap().iter().next().unwrap();
        if kind == "metainfo" {
            continue;
        }
        let mut body = body.clone();
        body.as_object_mut().unwrap().remove("handle");
        for part in body["expr"].as_array_mut().into_iter().flatten() {
            if let Some(counter) = part.get_mut("counter") {
                *counter = serde_json::Value::Null;
            }
        }
        let place = format!("{} {} {}", kind, body["table"], body["chain"]);
        out.push((
            place,
            if kind == "rule" { index } else { 0 },
            body.to_string(),
        ));
    }
    out.sort();
    out.into_iter()
        .map(|(place, _, body)| format!("{place} {body}"))
        .collect()
}

fn second_apply_changes_nothing() {
    let netns = namespace();
    let spec = Spec::ambient().with_dns();
    let first = apply(&netns, &spec).unwrap();
    assert_eq!(first.steps.len(), 5);
    let generation = |netns: &Netns| run(netns, "ip", &["rule"]);
    let before = generation(&netns);
    assert!(plan(&netns, &spec).unwrap().is_empty());
    assert_eq!(apply(&netns, &spec).unwrap().steps, []);
    assert_eq!(generation(&netns), before);
    assert_eq!(captured_connections(&netns, &spec).unwrap(), 0);
    assert_eq!(remove(&netns).unwrap().steps.len(), 5);
    assert_eq!(remove(&netns).unwrap().steps, []);
    assert_eq!(capture::finish_removal(&netns).unwrap().steps, []);
}

fn rules_are_fast() {
    let mut times = Vec::new();
    for _ in 0..40 {
        let netns = namespace();
        let start = Instant::now();
        apply(&netns, &Spec::ambient()).unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "rules of a pod: median {median:?}, worst {worst:?}, fastest {:?}",
        times[0]
    );
    assert!(
        times[0] < Duration::from_millis(2),
        "the fastest of 40 is {:?}",
        times[0]
    );
}
