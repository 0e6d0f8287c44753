//! The hosts that a policy is tried on.

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::{Index, VcpuIx};
use vcpu_policy_api::snapshot::SnapshotBlock;
use vcpu_policy_api::testing::{Host, Vcpu, new_vcpu, vcpu};

/// A host, what its guests do, and for how long.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) ticks: u64,
    host: Host,
    domains: Vec<Domain>,
}

struct Domain {
    managed: bool,
    /// The node of its memory, and its weight, where they are known.
    placed: Option<(u32, f64)>,
    vcpus: Vec<Guest>,
}

/// A vCPU's load in each tick, and what holds for it all the time.
struct Guest {
    load: Box<dyn Fn(u64) -> Option<f64>>,
    cpu: Option<u32>,
    affinity: Option<String>,
    limits: Box<dyn Fn(Vcpu) -> Vcpu>,
}

impl Guest {
    fn new(load: impl Fn(u64) -> Option<f64> + 'static) -> Self {
        Self {
            load: Box::new(load),
            cpu: None,
            affinity: None,
            limits: Box::new(|vcpu| vcpu),
        }
    }

    fn steady(load: f64) -> Self {
        Self::new(move |_| Some(load))
    }

    fn on(self, cpu: u32) -> Self {
        Self {
            cpu: Some(cpu),
            ..self
        }
    }

    fn pinned(self, cpu: u32) -> Self {
        Self {
            affinity: Some(cpu.to_string()),
            ..self.on(cpu)
        }
    }

    fn with(self, limits: impl Fn(Vcpu) -> Vcpu + 'static) -> Self {
        Self {
            limits: Box::new(limits),
            ..self
        }
    }
}

fn managed(vcpus: impl IntoIterator<Item = Guest>) -> Domain {
    Domain {
        managed: true,
        placed: None,
        vcpus: vcpus.into_iter().collect(),
    }
}

fn placed(node: u32, weight: f64, vcpus: impl IntoIterator<Item = Guest>) -> Domain {
    Domain {
        placed: Some((node, weight)),
        ..managed(vcpus)
    }
}

/// Every case. They say what they are by their names.
pub(super) fn all() -> Vec<Case> {
    let case = |name, ticks, host, domains| Case {
        name,
        ticks,
        host,
        domains,
    };
    let on_cpu_0 = || managed((0..8).map(|_| Guest::steady(20.0).pinned(0)));
    vec![
        case("one pCPU without a guest", 2, Host::cpus(1), vec![]),
        case(
            "one pCPU with a guest",
            2,
            Host::cpus(1),
            vec![managed([Guest::steady(50.0).on(0)])],
        ),
        case(
            "no managed pCPU",
            2,
            Host::cpus(2).reserved("0-1"),
            vec![managed([Guest::steady(90.0).on(1)])],
        ),
        case(
            "guests without a load",
            2,
            Host::cpus(4),
            vec![managed((0..4).map(|_| Guest::new(|_| None)))],
        ),
        case(
            "a guest whose load comes and goes",
            8,
            Host::cpus(2),
            vec![
                managed([Guest::new(|tick| (tick % 3 != 1).then_some(60.0)).pinned(0)]),
                managed([Guest::steady(60.0).pinned(0)]),
            ],
        ),
        case(
            "everyone idle",
            3,
            Host::cpus(4),
            vec![managed((0..4).map(|cpu| Guest::steady(0.0).on(cpu)))],
        ),
        case("everyone on one pCPU", 30, Host::cpus(4), vec![on_cpu_0()]),
        case(
            "a load that moves about",
            40,
            Host::uniform(1, 2, 2, 1),
            vec![managed((0..8u32).map(|at| {
                Guest::new(move |tick| Some(if tick / 10 % 8 == u64::from(at) { 95.0 } else { 5.0 }))
                    .on(at % 4)
            }))],
        ),
        case(
            "guests that may not be touched",
            5,
            Host::cpus(4).reserved("3"),
            vec![
                managed([
                    Guest::steady(100.0).pinned(0).with(Vcpu::fixed),
                    Guest::steady(40.0).pinned(0).with(|vcpu| vcpu.allowed("0")),
                    Guest::steady(30.0).pinned(0).with(|vcpu| vcpu.allowed("none")),
                    Guest::steady(20.0).pinned(0).with(|vcpu| vcpu.allowed("1-2")),
                    Guest::steady(10.0).pinned(3),
                ]),
                Domain {
                    managed: false,
                    placed: None,
                    vcpus: vec![Guest::steady(80.0).pinned(1), Guest::steady(5.0).pinned(0)],
                },
            ],
        ),
        case(
            "loads beyond all measure",
            3,
            Host::cpus(3),
            vec![managed(
                [1e300, 1e300, 1e-300, 400.0].map(|load| Guest::steady(load).pinned(0)),
            )],
        ),
        case(
            "two nodes, guests with their memory on one of them, and some that wait",
            6,
            Host::uniform(2, 1, 2, 1),
            at_home_and_elsewhere(),
        ),
        case("no pins left", 2, Host::cpus(4).budget(0), vec![on_cpu_0()]),
        case("one pin a tick", 12, Host::cpus(4).budget(1), vec![on_cpu_0()]),
        case(
            "a host with gaps, two kinds of CPU, and two nodes",
            6,
            Host::shaped(
                "{cpus: [{cpu: 1, node: 0, capacity: 50}, {cpu: 2, node: 0, online: false}, {cpu: 5, node: 0}, \
                 {cpu: 70, node: 2}, {cpu: 71, node: 2, background: 30}]}",
            ),
            vec![managed([1, 5, 70, 70, 71].map(|cpu| Guest::steady(45.0).on(cpu)))],
        ),
        case("a huge host", 3, Host::uniform(4, 8, 8, 2), huge()),
    ]
}

