//! The presets against recordings of Istio's own node agent, and plans without a kernel.

use super::model::tables;
use super::plan::{Observed, Routing, drift, plan_apply, plan_begin_removal, plan_remove};
use super::{CaptureError, Drift, Family, InterfaceName, Plan, Spec, render_iptables, render_nft};
use crate::nft::{
    BaseChain, Chain, ChainKind, Field, Hook, Match, Rule, Snapshot, Statement, Table, Transport,
    Value, Verdict, round_trip,
};
use meshwright_testkit::assert_chain_says_each_thing_once;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{fs, io};

fn recorded(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    fs::read_to_string(path.join(name)).unwrap()
}

fn interfaces(names: &[&str]) -> Vec<InterfaceName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// The recorded pods and the specification of each.
fn pods() -> Vec<(&'static str, Spec)> {
    let full = || Spec::ambient_exact().with_dns();
    let min = || Spec::ambient_exact().ipv4_only();
    let two = || interfaces(&["vnet0", "vnet1"]);
    let one = interfaces(&["vnet0"]);
    vec![
        ("/pod", full()),
        ("/pod-virtual", full().virtual_interfaces(two()).unwrap()),
        ("/pod-ingress", full().ingress_bypass()),
        (
            "/pod-ingress-virtual",
            full().ingress_bypass().virtual_interfaces(one).unwrap(),
        ),
        ("/pod-dns-off", Spec::ambient_exact()),
        ("-min/pod", min()),
        ("-min/pod-virtual", min().virtual_interfaces(two()).unwrap()),
        ("-min/pod-ingress", min().ingress_bypass()),
        ("-min/pod-dns-on", min().with_dns()),
    ]
}

#[test]
fn exact_preset_equals_the_recorded_nf_tables_rules() {
    let _trace = meshwright_testkit::trace();
    for (pod, spec) in pods() {
        let recorded = tables_of_json(&recorded(&format!("nft{pod}.json")));
        let wanted = tables(&spec);
        assert_eq!(wanted.len(), recorded.len(), "number of tables of {pod}");
        for table in wanted {
            let theirs = recorded.iter().find(|t| t.name == table.name).unwrap();
            for chain in &table.chains {
                let same = theirs.chains.iter().find(|c| c.name == chain.name);
                assert_eq!(Some(chain), same, "{pod}, table {}", table.name);
            }
            assert_eq!(table.chains.len(), theirs.chains.len(), "chains of {pod}");
        }
    }
}

#[test]
fn exact_preset_as_text_equals_the_recorded_iptables_rules() {
    let _trace = meshwright_testkit::trace();
    for (pod, spec) in pods() {
        let mut families = vec![(Family::V4, "iptables")];
        if spec.ipv6 {
            families.push((Family::V6, "ip6tables"));
        }
        for (family, program) in families {
            let theirs = recorded(&format!("iptables{pod}.{program}.txt"));
            let ours = render_iptables(&spec, family);
            assert_eq!(
                iptables_rules(&ours),
                iptables_rules(&theirs),
                "{pod} {family}"
            );
        }
    }
}

/// Rules as sets of options, by table: order of options and counters aside.
fn iptables_rules(text: &str) -> BTreeSet<(String, Vec<String>)> {
    let mut table = String::new();
    let mut out = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        }
        if !line.starts_with("-A") {
            continue;
        }
        let mut options: Vec<String> = Vec::new();
        let mut negated = false;
        for word in line.split(' ') {
            match word {
                "!" => negated = true,
                word if word.starts_with('-') => {
                    let not = if negated { "! " } else { "" };
                    options.push(format!("{not}{word}"));
                    negated = false;
                }
                value => {
                    let last = options.last_mut().unwrap();
                    last.push(' ');
                    last.push_str(value);
                }
            }
        }
        // Loading a matcher says nothing by itself.
        options.retain(|option| !option.starts_with("-m "));
        options.sort();
        out.insert((table.clone(), options));
    }
    out
}

