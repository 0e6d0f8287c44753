//! A plugin's process, from the scheduler's side: starting it, asking it something within a deadline, ending it.
//!
//! The process is not trusted in anything. It may not answer, not read, answer something else, answer twice, close its
//! descriptors, or end. Whatever it does, each call here returns by its deadline (or when the scheduler shall stop)
//! with an answer or with a [`Fault`]; and when the value is dropped, the process and whatever it left in its process
//! group is gone.

mod ending;

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ending::End;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tracing::level_filters::LevelFilter;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::snapshot::Snapshot;
use vcpu_policy_host::offer::Offer;
use vcpu_policy_host::plan_wire;
use vcpu_policy_host::wire::{Answer, HEAD_BYTES, Head, PROTOCOL, encode_make, request};

use super::fault::{Fault, Garbage, Stage};
use super::output::Output;
use super::trust::SealedLibrary;
use crate::stop::Stop;

/// As good as for ever, and no moment that a clock cannot tell.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365);
/// How often a wait looks whether the scheduler shall stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long a wait may take.
#[derive(Debug, Clone)]
pub struct Patience {
    /// From the question to its answer.
    pub deadline: Duration,
    /// Ends every wait.
    pub stop: Option<Stop>,
}

/// A running plugin.
#[derive(Debug)]
pub struct PluginProcess {
    /// What runs in it.
    program: PathBuf,
    child: Child,
    channel: UnixStream,
    output: Output,
    payload: Vec<u8>,
    /// Of the last request; 0 before the first one.
    number: u32,
    /// How it ended, once it has.
    ended: Option<End>,
}

/// What a plugin says of itself when it is loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The restrictions that this kernel does not have, in words.
    pub missing: Vec<String>,
    /// Its policies.
    pub offers: Vec<Offer>,
}

