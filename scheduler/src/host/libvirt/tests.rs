//! The live host against libvirt's test driver, which runs inside the client library: no daemon, no guest.

mod carried;

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::NamedTempFile;
use virt::domain::Domain;

use super::counters::Source;
use super::*;
use crate::host::procfs::VcpuThreads;
use crate::host::{Definition, VcpuSample};

/// A host of `count` running domains `vm-<n>` of `vcpus` vCPUs each, with `inner` in each definition. Every
/// connection to it has a copy of its own. UUIDs descend with the number, so that the file's order is not theirs.
fn host_file(count: u32, vcpus: u32, inner: &str) -> NamedTempFile {
    let mut xml = "<node>".to_owned();
    for number in 0..count {
        write!(xml, "{}", domain_xml(number, vcpus, inner)).expect("a string");
    }
    xml.push_str("</node>");
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), xml).expect("written");
    file
}

fn domain_xml(number: u32, vcpus: u32, inner: &str) -> String {
    format!(
        "<domain type='test'><name>vm-{number}</name><uuid>00000000-0000-4000-8000-{:012}</uuid>
         <memory>4096</memory><vcpu>{vcpus}</vcpu><os><type>hvm</type></os>{inner}</domain>",
        999_999 - number
    )
}

fn open(file: &NamedTempFile, access: Access) -> LibvirtHost {
    LibvirtHost::open(Some(&format!("test://{}", file.path().display())), access).expect("the test driver")
}

fn key(domain: &DomainSample, number: u32) -> VcpuKey {
    VcpuKey {
        domain: domain.uuid,
        instance: domain.instance,
        number,
    }
}

/// Which run of which domain it is.
fn run_of(domain: &DomainSample) -> DomainKey {
    DomainKey {
        uuid: domain.uuid,
        instance: domain.instance,
    }
}

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a cpulist")
}

fn find<'a>(sample: &'a Sample, name: &str) -> Option<&'a DomainSample> {
    sample.domains.iter().find(|domain| &*domain.name == name)
}

/// The domain behind the host's back.
fn domain(host: &LibvirtHost, name: &str) -> Domain {
    host.connection.lookup_domain_by_name(name).expect("it exists")
}

/// An error and what caused it, as the edge of the program shows them.
fn text(error: &dyn Error) -> String {
    let cause = error
        .source()
        .map_or(String::new(), |cause| format!(": {}", text(cause)));
    format!("{error}{cause}")
}

#[test]
fn the_default_test_host_is_read() {
    let mut host = LibvirtHost::open(Some("test:///default"), Access::ReadOnly).expect("the test driver");
    assert_eq!(host.uri(), "test:///default");
    let sample = host.sample().expect("readable");
    let domain = find(&sample, "test").expect("its only domain");
    let numbers: Vec<u32> = domain.vcpus.iter().map(|vcpu| vcpu.number).collect();
    assert_eq!(numbers, [0, 1]);
    for VcpuSample {
        read_at_ns,
        run_ns,
        delay_ns,
        last_cpu,
        affinity,
        ..
    } in &domain.vcpus
    {
        assert!(*read_at_ns >= sample.read_at_ns && *run_ns > 0);
        assert!(delay_ns.is_none(), "the test driver does not know");
        assert!(
            last_cpu.is_some_and(|cpu| affinity.contains(cpu)),
            "{affinity} {last_cpu:?}"
        );
    }
    assert_eq!(*domain.definition, Definition::default());
}

#[test]
fn domains_come_by_uuid_and_what_did_not_change_is_shared() {
    let file = host_file(500, 4, "<cputune><vcpupin vcpu='1' cpuset='0-2'/></cputune>");
    let mut host = open(&file, Access::ReadOnly);
    let before = host.sample().expect("readable");
    let after = host.sample().expect("readable");
    assert_eq!(before.domains.len(), 500);
    assert!(before.domains.is_sorted_by_key(|domain| domain.uuid));
    assert!(Arc::ptr_eq(&before.topology, &after.topology));
    for (before, after) in before.domains.iter().zip(&after.domains) {
        assert_eq!((before.uuid, before.instance), (after.uuid, after.instance));
        assert!(Arc::ptr_eq(&before.definition, &after.definition) && Arc::ptr_eq(&before.name, &after.name));
        assert_eq!(before.definition.cpus_of(1), Some(&cpus("0-2")));
        assert_eq!(before.definition.cpus_of(0), None);
        assert_eq!(before.vcpus.len(), 4);
        for (before, after) in before.vcpus.iter().zip(&after.vcpus) {
            assert_eq!(before.number, after.number);
            assert!(before.read_at_ns < after.read_at_ns);
        }
    }
}