#[test]
fn every_rule_survives_the_way_to_the_kernel_and_back() {
    let _trace = meshwright_testkit::trace();
    let mut specs: Vec<_> = pods().into_iter().map(|(_, spec)| spec).collect();
    specs.push(Spec::ambient());
    specs.push(Spec::ambient().with_dns());
    for spec in specs {
        for rule in all_rules(&tables(&spec)) {
            assert_eq!(round_trip(&rule), rule);
        }
    }
}

fn all_rules(tables: &[Table]) -> Vec<Rule> {
    let chains = tables.iter().flat_map(|table| &table.chains);
    chains.flat_map(|chain| chain.rules.clone()).collect()
}

#[test]
fn default_preset_redirects_first_packets_only() {
    let _trace = meshwright_testkit::trace();
    let spec = Spec::ambient().with_dns();
    let first = Statement::Match(Match {
        field: Field::TcpFlags,
        mask: Some(0x12),
        negated: false,
        value: Value::Number(2),
    });
    let redirects = |rule: &&Rule| rule.0.iter().any(|s| matches!(s, Statement::Redirect(_)));
    let udp = |rule: &Rule| {
        rule.0.iter().any(|s| {
            matches!(s, Statement::Match(m) if m.field == Field::DestinationPort(Transport::Udp))
        })
    };
    let rules = all_rules(&tables(&spec));
    let redirecting: Vec<_> = rules.iter().filter(redirects).collect();
    assert_eq!(
        redirecting.len(),
        7,
        "two families of three, and DNS over UDP"
    );
    for rule in redirecting {
        assert!(udp(rule) || rule.0.contains(&first), "{rule:?}");
    }
    assert!(render_nft(&spec).contains("tcp flags & (syn | ack) == syn"));
}

fn snapshot(tables: Vec<Table>) -> Snapshot {
    Snapshot {
        generation: 7,
        tables,
    }
}

fn observed(tables: Vec<Table>, done: bool) -> Observed {
    let routing = Routing {
        exists: true,
        routable: true,
        has_rule: done,
        has_route: done,
    };
    Observed {
        v4: routing,
        v6: routing,
        nft: snapshot(tables),
    }
}

fn lines(plan: &Plan) -> Vec<String> {
    let heads = plan.steps().iter().map(ToString::to_string);
    heads
        .map(|step| step.lines().next().unwrap().to_owned())
        .collect()
}

#[test]
fn enrolment_captures_last_and_removal_releases_first() {
    let _trace = meshwright_testkit::trace();
    let spec = Spec::ambient();
    let plan = plan_apply(&spec, &observed(Vec::new(), false));
    assert_eq!(
        lines(&plan),
        [
            "add the IPv4 route of table 100",
            "add the IPv6 route of table 100",
            "add the IPv4 policy rule",
            "add the IPv6 policy rule",
            "commit 27 nf_tables changes in one batch",
        ]
    );
    let plan = plan_remove(&observed(tables(&spec), true));
    assert_eq!(
        lines(&plan),
        [
            "commit 2 nf_tables changes in one batch",
            "delete the IPv4 policy rule",
            "delete the IPv6 policy rule",
            "delete the IPv4 route of table 100",
            "delete the IPv6 route of table 100",
        ]
    );
}

#[test]
fn nothing_is_planned_where_everything_is_as_wanted() {
    let _trace = meshwright_testkit::trace();
    let spec = Spec::ambient().with_dns();
    let mut present = tables(&spec);
    present.iter_mut().for_each(|table| table.chains.reverse());
    let foreign = Table {
        name: "somebody-elses".to_owned(),
        dormant: false,
        chains: Vec::new(),
    };
    present.push(foreign);
    let now = observed(present, true);
    assert!(plan_apply(&spec, &now).is_empty());
    assert_eq!(drift(&spec, &now), []);
}

#[test]
fn tables_that_are_not_wanted_any_more_are_deleted() {
    let _trace = meshwright_testkit::trace();
    let now = observed(tables(&Spec::ambient().with_dns()), true);
    let plan = plan_apply(&Spec::ambient(), &now);
    assert!(
        plan.to_string().contains("delete table istio-ambient-raw"),
        "{plan}"
    );
}

