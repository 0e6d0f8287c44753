//! A host whose calls can be walked away from, and whose connection is opened again when it breaks.
//!
//! A call into libvirt may take as long as it likes, opening a connection to a stopped daemon forever. So all calls are
//! made by a thread of the host's own, and the caller waits for the answer, for the wish to stop, or until its patience
//! ends, whichever comes first (or until a moment that ends all waiting, if there is one); that holds for the first
//! opening too. A thread that does not answer is left behind, and so is one that panicked: the connection counts as lost. The next sample starts a new thread, but not before the old one is out of its call, so
//! that however long a host hangs, one thread hangs with it.
//!
//! When the host says that the connection is lost, the next sample opens it again.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, at, bounded, select, unbounded};
use vcpu_policy_api::cpuset::OsCpuSet;

use super::{DomainKey, Host, HostError, HostIdentity, Keepsake, PinError, Sample, VcpuKey};
use crate::stop::Stop;

/// Opens a connection to the host: at the start, and after it was lost.
pub type Open = std::sync::Arc<dyn Fn() -> Result<Box<dyn Host>, HostError> + Send + Sync>;

/// A host behind a thread; see the [module](self).
pub struct Watched {
    /// The URI that it is opened by, for errors.
    uri: String,
    open: Open,
    patience: Duration,
    stop: Stop,
    /// When all waiting ends, if it is to end.
    until: Option<Instant>,
    thread: Option<Asked>,
    /// A thread that was left behind: the channel ends with it.
    left_behind: Option<Receiver<Never>>,
}

/// A thread that answers.
struct Asked {
    requests: Sender<Request>,
    alive: Receiver<Never>,
}

/// Nothing of this type is ever sent: a channel of it is there for its end alone.
enum Never {}

enum Request {
    Sample(Sender<Result<Sample, HostError>>),
    /// What a sample showed is asked of the connection that showed it.
    OfSample(Call),
}

/// A call to the host, if there is one; says whether the connection was found lost.
type Call = Box<dyn FnOnce(Option<&mut dyn Host>) -> bool + Send>;

/// What came of waiting for an answer.
enum Waited<T> {
    Answered(T),
    Stopped,
    /// The thread panicked.
    Died,
    /// Patience ended.
    Hung,
}

impl Watched {
    /// Opens the connection to `uri`; `patience` is how long that may take, and any call from then on.
    ///
    /// # Errors
    /// If it could not be opened in time, or the wish to stop came first.
    pub fn open(uri: &str, open: Open, stop: Stop, patience: Duration) -> Result<Self, HostError> {
        let mut watched = Self {
            uri: uri.to_owned(),
            open,
            patience,
            stop,
            until: None,
            thread: None,
            left_behind: None,
        };
        watched.reach()?;
        Ok(watched)
    }

    /// From now on it is this wish to stop that ends a wait, and no longer the one before.
    pub fn heed(&mut self, stop: Stop) {
        self.stop = stop;
    }

    /// From now on no answer is waited for beyond this moment.
    pub fn answer_by(&mut self, moment: Instant) {
        self.until = Some(moment);
    }

