//! Capture rules in the kernel.

use crate::Test;
use crate::rig::{namespace, run};
use meshwright_redirect::capture::{
    CaptureError, Drift, Family, InterfaceName, Spec, apply, begin_removal, captured_connections,
    dump_nft, execute, plan, remove, render_iptables, render_nft, roll_back, verify,
};
use meshwright_redirect::{Netns, capture};
use std::io::Write;
use std::process::{Command, Stdio};
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
        "routing_reads_back_as_recorded",
        &["ip"],
        routing_reads_back,
    ),
    (
        "pod_without_ipv6_gets_all_but_the_route",
        &["ip"],
        without_ipv6,
    ),
    (
        "rendered_rules_are_read_by_the_programs",
        &["ip", "nft", "iptables-restore", "ip6tables-restore"],
        rendered_rules,
    ),
    ("own_namespace_is_refused", &[], own_namespace),
    (
        "plan_that_was_overtaken_changes_nothing",
        &["ip", "nft"],
        overtaken,
    ),
    (
        "commit_that_is_refused_changes_nothing",
        &["ip", "nft"],
        refused,
    ),
    (
        "what_was_done_is_taken_back_and_nothing_else",
        &["ip"],
        taken_back,
    ),
    (
        "table_that_is_switched_off_is_drift_and_is_repaired",
        &["ip", "nft"],
        dormant,
    ),
    (
        "recorded_disturbances_are_drift_and_are_repaired",
        &["ip", "nft"],
        recorded_disturbances,
    ),
    (
        "rules_of_others_before_ours_are_named_and_left_alone",
        &["ip", "nft", "iptables-nft-restore"],
        others_ahead,
    ),
    (
        "policy_rule_that_sees_less_is_not_ours",
        &["ip"],
        narrowed_rule,
    ),
    (
        "marked_packets_that_go_nowhere_are_drift",
        &["ip"],
        dead_end,
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
    let median = times[times.len() / 2];
    // The worst is the machine's: tests share it.
    assert!(median < Duration::from_millis(2), "median {median:?}");
}

/// The sections of a recorded `routing.txt`, by command.
fn recorded_routing(name: &str) -> Vec<(String, String)> {
    let text = recorded(name);
    let sections = text.split("$ ").filter(|section| !section.is_empty());
    sections
        .map(|section| section.split_once('\n').unwrap())
        .map(|(command, output)| (command.to_owned(), output.to_owned()))
        .collect()
}

/// Compares policy rules and table 100; the main table is the rig's own.
fn assert_routing(netns: &Netns, name: &str) {
    let relevant = recorded_routing(name);
    let relevant = relevant
        .iter()
        .filter(|(command, _)| !command.ends_with("main"));
    for (command, theirs) in relevant {
        let arguments: Vec<_> = command.split(' ').skip(1).collect();
        let ours = netns.run(|| Command::new("ip").args(&arguments).output());
        let ours = String::from_utf8(ours.unwrap().unwrap().stdout).unwrap();
        let lines = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.trim_end().to_owned())
                .collect()
        };
        assert_eq!(lines(&ours), lines(theirs), "{name}: {command}");
    }
}

fn routing_reads_back() {
    for (name, spec) in [
        ("nft/routing.txt", Spec::ambient_exact()),
        ("nft-min/routing.txt", Spec::ambient_exact().ipv4_only()),
    ] {
        let netns = namespace();
        apply(&netns, &spec).unwrap();
        assert_routing(&netns, name);
    }
}

fn without_ipv6() {
    let netns = namespace();
    let disable = || {
        for interface in ["all", "default", "lo"] {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            std::fs::write(path, "1").unwrap();
        }
    };
    netns.run(disable).unwrap();
    let spec = Spec::ambient_exact().with_dns();
    apply(&netns, &spec).unwrap();
    assert_routing(&netns, "nft/routing-v4-only.txt");
    assert_eq!(verify(&netns, &spec).unwrap(), []);
    // IPv6 comes later: the missing route is drift then, and the next call adds it.
    netns
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0"))
        .unwrap()
        .unwrap();
    assert_eq!(verify(&netns, &spec).unwrap().len(), 1);
    assert_eq!(apply(&netns, &spec).unwrap().steps.len(), 1);
    assert_eq!(verify(&netns, &spec).unwrap(), []);
    remove(&netns).unwrap();
}

/// Feeds a program and checks that it is content.
#[track_caller]
fn feed(netns: &Netns, program: &str, arguments: &[&str], text: &str) {
    let start = || {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
    };
    let mut child = netns.run(start).unwrap().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success(), "{program} reads {text}");
}

fn rendered_rules() {
    let mut specs = pods();
    specs.push(("default", Spec::ambient().with_dns()));
    for (pod, spec) in specs {
        let netns = namespace();
        feed(&netns, "nft", &["-f", "-"], &render_nft(&spec));
        // What the program made of our text is what our own messages make.
        assert_eq!(dump_nft(&netns).unwrap(), render_nft(&spec), "{pod}");
        let v4 = render_iptables(&spec, Family::V4);
        feed(&netns, "iptables-restore", &["--test"], &v4);
        let v6 = render_iptables(&spec, Family::V6);
        feed(&netns, "ip6tables-restore", &["--test"], &v6);
    }
}