#[test]
fn each_way_to_tamper_is_named() {
    let _trace = meshwright_testkit::trace();
    let spec = Spec::ambient();
    let tampered = |change: fn(&mut Vec<Rule>)| {
        let mut present = tables(&spec);
        let chain = present[0]
            .chains
            .iter_mut()
            .find(|c| c.name == "istio-output");
        change(&mut chain.unwrap().rules);
        let now = observed(present, true);
        assert!(!plan_apply(&spec, &now).is_empty());
        drift(&spec, &now)
    };
    let swapped = tampered(|rules| rules.swap(0, 2));
    let deleted = tampered(|rules| drop(rules.pop()));
    let foreign = tampered(|rules| {
        rules.insert(0, Rule(vec![Statement::Verdict(Verdict::Accept)]));
    });
    for found in [&swapped, &deleted, &foreign] {
        assert!(
            matches!(found.as_slice(), [Drift::Chain { chain, .. }] if chain == "istio-output"),
            "{found:?}"
        );
    }
    let mut now = observed(tables(&spec), true);
    now.v4.has_rule = false;
    now.v6.has_route = false;
    assert_eq!(
        drift(&spec, &now),
        [Drift::Rule(Family::V4), Drift::Route(Family::V6)]
    );
}

#[test]
fn family_that_the_namespace_lacks_is_left_out() {
    let _trace = meshwright_testkit::trace();
    let mut now = observed(Vec::new(), false);
    now.v6.routable = false;
    let plan = plan_apply(&Spec::ambient(), &now).to_string();
    assert!(!plan.contains("IPv6 route"), "{plan}");
    assert!(plan.contains("IPv6 policy rule"), "as Istio does: {plan}");
    now.v6.exists = false;
    let plan = plan_apply(&Spec::ambient(), &now).to_string();
    assert!(!plan.contains("IPv6 policy rule"), "{plan}");
    assert_eq!(
        plan_apply(&Spec::ambient().ipv4_only(), &now).steps().len(),
        3
    );
}

#[test]
fn first_step_of_eviction_keeps_chains_and_marks() {
    let _trace = meshwright_testkit::trace();
    let now = observed(tables(&Spec::ambient()), true);
    let plan = plan_begin_removal(&now).to_string();
    assert_eq!(
        plan,
        "commit 1 nf_tables changes in one batch\n  delete the rules of table istio-ambient-nat\n"
    );
    assert!(plan_begin_removal(&observed(Vec::new(), true)).is_empty());
}

#[test]
fn error_chains_say_each_thing_once() {
    let _trace = meshwright_testkit::trace();
    let source = || io::Error::other("no memory");
    let step = plan_apply(&Spec::ambient(), &observed(Vec::new(), false)).steps[0].clone();
    assert_chain_says_each_thing_once(&CaptureError::Overtaken);
    assert_chain_says_each_thing_once(&CaptureError::OwnNamespace);
    assert_chain_says_each_thing_once(&CaptureError::Observe {
        what: "nf_tables",
        source: source(),
    });
    assert_chain_says_each_thing_once(&CaptureError::Step {
        step,
        source: source(),
    });
}

/// Reads `nft -j list ruleset` into the model.
fn tables_of_json(text: &str) -> Vec<Table> {
    let json: Json = serde_json::from_str(text).unwrap();
    let mut tables: Vec<Table> = Vec::new();
    let text = |json: &Json, key: &str| json[key].as_str().unwrap_or_default().to_owned();
    for entry in json["nftables"].as_array().unwrap() {
        if let Some(table) = entry.get("table") {
            tables.push(Table {
                name: text(table, "name"),
                dormant: table.get("flags").is_some(),
                chains: Vec::new(),
            });
        }
        if let Some(chain) = entry.get("chain") {
            let table = tables.iter_mut().find(|t| t.name == text(chain, "table"));
            table.unwrap().chains.push(Chain {
                name: text(chain, "name"),
                base: chain.get("hook").map(|_| base_of_json(chain)),
                rules: Vec::new(),
            });
        }
        if let Some(rule) = entry.get("rule") {
            let table = tables.iter_mut().find(|t| t.name == text(rule, "table"));
            let mut chains = table.unwrap().chains.iter_mut();
            let chain = chains.find(|c| c.name == text(rule, "chain")).unwrap();
            let parts = rule["expr"].as_array().unwrap().iter();
            chain
                .rules
                .push(Rule(parts.map(statement_of_json).collect()));
        }
    }
    tables
}

