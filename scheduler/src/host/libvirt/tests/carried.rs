//! What a domain carries, what is told of its changes, and what is read anew because of them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::host::libvirt::metadata::{ORIGINALS, PLACEMENT};
use crate::host::libvirt::stored::StoredDefinitions;
use crate::host::procfs::VcpuThreads;
use crate::host::{Kept, Token, Wish};

fn keepsake(token: &str, vcpus: &[(u32, &str)]) -> Keepsake {
    let kept = |original: &str| Kept {
        original: original.parse().expect("an original"),
        hands_off: false,
    };
    Keepsake {
        token: Token(token.into()),
        vcpus: vcpus
            .iter()
            .map(|&(number, original)| (number, kept(original)))
            .collect(),
    }
}

/// Puts metadata into a domain behind the host's back.
fn set_metadata(host: &LibvirtHost, name: &str, uri: &str, element: Option<&str>, flags: u32) {
    domain(host, name)
        .set_metadata(METADATA_ELEMENT, element, Some("vs"), Some(uri), flags)
        .expect("the test driver has metadata");
}

/// Samples until what libvirt tells has arrived, which takes another thread.
fn sample_until(host: &mut LibvirtHost, what: &str, arrived: impl Fn(&Sample) -> bool) -> Sample {
    let begin = Instant::now();
    loop {
        let sample = host.sample().expect("readable");
        if arrived(&sample) {
            return sample;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{what} never arrived");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_keepsake_is_carried_by_the_running_domain_alone() {
    let file = host_file(2, 2, "");
    let mut host = open(&file, Access::ReadWrite);
    let before = host.sample().expect("readable");
    let run = run_of(find(&before, "vm-1").expect("it runs"));
    assert_eq!(find(&before, "vm-1").expect("it runs").keepsake, None);
    host.keep(&run, None).expect("there is none to take away");

    for kept in [
        keepsake("a-1", &[(0, "inherit"), (1, "0-3")]),
        keepsake("a-1", &[(1, "5")]),
    ] {
        host.keep(&run, Some(&kept)).expect("kept");
        let sample = host.sample().expect("readable");
        assert_eq!(
            find(&sample, "vm-1").expect("it runs").keepsake.as_deref(),
            Some(&kept)
        );
        assert_eq!(find(&sample, "vm-0").expect("it runs").keepsake, None);
        host.guests
            .get_mut(run.uuid)
            .expect("it runs")
            .read_again(&StoredDefinitions::of(""))
            .expect("readable");
        let again = host.sample().expect("readable");
        let (sample, again) = (find(&sample, "vm-1"), find(&again, "vm-1"));
        let (sample, again) = (sample.expect("it runs"), again.expect("it runs"));
        assert!(Arc::ptr_eq(
            sample.keepsake.as_ref().expect("kept"),
            again.keepsake.as_ref().expect("read anew")
        ));
    }
    let stored = domain(&host, "vm-1")
        .xml_desc(virt_sys::VIR_DOMAIN_XML_INACTIVE)
        .expect("it exists");
    assert!(!stored.contains("originals"), "{stored}");
    let mut other = open(&file, Access::ReadOnly);
    let other_run = run_of(&other.sample().expect("readable").domains[0]);
    assert!(matches!(
        other.keep(&other_run, Some(&keepsake("b", &[]))),
        Err(PinError::Forbidden { .. })
    ));

    host.keep(&run, None).expect("taken away");
    assert_eq!(
        find(&host.sample().expect("readable"), "vm-1")
            .expect("it runs")
            .keepsake,
        None
    );
    domain(&host, "vm-1").destroy().expect("destroyed");
    assert!(matches!(
        host.keep(&run, Some(&keepsake("c", &[]))),
        Err(PinError::Gone)
    ));
}

#[test]
fn a_keepsake_that_is_not_understood_is_not_replaced() {
    let file = host_file(1, 1, "");
    let mut host = open(&file, Access::ReadWrite);
    let live = virt_sys::VIR_DOMAIN_AFFECT_LIVE;
    set_metadata(&host, "vm-0", ORIGINALS, Some("<originals token='?'/>"), live);
    let sample = host.sample().expect("readable");
    let run = run_of(&sample.domains[0]);
    assert_eq!(
        (sample.domains[0].vcpus.len(), &sample.domains[0].keepsake),
        (1, &None)
    );
    for attempt in [Some(&keepsake("a", &[])), None] {
        let error = host.keep(&run, attempt).expect_err("not understood");
        let text = text(&error);
        assert!(
            text.contains("virsh metadata DOMAIN") && text.contains("token=\"?\""),
            "{text}"
        );
    }
    set_metadata(&host, "vm-0", ORIGINALS, None, live);
    let begin = Instant::now();
    while host.keep(&run, Some(&keepsake("a", &[]))).is_err() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "the removal never arrived"
        );
        host.sample().expect("readable");
    }
}

