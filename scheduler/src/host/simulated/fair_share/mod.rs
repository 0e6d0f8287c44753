//! How pCPUs share themselves among the vCPUs that may run on them.
//!
//! A vCPU wants so many percent of a pCPU and may run on some set of them, on one at a time; a pCPU has a capacity. What
//! comes out is the *max-min fair* service, the ideal that a kernel's fair scheduler and load balancer approach: none
//! below its want could get more without another one, that has no more than it, getting less. It is work-conserving,
//! nobody gets more than it wants, and vCPUs of the same set and want get the same.
//!
//! In it, all vCPUs of one set stand at one *level*: each gets its want or the level, whichever is less. So the problem
//! is posed and solved by groups of equal sets. It is solved from the top:
//!
//! - Groups that share no pCPU, even by way of others, are apart from each other.
//! - Groups of one and the same set take the level at which what they get fills their pCPUs (water-filling).
//! - Other groups are tried at the level that would fill all their pCPUs together. If a flow from groups to pCPUs
//!   carries that, it is the answer. If not, the flow's minimum cut shows groups whose own pCPUs are too few for that
//!   level. In the answer these groups fill their pCPUs by themselves, at a lower level, and the rest shares the
//!   remaining ones, at a higher: two smaller problems of the same kind. (Decomposition of a separable convex problem over
//!   a polymatroid; Fujishige, "Submodular Functions and Optimization", §8.2.)
//!
//! Only sums, products and quotients are used, in an order that depends on nothing but the input: the same on every
//! machine.

mod flow;

use vcpu_policy_api::cpuset::{CpuSet, CpuSetRef};
use vcpu_policy_api::ids::{CpuIx, Index};

/// vCPUs that may run on the same pCPUs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// Those pCPUs; at least one, and no two groups have the same.
    pub(super) cpus: CpuSet,
    /// What the vCPUs want, in percent of a pCPU, in ascending order.
    pub(super) wants: Vec<f64>,
}

/// The level of each group, in percent of a pCPU: a vCPU of it gets its want or the level, whichever is less. Infinite
/// where all get what they want.
pub(super) fn levels(capacities: &[f64], groups: &[Group]) -> Vec<f64> {
    let mut levels = vec![f64::INFINITY; groups.len()];
    let whole: Part = groups
        .iter()
        .enumerate()
        .map(|(at, group)| Member {
            group: at,
            cpus: group.cpus.clone(),
        })
        .collect();
    let mut open = components(whole, capacities.len());
    while let Some(part) = open.pop() {
        for part in solve(capacities, groups, part, &mut levels) {
            open.extend(components(part, capacities.len()));
        }
    }
    levels
}

/// What a vCPU gets of its want in a group of this level.
pub(super) fn served(want: f64, level: f64) -> f64 {
    want.min(level)
}

/// A group, with those of its pCPUs that are still to be shared.
struct Member {
    group: usize,
    cpus: CpuSet,
}

type Part = Vec<Member>;

/// Finds the common level of a part, or splits it into what is still to be solved.
fn solve(capacities: &[f64], groups: &[Group], part: Part, levels: &mut [f64]) -> Vec<Part> {
    let mut cpus = CpuSet::new();
    let mut wants = Vec::new();
    for member in &part {
        cpus.unite(member.cpus.as_ref());
        wants.extend_from_slice(&groups[member.group].wants);
    }
    wants.sort_unstable_by(f64::total_cmp);
    let level = water_level(&wants, capacity(capacities, cpus.as_ref()));
    let of_one_set = part.iter().all(|member| member.cpus == cpus);
    let short = if of_one_set {
        Vec::new()
    } else {
        short_of_cpus(capacities, groups, &part, level)
    };
    let shortage = short.iter().filter(|&&short| short).count();
    if shortage == 0 || shortage == part.len() {
        for member in &part {
            levels[member.group] = level;
        }
        return Vec::new();
    }
    let mut taken = CpuSet::new();
    let (mut tight, mut rest) = (Part::new(), Part::new());
    for (member, short) in part.into_iter().zip(short) {
        if short {
            taken.unite(member.cpus.as_ref());
            tight.push(member);
        } else {
            rest.push(member);
        }
    }
    for member in &mut rest {
        member.cpus.subtract(taken.as_ref());
        if member.cpus.is_empty() {
            // Only a group that wants nothing can be left without a pCPU, but for rounding.
            levels[member.group] = 0.0;
        }
    }
    rest.retain(|member| !member.cpus.is_empty());
    vec![tight, rest]
}

/// The level at which wants, in ascending order, fill a capacity; infinite if they all fit.
fn water_level(wants: &[f64], capacity: f64) -> f64 {
    let mut left = capacity;
    for (at, want) in wants.iter().enumerate() {
        let sharers = count(wants.len() - at);
        if want * sharers > left {
            return left / sharers;
        }
        left -= want;
    }
    f64::INFINITY
}

/// For each member of a part, whether it belongs to those whose pCPUs cannot carry the level.
fn short_of_cpus(capacities: &[f64], groups: &[Group], part: &[Member], level: f64) -> Vec<bool> {
    let demands = part.iter().map(|member| {
        let wants = &groups[member.group].wants;
        let below = wants.partition_point(|&want| want <= level);
        let above = wants.len() - below;
        // An infinite level is above all wants.
        let capped = if above == 0 { 0.0 } else { level * count(above) };
        wants[..below].iter().sum::<f64>() + capped
    });
    let cpus = part
        .iter()
        .map(|member| member.cpus.iter().map(Index::index).collect());
    flow::unmet(demands.collect(), cpus.collect(), capacities.to_vec())
}

fn capacity(capacities: &[f64], cpus: CpuSetRef<'_>) -> f64 {
    cpus.iter().map(|cpu| capacities[cpu.index()]).sum()
}

/// The parts of a part that share no pCPU with each other.
fn components(part: Part, cpus: usize) -> Vec<Part> {
    let mut roots: Vec<usize> = (0..cpus).collect();
    for member in &part {
        let mut members = member.cpus.iter().map(CpuIx::index);
        let Some(first) = members.next() else { continue };
        for cpu in members {
            let (from, to) = (root(&mut roots, cpu), root(&mut roots, first));
            roots[from.max(to)] = from.min(to);
        }
    }
    let mut parts: Vec<Part> = (0..cpus).map(|_| Part::new()).collect();
    for member in part {
        let first = member.cpus.iter().next();
        if let Some(cpu) = first {
            parts[root(&mut roots, cpu.index())].push(member);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The representative of a pCPU's component; shortens the way to it.
fn root(roots: &mut [usize], mut cpu: usize) -> usize {
    while roots[cpu] != cpu {
        roots[cpu] = roots[roots[cpu]];
        cpu = roots[cpu];
    }
    cpu
}

/// A number of vCPUs in arithmetic.
#[expect(clippy::cast_precision_loss, reason = "there are fewer vCPUs than 2^53")]
fn count(vcpus: usize) -> f64 {
    vcpus as f64
}

#[cfg(test)]
mod tests;
