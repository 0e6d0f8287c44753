//! Capabilities of real kinds of machines (`testdata/hosts`), of impossible ones, and of broken ones.

mod malformed;

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vcpu_policy_api::ids::{Index, NodeIx, indexes};

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hosts")
}

/// What a file's opening comment says is online: `Online: 0-3 of 8`, a cpulist and the length of the map.
fn stated_map(xml: &str) -> Option<CpuMap> {
    let line = xml
        .lines()
        .find_map(|line| line.trim().strip_prefix("Online: "))?;
    let (online, length) = line.split_once(" of ")?;
    Some(CpuMap {
        length: length.parse().ok().filter(|&length| length <= MAX_OS_CPU + 1)?,
        online: online.parse().ok()?,
    })
}

/// A topology for people: each node with its caches, each cache with its cores as sets of siblings.
fn table(host: &Topology) -> String {
    let offline = Some(host.offline()).filter(|cpus| !cpus.is_empty());
    let offline = offline.map_or("-".to_owned(), ToString::to_string);
    let mut table = format!("online  {}\noffline {offline}\n", host.online());
    for node in host.nodes() {
        let cpus = host.os_ids(node.cpus.as_ref());
        writeln!(table, "node {}: {cpus}", node.os_id).expect("a string");
        for llc in host
            .llcs()
            .iter()
            .filter(|llc| llc.cpus.as_ref().is_subset(node.cpus.as_ref()))
        {
            let cores = host
                .cores()
                .iter()
                .filter(|core| core.cpus.as_ref().is_subset(llc.cpus.as_ref()))
                .map(|core| host.os_ids(core.cpus.as_ref()).to_string());
            let cpus = host.os_ids(llc.cpus.as_ref());
            writeln!(
                table,
                "  cache {cpus}\n    cores {}",
                cores.collect::<Vec<_>>().join(" ")
            )
            .expect("a string");
        }
    }
    table.push_str("distances\n");
    for from in indexes::<NodeIx>(host.nodes().len()) {
        write!(table, "{:>4}:", host.nodes()[from.index()].os_id).expect("a string");
        for to in indexes::<NodeIx>(host.nodes().len()) {
            write!(table, " {:>3}", host.distance(from, to)).expect("a string");
        }
        table.push('\n');
    }
    table
}

#[test]
fn machines_of_many_kinds() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::glob!("../../../../../testdata/hosts", "*.xml", |path| {
            let xml = fs::read_to_string(path).expect("readable");
            let host = topology(&xml, stated_map(&xml).as_ref()).expect("a host");
            insta::assert_snapshot!("topology", table(&host));
        });
    });
}

/// The one host with `inner` in it.
fn host_with(inner: &str) -> String {
    format!("<capabilities><host>{inner}</host></capabilities>")
}

/// A host with these elements in its cell 0.
fn cell_with(cpus: &str) -> String {
    host_with(&format!(
        "<topology><cells><cell id='0'><cpus>{cpus}</cpus></cell></cells></topology>"
    ))
}

fn map(online: &str, length: u32) -> CpuMap {
    CpuMap {
        length,
        online: online.parse().expect("a cpulist"),
    }
}

#[track_caller]
fn check(xml: &str, map: Option<&CpuMap>, expect: &str) {
    let host = topology(xml, map).expect("a host");
    let mut text = String::new();
    for llc in host.llcs() {
        let cores = host
            .cores()
            .iter()
            .filter(|core| core.cpus.as_ref().is_subset(llc.cpus.as_ref()))
            .map(|core| host.os_ids(core.cpus.as_ref()).to_string());
        let node = host.nodes()[llc.node.index()].os_id;
        write!(text, "{node}[{}] ", cores.collect::<Vec<_>>().join(" ")).expect("a string");
    }
    assert_eq!(text.trim_end(), expect, "node[cores of a cache] of {xml}");
}

#[test]
fn core_numbers_count_within_a_die() {
    check(
        &cell_with(
            "<cpu id='0' socket_id='0' die_id='0' core_id='0'/><cpu id='1' socket_id='0' die_id='0' core_id='0'/>
             <cpu id='2' socket_id='0' die_id='1' core_id='0'/><cpu id='3' socket_id='1' die_id='0' core_id='0'/>",
        ),
        None,
        "0[0-1] 0[2] 0[3]",
    );
}

