//! The rule of `stddev` once more, word for word and in whole numbers: slow, and obviously right.

use crate::model::{Model, Pin};

/// The pin that the rule asks for, if any.
pub(crate) fn reference(model: &Model, threshold_tenths: u32) -> Option<Pin> {
    let loads = model.tenths();
    let managed: Vec<usize> = (0..model.cpus()).filter(|&cpu| model.managed[cpu]).collect();

    // Act only if the standard deviation is above the threshold: P^2 variance > P^2 threshold^2.
    let limit = u128::from(threshold_tenths) * managed.len() as u128;
    if model.unevenness() <= limit * limit {
        return None;
    }

    // Of equal loads the lowest number: the first of the highest, the first of the lowest.
    let highest = managed.iter().map(|&cpu| loads[cpu]).max()?;
    let lowest = managed.iter().map(|&cpu| loads[cpu]).min()?;
    let source = managed.iter().copied().find(|&cpu| loads[cpu] == highest)?;
    let target = managed.iter().copied().find(|&cpu| loads[cpu] == lowest)?;

    // The heaviest vCPU on the source that may be pinned to the target; of equals the first.
    let may_move: Vec<(usize, u64)> = model
        .vcpus()
        .enumerate()
        .filter(|(_, (domain_managed, vcpu))| {
            let only_the_target: Vec<bool> = (0..model.cpus()).map(|cpu| cpu == target).collect();
            *domain_managed
                && vcpu.movable
                && vcpu.cpu == Some(source)
                && vcpu.allowed[target]
                && vcpu.affinity != only_the_target
        })
        .filter_map(|(at, (_, vcpu))| vcpu.tenths.map(|tenths| (at, u64::from(tenths))))
        .collect();
    let heaviest = may_move.iter().map(|&(_, load)| load).max()?;
    let (victim, load) = may_move.into_iter().find(|&(_, load)| load == heaviest)?;

    // Look ahead.
    (load > 0 && loads[target] + load < loads[source]).then(|| Pin {
        vcpu: victim,
        cpus: vec![target],
    })
}
