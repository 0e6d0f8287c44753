//! Every scenario of `testdata/scenarios`, run by the real binary: its table is the golden file.

use super::{root, run, text};

fn scenarios() -> Vec<String> {
    let folder = root().join("testdata/scenarios");
    let files = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path());
    let yaml = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let mut names: Vec<String> = yaml
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() >= 7, "{names:?}");
    names
}

#[test]
fn each_scenario_comes_to_what_its_golden_file_says() {
    for name in scenarios() {
        let file = format!("testdata/scenarios/{name}.yaml");
        let output = run(&["simulate", &file]);
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{name}: {printed}");
        assert_eq!(
            run(&["simulate", &file]).stdout,
            output.stdout,
            "{name} is not deterministic"
        );
        insta::assert_snapshot!(format!("scenario_{name}"), printed);
    }
}

#[test]
fn the_json_of_a_run_holds_what_is_documented() {
    let output = run(&[
        "simulate",
        "testdata/scenarios/classic-1-all-on-one.yaml",
        "--format",
        "json",
    ]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let keys = |value: &serde_json::Value| {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let mut top = keys(&report);
    top.sort();
    assert_eq!(
        top,
        [
            "balanced_tick",
            "failed",
            "last_pin_tick",
            "per_tick",
            "pins",
            "policy",
            "rejected",
            "stddev",
            "ticks",
            "unserved_percent"
        ]
    );
    assert_eq!(keys(&report["stddev"]).len(), 4);
    let tick = &report["per_tick"][0];
    let mut tick_keys = keys(tick);
    tick_keys.sort();
    assert_eq!(tick_keys, ["cpu_load", "pins", "stddev", "tick"]);
    let mut pin_keys = keys(&tick["pins"][0]);
    pin_keys.sort();
    assert_eq!(pin_keys, ["cpus", "domain", "from", "gain", "reason", "vcpu"]);
}
