//! What everyone but the scheduler does: other hands, guests that come and go, CPUs that go offline.

use std::collections::BTreeMap;
use std::sync::Arc;

use vcpu_scheduler::host::{Definition, DomainUuid, Incarnation, Instance, Wish};

use crate::mask::Mask;
use crate::vcpu::{Setter, Vcpu};
use crate::world::{Guest, Unplugged, World, topology};

/// How many domains run at most, and how many there can be.
const MOST_GUESTS: usize = 6;
const UUIDS: u32 = 9;
const MOST_VCPUS: u32 = 4;
/// For how many samples a vCPU is out before it is put in again; within fewer, nobody can tell it from the one before.
const OUT: u32 = 4;

impl World {
    /// Between two calls of the scheduler, anyone may act.
    pub(crate) fn between_calls(&mut self) {
        if self.dice.one_in(self.faults.hand) {
            self.act();
        }
    }

    /// Between two ticks.
    pub(crate) fn churn(&mut self) {
        let due = self.now_ns;
        self.land(Some(due));
        for guest in 0..self.guests.len() {
            if let Some((number, mask)) = self.guests[guest].obstinate {
                self.hand(guest, number, mask);
            }
        }
        for _ in 0..2 {
            self.between_calls();
        }
        let vcpus = self.guests.iter().map(|guest| guest.vcpus.len()).sum::<usize>();
        self.most_vcpus = self.most_vcpus.max(vcpus);
    }

    fn act(&mut self) {
        match self.dice.below(100) {
            0..30 => self.some_hand(),
            30..37 => self.hand_back(),
            37..40 => self.obstinacy(),
            40..50 => self.hot_plug_cpu(),
            50..58 => self.create(),
            58..64 => self.destroy(),
            64..68 => self.start_anew(),
            68..72 => self.rename(),
            72..78 => self.unplug(),
            78..84 => self.plug(),
            84..90 => self.save_or_restore(),
            _ => self.redefine(),
        }
    }

    fn some_guest(&mut self) -> Option<usize> {
        let count = u32::try_from(self.guests.len()).ok().filter(|&count| count > 0)?;
        Some(self.dice.below(count) as usize)
    }

    fn some_vcpu(&mut self) -> Option<(usize, usize)> {
        let guest = self.some_guest()?;
        let count = u32::try_from(self.guests[guest].vcpus.len())
            .ok()
            .filter(|&count| count > 0)?;
        Some((guest, self.dice.below(count) as usize))
    }

    fn hand(&mut self, guest: usize, number: u32, mask: Mask) {
        let uuid = self.guests[guest].uuid.0[0];
        let vcpu = self.guests[guest]
            .vcpus
            .iter()
            .position(|vcpu| vcpu.number == number);
        if let Some(vcpu) = vcpu {
            let done = self.set(guest, vcpu, mask, Setter::Hand);
            self.tell(format_args!(
                "  another hand pins {uuid}/{number} to {mask}: {done}"
            ));
        }
    }

    fn some_hand(&mut self) {
        let Some((guest, vcpu)) = self.some_vcpu() else {
            return;
        };
        let mask = self.dice.some_of(self.online);
        let number = self.guests[guest].vcpus[vcpu].number;
        self.hand(guest, number, mask);
    }

    /// Another hand sets the original again.
    fn hand_back(&mut self) {
        let Some((guest, vcpu)) = self.some_vcpu() else {
            return;
        };
        let of = &self.guests[guest];
        let number = of.vcpus[vcpu].number;
        let origin = of.vcpus[vcpu].origins.first().copied();
        if let Some(origin) = origin {
            let mask = origin.resolve(of.inherited(number, self.online), self.online);
            self.hand(guest, number, mask);
        }
    }

    fn obstinacy(&mut self) {
        let Some((guest, vcpu)) = self.some_vcpu() else {
            return;
        };
        let mask = self.dice.some_of(self.online);
        let guest = &mut self.guests[guest];
        guest.obstinate = match guest.obstinate {
            Some(_) => None,
            None => Some((guest.vcpus[vcpu].number, mask)),
        };
    }

