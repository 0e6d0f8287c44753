//! A host whose calls can be walked away from, and whose connection is opened again when it breaks.
//!
//! A call into libvirt may take as long as it likes, opening a connection to a stopped daemon forever. So all calls are
//! made by a thread of the host's own, and the caller waits for the answer or for the wish to stop, whichever comes
//! first. After a stop the thread is left behind: it holds nothing that anybody else waits for.
//!
//! When the host says that the connection is lost, the next sample opens it again.

use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use vcpu_policy_api::cpuset::OsCpuSet;

use super::{Host, HostError, PinError, Sample, VcpuKey};
use crate::engine::stop::Stop;

/// Opens a connection to the host: at the start, and after it was lost.
pub type Open = Box<dyn FnMut() -> Result<Box<dyn Host>, HostError> + Send>;

/// A host behind a thread; see the [module](self).
#[derive(Debug)]
pub struct Watched {
    requests: Sender<Request>,
    stop: Stop,
}

enum Request {
    Sample(Sender<Result<Sample, HostError>>),
    Pin(VcpuKey, OsCpuSet, Sender<Result<(), PinError>>),
}

impl Watched {
    /// Opens the connection.
    ///
    /// # Errors
    /// If it could not be opened, or the wish to stop came first.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn open(mut open: Open, stop: Stop) -> Result<Self, HostError> {
        let (requests, inbox) = unbounded();
        let (opened, wait) = bounded(1);
        thread::Builder::new()
            .name("host".to_owned())
            .spawn(move || {
                let host = match open() {
                    Ok(host) => host,
                    Err(error) => {
                        // Nobody listens any more if the caller was stopped; then nobody needs to know.
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                let _ = opened.send(Ok(()));
                serve(&inbox, host, open);
            })
            .expect("the system gives a thread");
        let watched = Self { requests, stop };
        watched.wait(&wait).unwrap_or(Err(HostError::Stopped))?;
        Ok(watched)
    }

    /// Waits for an answer or for the wish to stop, in which case there is none.
    fn wait<T>(&self, answer: &Receiver<T>) -> Option<T> {
        if self.stop.is_requested() {
            return None;
        }
        select! {
            recv(answer) -> answer => answer.ok(),
            recv(self.stop.channel()) -> _ => None,
        }
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        let (sender, answer) = bounded(1);
        self.requests.send(request(sender)).ok()?;
        self.wait(&answer)
    }
}

impl Host for Watched {
    fn sample(&mut self) -> Result<Sample, HostError> {
        self.ask(Request::Sample).unwrap_or(Err(HostError::Stopped))
    }

    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        self.ask(|answer| Request::Pin(*vcpu, cpus.clone(), answer))
            .unwrap_or(Err(HostError::Stopped.into()))
    }
}

/// The thread: answers until nobody asks any more.
fn serve(inbox: &Receiver<Request>, host: Box<dyn Host>, mut open: Open) {
    let mut connected = Some(host);
    for request in inbox {
        match request {
            Request::Sample(answer) => {
                let sample = reopened(&mut connected, &mut open).and_then(|host| host.sample());
                if matches!(sample, Err(HostError::Lost { .. })) {
                    connected = None;
                }
                let _ = answer.send(sample);
            }
            Request::Pin(vcpu, cpus, answer) => {
                // Without a connection there is no sample that this pin could rest on.
                let pinned = match &mut connected {
                    Some(host) => host.pin(&vcpu, &cpus),
                    None => Err(PinError::Gone),
                };
                if matches!(pinned, Err(PinError::Host(HostError::Lost { .. }))) {
                    connected = None;
                }
                let _ = answer.send(pinned);
            }
        }
    }
}

fn reopened<'a>(
    connected: &'a mut Option<Box<dyn Host>>,
    open: &mut Open,
) -> Result<&'a mut Box<dyn Host>, HostError> {
    match connected {
        Some(host) => Ok(host),
        None => Ok(connected.insert(open()?)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Never answers within the life of a test.
    struct Hung;

    impl Host for Hung {
        fn sample(&mut self) -> Result<Sample, HostError> {
            thread::sleep(Duration::from_secs(3600));
            Err(HostError::Stopped)
        }
        fn pin(&mut self, _: &VcpuKey, _: &OsCpuSet) -> Result<(), PinError> {
            Err(PinError::Gone)
        }
    }

    fn stopped_soon(stop: &Stop, stopper: crate::engine::stop::Stopper, call: impl FnOnce() -> bool) {
        let begun = Instant::now();
        let request = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(stopper);
        });
        assert!(call(), "the call did not end as a stopped one");
        assert!(stop.is_requested() && begun.elapsed() < Duration::from_secs(60));
        request.join().expect("joined");
    }

    #[test]
    fn a_hung_host_does_not_keep_a_stop_waiting() {
        let (stopper, stop) = Stop::new();
        let mut host = Watched::open(Box::new(|| Ok(Box::new(Hung))), stop.clone()).expect("opened");
        stopped_soon(&stop, stopper, || {
            matches!(host.sample(), Err(HostError::Stopped))
        });
    }

    #[test]
    fn neither_does_a_connection_that_never_opens() {
        let (stopper, stop) = Stop::new();
        let open: Open = Box::new(|| {
            thread::sleep(Duration::from_secs(3600));
            Err(HostError::Stopped)
        });
        stopped_soon(&stop, stopper, || {
            matches!(Watched::open(open, stop.clone()), Err(HostError::Stopped))
        });
    }

    #[test]
    fn a_lost_connection_is_opened_again_by_the_next_sample() {
        struct Breaks;
        impl Host for Breaks {
            fn sample(&mut self) -> Result<Sample, HostError> {
                Err(HostError::Lost {
                    operation: "test".to_owned(),
                    source: "broken".into(),
                })
            }
            fn pin(&mut self, _: &VcpuKey, _: &OsCpuSet) -> Result<(), PinError> {
                Ok(())
            }
        }
        let (_stopper, stop) = Stop::new();
        let (count, opened) = unbounded();
        let open: Open = Box::new(move || {
            count.send(()).expect("counted");
            Ok(Box::new(Breaks))
        });
        let mut host = Watched::open(open, stop).expect("opened");
        for _ in 0..3 {
            assert!(matches!(host.sample(), Err(HostError::Lost { .. })));
        }
        assert_eq!(opened.len(), 3);
    }
}
