//! The only source of chance: one seed, one sequence.

use oorandom::Rand64;

use crate::mask::Mask;

pub(crate) struct Dice(Rand64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rand64::new(u128::from(seed)))
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.0.rand_range(0..u64::from(end))).expect("below a u32")
    }

    pub(crate) fn any(&mut self) -> u64 {
        self.0.rand_u64()
    }

    /// Whether it happens that has a chance of one in `rarity`; never, if that is 0.
    pub(crate) fn one_in(&mut self, rarity: u32) -> bool {
        rarity > 0 && self.below(rarity) == 0
    }

    /// Some of these CPUs: one, a few or all of them. None only of none.
    pub(crate) fn some_of(&mut self, of: Mask) -> Mask {
        if of.is_empty() {
            return of;
        }
        match self.below(4) {
            0 => of,
            1 => {
                let low = u16::try_from(self.any() & 0xffff).expect("16 bits");
                let some = of.and(Mask(low));
                if some.is_empty() { of } else { some }
            }
            _ => {
                let nth = self.below(of.0.count_ones());
                let cpu = of.cpus().nth(nth as usize).expect("counted");
                Mask::one(cpu.0)
            }
        }
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u32::try_from(from.len()).ok().filter(|&count| count > 0)?;
        from.get(self.below(count) as usize)
    }
}