    fn hot_plug_cpu(&mut self) {
        let cpu = self.dice.below(self.count);
        let goes = self.online.has(cpu);
        let online = if goes {
            self.online.without(Mask::one(cpu))
        } else {
            self.online.or(Mask::one(cpu))
        };
        if online.is_empty() {
            return;
        }
        // Kernels differ in what they widen a mask to, and in whether they find back.
        let wide = if self.dice.one_in(2) {
            online
        } else {
            Mask::first(self.count)
        };
        let finds_back = self.dice.one_in(2);
        self.put_online(online, wide, finds_back);
    }

    /// These CPUs are online from now on, and the kernel does what it has to.
    pub(crate) fn put_online(&mut self, online: Mask, wide: Mask, finds_back: bool) {
        self.tell(format_args!("  online are {online}"));
        self.online = online;
        self.topology = topology(self.count, online);
        let shown = self.online_shown;
        for vcpu in self.guests.iter_mut().flat_map(|guest| &mut guest.vcpus) {
            if vcpu.mask.and(online).is_empty() {
                vcpu.widened = Some((vcpu.mask, vcpu.setter));
                vcpu.ask(vcpu.mask);
                vcpu.mask = wide;
                if vcpu.setter == Setter::Hand && !vcpu.noticed {
                    vcpu.setter = Setter::Unclear;
                }
            } else if let Some((mask, setter)) = vcpu.widened
                && !mask.and(online).is_empty()
            {
                if finds_back {
                    vcpu.widened = None;
                    vcpu.mask = mask;
                    vcpu.setter = setter;
                    // Whoever has not seen it before it was widened may take it for another hand's.
                    vcpu.vague |= !vcpu.touched && !vcpu.origins.is_empty();
                    if setter == Setter::Hand && !vcpu.noticed {
                        vcpu.setter = Setter::Unclear;
                    }
                } else if vcpu.setter == Setter::Hand || !mask.and(shown).is_empty() {
                    // Now it looks like the original. Or nobody saw that its CPUs were away.
                    vcpu.setter = Setter::Unclear;
                    vcpu.noticed = false;
                }
            }
        }
    }

    pub(crate) fn create(&mut self) {
        let free: Vec<u32> = (1..=UUIDS).filter(|&uuid| !self.is_known(uuid)).collect();
        if self.guests.len() < MOST_GUESTS
            && let Some(&uuid) = self.dice.pick(&free)
        {
            self.start(uuid);
        }
    }

    fn is_known(&self, uuid: u32) -> bool {
        let guests = self.guests.iter().chain(&self.saved);
        guests.into_iter().any(|guest| u32::from(guest.uuid.0[0]) == uuid)
    }

    fn start(&mut self, uuid: u32) {
        let definition = Arc::new(self.any_definition());
        let serial = self.serial();
        let byte = u8::try_from(uuid).expect("few UUIDs");
        let mut guest = Guest {
            uuid: DomainUuid([byte; 16]),
            name: format!("{}-{uuid}", if self.dice.one_in(2) { "web" } else { "db" }).into(),
            instance: Instance(serial),
            incarnation: Incarnation(format!("run-{serial}").into()),
            definition,
            keepsake: None,
            vcpus: Vec::new(),
            unplugged: BTreeMap::new(),
            refuses: false,
            bare: false,
            was_managed: false,
            obstinate: None,
        };
        let vcpus = 1 + self.dice.below(MOST_VCPUS);
        for number in 0..vcpus {
            let vcpu = self.any_vcpu(&guest, number);
            guest.vcpus.push(vcpu);
        }
        self.tell(format_args!("  domain {uuid} starts as run {serial}"));
        let at = self.guests.partition_point(|other| other.uuid < guest.uuid);
        self.guests.insert(at, guest);
    }

    fn any_vcpu(&mut self, guest: &Guest, number: u32) -> Vcpu {
        let inherited = guest.inherited(number, self.online);
        let mut mask = if self.dice.one_in(3) {
            self.dice.some_of(self.online)
        } else {
            inherited
        };
        if mask.and(self.online).is_empty() {
            mask = self.online;
        }
        Vcpu::new(number, mask)
    }

