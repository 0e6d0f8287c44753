//! The log, cut, damaged and grown.

use std::io::Read;

use proptest::prelude::*;
use vcpu_policy_api::cpuset::OsCpuSet;

use super::*;
use crate::host::{DomainUuid, Original};

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a cpulist")
}

fn entry(vcpu: u32, expected: &str) -> Entry {
    Entry {
        domain: DomainUuid([7; 16]),
        name: "web".to_owned(),
        token: "t".to_owned(),
        run: Some("1".to_owned()),
        vcpu,
        original: Original::Cpus(cpus("0-3")),
        expected: cpus(expected),
        asked: vec![cpus("1")],
        manual: (vcpu == 1).then(|| cpus("2")),
    }
}

fn open(folder: &Path) -> FileJournal {
    FileJournal::open(folder, Some("boot".to_owned())).expect("a journal")
}

fn lines_of(text: &[u8]) -> usize {
    text.split(|&byte| byte == b'\n').count() - 1
}

fn text(folder: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    File::open(folder.join(NAME))
        .and_then(|mut file| file.read_to_end(&mut text))
        .expect("a journal");
    text
}

#[test]
fn the_last_line_about_a_vcpu_is_what_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    assert_eq!(journal.entries().count(), 0);
    let lines = [entry(0, "0"), entry(1, "1"), entry(0, "3"), entry(2, "2")].map(Line::Vcpu);
    journal.append(&lines).expect("written");
    journal
        .append(&[Line::Forget(entry(2, "2").subject())])
        .expect("written");
    drop(journal);
    let journal = open(folder.path());
    let entries: Vec<&Entry> = journal.entries().collect();
    assert_eq!(entries, [&entry(0, "3"), &entry(1, "1")]);
}

#[test]
fn another_boot_begins_anew_and_a_remote_host_has_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    journal.append(&[Line::Vcpu(entry(0, "0"))]).expect("written");
    assert_eq!(read(folder.path(), None).expect("read").len(), 1);
    assert_eq!(read(folder.path(), Some("boot")).expect("read").len(), 1);
    assert_eq!(read(folder.path(), Some("other")).expect("read").len(), 0);
    let other = FileJournal::open(folder.path(), Some("other".to_owned())).expect("there");
    assert_eq!(other.entries().count(), 0);
}

#[test]
fn a_later_format_is_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut later = String::new();
    Line::Journal {
        format: 2,
        boot: None,
    }
    .write(&mut later);
    fs::write(folder.path().join(NAME), &later).expect("written");
    let refused = FileJournal::open(folder.path(), None)
        .expect_err("refused")
        .to_string();
    assert!(
        refused.contains("is a journal of format 2; this version reads format 1"),
        "{refused}"
    );
    assert_eq!(text(folder.path()), later.as_bytes());
}

