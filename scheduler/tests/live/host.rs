//! The live host on real guests: which run of a guest it sees, what guests carry, and what becomes of a lost daemon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_scheduler::host::libvirt::{Access, LibvirtHost};
use vcpu_scheduler::host::{
    DomainKey, DomainSample, Host, HostError, Keepsake, Kept, Original, PinError, Sample, Token, VcpuKey,
};

use crate::harness::{GuestSpec, PrivateLibvirt, wait_for};
use crate::stopping::signal;

const SOON: Duration = Duration::from_secs(30);
const PLACEMENT: &str = "urn:vcpu-scheduler:placement:1";
const ORIGINALS: &str = "urn:vcpu-scheduler:originals:1";

fn open(libvirt: &PrivateLibvirt) -> LibvirtHost {
    LibvirtHost::open(Some(&libvirt.uri()), Access::ReadWrite).expect("our own daemon")
}

fn find(sample: &Sample, name: &str) -> DomainSample {
    let domain = sample.domains.iter().find(|domain| &*domain.name == name);
    domain
        .unwrap_or_else(|| panic!("{name} is not there: {sample:?}"))
        .clone()
}

fn look(host: &mut LibvirtHost, name: &str) -> DomainSample {
    find(&host.sample().expect("readable"), name)
}

fn run_of(domain: &DomainSample) -> DomainKey {
    DomainKey {
        uuid: domain.uuid,
        instance: domain.instance,
    }
}

fn keepsake(token: &str) -> Keepsake {
    let mut cpus = OsCpuSet::new();
    cpus.insert(vcpu_policy_api::ids::OsCpuId(1));
    let kept = |original, hands_off| Kept { original, hands_off };
    Keepsake {
        token: Token(token.into()),
        vcpus: BTreeMap::from([
            (0, kept(Original::Inherit, false)),
            (1, kept(Original::Cpus(cpus), true)),
        ]),
    }
}

#[test]
fn a_run_is_told_from_every_other() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]));
    let mut host = open(&libvirt);
    let first = look(&mut host, "a").incarnation.expect("its process is here");
    assert!(
        first.0.starts_with(&format!("qemu:{}:", libvirt.guest_pid("a"))),
        "{first:?}"
    );
    assert_eq!(look(&mut host, "a").incarnation.as_ref(), Some(&first));
    assert_eq!(
        look(&mut open(&libvirt), "a").incarnation.as_ref(),
        Some(&first),
        "another connection"
    );

    libvirt.destroy("a");
    libvirt.boot("a");
    let second = look(&mut host, "a").incarnation.expect("its process is here");
    assert_ne!(second, first);
}

#[test]
fn a_keepsake_goes_through_a_managed_save_and_ends_with_the_run() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0, 0]));
    let mut host = open(&libvirt);
    let before = look(&mut host, "a");
    host.keep(&run_of(&before), Some(&keepsake("t-1"))).expect("kept");
    assert_eq!(look(&mut host, "a").keepsake.as_deref(), Some(&keepsake("t-1")));
    let stored = |what: &str| {
        let stored = libvirt.virsh(&["dumpxml", "--inactive", "a"]);
        assert!(!stored.contains("originals"), "{what}: {stored}");
    };
    stored("kept");

    libvirt.virsh(&["managedsave", "a"]);
    libvirt.virsh(&["start", "a"]);
    let after = look(&mut host, "a");
    assert_ne!(
        (after.instance, &after.incarnation),
        (before.instance, &before.incarnation)
    );
    assert_eq!(after.keepsake.as_deref(), Some(&keepsake("t-1")));
    assert_eq!(
        look(&mut open(&libvirt), "a").keepsake.as_deref(),
        Some(&keepsake("t-1"))
    );
    stored("saved and restored");

    host.keep(&run_of(&after), None).expect("taken away");
    assert_eq!(look(&mut host, "a").keepsake, None);
    let carried = libvirt.try_virsh(&["metadata", "a", "--uri", ORIGINALS, "--live"]);
    assert!(carried.is_err(), "{carried:?}");

    host.keep(&run_of(&after), Some(&keepsake("t-2"))).expect("kept");
    libvirt.destroy("a");
    assert!(matches!(host.keep(&run_of(&after), None), Err(PinError::Gone)));
    libvirt.boot("a");
    assert_eq!(look(&mut host, "a").keepsake, None, "another run");
}

#[test]
fn what_others_write_into_a_running_domain_is_seen() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]));
    let mut host = open(&libvirt);
    look(&mut host, "a");
    let set = |uri: &str, element: &str, how: &str| {
        libvirt.virsh(&[
            "metadata", "a", "--uri", uri, "--key", "vs", "--set", element, how,
        ]);
    };
    for how in ["--live", "--config"] {
        set(PLACEMENT, "<placement manage='no'/>", how);
        wait_for("the wish to be seen", SOON, || {
            (look(&mut host, "a").definition.wish.manage == Some(false)).then_some(())
        });
        libvirt.virsh(&["metadata", "a", "--uri", PLACEMENT, "--remove", how]);
        wait_for("its end to be seen", SOON, || {
            look(&mut host, "a")
                .definition
                .wish
                .manage
                .is_none()
                .then_some(())
        });
    }
    set(
        ORIGINALS,
        "<originals token='t'><vcpu number='0' original='inherit'/></originals>",
        "--live",
    );
    wait_for("the keepsake to be seen", SOON, || look(&mut host, "a").keepsake);
    libvirt.virsh(&["undefine", "a"]);
    wait_for("the domain to be transient", SOON, || {
        look(&mut host, "a").definition.vcpupin.is_empty().then_some(())
    });
}

