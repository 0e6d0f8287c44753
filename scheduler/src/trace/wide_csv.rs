//! CPU traces in the wide form: one line a VM, one column a sample.
//!
//! ```csv
//! vm,cores,0,300,600
//! web,2,12.5,80,11
//! ```
//!
//! The header names the columns: two that say which VM it is and how many vCPUs it has, then the time of each sample in
//! seconds from the start of the trace, ascending. A value is in percent of the pCPU that each vCPU of the VM wants, 0
//! or more. The text may be compressed with gzip; the file's first bytes tell, not its name.
//!
//! The rows come one at a time as text ([`Reader::next_row`]) and become numbers only on request ([`RawRow::parse`]),
//! so a reader that wants three rows of a long trace keeps and parses three. A mistake is located by line and column.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

/// The longest line that is read: more than ten million samples, and far from filling a memory.
const LONGEST_LINE: u64 = 1 << 26;
/// What a gzip file starts with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The columns in front of the samples.
const FIXED_COLUMNS: [&str; 2] = ["vm", "cores"];

/// Why a file is not a trace in the wide form.
#[derive(Debug, Error)]
pub enum WideCsvError {
    /// The file could not be opened or read.
    #[error("cannot read the trace")]
    Read(#[from] io::Error),
    /// A line is not of the form.
    #[error("line {line}, column {column}: {problem}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
        /// What was found and what was expected.
        problem: String,
    },
}

/// A VM's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The VM's name.
    pub vm: String,
    /// How many vCPUs it has.
    pub cores: u32,
    /// What each of its vCPUs wants, in percent of a pCPU; one value a column of [`Reader::times`].
    pub values: Vec<f64>,
}

/// A trace that is being read.
pub struct Reader {
    input: Box<dyn BufRead + Send>,
    times: Arc<[Duration]>,
    line: String,
    line_number: usize,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("times", &self.times.len())
            .field("line_number", &self.line_number)
            .finish_non_exhaustive()
    }
}

/// A row as it stands in the file.
#[derive(Debug, Clone, Copy)]
pub struct RawRow<'a> {
    text: &'a str,
    line_number: usize,
    times: &'a [Duration],
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// If the file cannot be read, or its first line is not such a header.
    pub fn open(path: &Path) -> Result<Self, WideCsvError> {
        Self::new(File::open(path)?)
    }

    /// Reads the header of a trace that comes from anywhere.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(source: impl Read + Send + 'static) -> Result<Self, WideCsvError> {
        let mut plain = BufReader::new(source);
        let compressed = plain.fill_buf()?.starts_with(&GZIP_MAGIC);
        let input: Box<dyn BufRead + Send> = if compressed {
            Box::new(BufReader::new(MultiGzDecoder::new(plain)))
        } else {
            Box::new(plain)
        };
        let mut reader = Self {
            input,
            times: Arc::from([]),
            line: String::new(),
            line_number: 0,
        };
        if !reader.next_line()? {
            return Err(malformed(1, 1, "the file is empty; expected vm,cores,0,300,…"));
        }
        reader.times = header(&reader.line, reader.line_number)?;
        Ok(reader)
    }

    /// The time of each sample, from the start of the trace, ascending; at least one.
    pub fn times(&self) -> &Arc<[Duration]> {
        &self.times
    }

    /// The next row; `None` behind the last one. Empty lines are skipped.
    ///
    /// # Errors
    /// If the file cannot be read further.
    pub fn next_row(&mut self) -> Result<Option<RawRow<'_>>, WideCsvError> {
        Ok(self.next_line()?.then_some(RawRow {
            text: &self.line,
            line_number: self.line_number,
            times: &self.times,
        }))
    }

    /// Goes to the next line that is not empty; false at the end.
    fn next_line(&mut self) -> Result<bool, WideCsvError> {
        loop {
            self.line.clear();
            let mut limited = Read::take(&mut self.input, LONGEST_LINE);
            if limited.read_line(&mut self.line)? == 0 {
                return Ok(false);
            }
            self.line_number += 1;
            if limited.limit() == 0 {
                let problem = format!("the line is longer than {LONGEST_LINE} bytes");
                return Err(malformed(self.line_number, 1, problem));
            }
            self.line.truncate(self.line.trim_end().len());
            if !self.line.is_empty() {
                return Ok(true);
            }
        }
    }
}

impl RawRow<'_> {
    /// The row as numbers.
    ///
    /// # Errors
    /// If a cell is not what its column holds, or the row has more or fewer cells than the header.
    pub fn parse(&self) -> Result<Row, WideCsvError> {
        let located = |(column, problem): (usize, String)| malformed(self.line_number, column, problem);
        let mut cells = cells(self.text);
        let (_, vm) = cells.next().unwrap_or((1, ""));
        let (column, cores) = cells.next().unwrap_or((self.text.len() + 1, ""));
        let cores = cores.parse().ok().filter(|&cores| cores > 0).ok_or_else(|| {
            located((
                column,
                format!("\"{cores}\" is not a number of vCPUs; expected 1 or more"),
            ))
        })?;
        let mut values = Vec::with_capacity(self.times.len());
        for (column, cell) in cells {
            let Some(time) = self.times.get(values.len()) else {
                return Err(located((
                    column,
                    format!(
                        "the row goes on behind the last column; the header has {} in all",
                        FIXED_COLUMNS.len() + self.times.len()
                    ),
                )));
            };
            values.push(number(cell).ok_or_else(|| {
                located((
                    column,
                    format!(
                        "\"{cell}\" at {} s is not a percentage; expected a number, 0 or more",
                        time.as_secs_f64()
                    ),
                ))
            })?);
        }
        if values.len() < self.times.len() {
            let problem = format!(
                "the row ends before the last column; the header has {} in all",
                FIXED_COLUMNS.len() + self.times.len()
            );
            return Err(located((self.text.chars().count() + 1, problem)));
        }
        Ok(Row {
            vm: vm.to_owned(),
            cores,
            values,
        })
    }
}