impl PluginProcess {
    /// Starts the program that hosts plugins; it begins to load the library at once.
    ///
    /// Should the thread that calls this end, the kernel ends the process too.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub fn start(program: &Path, library: &SealedLibrary) -> Result<Self, Fault> {
        let cannot = |source| Fault::Start {
            program: program.to_owned(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
        ours.set_nonblocking(true).map_err(cannot)?;
        let mut child = Command::new(program)
            .arg(PROTOCOL.to_string())
            .arg(std::process::id().to_string())
            .arg(LevelFilter::current().to_string())
            .arg(library.path())
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(library.descriptor().map_err(cannot)?)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let stderr = child.stderr.take();
        let process = |output| Self {
            program: program.to_owned(),
            child,
            channel: ours,
            output,
            payload: Vec::new(),
            number: 0,
            ended: None,
        };
        let pipe = stderr.ok_or_else(|| cannot(io::Error::other("no standard error")))?;
        let flags = fcntl_getfl(&pipe).and_then(|flags| fcntl_setfl(&pipe, flags | OFlags::NONBLOCK));
        let process = process(Output::new(pipe, library.file_name()));
        flags.map_err(|error| cannot(error.into()))?;
        Ok(process)
    }

    /// Its number, by which people find it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the library is loaded.
    ///
    /// # Errors
    /// If it does not come to that.
    pub fn load(&mut self, patience: &Patience) -> Result<Loaded, Fault> {
        let missing = self.confined(patience).map_err(|fault| match fault {
            // None of the plugin's code has run.
            fault @ (Fault::Refused { .. } | Fault::System { .. } | Fault::Stopping) => fault,
            fault => Fault::Program {
                program: self.program.clone(),
                fault: Box::new(fault),
            },
        })?;
        let wait = Wait::new(patience, Stage::Loading);
        match self.answer(&wait)? {
            Answer::Offers(offers) => Ok(Loaded { missing, offers }),
            Answer::Refused(message) => Err(Fault::Refused { message }),
            _ => Err(self.garbage(Garbage::Unasked, wait.stage)),
        }
    }

    /// Waits until the program has given up its rights; says what it could not give up.
    fn confined(&mut self, patience: &Patience) -> Result<Vec<String>, Fault> {
        let wait = Wait::new(patience, Stage::Starting);
        match self.answer(&wait)? {
            Answer::Confined { missing } => Ok(missing),
            Answer::Refused(message) => Err(Fault::Refused { message }),
            _ => Err(self.garbage(Garbage::Unasked, wait.stage)),
        }
    }

    /// Makes the policy that decides from now on.
    ///
    /// # Errors
    /// If it is not made.
    pub fn make(&mut self, policy: &str, options: &str, patience: &Patience) -> Result<(), Fault> {
        let wait = Wait::new(patience, Stage::Making);
        self.ask(request::MAKE, &encode_make(policy, options), &wait)?;
        match self.answer(&wait)? {
            Answer::Made => Ok(()),
            Answer::Refused(message) => Err(Fault::Refused { message }),
            _ => Err(self.garbage(Garbage::Unasked, wait.stage)),
        }
    }

    /// Lets the policy decide; `plan` is filled anew.
    ///
    /// # Errors
    /// If there is no decision. After [`Fault::Undecided`] the process can be asked again; after any other not.
    pub fn decide(
        &mut self,
        snapshot: &Snapshot<'_>,
        plan: &mut Plan,
        patience: &Patience,
    ) -> Result<(), Fault> {
        let wait = Wait::new(patience, Stage::Deciding);
        let (_, _, vcpus) = snapshot.counts();
        self.ask(request::DECIDE, snapshot.as_bytes(), &wait)?;
        let garbage = match self.answer(&wait)? {
            Answer::Plan(bytes) => match plan_wire::decode(bytes, plan) {
                // The program that hosts plugins takes no more; what does is not its doing.
                Ok(()) if plan.actions().len() > vcpus => {
                    let pins = plan.actions().len();
                    plan.clear();
                    Garbage::TooManyPins { pins, vcpus }
                }
                Ok(()) => return Ok(()),
                Err(error) => error.into(),
            },
            Answer::Failed {
                state_lost: false,
                message,
            } => return Err(Fault::Undecided { message }),
            Answer::Failed { message, .. } => return Err(Fault::StateLost { message }),
            _ => Garbage::Unasked,
        };
        Err(self.garbage(garbage, wait.stage))
    }

    /// Sends a request, within the deadline.
    fn ask(&mut self, kind: u32, payload: &[u8], wait: &Wait<'_>) -> Result<(), Fault> {
        self.output.settle();
        let mut early = [0];
        match self.channel.read(&mut early) {
            Ok(0) => return Err(self.hung_up(wait.stage)),
            Ok(_) => return Err(self.garbage(Garbage::Unasked, wait.stage)),
            Err(error) => self.may_go_on(&error, wait.stage)?,
        }
        self.number = self.number.wrapping_add(1);
        for mut part in [&Head::of(kind, self.number, payload).to_bytes()[..], payload] {
            while !part.is_empty() {
                match self.channel.write(part) {
                    Ok(count) => part = &part[count..],
                    Err(error) => {
                        self.may_go_on(&error, wait.stage)?;
                        self.wait_for(PollFlags::OUT, wait)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Receives an answer, within the deadline.
    fn answer(&mut self, wait: &Wait<'_>) -> Result<Answer<'_>, Fault> {
        let mut head = [0; HEAD_BYTES];
        self.receive(&mut head, wait)?;
        let head = Head::from_bytes(head);
        let length = match head.answer_length() {
            Ok(length) => length,
            Err(error) => return Err(self.garbage(error.into(), wait.stage)),
        };
        if head.number != self.number {
            return Err(self.garbage(Garbage::Unasked, wait.stage));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        let received = self.receive(&mut payload, wait);
        self.payload = payload;
        received?;
        if let Err(error) = Answer::decode(head.kind, &self.payload) {
            return Err(self.garbage(error.into(), wait.stage));
        }
        Answer::decode(head.kind, &self.payload).map_err(|error| Fault::Garbage {
            what: error.into(),
            stage: wait.stage,
        })
    }

    fn receive(&mut self, mut into: &mut [u8], wait: &Wait<'_>) -> Result<(), Fault> {
        while !into.is_empty() {
            match self.channel.read(into) {
                Ok(0) => return Err(self.hung_up(wait.stage)),
                Ok(count) => into = &mut into[count..],
                Err(error) => {
                    self.may_go_on(&error, wait.stage)?;
                    self.wait_for(PollFlags::IN, wait)?;
                }
            }
        }
        Ok(())
    }

    /// Whether an error of the channel only means that it is not ready.
    fn may_go_on(&mut self, error: &io::Error, stage: Stage) -> Result<(), Fault> {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Err(self.hung_up(stage)),
            kind => Err(Fault::System {
                stage,
                source: kind.into(),
            }),
        }
    }

    /// Waits for the channel, logging what the plugin says meanwhile.
    fn wait_for(&mut self, ready: PollFlags, wait: &Wait<'_>) -> Result<(), Fault> {
        loop {
            if wait.patience.stop.as_ref().is_some_and(Stop::is_requested) {
                self.end(Duration::ZERO);
                return Err(Fault::Stopping);
            }
            let left = wait.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.end(Duration::ZERO);
                return Err(Fault::Late {
                    deadline: wait.patience.deadline,
                    stage: wait.stage,
                });
            }
            let (channel, output) = {
                let mut watched = vec![PollFd::new(&self.channel, ready)];
                watched.extend(self.output.pipe().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
                poll_for(&mut watched, left.min(LOOK)).map_err(|error| Fault::System {
                    stage: wait.stage,
                    source: error,
                })?;
                let happened = |at: usize| watched.get(at).is_some_and(|fd| !fd.revents().is_empty());
                (happened(0), happened(1))
            };
            if output {
                self.output.relay();
            }
            if channel {
                return Ok(());
            }
        }
    }

    fn garbage(&mut self, what: Garbage, stage: Stage) -> Fault {
        self.end(Duration::ZERO);
        Fault::Garbage { what, stage }
    }
}

/// One wait for an answer.
struct Wait<'a> {
    patience: &'a Patience,
    until: Instant,
    stage: Stage,
}

impl<'a> Wait<'a> {
    fn new(patience: &'a Patience, stage: Stage) -> Self {
        Self {
            patience,
            until: Instant::now() + patience.deadline.min(LONGEST),
            stage,
        }
    }
}

fn poll_for(watched: &mut [PollFd<'_>], time: Duration) -> io::Result<()> {
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(watched, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