#[test]
fn a_pin_shows_in_the_next_sample_and_nowhere_else() {
    let file = host_file(3, 2, "");
    let mut host = open(&file, Access::ReadWrite);
    let before = host.sample().expect("readable");
    let pinned = key(find(&before, "vm-1").expect("it runs"), 1);
    host.pin(&pinned, &cpus("2,4")).expect("pinned");
    let after = host.sample().expect("readable");
    for (before, after) in before.domains.iter().zip(&after.domains) {
        for (old, new) in before.vcpus.iter().zip(&after.vcpus) {
            let expect = if key(after, new.number) == pinned {
                &cpus("2,4")
            } else {
                &old.affinity
            };
            assert_eq!(&new.affinity, expect, "{} vCPU {}", after.name, new.number);
        }
    }
    let stored = domain(&host, "vm-1")
        .xml_desc(virt_sys::VIR_DOMAIN_XML_INACTIVE)
        .expect("it exists");
    assert!(!stored.contains("vcpupin"), "{stored}");
}

#[test]
fn a_domain_that_stops_is_left_out_and_comes_back_as_another_instance() {
    let file = host_file(3, 1, "");
    let mut host = open(&file, Access::ReadWrite);
    let before = host.sample().expect("readable");
    let first = find(&before, "vm-1").expect("it runs").instance;
    let vcpu = key(find(&before, "vm-1").expect("it runs"), 0);

    domain(&host, "vm-1").destroy().expect("destroyed");
    assert!(
        matches!(host.pin(&vcpu, &cpus("0")), Err(PinError::Gone)),
        "before a sample tells"
    );
    let without = host.sample().expect("readable");
    assert_eq!(without.domains.len(), 2);
    assert!(
        matches!(host.pin(&vcpu, &cpus("0")), Err(PinError::Gone)),
        "after one did"
    );

    domain(&host, "vm-1").create().expect("started");
    let again = host.sample().expect("readable");
    assert_ne!(find(&again, "vm-1").expect("it runs").instance, first);
    assert!(
        matches!(host.pin(&vcpu, &cpus("0")), Err(PinError::Gone)),
        "the old instance"
    );

    domain(&host, "vm-1").destroy().expect("destroyed");
    domain(&host, "vm-1").undefine().expect("undefined");
    assert_eq!(host.sample().expect("readable").domains.len(), 2);
}

#[test]
fn of_a_transient_domain_only_the_cpuset_binds() {
    let file = host_file(0, 1, "");
    let mut host = open(&file, Access::ReadWrite);
    let xml = domain_xml(7, 2, "<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>")
        .replace("<vcpu>", "<vcpu cpuset='0-3'>");
    host.connection.create_domain_xml(&xml, 0).expect("created");
    let sample = host.sample().expect("readable");
    let definition = &find(&sample, "vm-7").expect("it runs").definition;
    assert_eq!(definition.cpus_of(0), Some(&cpus("0-3")));
}

#[test]
fn impossible_pins_are_told_apart() {
    let file = host_file(1, 2, "");
    let mut host = open(&file, Access::ReadWrite);
    let sample = host.sample().expect("readable");
    let domain = find(&sample, "vm-0").expect("it runs");
    let mut pin = |vcpu: u32, set: &OsCpuSet| host.pin(&key(domain, vcpu), set).map_err(|error| text(&error));
    assert_eq!(pin(2, &cpus("0")), Err("the vCPU is gone".to_owned()));
    assert_eq!(
        pin(0, &cpus("0,900")),
        Err("the host refuses the pin: the host has no CPU 900".to_owned())
    );
    assert_eq!(
        pin(0, &OsCpuSet::new()),
        Err("the host refuses the pin: it names no CPU".to_owned())
    );
    assert_eq!(pin(1, &cpus("0")), Ok(()));
}

#[test]
fn a_domain_whose_source_is_lost_is_without_vcpus_once() {
    let file = host_file(2, 1, "");
    let mut host = open(&file, Access::ReadOnly);
    host.sample().expect("readable");
    let mut process = Command::new("sleep").arg("60").spawn().expect("sleep(1)");
    let threads = VcpuThreads::find(&Path::new("/proc").join(process.id().to_string())).expect("readable");
    let guest = host.guests.first_mut().expect("two domains");
    guest.source = Source::Threads(threads);
    let name = Arc::clone(&guest.name);
    process.kill().expect("ours");
    process.wait().expect("ours");
    for (vcpus, which) in [(0, "the gap"), (1, "from libvirt")] {
        let sample = host.sample().expect("readable");
        assert_eq!(
            find(&sample, &name).expect("it runs").vcpus.len(),
            vcpus,
            "{which}"
        );
        assert_eq!(sample.domains.len(), 2);
    }
}

#[test]
fn a_read_only_connection_pins_nothing() {
    let file = host_file(1, 1, "");
    let mut host = open(&file, Access::ReadOnly);
    let sample = host.sample().expect("readable");
    let refused = host.pin(&key(&sample.domains[0], 0), &cpus("0"));
    assert!(matches!(refused, Err(PinError::Forbidden { .. })), "{refused:?}");
    let after = host.sample().expect("still readable");
    assert_eq!(
        after.domains[0].vcpus[0].affinity,
        sample.domains[0].vcpus[0].affinity
    );
}