#[test]
fn an_affinity_is_read_back_as_the_kernel_has_it() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0, 0]));
    let mut host = open(&libvirt);
    let domain = look(&mut host, "a");
    let vcpu = |number| VcpuKey {
        domain: domain.uuid,
        instance: domain.instance,
        number,
    };
    assert_eq!(
        host.affinity(&vcpu(1)).expect("readable"),
        domain.vcpus[1].affinity
    );
    // Behind libvirt's back.
    let thread = libvirt.vcpus("a")[&1].to_string();
    let set = std::process::Command::new("taskset")
        .args(["-pc", "1", &thread])
        .output();
    assert!(set.expect("taskset(1)").status.success());
    assert_eq!(host.affinity(&vcpu(1)).expect("readable").to_string(), "1");
    assert_eq!(
        host.affinity(&vcpu(0)).expect("readable"),
        domain.vcpus[0].affinity
    );
    assert!(matches!(host.affinity(&vcpu(2)), Err(PinError::Gone)));
    libvirt.destroy("a");
    assert!(matches!(host.affinity(&vcpu(1)), Err(PinError::Gone)));
}

#[test]
fn vcpus_and_states_that_change_are_followed() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0, 0]).spare_vcpus(2));
    let mut host = open(&libvirt);
    let run = run_of(&look(&mut host, "a"));
    let numbers = |domain: &DomainSample| domain.vcpus.iter().map(|vcpu| vcpu.number).collect::<Vec<u32>>();
    for step in [
        &["suspend", "a"][..],
        &["resume", "a"],
        &["reset", "a"],
        &["setvcpus", "a", "3", "--live"],
        &["setvcpus", "a", "4", "--live"],
        &["suspend", "a"],
    ] {
        libvirt.virsh(step);
        let domain = look(&mut host, "a");
        let expect: Option<usize> = step.get(2).map(|count| count.parse().expect("a count"));
        if let Some(expect) = expect {
            assert_eq!(domain.vcpus.len(), expect, "{step:?}");
        }
        assert_eq!(run_of(&domain), run, "{step:?}");
    }
    assert_eq!(numbers(&look(&mut host, "a")), [0, 1, 2, 3]);

    libvirt.destroy("a");
    libvirt.virsh(&["domrename", "a", "b"]);
    libvirt.virsh(&["start", "b"]);
    let renamed = look(&mut host, "b");
    assert_eq!((renamed.uuid, numbers(&renamed)), (run.uuid, vec![0, 1]));
    assert!(renamed.incarnation.is_some(), "found by its new name");
}

/// What libvirt has set for a vCPU waits for it while it is not plugged in.
#[test]
fn a_vcpu_has_when_it_is_plugged_in_what_was_set_for_it_before() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]).spare_vcpus(1));
    libvirt.virsh(&["vcpupin", "a", "1", "1", "--live"]);
    libvirt.virsh(&["setvcpus", "a", "2", "--live"]);
    assert_eq!(libvirt.kernel_mask("a", 1), crate::harness::cpus("1"));
}

#[test]
fn a_daemon_that_is_killed_is_lost_and_another_one_knows_its_guests() {
    let mut libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]));
    let mut host = open(&libvirt);
    let before = look(&mut host, "a");
    host.keep(&run_of(&before), Some(&keepsake("t"))).expect("kept");
    libvirt.kill_daemon();
    let error = host.sample().expect_err("nobody is there");
    assert!(matches!(error, HostError::Lost { .. }), "{error:?}");
    let vcpu = VcpuKey {
        domain: before.uuid,
        instance: before.instance,
        number: 0,
    };
    let pinned = host.pin(&vcpu, &before.vcpus[0].affinity);
    assert!(
        matches!(pinned, Err(PinError::Host(HostError::Lost { .. }))),
        "{pinned:?}"
    );
    let kept = host.keep(&run_of(&before), None);
    assert!(
        matches!(kept, Err(PinError::Host(HostError::Lost { .. }))),
        "{kept:?}"
    );

    libvirt.start_daemon();
    assert!(
        matches!(host.sample(), Err(HostError::Lost { .. })),
        "it stays lost"
    );
    let mut again = open(&libvirt);
    let after = wait_for("the daemon to find its guest", SOON, || {
        let sample = again.sample().expect("readable");
        sample.domains.into_iter().find(|domain| &*domain.name == "a")
    });
    assert_eq!(after.incarnation, before.incarnation);
    assert_eq!(after.keepsake.as_deref(), Some(&keepsake("t")));
}

#[test]
fn a_call_to_a_daemon_that_hangs_ends() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]));
    let mut host = open(&libvirt);
    look(&mut host, "a");
    signal("STOP", libvirt.daemon_pid());
    let begin = Instant::now();
    let error = host.sample().expect_err("it does not answer");
    let took = begin.elapsed();
    assert!(matches!(error, HostError::Lost { .. }), "{error:?}");
    // It is asked every 5 s, and given up the fourth time; the rest is for a busy machine.
    assert!(took < Duration::from_secs(60), "{took:?}");
    drop(host);
}