    /// Starts a thread, which opens the connection and says what came of it.
    fn start(&mut self) -> Receiver<Result<(), HostError>> {
        let (requests, inbox) = unbounded();
        let (living, alive) = bounded(0);
        let (opened, outcome) = bounded(1);
        let open = self.open.clone();
        let spawned = thread::Builder::new().name("host".to_owned()).spawn(move || {
            let _living: Sender<Never> = living;
            match open() {
                Ok(host) => {
                    // Nobody listens any more if the caller went away; then nobody needs to know.
                    let _ = opened.send(Ok(()));
                    serve(&inbox, host, &open);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        });
        // Without a thread the channels are closed, which is what a thread that died leaves too.
        if spawned.is_ok() {
            self.thread = Some(Asked { requests, alive });
        }
        outcome
    }

    fn wait<T>(&self, answer: &Receiver<T>) -> Waited<T> {
        let patient = Instant::now() + self.patience;
        let moment = self.until.map_or(patient, |until| until.min(patient));
        select! {
            recv(answer) -> answer => answer.map_or(Waited::Died, Waited::Answered),
            recv(self.stop.channel()) -> _ => Waited::Stopped,
            recv(at(moment)) -> _ => Waited::Hung,
        }
    }

    /// Has the thread do something; a thread that does not answer is left behind.
    fn ask<T>(&mut self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T, HostError> {
        if self.stop.is_requested() {
            return Err(HostError::Stopped);
        }
        let Some(thread) = &self.thread else {
            return Err(self.hung());
        };
        let (sender, answer) = bounded(1);
        // If the thread has ended, so has the answer's channel.
        let _ = thread.requests.send(request(sender));
        let waited = self.wait(&answer);
        self.outcome(waited)
    }

    /// Has the thread do something with what the last sample showed. Without a connection there is no sample to rest on.
    fn ask_of_sample<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut dyn Host) -> Result<T, PinError> + Send + 'static,
    ) -> Result<T, PinError> {
        self.ask(|answer: Sender<Result<T, PinError>>| {
            Request::OfSample(Box::new(move |host| {
                let done = host.map_or(Err(PinError::Gone), act);
                let lost = matches!(done, Err(PinError::Host(HostError::Lost { .. })));
                let _ = answer.send(done);
                lost
            }))
        })?
    }

    fn outcome<T>(&mut self, waited: Waited<T>) -> Result<T, HostError> {
        let lost = match waited {
            Waited::Answered(answer) => return Ok(answer),
            Waited::Stopped => return Err(HostError::Stopped),
            Waited::Died => died(),
            Waited::Hung => self.hung(),
        };
        self.left_behind = self.thread.take().map(|thread| thread.alive);
        Err(lost)
    }

    fn hung(&self) -> HostError {
        HostError::Lost {
            operation: format!("libvirt at {} hangs", self.uri),
            source: self.no_answer().into(),
        }
    }

    /// Whoever opens a connection for the first time is looking on, and does not know yet where the fault may be.
    fn never_opened(&self) -> HostError {
        let no_answer = self.no_answer();
        HostError::Lost {
            operation: format!("cannot connect to {}", self.uri),
            source: format!(
                "{no_answer}; look whether libvirt's daemon there (libvirtd, virtqemud) is stopped or overloaded, and \
                 whether virsh gets an answer"
            )
            .into(),
        }
    }

    fn no_answer(&self) -> String {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            "no answer until time was up".to_owned()
        } else {
            let patience = humantime::format_duration(self.patience);
            format!("no answer within {patience} (call-timeout)")
        }
    }

    /// Makes sure that there is a thread to ask.
    fn revive(&mut self) -> Result<(), HostError> {
        if self.thread.is_some() {
            return Ok(());
        }
        let gone = |alive: &Receiver<Never>| matches!(alive.try_recv(), Err(TryRecvError::Disconnected));
        if !self.left_behind.as_ref().is_none_or(gone) {
            return Err(self.hung());
        }
        self.left_behind = None;
        self.reach()
    }

    /// Starts a thread, and waits for what comes of its opening the connection.
    fn reach(&mut self) -> Result<(), HostError> {
        let opened = self.start();
        let waited = self.wait(&opened);
        let never_opened = matches!(waited, Waited::Hung).then(|| self.never_opened());
        let outcome = self.outcome(waited);
        match never_opened {
            Some(error) => Err(error),
            None => outcome?.inspect_err(|_| self.thread = None),
        }
    }
}

impl Host for Watched {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        self.revive()?;
        self.ask(|answer: Sender<Result<HostIdentity, HostError>>| {
            Request::OfSample(Box::new(move |host| {
                let identity = host.map_or_else(|| Err(died()), Host::identity);
                let _ = answer.send(identity);
                false
            }))
        })?
    }

    fn sample(&mut self) -> Result<Sample, HostError> {
        self.revive()?;
        self.ask(Request::Sample)?
    }

    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        let (vcpu, cpus) = (*vcpu, cpus.clone());
        self.ask_of_sample(move |host| host.pin(&vcpu, &cpus))
    }

    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError> {
        let vcpu = *vcpu;
        self.ask_of_sample(move |host| host.affinity(&vcpu))
    }

    fn keep(&mut self, domain: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        let (domain, keepsake) = (*domain, keepsake.cloned());
        self.ask_of_sample(move |host| host.keep(&domain, keepsake.as_ref()))
    }
}

fn died() -> HostError {
    HostError::Lost {
        operation: "the thread that talks to the host ended".to_owned(),
        source: "it panicked".into(),
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// The thread: answers until nobody asks any more.
fn serve(inbox: &Receiver<Request>, host: Box<dyn Host>, open: &Open) {
    let mut connected = Some(host);
    for request in inbox {
        match request {
            Request::Sample(answer) => {
                let sample = reopened(&mut connected, open).and_then(|host| host.sample());
                let lost = matches!(sample, Err(HostError::Lost { .. }));
                let _ = answer.send(sample);
                if lost {
                    connected = None;
                }
            }
            Request::OfSample(act) => {
                let host = connected.as_mut().map(|host| &mut **host as &mut dyn Host);
                if act(host) {
                    connected = None;
                }
            }
        }
    }
}

fn reopened<'a>(
    connected: &'a mut Option<Box<dyn Host>>,
    open: &Open,
) -> Result<&'a mut Box<dyn Host>, HostError> {
    match connected {
        Some(host) => Ok(host),
        None => Ok(connected.insert(open()?)),
    }
}

#[cfg(test)]
mod tests;
