//! Guests that use a known share of a CPU.
//!
//! A guest is a boot sector (`testdata/guest/guest.S`, which explains itself), assembled for each guest with
//! its duties. A duty is the number of timer ticks out of 18 that a vCPU spins; it sleeps for the rest. Every
//! guest has an image of its own: duties differ, and QEMU locks an image that it may write to.
//!
//! Guests use KVM where the daemon's user can open `/dev/kvm`, and QEMU's emulation (TCG) elsewhere. Threads,
//! masks and CPU times are as real with either.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use super::{PrivateLibvirt, wait_for};

const SOURCE: &str = include_str!("../../../../testdata/guest/guest.S");
/// The guest's table of duties has this many entries.
const MOST_VCPUS: usize = 16;
/// The input clock of the PC's timer.
const PIT_HZ: u32 = 1_193_182;
/// The firmware takes 0.2 s under TCG and some seconds under nested KVM; a busy machine needs more.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// What to define. The stored definition states only what is asked for here.
#[derive(Clone, Debug)]
pub(crate) struct GuestSpec {
    name: String,
    duties: Vec<u8>,
    spare_vcpus: usize,
    pit_reload: u32,
    cpuset: Option<String>,
    vcpupins: Vec<(u32, String)>,
}

impl GuestSpec {
    /// A guest with one vCPU for each of `duties`, which are in 0..=18.
    pub(crate) fn new(name: &str, duties: &[u8]) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(
            !name.is_empty() && name.chars().all(plain),
            "{name:?} is not a plain name for a guest"
        );
        assert!(
            (1..=MOST_VCPUS).contains(&duties.len()),
            "a guest has 1 to {MOST_VCPUS} vCPUs"
        );
        assert!(
            duties.iter().all(|&duty| duty <= 18),
            "a duty is 0 to 18: {duties:?}"
        );
        Self {
            name: name.to_owned(),
            duties: duties.to_vec(),
            spare_vcpus: 0,
            pit_reload: 0,
            cpuset: None,
            vcpupins: Vec::new(),
        }
    }

    /// Room for this many more vCPUs, to be added while it runs. Those stay idle.
    pub(crate) fn spare_vcpus(mut self, count: usize) -> Self {
        self.spare_vcpus = count;
        self
    }

    /// Makes the period 18 / `hz` seconds long instead of 0.99 s, so that a shorter look shows the duty. In
    /// 19..=100: each tick costs time too, most under nested KVM.
    pub(crate) fn ticks_per_second(mut self, hz: u32) -> Self {
        assert!(
            (19..=100).contains(&hz),
            "{hz} ticks per second is not in 19..=100"
        );
        self.pit_reload = PIT_HZ / hz;
        self
    }

    /// The CPUs that the definition allows to the guest, as `<vcpu cpuset>`.
    pub(crate) fn cpuset(mut self, cpus: &str) -> Self {
        self.cpuset = Some(cpus.to_owned());
        self
    }

    /// The CPUs that the definition allows to one vCPU, as `<vcpupin>`.
    pub(crate) fn vcpupin(mut self, vcpu: u32, cpus: &str) -> Self {
        self.vcpupins.push((vcpu, cpus.to_owned()));
        self
    }

    fn xml(&self, kind: &str, image: &str, serial: &str) -> String {
        let name = &self.name;
        let current = self.duties.len();
        let most = current + self.spare_vcpus;
        let cpuset = self
            .cpuset
            .as_ref()
            .map(|cpus| format!(" cpuset='{cpus}'"))
            .unwrap_or_default();
        let mut pins = String::new();
        for (vcpu, cpus) in &self.vcpupins {
            write!(pins, "<vcpupin vcpu='{vcpu}' cpuset='{cpus}'/>").expect("write to a string");
        }
        // ACPI is there for vCPUs to be added, and the cache mode spares the disk that no guest writes to.
        format!(
            "<domain type='{kind}'>
               <name>{name}</name>
               <memory unit='MiB'>4</memory>
               <vcpu current='{current}'{cpuset}>{most}</vcpu>
               <cputune>{pins}</cputune>
               <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
               <features><acpi/></features>
               <seclabel type='none'/>
               <devices>
                 <controller type='usb' model='none'/>
                 <memballoon model='none'/>
                 <serial type='file'><source path='{serial}'/></serial>
                 <disk type='file' device='disk'>
                   <driver name='qemu' type='raw' cache='unsafe'/>
                   <source file='{image}'/>
                   <target dev='hda' bus='ide'/>
                 </disk>
               </devices>
             </domain>"
        )
    }
}