fn own_namespace() {
    let own = Netns::open("/proc/self/ns/net").unwrap();
    let error = apply(&own, &Spec::ambient()).unwrap_err();
    assert!(matches!(error, CaptureError::OwnNamespace), "{error}");
}

fn overtaken() {
    let netns = namespace();
    let spec = Spec::ambient();
    let plan = plan(&netns, &spec).unwrap();
    run(&netns, "nft", &["add", "table", "inet", "theirs"]);
    let error = execute(&netns, &plan).unwrap_err();
    assert!(matches!(error, CaptureError::Overtaken), "{error}");
    assert_eq!(dump_nft(&netns).unwrap(), "table inet theirs {\n}\n");
    // Making the plan anew is what `apply` does by itself; what is not ours stays.
    apply(&netns, &spec).unwrap();
    assert_eq!(verify(&netns, &spec).unwrap(), []);
    remove(&netns).unwrap();
    assert_eq!(dump_nft(&netns).unwrap(), "table inet theirs {\n}\n");
}

fn refused() {
    let netns = namespace();
    // A table under one of our names that another process owns: nobody else may delete it.
    let start = || {
        Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
    };
    let mut owner = netns.run(start).unwrap().unwrap();
    let mut input = owner.stdin.take().unwrap();
    let table = "add table inet istio-ambient-raw { flags owner; }\n";
    input.write_all(table.as_bytes()).unwrap();
    let there = || dump_nft(&netns).unwrap().contains("istio-ambient-raw");
    assert!((0..10_000).any(|_| there()), "the owner made its table");
    let error = apply(&netns, &Spec::ambient()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CaptureError::Step { .. }), "{text}");
    assert!(text.contains("delete table istio-ambient-raw"), "{text}");
    assert_eq!(
        dump_nft(&netns).unwrap(),
        "table inet istio-ambient-raw {\n}\n"
    );
    // Nothing is half done: the policy rules and routes that came first went again.
    for family in ["-4", "-6"] {
        let rules = run(&netns, "ip", &[family, "rule"]);
        assert!(!rules.contains("32764:"), "{rules}");
        let routes = run(&netns, "ip", &[family, "route", "show", "table", "all"]);
        assert!(!routes.contains("table 100"), "{routes}");
    }
    drop(input);
    owner.wait().unwrap();
    apply(&netns, &Spec::ambient()).unwrap();
    assert_eq!(verify(&netns, &Spec::ambient()).unwrap(), []);
}

fn taken_back() {
    let netns = namespace();
    let routing = || {
        let show = |family| run(&netns, "ip", &[family, "rule"]);
        let routes = run(&netns, "ip", &["route", "show", "table", "all"]);
        [show("-4"), show("-6"), routes]
    };
    let before = routing();
    let spec = Spec::ambient().with_dns();
    let first = apply(&netns, &spec).unwrap();
    let captured = routing();
    assert_eq!(roll_back(&netns, &first).unwrap().steps.len(), 5);
    assert_eq!(
        (dump_nft(&netns).unwrap(), routing()),
        (String::new(), before)
    );
    assert_eq!(roll_back(&netns, &first).unwrap().steps, []);

    // From each later state back to this one.
    apply(&netns, &spec).unwrap();
    let changes: [&dyn Fn() -> _; 3] = [
        &|| apply(&netns, &Spec::ambient_exact()),
        &|| begin_removal(&netns),
        &|| remove(&netns),
    ];
    for change in changes {
        let receipt = change().unwrap();
        assert_ne!(verify(&netns, &spec).unwrap(), []);
        roll_back(&netns, &receipt).unwrap();
        assert_eq!(verify(&netns, &spec).unwrap(), []);
        assert_eq!(routing(), captured);
    }
    let nothing = apply(&netns, &spec).unwrap();
    assert_eq!(roll_back(&netns, &nothing).unwrap().steps, []);
    assert_eq!(verify(&netns, &spec).unwrap(), []);
}

fn dormant() {
    let netns = namespace();
    let spec = Spec::ambient();
    apply(&netns, &spec).unwrap();
    let nat = "add table inet istio-ambient-nat { flags dormant; }";
    run(&netns, "nft", &[nat]);
    assert!(dump_nft(&netns).unwrap().contains("flags dormant"));
    let found = verify(&netns, &spec).unwrap();
    assert!(
        matches!(found.as_slice(), [Drift::Table(name)] if name == "istio-ambient-nat"),
        "no rule of it is called: {found:?}"
    );
    assert_eq!(apply(&netns, &spec).unwrap().steps.len(), 1);
    assert_eq!(verify(&netns, &spec).unwrap(), []);
    assert!(!run(&netns, "nft", &["list", "ruleset"]).contains("dormant"));
}

