//! Which pCPU a vCPU is seen on.
//!
//! A host says of each vCPU only where it ran last. Of one that may run on several pCPUs, that is one glance at where
//! the kernel happened to have put it: all its load is counted there, though it ran elsewhere too. Here that
//! glance is drawn: the fluid service of each set of pCPUs is spread over them, the narrowest sets first, each so that
//! what remains free is as even as possible, and a vCPU is seen on a pCPU in proportion to what its set has there.

use vcpu_policy_api::ids::{CpuIx, Index};

use super::fair_share::Group;

/// Where the vCPUs of a group are seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Odds {
    cpus: Vec<CpuIx>,
    /// For each of `cpus`, what the group has on it and on those before it.
    up_to: Vec<f64>,
}

impl Odds {
    /// The pCPU for a draw between 0 and 1, 1 excluded.
    pub(super) fn pick(&self, draw: f64) -> CpuIx {
        let total = self.up_to.last().copied().unwrap_or(0.0);
        let at = self.up_to.partition_point(|&up_to| up_to <= draw * total);
        self.cpus[at.min(self.cpus.len() - 1)]
    }
}

/// Spreads the service that groups get, in percent of a pCPU, over their pCPUs.
pub(super) fn spread(capacities: &[f64], groups: &[Group], served: &[f64]) -> Vec<Odds> {
    let mut narrowest_first: Vec<usize> = (0..groups.len()).collect();
    narrowest_first.sort_by_key(|&group| groups[group].cpus.len());
    let mut free = capacities.to_vec();
    let mut odds: Vec<Option<Odds>> = vec![None; groups.len()];
    for group in narrowest_first {
        let cpus: Vec<CpuIx> = groups[group].cpus.iter().collect();
        let left = level_of_free(&cpus, &free, served[group]);
        let mut total = 0.0;
        let mut up_to: Vec<f64> = Vec::with_capacity(cpus.len());
        for cpu in &cpus {
            let free = &mut free[cpu.index()];
            let taken = (*free - left).max(0.0);
            *free -= taken;
            total += taken;
            up_to.push(total);
        }
        if total <= 0.0 {
            up_to = vec![1.0; cpus.len()];
            for at in 1..up_to.len() {
                up_to[at] += up_to[at - 1];
            }
        }
        odds[group] = Some(Odds { cpus, up_to });
    }
    odds.into_iter().flatten().collect()
}

/// What remains free on each pCPU that is used, if `amount` is spread so that this is even; 0 if it does not fit.
fn level_of_free(cpus: &[CpuIx], free: &[f64], amount: f64) -> f64 {
    let mut most_free_first: Vec<f64> = cpus.iter().map(|cpu| free[cpu.index()]).collect();
    most_free_first.sort_unstable_by(|a, b| b.total_cmp(a));
    let (mut sum, mut used, mut left) = (0.0, 0.0, 0.0);
    for free in most_free_first {
        // One more comes into use only once the others are down to what it has free.
        if used > 0.0 && left >= free {
            break;
        }
        sum += free;
        used += 1.0;
        left = (sum - amount) / used;
    }
    left.max(0.0)
}

#[cfg(test)]
mod tests {
    use vcpu_policy_api::cpuset::CpuSet;

    use super::*;

    fn group(cpus: &[u32]) -> Group {
        Group {
            cpus: cpus.iter().copied().map(CpuIx).collect::<CpuSet>(),
            wants: Vec::new(),
        }
    }

    /// What each group has on each of its pCPUs.
    fn check(capacities: &[f64], groups: &[(&[u32], f64)], expected: &[&[f64]]) {
        let served: Vec<f64> = groups.iter().map(|(_, served)| *served).collect();
        let groups: Vec<Group> = groups.iter().map(|(cpus, _)| group(cpus)).collect();
        let shares = spread(capacities, &groups, &served).into_iter().map(|odds| {
            let before = std::iter::once(0.0).chain(odds.up_to.iter().copied());
            odds.up_to
                .iter()
                .zip(before)
                .map(|(up_to, before)| up_to - before)
                .collect::<Vec<f64>>()
        });
        assert_eq!(shares.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_remains_free_is_even() {
        check(&[100.0, 100.0], &[(&[0, 1], 60.0)], &[&[30.0, 30.0]]);
        // 60 and 100 free, 60 to spread: 50 and 50 stay free.
        check(&[60.0, 100.0], &[(&[0, 1], 60.0)], &[&[10.0, 50.0]]);
        check(&[20.0, 100.0], &[(&[0, 1], 60.0)], &[&[0.0, 60.0]]);
    }

    #[test]
    fn narrow_sets_come_first() {
        check(
            &[100.0, 100.0],
            &[(&[0, 1], 60.0), (&[0], 40.0)],
            &[&[10.0, 50.0], &[40.0]],
        );
    }

    #[test]
    fn where_nothing_is_served_every_pcpu_is_as_likely() {
        check(&[100.0, 100.0], &[(&[0, 1], 0.0)], &[&[1.0, 1.0]]);
        check(&[0.0, 0.0], &[(&[0, 1], 10.0)], &[&[1.0, 1.0]]);
    }

    #[test]
    fn a_draw_finds_its_place() {
        let odds = Odds {
            cpus: vec![CpuIx(3), CpuIx(5), CpuIx(7)],
            up_to: vec![10.0, 10.0, 40.0],
        };
        let picked = [0.0, 0.24, 0.25, 0.999_999].map(|draw| odds.pick(draw).0);
        assert_eq!(picked, [3, 3, 7, 7]);
    }
}
