//! The rules as `nf_tables` tables.

use super::rows::{Place, Row, rows};
use super::spec::Spec;
use crate::nft::{BaseChain, Chain, ChainKind, Hook, Rule, Statement, Table, Verdict, normalize};
use crate::route::Family;

/// Tables that this crate owns in a pod, wanted or not.
pub(crate) const TABLES: [&str; 3] = [NAT, MANGLE, RAW];
/// The table whose rules redirect.
pub(crate) const NAT: &str = "istio-ambient-nat";
/// When the last of our chains is called: who comes later sees what is redirected already.
pub(crate) const LAST_PRIORITY: i32 = -100;
const MANGLE: &str = "istio-ambient-mangle";
const RAW: &str = "istio-ambient-raw";

/// Gives the tables that `spec` asks for.
pub(crate) fn tables(spec: &Spec) -> Vec<Table> {
    let rows = rows(spec);
    let mut tables = vec![
        table(spec, &rows, Place::Nat, NAT, [ChainKind::Nat; 2]),
        // A packet whose mark is restored must be routed again.
        table(
            spec,
            &rows,
            Place::Mangle,
            MANGLE,
            [ChainKind::Filter, ChainKind::Route],
        ),
    ];
    if spec.dns {
        tables.push(table(spec, &rows, Place::Raw, RAW, [ChainKind::Filter; 2]));
    }
    tables
}

fn table(spec: &Spec, rows: &[Row], place: Place, name: &str, kinds: [ChainKind; 2]) -> Table {
    let priority = match place {
        Place::Raw => -300,
        Place::Mangle => -150,
        Place::Nat => LAST_PRIORITY,
    };
    let hooks = [(Hook::Prerouting, "prerouting"), (Hook::Output, "output")];
    let mut chains = Vec::new();
    for ((hook, base), kind) in hooks.into_iter().zip(kinds) {
        let jump = Statement::Verdict(Verdict::Jump(format!("istio-{base}")));
        chains.push(Chain {
            name: base.to_owned(),
            base: Some(BaseChain {
                kind,
                hook,
                priority,
            }),
            rules: vec![Rule(vec![jump])],
        });
    }
    for (hook, base) in hooks {
        let here = rows.iter().filter(|r| r.place == place && r.hook == hook);
        chains.push(Chain {
            name: format!("istio-{base}"),
            base: None,
            rules: here.flat_map(|row| in_families(spec, row)).collect(),
        });
    }
    Table {
        name: name.to_owned(),
        dormant: false,
        chains,
    }
}

/// One rule for both families where none is named; else one for each.
fn in_families(spec: &Spec, row: &Row) -> Vec<Rule> {
    let families: &[Family] = match (row.names_family(), spec.ipv6) {
        (true, true) => &[Family::V4, Family::V6],
        (true, false) | (false, _) => &[Family::V4],
    };
    families
        .iter()
        .map(|family| Rule(normalize(row.statements(spec, *family))))
        .collect()
}