fn base_of_json(chain: &Json) -> BaseChain {
    assert_eq!(chain["policy"], "accept");
    BaseChain {
        kind: match chain["type"].as_str().unwrap() {
            "nat" => ChainKind::Nat,
            "filter" => ChainKind::Filter,
            "route" => ChainKind::Route,
            other => panic!("{other}"),
        },
        hook: match chain["hook"].as_str().unwrap() {
            "prerouting" => Hook::Prerouting,
            "output" => Hook::Output,
            other => panic!("{other}"),
        },
        priority: i32::try_from(chain["prio"].as_i64().unwrap()).unwrap(),
    }
}

fn number(json: &Json) -> u32 {
    u32::try_from(json.as_u64().unwrap()).unwrap()
}

fn statement_of_json(json: &Json) -> Statement {
    let (kind, body) = json.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "counter" => Statement::Counter,
        "accept" => Statement::Verdict(Verdict::Accept),
        "return" => Statement::Verdict(Verdict::Return),
        "jump" => Statement::Verdict(Verdict::Jump(body["target"].as_str().unwrap().to_owned())),
        "redirect" => Statement::Redirect(u16::try_from(number(&body["port"])).unwrap()),
        "match" => Statement::Match(match_of_json(body)),
        "mangle" if body["key"]["ct"]["key"] == "zone" => {
            Statement::SetZone(u16::try_from(number(&body["value"])).unwrap())
        }
        "mangle" if body["key"]["meta"]["key"] == "mark" => {
            assert_eq!(body["value"]["ct"]["key"], "mark");
            Statement::RestoreMark
        }
        "mangle" => {
            let or = &body["value"]["|"];
            let flip = number(&or[1]);
            // `nft` shows bits that are set anyway as kept.
            let keep = number(&or[0]["&"][1]) & !flip;
            Statement::SaveMark { keep, flip }
        }
        other => panic!("{other}"),
    }
}

fn match_of_json(body: &Json) -> Match {
    let left = &body["left"];
    let (selector, mask) = match left.get("&") {
        Some(masked) => (&masked[0], Some(number(&masked[1]))),
        None => (left, None),
    };
    let transport = |json: &Json| match json["protocol"].as_str().unwrap() {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        other => panic!("{other}"),
    };
    let field = if let Some(payload) = selector.get("payload") {
        match (
            payload["protocol"].as_str().unwrap(),
            payload["field"].as_str().unwrap(),
        ) {
            ("ip", "saddr") => Field::Ip4Source,
            ("ip", "daddr") => Field::Ip4Destination,
            ("ip6", "saddr") => Field::Ip6Source,
            ("ip6", "daddr") => Field::Ip6Destination,
            (_, "sport") => Field::SourcePort(transport(payload)),
            (_, "dport") => Field::DestinationPort(transport(payload)),
            other => panic!("{other:?}"),
        }
    } else if selector.get("ct").is_some() {
        Field::ConnectionMark
    } else {
        match selector["meta"]["key"].as_str().unwrap() {
            "l4proto" => Field::L4Protocol,
            "mark" => Field::Mark,
            "iifname" => Field::InInterface,
            "oifname" => Field::OutInterface,
            other => panic!("{other}"),
        }
    };
    let right = &body["right"];
    let value = match (field, right.as_str()) {
        (Field::L4Protocol, Some("tcp")) => Value::Number(6),
        (Field::InInterface | Field::OutInterface, Some(name)) => Value::Interface(name.to_owned()),
        (_, Some(address)) if address.contains(':') => Value::Ip6(address.parse().unwrap()),
        (_, Some(address)) => Value::Ip4(address.parse().unwrap()),
        (_, None) => Value::Number(number(right)),
    };
    Match {
        field,
        mask,
        negated: body["op"] == "!=",
        value,
    }
}
