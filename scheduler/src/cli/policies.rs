//! `policies`: what there is to choose from, and whether a plugin's policies keep what every policy promises.

use std::io::Write;
use std::path::Path;

use anyhow::anyhow;
use serde::Serialize;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::Snapshot;
use vcpu_policy_api::yaml;

use super::Failure;
use super::args::{Format, PluginArgs, PoliciesArgs};
use super::policy::{Supervision, registry};
use crate::plugin::conformance;
use crate::plugin::registry::{Entry, Isolation, Origin};

/// One policy, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct PolicyReport<'a> {
    name: &'a str,
    /// `built in`, or the plugin's path.
    origin: String,
    version: &'a str,
    summary: &'a str,
    /// Each option with its default.
    options: serde_json::Map<String, serde_json::Value>,
}

pub(super) fn policies(args: &PoliciesArgs, output: &mut dyn Write) -> Result<(), Failure> {
    if let Some(file) = &args.check {
        return check(file, args.plugins.isolation, output);
    }
    let effective = args.sources()?.read().map_err(Failure::caller)?;
    let registry = registry(&effective, Supervision::unhurried(&effective))?;
    let reports: Vec<PolicyReport<'_>> = registry.entries().iter().map(PolicyReport::new).collect();
    match args.format.format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *output, &reports).map_err(std::io::Error::from)?;
            writeln!(output)?;
        }
        Format::Table => write_table(output, &reports)?,
    }
    Ok(())
}

/// Holds each policy of a plugin against what every policy promises.
fn check(file: &Path, isolation: Option<Isolation>, output: &mut dyn Write) -> Result<(), Failure> {
    let plugins = PluginArgs {
        files: vec![file.to_owned()],
        isolation,
        ..PluginArgs::default()
    };
    let effective = plugins.sources()?.read().map_err(Failure::caller)?;
    let registry = registry(&effective, Supervision::unhurried(&effective))?;
    let (mut broken, mut unmade) = (0, 0);
    for entry in registry
        .entries()
        .iter()
        .filter(|entry| entry.origin != Origin::BuiltIn)
    {
        let make = registry.maker(entry, String::new());
        let name = &entry.offer.name;
        if let Err(error) = make() {
            writeln!(
                output,
                "{name}  cannot be made with its own default options: {error}"
            )?;
            unmade += 1;
            continue;
        }
        let make = || make().unwrap_or_else(|error| Box::new(Unmade(error)));
        let violations = conformance::check(make);
        if violations.is_empty() {
            writeln!(
                output,
                "{name}  keeps what every policy promises, as far as that was looked at"
            )?;
        }
        for violation in &violations {
            writeln!(output, "{name}  {violation}")?;
        }
        broken += violations.len();
    }
    let file = file.display();
    match (unmade, broken) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Failure::Caller(anyhow!(
            "of the policies of {file}, {unmade} cannot be made"
        ))),
        _ => Err(Failure::Caller(anyhow!(
            "{file} breaks promises on {broken} of the hosts tried"
        ))),
    }
}

/// A policy that could not be made again: it survives nothing.
struct Unmade(PolicyError);

impl Decide for Unmade {
    fn decide(&mut self, _: &Snapshot<'_>, _: &mut Plan) -> Result<(), PolicyError> {
        Err(PolicyError::lost(&self.0))
    }
}

impl<'a> PolicyReport<'a> {
    fn new(entry: &'a Entry) -> Self {
        let offer = &entry.offer;
        Self {
            name: &offer.name,
            origin: match &entry.origin {
                Origin::BuiltIn => "built in".to_owned(),
                Origin::Plugin(path) => path.display().to_string(),
            },
            version: &offer.version,
            summary: &offer.summary,
            options: yaml::read(&offer.defaults).ok().flatten().unwrap_or_default(),
        }
    }

    fn options(&self) -> String {
        let options: Vec<String> = self
            .options
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if options.is_empty() {
            "-".to_owned()
        } else {
            options.join(" ")
        }
    }
}

/// Columns as wide as their widest cell; what a policy does is on a line of its own.
fn write_table(output: &mut dyn Write, reports: &[PolicyReport<'_>]) -> std::io::Result<()> {
    let heads = ["name", "version", "options", "origin"].map(str::to_owned);
    let rows = reports.iter().map(|report| {
        let cells = [
            report.name.to_owned(),
            report.version.to_owned(),
            report.options(),
            report.origin.clone(),
        ];
        (cells, Some(report.summary))
    });
    let rows: Vec<_> = std::iter::once((heads, None)).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|(cells, _)| cells[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let [name, version, options] = [0, 1, 2].map(width);
    for ([first, second, third, origin], summary) in &rows {
        writeln!(
            output,
            "{first:name$}  {second:version$}  {third:options$}  {origin}"
        )?;
        if let Some(summary) = summary {
            writeln!(output, "  {summary}")?;
        }
    }
    Ok(())
}