#[test]
fn a_host_that_cannot_be_reached_is_lost_and_named() {
    let uri = "qemu+unix:///session?socket=/nonexistent/socket";
    let error = LibvirtHost::open(Some(uri), Access::ReadWrite).expect_err("nobody listens there");
    assert!(matches!(error, HostError::Lost { .. }), "{error:?}");
    assert_eq!(
        text(&error),
        format!(
            "cannot connect to {uri}: Failed to connect socket to '/nonexistent/socket': No such file or directory"
        )
    );
    for uri in ["qemu+nonsense:///session", "test:///a\0b"] {
        let error = LibvirtHost::open(Some(uri), Access::ReadOnly).expect_err(uri);
        assert!(matches!(error, HostError::Lost { .. }), "{uri:?}: {error:?}");
    }
}

#[test]
fn a_host_may_change_its_thread() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let file = host_file(2, 1, "");
    let mut host = sendable(open(&file, Access::ReadOnly));
    let domains = std::thread::spawn(move || host.sample().map(|sample| sample.domains.len()));
    assert_eq!(domains.join().expect("no panic").expect("readable"), 2);
}

#[test]
fn a_host_of_the_test_driver_is_local_and_without_processes() {
    let file = host_file(1, 1, "");
    let mut host = open(&file, Access::ReadOnly);
    assert!(host.is_local());
    let sample = host.sample().expect("readable");
    assert_eq!(sample.domains[0].incarnation, None);
    assert_eq!(sample.isolated, isolated::isolated());
}

#[test]
fn more_domains_than_one_answer_was_expected_to_hold_are_all_found() {
    let file = host_file(700, 1, "");
    let host = open(&file, Access::ReadOnly);
    for expected in [0, 1, 636, 700, 5000] {
        let ids = ffi::running_ids(&host.connection, expected).expect("listed");
        assert_eq!(ids.len(), 700, "{expected}");
        assert!(ids.is_sorted());
    }
}

#[test]
fn vcpus_that_are_plugged_in_and_out_are_followed() {
    let file = host_file(1, 4, "");
    let mut host = open(&file, Access::ReadWrite);
    host.sample().expect("readable");
    for count in [2, 1, 4, 3] {
        domain(&host, "vm-0").set_vcpus(count).expect("set");
        let sample = host.sample().expect("readable");
        let numbers: Vec<u32> = sample.domains[0].vcpus.iter().map(|vcpu| vcpu.number).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<u32>>());
        let gone = host.affinity(&key(&sample.domains[0], count));
        assert!(matches!(gone, Err(PinError::Gone)), "{gone:?}");
    }
}

/// A process that was started like the QEMU of a guest, for as long as its standard input is open.
fn process_of(guest: &DomainSample, pid_file: &Path) -> Child {
    let process = Command::new("sh")
        .args(["-c", "read end", "sh", "-uuid", &guest.uuid.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh(1)");
    let folder = Path::new("/proc").join(process.id().to_string());
    // For a moment a process that is being started has no command line.
    while std::fs::read(folder.join("cmdline"))
        .expect("our child")
        .is_empty()
    {
        std::thread::yield_now();
    }
    std::fs::write(pid_file, process.id().to_string()).expect("written");
    process
}

#[test]
fn another_process_is_another_run_whatever_the_id() {
    let file = host_file(2, 1, "");
    let mut host = open(&file, Access::ReadWrite);
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("qemu/run");
    std::fs::create_dir_all(&run).expect("a folder");
    host.counters = Counters::new(&format!(
        "qemu+unix:///session?socket={}/socket",
        folder.path().display()
    ));
    let guest = find(&host.sample().expect("readable"), "vm-0")
        .expect("it runs")
        .clone();
    assert_eq!(guest.incarnation, None);
    let incarnation = |host: &mut LibvirtHost| {
        let sample = host.sample().expect("readable");
        find(&sample, "vm-0").expect("it runs").incarnation.clone()
    };
    let pid_file = run.join("vm-0.pid");
    let mut first = process_of(&guest, &pid_file);
    assert_eq!(
        incarnation(&mut host),
        None,
        "settled when the counters were first read"
    );

    domain(&host, "vm-0").destroy().expect("destroyed");
    domain(&host, "vm-0").create().expect("started");
    let known = incarnation(&mut host).expect("seen");
    assert!(known.0.starts_with(&format!("qemu:{}:", first.id())), "{known:?}");
    assert_eq!(incarnation(&mut host).as_ref(), Some(&known));
    let mut second = process_of(&guest, &pid_file);
    // The next time the domains are listed.
    domain(&host, "vm-1").destroy().expect("destroyed");
    let next = incarnation(&mut host).expect("seen");
    assert!(next.0.starts_with(&format!("qemu:{}:", second.id())), "{next:?}");
    // At once, where the domain's counters were lost with its process.
    let mut third = process_of(&guest, &pid_file);
    host.guests.first_mut().expect("it runs").source = Source::Undecided;
    let last = incarnation(&mut host).expect("seen");
    assert!(last.0.starts_with(&format!("qemu:{}:", third.id())), "{last:?}");
    for process in [&mut first, &mut second, &mut third] {
        process.kill().expect("ours");
        process.wait().expect("ours");
    }
}
