//! The one measure of imbalance that the whole project reports, the population standard deviation of pCPU loads, and the
//! one way in which loads and deviations are compared.

/// The population standard deviation of `values`, in their unit; 0 of none.
///
/// Two passes, in the order of the values: first the mean, then the mean of the squared distances from it. That is
/// accurate where the one-pass form cancels, and the result depends on nothing but the values and their order.
pub fn population_stddev(values: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let count = values.len();
    if count == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a host has far fewer than 2^52 pCPUs")]
    let count = count as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    (squares / count).sqrt()
}

/// How far apart two sums of loads are taken for equal, relative to the larger one.
///
/// The same loads added up in two orders differ by at most about n 2^-52 of the sum, n being their number: less than
/// this for a hundred thousand vCPUs on one pCPU, and still far below anything that can be measured. Without it, the
/// last bits of a sum could make a move in an exact tie, and then make the move back.
const ROUNDING: f64 = 1e-10;

/// Whether a load, or a deviation of loads, is above another by more than rounding can make.
pub fn exceeds(value: f64, other: f64) -> bool {
    value - other > value * ROUNDING
}

#[cfg(test)]
mod tests {
    use super::population_stddev;

    fn check(values: &[f64], expected: f64) {
        assert!(
            (population_stddev(values.iter().copied()) - expected).abs() < 1e-12,
            "{values:?}"
        );
    }

    #[test]
    fn agrees_with_hand_arithmetic() {
        check(&[], 0.0);
        check(&[42.0], 0.0);
        check(&[40.0, 40.0, 40.0, 40.0], 0.0);
        // Mean 40, squared distances 120^2 + 3 * 40^2 = 19200, a quarter of it is 4800.
        check(&[160.0, 0.0, 0.0, 0.0], 4800f64.sqrt());
        check(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 2.0);
    }

    #[test]
    fn a_large_offset_does_not_cancel() {
        check(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0], 22.5f64.sqrt());
    }
}
