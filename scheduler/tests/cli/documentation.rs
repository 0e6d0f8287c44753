//! What the documentation shows is what the binary takes.

use super::{binary, root, text};

/// The YAML blocks of a page, in order.
fn yaml_blocks(page: &str) -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs").join(page)).expect("the page is there");
    let blocks = page.split("```yaml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// Runs a command on a file with this content, and gives what it prints.
fn run_on(content: &str, command: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("example.yaml");
    std::fs::write(&path, content).expect("written");
    let output = binary()
        .arg(command)
        .arg(&path)
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{}\n{content}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_example_of_the_file_formats_is_one() {
    let blocks = yaml_blocks("formats.md");
    let [snapshot, topologies, scenario] = blocks.as_slice() else {
        panic!("three examples, not {}", blocks.len())
    };
    assert!(run_on(snapshot, "decide").contains("web1"));
    assert!(run_on(scenario, "simulate").contains("all-on-one"));
    // Each way to write a topology stands at the beginning of a line of its own.
    let ways: Vec<String> = topologies
        .split("topology:")
        .skip(1)
        .map(|way| format!("topology:{way}"))
        .collect();
    assert_eq!(ways.len(), 3);
    for way in ways {
        assert!(
            run_on(&format!("interval: 5s\n{way}\ndomains: []\n"), "decide").contains("host"),
            "{way}"
        );
    }
}

#[test]
fn the_demo_shows_a_host_that_becomes_balanced() {
    let output = std::process::Command::new(root().join("scripts/demo"))
        .arg(assert_cmd::cargo::cargo_bin!("vcpu-scheduler"))
        .current_dir(root())
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .output()
        .expect("the demo starts");
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    assert!(
        shown.contains("balanced at tick 7") && shown.contains("pin     vm-0/0  0 -> 1"),
        "{shown}"
    );
}