fn header(text: &str, line_number: usize) -> Result<Arc<[Duration]>, WideCsvError> {
    let mut times: Vec<Duration> = Vec::new();
    for (at, (column, cell)) in cells(text).enumerate() {
        if let Some(name) = FIXED_COLUMNS.get(at) {
            if cell != *name {
                let problem = format!(
                    "\"{cell}\" is not the name of this column; expected {name}, as in vm,cores,0,300,…"
                );
                return Err(malformed(line_number, column, problem));
            }
            continue;
        }
        let time = number(cell)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|time| times.last().is_none_or(|last| last < time))
            .ok_or_else(|| {
                let problem = format!(
                    "\"{cell}\" is not the time of a sample; expected seconds, more than in the column before"
                );
                malformed(line_number, column, problem)
            })?;
        times.push(time);
    }
    if times.is_empty() {
        let problem = "the header has no sample; expected vm,cores,0,300,…";
        return Err(malformed(line_number, text.chars().count() + 1, problem));
    }
    Ok(times.into())
}

/// The cells of a line, each with the column in which it starts.
fn cells(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut column = 1;
    line.split(',').map(move |cell| {
        let start = column;
        column += cell.chars().count() + 1;
        (start, cell.trim())
    })
}

/// A finite number that is not negative.
fn number(cell: &str) -> Option<f64> {
    cell.parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

fn malformed(line: usize, column: usize, problem: impl Into<String>) -> WideCsvError {
    WideCsvError::Malformed {
        line,
        column,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn rows(text: impl AsRef<[u8]>) -> Result<Vec<Row>, WideCsvError> {
        let mut reader = Reader::new(io::Cursor::new(text.as_ref().to_vec()))?;
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row()? {
            rows.push(row.parse()?);
        }
        Ok(rows)
    }

    const TINY: &str = "vm,cores,0,300.5\r\nweb,2,12.5,80\n\ndb,1,0,1e1\n";

    #[test]
    fn rows_are_read_with_or_without_compression() {
        let plain = rows(TINY).expect("valid");
        assert_eq!(plain.len(), 2);
        assert_eq!(
            plain[1],
            Row {
                vm: "db".to_owned(),
                cores: 1,
                values: vec![0.0, 10.0]
            }
        );
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(TINY.as_bytes()).expect("memory");
        assert_eq!(rows(encoder.finish().expect("memory")).expect("valid"), plain);
    }

    #[test]
    fn the_header_gives_the_times() {
        let reader = Reader::new(io::Cursor::new(TINY)).expect("valid");
        assert_eq!(
            reader.times().as_ref(),
            [Duration::ZERO, Duration::from_millis(300_500)]
        );
    }

    /// Only what is asked for is parsed: a row that nobody wants may hold anything.
    #[test]
    fn an_unwanted_row_is_not_parsed() {
        let mut reader = Reader::new(io::Cursor::new("vm,cores,0\nbad,x,y\ngood,1,5\n")).expect("valid");
        assert!(reader.next_row().expect("readable").is_some());
        let good = reader.next_row().expect("readable").expect("a row").parse();
        assert_eq!(good.expect("valid").vm, "good");
    }

    #[test]
    fn mistakes_are_located() {
        let errors: Vec<String> = [
            "",
            "vm,vcpus,0\n",
            "vm,cores\n",
            "vm,cores,0,0\n",
            "vm,cores,0,five\n",
            "vm,cores,0,300\na,1,5\n",
            "vm,cores,0\na,1,5,6\n",
            "vm,cores,0\na,0,5\n",
            "vm,cores,0\na\n",
            "vm,cores,0,300\na,1,5,-1\n",
            "vm,cores,0,300\na,1,,1\n",
            "vm,cores,0,300\n\na,1,5,NaN\n",
        ]
        .iter()
        .map(|text| rows(text).expect_err("malformed").to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        line 1, column 1: the file is empty; expected vm,cores,0,300,…
        line 1, column 4: "vcpus" is not the name of this column; expected cores, as in vm,cores,0,300,…
        line 1, column 9: the header has no sample; expected vm,cores,0,300,…
        line 1, column 12: "0" is not the time of a sample; expected seconds, more than in the column before
        line 1, column 12: "five" is not the time of a sample; expected seconds, more than in the column before
        line 2, column 6: the row ends before the last column; the header has 4 in all
        line 2, column 7: the row goes on behind the last column; the header has 3 in all
        line 2, column 3: "0" is not a number of vCPUs; expected 1 or more
        line 2, column 2: "" is not a number of vCPUs; expected 1 or more
        line 2, column 7: "-1" at 300 s is not a percentage; expected a number, 0 or more
        line 2, column 5: "" at 0 s is not a percentage; expected a number, 0 or more
        line 3, column 7: "NaN" at 300 s is not a percentage; expected a number, 0 or more
        "#);
    }

    #[test]
    fn a_broken_archive_is_an_error() {
        let truncated = [GZIP_MAGIC.as_slice(), &[8, 0, 0]].concat();
        assert!(matches!(rows(truncated), Err(WideCsvError::Read(_))));
    }
}
