//! The table that `simulate` prints, a line a tick.
//!
//! A host of few pCPUs gets a column for each, with its load as a number and a bar; of a larger one each pCPU is one
//! character high as its load. Lines are written as the ticks happen.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::Failure;
use crate::evaluate::simulation::{Report, TickReport};

/// Up to how many pCPUs get a column of their own.
const WIDEST_WITH_COLUMNS: usize = 8;
/// How many pCPUs at most are drawn as one character each; beyond, one character stands for several.
const WIDEST_WITH_CHARACTERS: usize = 64;
/// One character, by eighths of its height.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// One character, by eighths of its width.
const PARTS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
/// In characters.
const BAR_WIDTH: usize = 5;

/// Writes the lines; see the [module](self).
#[derive(Debug)]
pub(super) struct TickTable {
    cpus: usize,
    threshold: f64,
}

impl TickTable {
    pub(super) fn new(cpus: usize, threshold: f64) -> Self {
        Self { cpus, threshold }
    }

    pub(super) fn write_head(&self, output: &mut dyn Write) -> io::Result<()> {
        write!(output, "{:>4} {:>7}", "tick", "stddev")?;
        if self.cpus <= WIDEST_WITH_COLUMNS {
            for cpu in 0..self.cpus {
                write!(
                    output,
                    "  {:>width$}",
                    format!("cpu {cpu}"),
                    width = BAR_WIDTH + 4
                )?;
            }
        } else {
            let width = self.cpus.div_ceil(self.cpus_a_character());
            write!(output, "  {:<width$}", format!("cpu 0-{}", self.cpus - 1))?;
        }
        writeln!(output, "  pins")
    }

    pub(super) fn write_tick(&self, output: &mut dyn Write, tick: &TickReport) -> Result<(), Failure> {
        let stddev = tick
            .stddev
            .map_or_else(|| "-".to_owned(), |stddev| format!("{stddev:.2}"));
        let style = tick.stddev.map_or(Style::new(), |stddev| self.style(stddev));
        write!(output, "{:>4} {style}{stddev:>7}{style:#}", tick.tick)?;
        if self.cpus <= WIDEST_WITH_COLUMNS {
            for load in &tick.cpu_load {
                match load {
                    Some(load) => write!(output, "  {} {load:>3.0}", bar(*load))?,
                    None => write!(output, "  {:>width$}", "-", width = BAR_WIDTH + 4)?,
                }
            }
        } else {
            let characters: String = tick
                .cpu_load
                .chunks(self.cpus_a_character())
                .map(character)
                .collect();
            write!(output, "  {characters}")?;
        }
        let pins = tick.pins.iter().map(|pin| {
            let from = pin.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
            format!("{}/{} {from}->{}", pin.domain, pin.vcpu, pin.cpus)
        });
        let happened: Vec<String> = pins
            .chain(tick.remarks.iter().map(|remark| format!("! {remark}")))
            .collect();
        match happened.split_first() {
            None => writeln!(output)?,
            Some((first, rest)) => {
                writeln!(output, "  {first}")?;
                for line in rest {
                    writeln!(output, "{:indent$}{line}", "", indent = self.width() + 2)?;
                }
            }
        }
        Ok(())
    }

    /// One line on the whole run.
    pub(super) fn write_verdict(&self, output: &mut dyn Write, report: &Report) -> io::Result<()> {
        let figure =
            |stddev: Option<f64>| stddev.map_or_else(|| "-".to_owned(), |stddev| format!("{stddev:.2}"));
        let pins = format!("{} pin{}", report.pins, if report.pins == 1 { "" } else { "s" });
        let (good, bad) = (
            AnsiColor::Green.on_default().bold(),
            AnsiColor::Red.on_default().bold(),
        );
        match report.balanced_tick {
            Some(1) => write!(output, "{good}balanced from the first tick on{good:#}")?,
            Some(tick) => write!(output, "{good}balanced at tick {tick}{good:#}")?,
            None => write!(
                output,
                "{bad}not balanced{bad:#} (stddev above {} at the end)",
                self.threshold
            )?,
        }
        writeln!(
            output,
            ": {pins}, stddev {} -> {}",
            figure(report.stddev.first),
            figure(report.stddev.last)
        )
    }

    fn style(&self, stddev: f64) -> Style {
        if stddev > self.threshold {
            AnsiColor::Yellow.on_default()
        } else {
            AnsiColor::Green.on_default()
        }
    }

    fn cpus_a_character(&self) -> usize {
        self.cpus.div_ceil(WIDEST_WITH_CHARACTERS).max(1)
    }

    fn width(&self) -> usize {
        let loads = if self.cpus <= WIDEST_WITH_COLUMNS {
            self.cpus * (BAR_WIDTH + 6)
        } else {
            2 + self.cpus.div_ceil(self.cpus_a_character())
        };
        12 + loads
    }
}

/// A load as a bar of blocks; full at 100 %.
fn bar(load: f64) -> String {
    let eighths = steps(load, BAR_WIDTH * 8);
    (0..BAR_WIDTH)
        .map(|at| PARTS[eighths.saturating_sub(at * 8).min(8)])
        .collect()
}

/// The mean load of some pCPUs as one character; a dot if all are offline.
fn character(loads: &[Option<f64>]) -> char {
    let known = || loads.iter().flatten();
    let count = f64::from(u32::try_from(known().count()).unwrap_or(u32::MAX));
    if count == 0.0 {
        '.'
    } else {
        LEVELS[steps(known().sum::<f64>() / count, 8)]
    }
}

/// How many of `all` equal steps from 0 to 100 % a load has reached, to the nearest one.
fn steps(load: f64, all: usize) -> usize {
    let all = u32::try_from(all).unwrap_or(u32::MAX);
    (1..=all)
        .take_while(|&step| load / 100.0 * f64::from(all) >= f64::from(step) - 0.5)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_the_load_is_high() {
        let drawn: Vec<String> = [0.0, 2.0, 20.0, 50.0, 99.0, 100.0, 250.0].map(bar).into();
        assert_eq!(
            drawn,
            ["     ", "▏    ", "█    ", "██▌  ", "█████", "█████", "█████"]
        );
    }

    #[test]
    fn several_cpus_share_a_character() {
        let drawn: Vec<char> = [
            &[Some(0.0)][..],
            &[Some(100.0), Some(0.0)],
            &[None, Some(100.0)],
            &[None],
        ]
        .map(character)
        .into();
        assert_eq!(drawn, [' ', '▄', '█', '.']);
    }
}