    fn any_cpus(&mut self) -> Mask {
        self.dice.some_of(Mask::first(self.count))
    }

    fn any_wish(&mut self) -> Wish {
        Wish {
            manage: self.dice.one_in(8).then(|| self.dice.one_in(2)),
            cpus: self.dice.one_in(8).then(|| self.any_cpus().set()),
        }
    }

    fn any_definition(&mut self) -> Definition {
        let mut definition = Definition {
            cpuset: self.dice.one_in(4).then(|| self.any_cpus().set()),
            wish: self.any_wish(),
            ..Definition::default()
        };
        for number in 0..MOST_VCPUS {
            if self.dice.one_in(8) {
                definition.vcpupin.insert(number, self.any_cpus().set());
            }
        }
        definition
    }

    fn destroy(&mut self) {
        if let Some(guest) = self.some_guest() {
            let guest = self.guests.remove(guest);
            self.tell(format_args!("  domain {} is gone", guest.uuid.0[0]));
        }
    }

    /// Destroyed and created again between two calls: the same UUID, another run.
    fn start_anew(&mut self) {
        if let Some(guest) = self.some_guest() {
            let guest = self.guests.remove(guest);
            self.start(u32::from(guest.uuid.0[0]));
            // While there is no connection its daemon may begin anew too, and its ids with it.
            let again = self.guests.iter_mut().find(|again| again.uuid == guest.uuid);
            if let Some(again) = again.filter(|_| !self.connected) {
                again.instance = guest.instance;
            }
        }
    }

    fn rename(&mut self) {
        if let Some(guest) = self.some_guest() {
            let serial = self.serial();
            let kind = if self.dice.one_in(2) { "web" } else { "db" };
            self.guests[guest].name = format!("{kind}-{serial}").into();
        }
    }

    fn redefine(&mut self) {
        if let Some(guest) = self.some_guest() {
            let definition = self.any_definition();
            self.guests[guest].definition = Arc::new(definition);
            let uuid = self.guests[guest].uuid.0[0];
            self.tell(format_args!("  domain {uuid} is defined anew"));
        }
    }

    fn unplug(&mut self) {
        if let Some((guest, vcpu)) = self.some_vcpu() {
            let guest = &mut self.guests[guest];
            let vcpu = Vcpu {
                taken: false,
                ..guest.vcpus.remove(vcpu)
            };
            let (uuid, number) = (guest.uuid.0[0], vcpu.number);
            guest.unplugged.insert(number, Unplugged { vcpu, samples: 0 });
            self.tell(format_args!("  vCPU {uuid}/{number} is taken out"));
        }
    }

    /// A vCPU is put in again: with what was set for it before, as libvirt does it, or as another one.
    fn plug(&mut self) {
        let Some(guest) = self.some_guest() else { return };
        let numbers: Vec<u32> = self.guests[guest].unplugged.keys().copied().collect();
        let Some(&number) = self.dice.pick(&numbers) else {
            return;
        };
        let anew = self.dice.one_in(3);
        let on_record = self.is_on_record(&self.guests[guest], number);
        let (online, inherited) = (self.online, self.guests[guest].inherited(number, self.online));
        let out = &self.guests[guest].unplugged[&number];
        if (anew && out.samples < OUT) || (!anew && out.vcpu.mask.and(online).is_empty()) {
            return;
        }
        let before = self.guests[guest].unplugged.remove(&number).expect("found").vcpu;
        let vcpu = if anew {
            let mask = if inherited.and(online).is_empty() {
                online
            } else {
                inherited
            };
            // Whether it is told from the one before depends on what it has.
            Vcpu {
                vague: !before.origins.is_empty(),
                uncertain: true,
                origins: before.origins,
                asks: before.asks,
                journalled: before.journalled,
                ..Vcpu::new(number, mask)
            }
        } else {
            // What is not on record may not be remembered, and what nobody has noticed may count as found.
            let is_clear = matches!(before.setter, Setter::Us | Setter::Found);
            let is_known = on_record && (before.noticed || is_clear);
            Vcpu {
                run_ns: 0,
                read: false,
                attempted: None,
                widened: None,
                vague: before.vague || (!is_known && !before.origins.is_empty()),
                uncertain: before.uncertain || !is_known,
                noticed: before.noticed && is_known,
                respected: before.respected.filter(|_| is_known),
                setter: match before.setter {
                    Setter::Hand if !is_known => Setter::Unclear,
                    setter => setter,
                },
                ..before
            }
        };
        let (uuid, mask) = (self.guests[guest].uuid.0[0], vcpu.mask);
        let vcpus = &mut self.guests[guest].vcpus;
        let at = vcpus.partition_point(|vcpu| vcpu.number < number);
        vcpus.insert(at, vcpu);
        self.tell(format_args!(
            "  vCPU {uuid}/{number} is put in with {mask}, anew: {anew}"
        ));
    }

