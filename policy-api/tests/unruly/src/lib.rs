//! Policies that break their promises, for the tests of those who run them. Each does it in its own way:
//! [`Panics`], [`GivesUp`], [`Talks`].

use serde::{Deserialize, Serialize};
use vcpu_policy_api::log;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Policy, PolicyError};
use vcpu_policy_api::snapshot::Snapshot;

vcpu_policy_api::export_policy!(Panics, GivesUp, Talks);

/// Where [`Panics`] panics.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Places {
    /// In `new`, `decide` or `drop`.
    pub r#in: String,
    /// In this tick, if in `decide`.
    pub tick: u64,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            r#in: "decide".to_owned(),
            tick: 2,
        }
    }
}

/// Panics where it is told to.
#[derive(Debug)]
pub struct Panics(Places);

impl Policy for Panics {
    const NAME: &'static str = "panics";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "panics where it is told to";
    type Options = Places;

    fn new(places: Places) -> Result<Self, PolicyError> {
        assert!(places.r#in != "new", "there is no such policy");
        Ok(Self(places))
    }

    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        assert!(
            self.0.r#in != "decide" || snapshot.tick() != self.0.tick,
            "tick {} was one too many",
            snapshot.tick()
        );
        plan.note("all is well");
        Ok(())
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(self.0.r#in != "drop", "it did not want to go");
    }
}

/// Says that its state is of no use any more, tick after tick.
#[derive(Debug)]
pub struct GivesUp;

impl Policy for GivesUp {
    const NAME: &'static str = "gives-up";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "says that it cannot go on";
    type Options = ();

    fn new((): ()) -> Result<Self, PolicyError> {
        Ok(Self)
    }

    fn decide(&mut self, _: &Snapshot<'_>, _: &mut Plan) -> Result<(), PolicyError> {
        Err(PolicyError::lost("it cannot go on"))
    }
}

/// Logs at every level, and says more than a plan can hold.
#[derive(Debug)]
pub struct Talks;

impl Policy for Talks {
    const NAME: &'static str = "talks";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "says more than anyone wants to hear";
    type Options = ();

    fn new((): ()) -> Result<Self, PolicyError> {
        log::info("made");
        Ok(Self)
    }

    fn decide(&mut self, _: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        log::error("one");
        log::warn("two\nlines");
        log::info(format_args!("{}", 3));
        log::debug("four");
        log::trace("x".repeat(5000));
        for number in 0..300 {
            plan.note(number);
        }
        Ok(())
    }
}