fn narrowed_rule() {
    let netns = namespace();
    let spec = Spec::ambient();
    for narrow in [
        &["ipproto", "udp"][..],
        &["iif", "lo"],
        &["uidrange", "0-0"],
        &["from", "10.0.0.0/8"],
        &["tos", "0x10"],
    ] {
        apply(&netns, &spec).unwrap();
        let rule = ["pref", "32764", "fwmark", "0x111/0xfff", "lookup", "100"];
        run(&netns, "ip", &["rule", "del", "pref", "32764"]);
        run(
            &netns,
            "ip",
            &[&["rule", "add"], &rule[..], narrow].concat(),
        );
        assert_eq!(
            verify(&netns, &spec).unwrap(),
            [Drift::Rule(Family::V4)],
            "{narrow:?}"
        );
        assert_eq!(apply(&netns, &spec).unwrap().steps.len(), 1);
        assert_eq!(verify(&netns, &spec).unwrap(), []);
        remove(&netns).unwrap();
        let rules = run(&netns, "ip", &["rule"]);
        assert!(!rules.contains("32764:"), "{rules}");
    }
}

fn dead_end() {
    let netns = namespace();
    let spec = Spec::ambient();
    apply(&netns, &spec).unwrap();
    for (flag, family) in [("-4", Family::V4), ("-6", Family::V6)] {
        for end in ["unreachable", "prohibit", "blackhole"] {
            let rule = ["pref", "50", "fwmark", "0x111", end];
            run(&netns, "ip", &[&[flag, "rule", "add"], &rule[..]].concat());
            let found = verify(&netns, &spec).unwrap();
            assert_eq!(found, [Drift::Diverted(family)], "{end}");
            run(&netns, "ip", &[flag, "rule", "del", "pref", "50"]);
        }
    }
    assert_eq!(verify(&netns, &spec).unwrap(), []);
}

/// What a test of Istio's agent did to its rules between two agents, as recorded.
fn recorded_disturbances() {
    let spec = Spec::ambient_exact().with_dns();
    let wanted = entries(&recorded("nft/pod.json"));
    for (what, chain) in [
        ("foreign-rule", "istio-output"),
        ("order-changed", "istio-output"),
        ("rule-lost", "istio-output"),
    ] {
        let netns = namespace();
        apply(&netns, &spec).unwrap();
        let disturbed = recorded(&format!("nft/disturbed-{what}.txt"));
        run(&netns, "nft", &["flush", "ruleset"]);
        feed(&netns, "nft", &["-f", "-"], &disturbed);
        let found = verify(&netns, &spec).unwrap();
        assert!(
            matches!(found.as_slice(), [Drift::Chain { chain: c, .. }] if c == chain),
            "{what}: {found:?}"
        );
        apply(&netns, &spec).unwrap();
        assert_eq!(verify(&netns, &spec).unwrap(), [], "{what}");
        let ours = run(&netns, "nft", &["-j", "list", "ruleset"]);
        assert_eq!(entries(&ours), wanted, "{what}");
    }
}

fn others_ahead() {
    let netns = namespace();
    let spec = Spec::ambient();
    // What Istio's agent leaves with the other backend.
    let theirs = recorded("iptables/pod-dns-off.iptables.txt");
    feed(&netns, "iptables-nft-restore", &[], &theirs);
    apply(&netns, &spec).unwrap();
    let found: Vec<_> = verify(&netns, &spec).unwrap();
    let names: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "chain ip mangle PREROUTING is called before the capture rules",
            "chain ip mangle OUTPUT is called before the capture rules",
            "chain ip nat PREROUTING is called before the capture rules",
            "chain ip nat OUTPUT is called before the capture rules",
        ]
    );
    assert_eq!(apply(&netns, &spec).unwrap().steps, [], "nothing to repair");
    remove(&netns).unwrap();
    assert!(run(&netns, "nft", &["list", "ruleset"]).contains("chain ISTIO_OUTPUT"));
    run(&netns, "nft", &["flush", "ruleset"]);

    apply(&netns, &spec).unwrap();
    let chain = |name: &str, hook: &str| {
        let text = format!("add table inet app; add chain inet app {name} {{ {hook}; }}");
        run(&netns, "nft", &[&text]);
    };
    chain("early", "type filter hook output priority -101");
    assert_eq!(verify(&netns, &spec).unwrap(), [], "it has no rule yet");
    run(&netns, "nft", &["add rule inet app early counter"]);
    assert_eq!(verify(&netns, &spec).unwrap().len(), 1);
    run(&netns, "nft", &["delete", "table", "inet", "app"]);
    // Who comes later, or sees other packets, changes nothing.
    chain("late", "type filter hook output priority 0");
    chain("other", "type filter hook input priority -300");
    run(&netns, "nft", &["add rule inet app late counter"]);
    run(&netns, "nft", &["add rule inet app other counter"]);
    assert_eq!(verify(&netns, &spec).unwrap(), []);
}
