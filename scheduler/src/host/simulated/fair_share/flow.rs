//! Whether pCPUs can carry what groups demand: a maximum flow from groups to pCPUs.
//!
//! A group sends its demand to any of its pCPUs, a pCPU takes up to its capacity. Dinic's algorithm: as long as a group
//! has demand left and reaches a pCPU with room, by way of other groups that can be rerouted, all shortest such ways are
//! filled at once. Who has demand left in the end, and every group that could be rerouted in its favour, sits on pCPUs
//! that are all full: that is the minimum cut.

/// Less than this, in percent of a pCPU, is rounding and not demand.
const NOTHING: f64 = 1e-7;

/// The groups of the minimum cut: those that together demand more than their pCPUs have. None if all can be carried.
pub(super) fn unmet(demands: Vec<f64>, cpus: Vec<Vec<usize>>, room: Vec<f64>) -> Vec<bool> {
    let mut network = Network::new(demands, cpus, room);
    while network.measure() && network.fill() {}
    network.distance_of_group.iter().map(Option::is_some).collect()
}

struct Network {
    /// What each group has not yet sent.
    demands: Vec<f64>,
    /// What each pCPU can still take.
    room: Vec<f64>,
    /// The pCPUs of each group, and what it sends there.
    edges: Vec<Vec<(usize, f64)>>,
    /// The groups of each pCPU: the group, and the place among its edges.
    sharers: Vec<Vec<(usize, usize)>>,
    /// The steps from the nearest group with demand left; `None` if out of reach.
    distance_of_group: Vec<Option<usize>>,
    distance_of_cpu: Vec<Option<usize>>,
    /// Edges before these lead nowhere any more at the present distances.
    next_edge_of_group: Vec<usize>,
    next_edge_of_cpu: Vec<usize>,
}

impl Network {
    fn new(demands: Vec<f64>, cpus: Vec<Vec<usize>>, room: Vec<f64>) -> Self {
        let mut sharers: Vec<Vec<(usize, usize)>> = vec![Vec::new(); room.len()];
        for (group, cpus) in cpus.iter().enumerate() {
            for (at, &cpu) in cpus.iter().enumerate() {
                sharers[cpu].push((group, at));
            }
        }
        let edges = cpus
            .into_iter()
            .map(|cpus| cpus.into_iter().map(|cpu| (cpu, 0.0)).collect())
            .collect();
        Self {
            distance_of_group: vec![None; demands.len()],
            distance_of_cpu: vec![None; room.len()],
            next_edge_of_group: vec![0; demands.len()],
            next_edge_of_cpu: vec![0; room.len()],
            demands,
            room,
            edges,
            sharers,
        }
    }

    /// Measures the distances from the groups that have demand left; whether a pCPU with room is in reach.
    fn measure(&mut self) -> bool {
        self.distance_of_group.fill(None);
        self.distance_of_cpu.fill(None);
        let mut reached: Vec<usize> = (0..self.demands.len())
            .filter(|&group| self.demands[group] > NOTHING)
            .collect();
        for &group in &reached {
            self.distance_of_group[group] = Some(0);
        }
        let mut room_in_reach = false;
        let mut distance = 0;
        while !reached.is_empty() && !room_in_reach {
            let mut cpus = Vec::new();
            for &group in &reached {
                for &(cpu, _) in &self.edges[group] {
                    if self.distance_of_cpu[cpu].is_none() {
                        self.distance_of_cpu[cpu] = Some(distance + 1);
                        room_in_reach |= self.room[cpu] > NOTHING;
                        cpus.push(cpu);
                    }
                }
            }
            reached.clear();
            for cpu in cpus {
                for &(group, at) in &self.sharers[cpu] {
                    if self.distance_of_group[group].is_none() && self.edges[group][at].1 > NOTHING {
                        self.distance_of_group[group] = Some(distance + 2);
                        reached.push(group);
                    }
                }
            }
            distance += 2;
        }
        room_in_reach
    }

    /// Fills the shortest ways from all groups with demand left; whether anything was sent.
    fn fill(&mut self) -> bool {
        self.next_edge_of_group.fill(0);
        self.next_edge_of_cpu.fill(0);
        let mut any = false;
        for group in 0..self.demands.len() {
            while self.demands[group] > NOTHING {
                let sent = self.send_from_group(group, self.demands[group]);
                if sent <= 0.0 {
                    break;
                }
                self.demands[group] -= sent;
                any = true;
            }
        }
        any
    }

    /// Sends up to `amount` from a group along shortest ways; what was sent.
    fn send_from_group(&mut self, group: usize, amount: f64) -> f64 {
        while let Some(&(cpu, _)) = self.edges[group].get(self.next_edge_of_group[group]) {
            if self.distance_of_cpu[cpu] == self.distance_of_group[group].map(|distance| distance + 1) {
                let sent = self.send_from_cpu(cpu, amount);
                if sent > 0.0 {
                    self.edges[group][self.next_edge_of_group[group]].1 += sent;
                    return sent;
                }
            }
            self.next_edge_of_group[group] += 1;
        }
        0.0
    }

    /// Finds a place for up to `amount` that comes to a pCPU: its own room, or a group there that can send elsewhere.
    fn send_from_cpu(&mut self, cpu: usize, amount: f64) -> f64 {
        if self.room[cpu] > NOTHING {
            let sent = amount.min(self.room[cpu]);
            self.room[cpu] -= sent;
            return sent;
        }
        while let Some(&(group, at)) = self.sharers[cpu].get(self.next_edge_of_cpu[cpu]) {
            let here = self.edges[group][at].1;
            if here > NOTHING
                && self.distance_of_group[group] == self.distance_of_cpu[cpu].map(|distance| distance + 1)
            {
                let sent = self.send_from_group(group, amount.min(here));
                if sent > 0.0 {
                    self.edges[group][at].1 -= sent;
                    return sent;
                }
            }
            self.next_edge_of_cpu[cpu] += 1;
        }
        0.0
    }
}
