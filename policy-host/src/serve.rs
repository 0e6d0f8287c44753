//! The process itself: gives up its rights, loads the library, then answers one request after the other.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::Pid;
use tracing::level_filters::LevelFilter;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::Snapshot;

use crate::offer::{LoadLibrary, Offered};
use crate::sandbox::{self, Confinement, Descriptors};
use crate::wire::{Answer, HEAD_BYTES, Head, MAX_REQUEST_BYTES, PROTOCOL, decode_make, request};
use crate::{error_text, plan_wire};

/// How the process is called.
struct Arguments {
    /// Which version of the protocol the scheduler speaks.
    protocol: u32,
    /// The scheduler.
    parent: Pid,
    /// Which of the plugin's log lines the scheduler would show.
    level: LevelFilter,
    /// The library's path, for messages.
    name: PathBuf,
}

impl Arguments {
    fn read(arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let [protocol, parent, level, name] = arguments.collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            protocol: protocol.to_str()?.parse().ok()?,
            parent: Pid::from_raw(parent.to_str()?.parse().ok()?)?,
            level: level.to_str()?.parse().ok()?,
            name: name.into(),
        })
    }
}

/// Everything that the program does; `load` knows how to load a library.
///
/// It is started by the scheduler with the version of the protocol, its number, a log level and the library's path as
/// arguments, a socket as standard input and the library as standard output.
pub fn main(load: LoadLibrary) -> ExitCode {
    let Some(arguments) = Arguments::read(std::env::args_os().skip(1)) else {
        // Standard error is the only way to say it.
        let _ = writeln!(
            std::io::stderr(),
            "error: vcpu-policy-host is started by vcpu-scheduler, for each plugin"
        );
        return ExitCode::from(2);
    };
    if arguments.protocol != PROTOCOL {
        let _ = writeln!(
            std::io::stderr(),
            "ERROR this vcpu-policy-host and the vcpu-scheduler that started it are of different releases (protocol \
             {PROTOCOL} and {}): start the scheduler anew",
            arguments.protocol
        );
        return ExitCode::from(2);
    }
    match serve(&arguments, load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ERROR {}", error_text(&error));
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments, load: LoadLibrary) -> std::io::Result<()> {
    let Descriptors { channel, library } = sandbox::descriptors()?;
    let mut channel = Channel {
        socket: channel,
        number: 0,
    };
    tracing_subscriber::fmt()
        .with_max_level(arguments.level)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let Confinement { missing, is_filtered } = match sandbox::enter(arguments.parent) {
        Ok(confinement) => confinement,
        Err(error) => {
            let name = arguments.name.display();
            let message = format!("the process of {name} cannot be confined: {}", error_text(&error));
            return channel.send(&Answer::Refused(message));
        }
    };
    channel.send(&Answer::Confined { missing })?;
    let offered = match load(library, &arguments.name) {
        Ok(offered) => offered,
        Err(error) => return channel.send(&Answer::Refused(error_text(&error))),
    };
    // Where the first restriction could not be had, neither can this one, and that was told.
    if let (Some(problem), true) = (sandbox::tighten(), is_filtered) {
        let name = arguments.name.display();
        let message = format!("{name} keeps its process from being confined once it is loaded: {problem}");
        return channel.send(&Answer::Refused(message));
    }
    channel.send(&Answer::Offers(
        offered.iter().map(|policy| policy.offer.clone()).collect(),
    ))?;
    answer_all(&mut channel, &offered)
}

/// Answers until the scheduler closes the channel.
fn answer_all(channel: &mut Channel, offered: &[Offered]) -> std::io::Result<()> {
    let mut policy: Option<Box<dyn Decide>> = None;
    let mut words = Vec::new();
    let mut plan = Plan::new();
    let mut encoded = Vec::new();
    while let Some((kind, payload)) = channel.receive(&mut words)? {
        match kind {
            request::MAKE => match make(offered, payload) {
                Ok(made) => {
                    policy = Some(made);
                    channel.send(&Answer::Made)?;
                }
                Err(error) => channel.send(&Answer::Refused(error_text(&error)))?,
            },
            _ => match decide(policy.as_mut(), payload, &mut plan, &mut encoded) {
                Ok(()) => channel.send(&Answer::Plan(&encoded))?,
                Err(error) => channel.send(&Answer::Failed {
                    state_lost: error.is_lost(),
                    message: error_text(&error),
                })?,
            },
        }
    }
    Ok(())
}

fn make(offered: &[Offered], payload: &[u8]) -> Result<Box<dyn Decide>, PolicyError> {
    let (name, options) = decode_make(payload).map_err(PolicyError::new)?;
    let policy = offered
        .iter()
        .find(|policy| policy.offer.name == name)
        .ok_or_else(|| PolicyError::new(format_args!("the library has no policy \"{name}\"")))?;
    (policy.make)(options)
}

fn decide(
    policy: Option<&mut Box<dyn Decide>>,
    payload: &[u8],
    plan: &mut Plan,
    encoded: &mut Vec<u8>,
) -> Result<(), PolicyError> {
    let policy = policy.ok_or_else(|| PolicyError::new("no policy was made"))?;
    let snapshot = Snapshot::new(payload).map_err(PolicyError::new)?;
    plan.clear();
    policy.decide(&snapshot, plan)?;
    encoded.clear();
    plan_wire::encode(plan, encoded).map_err(PolicyError::new)
}

/// The socket to the scheduler.
struct Channel {
    socket: File,
    /// Of the request that is being answered; 0 before the first one.
    number: u32,
}

impl Channel {
    fn send(&mut self, answer: &Answer<'_>) -> std::io::Result<()> {
        self.socket.write_all(&answer.encode(self.number))
    }

    /// The next request, in memory that is aligned as a snapshot has to be; `None` at the end.
    fn receive<'a>(&mut self, words: &'a mut Vec<u64>) -> std::io::Result<Option<(u32, &'a [u8])>> {
        let mut head = [0; HEAD_BYTES];
        match self.socket.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let head = Head::from_bytes(head);
        self.number = head.number;
        let length = usize::try_from(head.length)
            .ok()
            .filter(|&length| length <= MAX_REQUEST_BYTES)
            .ok_or_else(|| std::io::Error::other("the scheduler's request is too long"))?;
        words.resize(length.div_ceil(size_of::<u64>()), 0);
        let payload = &mut bytemuck::cast_slice_mut(words)[..length];
        self.socket.read_exact(payload)?;
        Ok(Some((head.kind, payload)))
    }
}