    /// A managed save, or the return from one: another run of QEMU, with the affinities and the keepsake of before.
    fn save_or_restore(&mut self) {
        if self.guests.len() >= MOST_GUESTS || self.saved.is_empty() || self.dice.one_in(2) {
            let Some(at) = self.some_guest() else { return };
            let guest = self.guests.remove(at);
            self.tell(format_args!("  domain {} is saved", guest.uuid.0[0]));
            self.law_of_a_save(&guest);
            self.saved.push(guest);
            return;
        }
        let mut guest = self.saved.remove(0);
        let serial = self.serial();
        guest.instance = Instance(serial);
        guest.incarnation = Incarnation(format!("run-{serial}").into());
        let keepsake = guest.keepsake.clone();
        for vcpu in &mut guest.vcpus {
            if vcpu.mask.and(self.online).is_empty() {
                vcpu.mask = self.online;
            }
        }
        for out in guest.unplugged.values_mut() {
            out.samples = 0;
        }
        let refuses = guest.refuses;
        for vcpu in guest.all_vcpus_mut() {
            let kept = keepsake
                .as_ref()
                .and_then(|keepsake| keepsake.vcpus.get(&vcpu.number));
            // What the keepsake does not say has stayed behind with the former run.
            match kept {
                Some(kept) if kept.hands_off && vcpu.setter == Setter::Hand => vcpu.noticed = true,
                // It did not take that the hold was over.
                Some(kept) if kept.hands_off && refuses => vcpu.setter = Setter::Unclear,
                Some(_) if vcpu.setter == Setter::Hand => {
                    (vcpu.setter, vcpu.noticed) = (Setter::Unclear, false);
                }
                Some(_) => {}
                None => *vcpu = Vcpu::new(vcpu.number, vcpu.mask),
            }
            vcpu.read = false;
            vcpu.arrives = true;
            vcpu.widened = None;
            vcpu.attempted = None;
        }
        self.tell(format_args!(
            "  domain {} is back as run {serial}",
            guest.uuid.0[0]
        ));
        let at = self.guests.partition_point(|other| other.uuid < guest.uuid);
        self.guests.insert(at, guest);
    }

    /// What is saved with our pins has to know how to be without them.
    fn law_of_a_save(&mut self, guest: &Guest) {
        if !self.keeps || guest.refuses {
            return;
        }
        let kept = |number| {
            guest
                .keepsake
                .as_ref()
                .is_some_and(|keepsake| keepsake.vcpus.contains_key(&number))
        };
        let unplugged = guest.unplugged.values().map(|out| &out.vcpu);
        let ours = guest
            .vcpus
            .iter()
            .chain(unplugged)
            .find(|vcpu| vcpu.setter == Setter::Us && vcpu.touched && !kept(vcpu.number));
        if let Some(vcpu) = ours {
            let (uuid, number) = (guest.uuid.0[0], vcpu.number);
            self.breaks(format_args!(
                "5 record: {uuid}/{number} is saved with our pin and without its original"
            ));
        }
    }
}