/// What a later version adds may be anywhere.
#[test]
fn what_another_version_wrote_is_not_touched() {
    let sound = |json: &str| format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    let head = sound(r#"{"journal":{"format":1,"boot":null}}"#);
    for (later, expect) in [
        (
            sound(r#"{"journal":{"format":2,"boot":null,"more":1}}"#),
            "a journal of format 2",
        ),
        (
            format!("{head}{}", sound(r#"{"other":{}}"#)),
            "is sound but not understood",
        ),
        (
            format!("{head}{}", sound(r#"{"vcpu":{"domain":"x"}}"#)),
            "line 2 of",
        ),
        (sound(r#"{"journal":{"format":1,"more":1}}"#), "line 1 of"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(NAME), &later).expect("written");
        let refused = FileJournal::open(folder.path(), None)
            .expect_err("refused")
            .to_string();
        assert!(refused.contains(expect), "{refused}");
        assert_eq!(text(folder.path()), later.as_bytes());
    }
}

/// Cut at each of its bytes, the journal says of each vCPU what one of its whole lines said last.
#[test]
fn a_line_that_was_not_written_in_full_counts_as_not_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    let mut states = vec![Vec::new()];
    for (vcpu, expected) in [(0, "0"), (1, "1"), (0, "2"), (1, "3")] {
        journal
            .append(&[Line::Vcpu(entry(vcpu, expected))])
            .expect("written");
        states.push(journal.entries().cloned().collect::<Vec<_>>());
    }
    let whole = text(folder.path());
    for length in 0..=whole.len() {
        fs::write(folder.path().join(NAME), &whole[..length]).expect("written");
        let lines = lines_of(&whole[..length]);
        let left = read(folder.path(), Some("boot")).expect("read");
        // The first line is the head.
        assert_eq!(left, states[lines.saturating_sub(1)], "cut at {length}");
        // And what is appended after the cut is there the next time.
        let mut journal = open(folder.path());
        journal.append(&[Line::Vcpu(entry(9, "0"))]).expect("written");
        let left = read(folder.path(), Some("boot")).expect("read");
        assert!(left.contains(&entry(9, "0")), "cut at {length}");
    }
}

#[test]
fn it_is_written_anew_when_most_of_it_is_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    let lines: Vec<Line> = (0..100).map(|at| Line::Vcpu(entry(at % 2, "0"))).collect();
    let mut longest = 0;
    for _ in 0..100 {
        journal.append(&lines).expect("written");
        longest = longest.max(lines_of(&text(folder.path())));
    }
    assert!(longest <= FEW_LINES + 2 * lines.len(), "{longest}");
    drop(journal);
    assert_eq!(read(folder.path(), Some("boot")).expect("read").len(), 2);
}

proptest! {
    /// Damage costs the lines it is in, and no other.
    #[test]
    fn damage_is_found(at in 0_usize..2000, bit in 0_u8..8) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = open(folder.path());
        let lines: Vec<Line> = (0..5).map(|vcpu| Line::Vcpu(entry(vcpu, "0"))).collect();
        journal.append(&lines).expect("written");
        let mut damaged = text(folder.path());
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        fs::write(folder.path().join(NAME), &damaged).expect("written");
        let left = read(folder.path(), None).expect("read");
        for entry_left in &left {
            prop_assert_eq!(entry_left, &entry(entry_left.vcpu, "0"));
        }
        // A damaged line feed costs the two lines around it.
        prop_assert!(left.len() >= 3);
    }
}

/// A write may fail half-way and the next one succeed.
#[test]
fn what_follows_half_a_line_is_a_line_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    journal.file.write_all(b"half a li").expect("written");
    journal.torn = true;
    journal.append(&[Line::Vcpu(entry(0, "0"))]).expect("written");
    assert_eq!(read(folder.path(), Some("boot")).expect("read"), [entry(0, "0")]);
}

/// The new version of the log is in its place, and then something fails: what is added is added to that one.
#[test]
fn what_is_added_is_added_to_the_log_that_has_the_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(folder.path(), permissions).expect("set");
    };
    // Files in it can be replaced; itself it cannot be opened, except by root.
    mode(0o300);
    let lines: Vec<Line> = (0..100).map(|at| Line::Vcpu(entry(at % 2, "0"))).collect();
    for _ in 0..20 {
        journal.append(&lines).expect("written");
    }
    journal.append(&[Line::Vcpu(entry(2, "0"))]).expect("written");
    mode(0o700);
    assert!(lines_of(&text(folder.path())) < 20 * lines.len(), "written anew");
    assert_eq!(read(folder.path(), Some("boot")).expect("read").len(), 3);
}

/// Without space for a new version, what the log holds can still be given back.
#[test]
fn a_log_that_cannot_be_written_anew_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    open(folder.path())
        .append(&[Line::Vcpu(entry(0, "0"))])
        .expect("written");
    // Cut within a line, as by a disk that was full.
    let mut cut = text(folder.path());
    cut.extend_from_slice(b"half a li");
    fs::write(folder.path().join(NAME), &cut).expect("written");
    fs::create_dir(folder.path().join(NEW_NAME)).expect("in the way");
    let mut journal = open(folder.path());
    assert_eq!(journal.entries().count(), 1);
    journal.append(&[Line::Vcpu(entry(1, "0"))]).expect("written");
    drop(journal);
    assert_eq!(read(folder.path(), Some("boot")).expect("read").len(), 2);
    let other_boot = FileJournal::open(folder.path(), Some("other".to_owned()));
    assert!(other_boot.is_err(), "a log of another boot does not go on");
}