#[test]
fn what_is_missing_is_not_guessed() {
    check(&cell_with("<cpu id='0'/><cpu id='1'/>"), None, "0[0 1]");
    check(
        &cell_with("<cpu id='0' socket_id='-1' core_id='-1'/><cpu id='1' socket_id='-1' core_id='-1'/>"),
        None,
        "0[0-1]",
    );
    check(
        &cell_with("<cpu id='0' core_id='0' siblings=''/><cpu id='1' core_id='1' siblings=''/>"),
        None,
        "0[0 1]",
    );
}

#[test]
fn the_order_of_elements_does_not_matter() {
    let cpus = [
        "<cpu id='9' socket_id='0' core_id='1' siblings='8-9'/>",
        "<cpu id='1' socket_id='0' core_id='0' siblings='0-1'/>",
        "<cpu id='8' socket_id='0' core_id='1' siblings='8-9'/>",
        "<cpu id='0' socket_id='0' core_id='0' siblings='0-1'/>",
    ];
    check(&cell_with(&cpus.concat()), None, "0[0-1 8-9]");
}

#[test]
fn the_highest_cache_that_holds_a_cpu_counts() {
    let cells = "<topology><cells><cell id='0'><cpus>
        <cpu id='0'/><cpu id='1'/><cpu id='2'/><cpu id='3'/><cpu id='4'/><cpu id='5'/></cpus></cell></cells></topology>";
    let banks = "<cache><bank level='3' type='both' cpus='0-1'/><bank level='3' type='both' cpus='2-3'/>
        <bank level='4' type='both' cpus='2-4'/><bank level='9' type='code' cpus='0-5'/>
        <bank level='3' type='both' cpus=''/></cache>";
    check(
        &host_with(&format!("{banks}{cells}")),
        None,
        "0[0 1] 0[2 3 4] 0[5]",
    );
}

#[test]
fn the_map_decides_what_is_online() {
    let two = cell_with("<cpu id='0'/><cpu id='1'/><cpu id='2'/>");
    check(&two, Some(&map("0,2", 3)), "0[0 2]");
    let offline = topology(&two, Some(&map("0,2", 5))).map(|host| host.offline().to_string());
    assert_eq!(offline.ok(), Some("1,3-4".to_owned()));
    // A map that ends before the listed CPUs says nothing about the rest.
    check(&two, Some(&map("0", 2)), "0[0 2]");
}

#[test]
fn hosts_without_cells_have_what_the_map_or_the_count_says() {
    check(&host_with(""), Some(&map("0,2-3", 4)), "0[0 2 3]");
    check(
        &host_with("<cache><bank level='3' cpus='0-1'/><bank level='3' cpus='2-3'/></cache>"),
        Some(&map("0-3", 4)),
        "0[0 1] 0[2 3]",
    );
    check(
        &host_with("<cpu><topology sockets='2' cores='1' threads='2'/></cpu>"),
        None,
        "0[0 1 2 3]",
    );
}

#[track_caller]
fn refuse(xml: &str, map: Option<&CpuMap>, expect: &str) {
    let error = topology(xml, map).expect_err("no host");
    let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
    assert_eq!(format!("{error}{cause}"), expect);
}