#[test]
fn a_wish_is_seen_soon_after_it_is_written() {
    let file = host_file(
        2,
        1,
        "<metadata><vs:placement xmlns:vs='urn:vcpu-scheduler:placement:1' cpus='0-3'/></metadata>",
    );
    let mut host = open(&file, Access::ReadOnly);
    let wish = |sample: &Sample| find(sample, "vm-0").expect("it runs").definition.wish.clone();
    let first = host.sample().expect("readable");
    assert_eq!(
        wish(&first),
        Wish {
            manage: None,
            cpus: Some(cpus("0-3"))
        }
    );
    // A connection to a host file is a host of its own, so the change goes through this one, which may write.
    let mut host = open(&file, Access::ReadWrite);
    host.sample().expect("readable");
    for (element, flags, expect) in [
        (
            "<placement manage='no'/>",
            virt_sys::VIR_DOMAIN_AFFECT_LIVE,
            Wish {
                manage: Some(false),
                cpus: Some(cpus("0-3")),
            },
        ),
        (
            "<placement cpus='2-5'/>",
            virt_sys::VIR_DOMAIN_AFFECT_LIVE,
            Wish {
                manage: None,
                cpus: Some(cpus("2-3")),
            },
        ),
        (
            "<placement manage='yes'/>",
            virt_sys::VIR_DOMAIN_AFFECT_CONFIG,
            Wish {
                manage: Some(true),
                cpus: Some(cpus("2-5")),
            },
        ),
        (
            "<placement manage='sure'/>",
            virt_sys::VIR_DOMAIN_AFFECT_CONFIG,
            Wish {
                manage: Some(false),
                cpus: Some(cpus("2-5")),
            },
        ),
    ] {
        set_metadata(&host, "vm-0", PLACEMENT, Some(element), flags);
        sample_until(&mut host, element, |sample| wish(sample) == expect);
    }
}

#[test]
fn a_definition_that_is_replaced_is_read_anew() {
    let file = host_file(2, 1, "");
    let mut host = open(&file, Access::ReadWrite);
    let before = host.sample().expect("readable");
    let xml = domain_xml(1, 1, "<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>");
    host.connection.define_domain_xml(&xml).expect("defined");
    let after = sample_until(&mut host, "the definition", |sample| {
        find(sample, "vm-1").expect("it runs").definition.cpus_of(0) == Some(&cpus("1"))
    });
    assert!(
        Arc::ptr_eq(&before.domains[1].definition, &after.domains[1].definition),
        "vm-0"
    );
    assert_eq!(
        run_of(find(&after, "vm-1").expect("it runs")),
        run_of(find(&before, "vm-1").expect("it runs"))
    );
}

#[test]
fn an_affinity_is_read_where_the_sample_was() {
    let file = host_file(2, 2, "");
    let mut host = open(&file, Access::ReadWrite);
    let sample = host.sample().expect("readable");
    let vcpu = key(&sample.domains[0], 1);
    domain(&host, &sample.domains[0].name)
        .pin_vcpu(1, &[0x0a])
        .expect("pinned");
    assert_eq!(
        host.affinity(&vcpu).map_err(|error| text(&error)),
        Ok(cpus("1,3"))
    );
    let absent = VcpuKey { number: 2, ..vcpu };
    assert!(matches!(host.affinity(&absent), Err(PinError::Gone)));

    // As if the domain's threads were those of a process that has none.
    let mut process = Command::new("sleep").arg("60").spawn().expect("sleep(1)");
    let threads = VcpuThreads::find(&Path::new("/proc").join(process.id().to_string())).expect("readable");
    host.guests.first_mut().expect("two domains").source = Source::Threads(threads);
    assert!(
        matches!(host.affinity(&vcpu), Err(PinError::Gone)),
        "libvirt is not asked"
    );
    process.kill().expect("ours");
    process.wait().expect("ours");
}