impl PrivateLibvirt {
    /// Builds a guest's image and defines the guest; it does not run yet.
    #[track_caller]
    pub(crate) fn define(&self, spec: &GuestSpec) {
        let name = &spec.name;
        let image = self.build(spec);
        let serial = self.serial(name);
        let kind = if self.can_use_kvm() { "kvm" } else { "qemu" };
        let xml = self
            .sandbox()
            .write(&format!("{name}.xml"), &spec.xml(kind, &image, &serial));
        self.virsh(&["define".as_ref(), xml.as_os_str()]);
    }

    /// Starts a guest and returns when its firmware is done and all its vCPUs follow their duties.
    #[track_caller]
    pub(crate) fn boot(&self, name: &str) {
        // The guest writes a character for each vCPU; those of the last run must not count.
        let serial = self.serial(name);
        let _ = fs::remove_file(&serial);
        self.virsh(&["start", name]);
        let vcpus = self.vcpus(name).len();
        wait_for(&format!("guest {name}'s vCPUs to come up"), BOOT_LIMIT, || {
            let announced = fs::read(&serial).ok()?;
            (announced.len() >= vcpus).then_some(())
        });
    }

    /// Defines a guest and boots it.
    #[track_caller]
    pub(crate) fn run(&self, spec: &GuestSpec) {
        self.define(spec);
        self.boot(&spec.name);
    }

    /// Ends a guest at once; its definition stays.
    #[track_caller]
    pub(crate) fn destroy(&self, name: &str) {
        self.virsh(&["destroy", name]);
    }

    /// Pins a running guest's vCPU to a cpulist ("0", "0-3,5"), as another tool than ours would.
    #[track_caller]
    pub(crate) fn pin(&self, name: &str, vcpu: u32, cpus: &str) {
        self.virsh(&["vcpupin", name, &vcpu.to_string(), cpus, "--live"]);
    }

    /// Whether guests are run by KVM; if not, QEMU emulates their CPUs.
    pub(crate) fn can_use_kvm(&self) -> bool {
        self.sandbox().run("sh", &["-c", "exec 3<>/dev/kvm"]).is_ok()
    }

    fn build(&self, spec: &GuestSpec) -> String {
        let name = &spec.name;
        let source = self.sandbox().write("guest.S", SOURCE);
        let image = self.folder().join(format!("{name}.img")).display().to_string();
        let object = self.folder().join(format!("{name}.o")).display().to_string();
        let mut symbols = format!("--defsym DUTY=0 --defsym PIT_RELOAD={}", spec.pit_reload);
        for (vcpu, duty) in spec.duties.iter().enumerate() {
            write!(symbols, " --defsym DUTY_{vcpu}={duty}").expect("write to a string");
        }
        let source = source.display().to_string();
        let mut assemble: Vec<&str> = vec!["--32", "-o", &object, &source];
        assemble.extend(symbols.split(' '));
        let link = [
            "-m",
            "elf_i386",
            "-Ttext",
            "0x7c00",
            "--oformat",
            "binary",
            "-o",
            &image,
            &object,
        ];
        for result in [
            self.sandbox().run("as", &assemble),
            self.sandbox().run("ld", &link),
        ] {
            result.unwrap_or_else(|error| panic!("build guest {name}: {error}"));
        }
        image
    }

    fn serial(&self, name: &str) -> String {
        self.folder().join(format!("{name}.serial")).display().to_string()
    }
}