/// Guests near their memory and far from it, of all weights.
fn at_home_and_elsewhere() -> Vec<Domain> {
    vec![
        placed(
            1,
            1024.0,
            [Guest::steady(90.0).pinned(0), Guest::steady(40.0).on(3)],
        ),
        placed(0, 2048.0, (0..3).map(waiting)),
        placed(1, 0.0, [Guest::steady(70.0).with(|vcpu| vcpu.allowed("0-1"))]),
        managed([waiting(2)]),
    ]
}

/// One that gets less than it wants.
fn waiting(cpu: u32) -> Guest {
    Guest::steady(60.0).on(cpu).with(|vcpu| vcpu.wait(35.0))
}

/// 10,000 vCPUs in domains of four, with loads that a small generator draws.
fn huge() -> Vec<Domain> {
    let mut state = 1u32;
    let mut draw = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    (0..2500)
        .map(|_| {
            managed((0..4).map(|_| {
                let (load, cpu) = (f64::from(draw(400)) / 10.0, draw(512));
                let guest = Guest::steady(load);
                if draw(2) == 0 {
                    guest.on(cpu)
                } else {
                    guest.pinned(cpu)
                }
            }))
        })
        .collect()
}

/// A case in progress: its guests, where the policy's pins have brought them.
pub(super) struct Guests<'c> {
    case: &'c Case,
    /// What was pinned, by the row of the vCPU.
    pins: Vec<Option<OsCpuSet>>,
}

impl<'c> Guests<'c> {
    pub(super) fn new(case: &'c Case) -> Self {
        let vcpus = case.domains.iter().map(|domain| domain.vcpus.len()).sum();
        Self {
            case,
            pins: vec![None; vcpus],
        }
    }

    /// The host in a tick.
    pub(super) fn snapshot(&self, tick: u64) -> SnapshotBlock {
        let mut host = self.case.host.clone();
        if tick > 1 {
            host = host.tick(tick);
        }
        let mut pins = self.pins.iter();
        for (at, domain) in self.case.domains.iter().enumerate() {
            let vcpus = domain.vcpus.iter().zip(pins.by_ref());
            let vcpus: Vec<Vcpu> = vcpus
                .map(|(guest, pin)| state(guest, pin.as_ref(), tick))
                .collect();
            let name = format!("guest-{at}");
            host = if domain.managed {
                host.domain(&name, vcpus)
            } else {
                host.unmanaged(&name, vcpus)
            };
            if let Some((node, weight)) = domain.placed {
                host = host.memory_node(node).weight(weight);
            }
        }
        host.snapshot()
    }

    /// Carries pins out.
    pub(super) fn pin(&mut self, pins: &[(VcpuIx, OsCpuSet)]) {
        for (vcpu, cpus) in pins {
            self.pins[vcpu.index()] = Some(cpus.clone());
        }
    }
}

fn state(guest: &Guest, pin: Option<&OsCpuSet>, tick: u64) -> Vcpu {
    let state = (guest.load)(tick).map_or_else(new_vcpu, vcpu);
    // Within a new mask, it is taken to run where it ran, if it may, else on the first CPU of the mask.
    let cpu = match (guest.cpu, pin) {
        (Some(cpu), Some(pin)) if !pin.iter().any(|allowed| allowed.0 == cpu) => {
            pin.iter().next().map(|cpu| cpu.0)
        }
        (cpu, _) => cpu,
    };
    let state = cpu.map_or(state.clone(), |cpu| state.on(cpu));
    let affinity = pin.map(ToString::to_string).or_else(|| guest.affinity.clone());
    (guest.limits)(affinity.map_or(state.clone(), |cpus| state.affinity(cpus)))
}