#[test]
fn errors_say_what_where_and_what_was_expected() {
    let of = "of the host's capabilities";
    refuse(
        "<capabilities>",
        None,
        "the host's capabilities are not well-formed XML: the root node was opened but never closed",
    );
    let no_host = "the host's capabilities have no <host>; expected <capabilities><host>…";
    refuse("<capabilities/>", None, no_host);
    refuse("<domain><host/></domain>", None, no_host);
    refuse(
        &host_with("\n<topology><cells>\n<cell/></cells></topology>"),
        None,
        &format!("<cell> at line 3 {of} has no id"),
    );
    refuse(
        &cell_with("<cpu id='one'/>"),
        None,
        &format!("id=\"one\" of <cpu> at line 1 {of} is not a CPU number"),
    );
    refuse(
        &cell_with("<cpu id='65536'/>"),
        None,
        &format!("id=\"65536\" of <cpu> at line 1 {of} is not a CPU number"),
    );
    refuse(
        &cell_with("<cpu id='0' core_id='x'/>"),
        None,
        &format!("core_id=\"x\" of <cpu> at line 1 {of} is not a number"),
    );
    refuse(
        &cell_with("<cpu id='0' siblings='3-0'/>"),
        None,
        &format!("siblings of <cpu> at line 1 {of}: the range 3-0 in a CPU list ends before it starts"),
    );
    refuse(
        &host_with("<topology><cells><cell id='1'/><cell id='1'/></cells></topology>"),
        None,
        "cell 1 is listed twice in the host's capabilities",
    );
    refuse(
        &host_with(
            "<topology><cells><cell id='0'><cpus><cpu id='5'/></cpus></cell>
             <cell id='1'><cpus><cpu id='5'/></cpus></cell></cells></topology>",
        ),
        None,
        "CPU 5 is listed twice in the host's capabilities: in cell 0 and in cell 1",
    );
    let no_cpu = "the CPUs of the host's capabilities do not make a host: the host has no online CPU";
    refuse(&host_with(""), None, no_cpu);
    refuse(&cell_with(""), None, no_cpu);
    let none_online = CpuMap {
        length: 1,
        online: OsCpuSet::new(),
    };
    refuse(&cell_with("<cpu id='0'/>"), Some(&none_online), no_cpu);
}

/// One careless edit of a text.
#[derive(Debug, Clone)]
enum Edit {
    Cut {
        at: prop::sample::Index,
        length: usize,
    },
    Repeat {
        at: prop::sample::Index,
        length: usize,
    },
    Put {
        at: prop::sample::Index,
        what: &'static str,
    },
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<prop::sample::Index>;
    let what = prop::sample::select(vec![
        "",
        "-",
        "9",
        "4294967296",
        "'",
        "<",
        ">",
        "&",
        "/",
        "^0",
        ",",
        "é",
        "<cpu id='1'/>",
        " id='0'",
        "<cells>",
    ]);
    let edit = prop_oneof![
        (at(), 1..40_usize).prop_map(|(at, length)| Edit::Cut { at, length }),
        (at(), 1..400_usize).prop_map(|(at, length)| Edit::Repeat { at, length }),
        (at(), what).prop_map(|(at, what)| Edit::Put { at, what }),
    ];
    prop::collection::vec(edit, 1..6)
}

fn edited(xml: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = xml.chars().collect();
    for edit in edits {
        match edit {
            Edit::Cut { at, length } if !chars.is_empty() => {
                let start = at.index(chars.len());
                chars.drain(start..(start + length).min(chars.len()));
            }
            Edit::Repeat { at, length } if !chars.is_empty() => {
                let start = at.index(chars.len());
                let end = (start + length).min(chars.len());
                let copy = chars[start..end].to_vec();
                chars.splice(end..end, copy);
            }
            Edit::Put { at, what } if !chars.is_empty() => {
                let start = at.index(chars.len());
                chars.splice(start..=start, what.chars());
            }
            _ => {}
        }
    }
    chars.into_iter().collect()
}

#[test]
fn broken_capabilities_are_errors_or_hosts_never_panics() {
    let files: Vec<String> = fs::read_dir(folder())
        .expect("the hosts")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .map(|path| fs::read_to_string(path).expect("readable"))
        .collect();
    let broken = (prop::sample::select(files), edits(), 0..200_u32);
    proptest!(ProptestConfig::with_cases(300), |((xml, edits, length) in broken)| {
        let xml = edited(&xml, &edits);
        let some = CpuMap { length, online: (0..length).step_by(3).map(OsCpuId).collect() };
        for map in [None, stated_map(&xml), Some(some)] {
            if let Ok(host) = topology(&xml, map.as_ref()) {
                prop_assert!(!host.cpus().is_empty());
            }
        }
    });
}
