//! Hosts that hang, break and panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

const URI: &str = "test:///scripted";
/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the host does when it is sampled.
type Sampling = fn() -> Result<Sample, HostError>;

struct Scripted(Sampling);

impl Host for Scripted {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        Ok(HostIdentity {
            name: "scripted".to_owned(),
            is_local: true,
            cpus: OsCpuSet::first(2),
            isolated: OsCpuSet::new(),
        })
    }
    fn sample(&mut self) -> Result<Sample, HostError> {
        (self.0)()
    }
    fn pin(&mut self, _: &VcpuKey, _: &OsCpuSet) -> Result<(), PinError> {
        Ok(())
    }
    fn affinity(&mut self, _: &VcpuKey) -> Result<OsCpuSet, PinError> {
        Ok(OsCpuSet::new())
    }
    fn keep(&mut self, _: &DomainKey, _: Option<&Keepsake>) -> Result<(), PinError> {
        Ok(())
    }
}

fn sleep_for_long() -> Result<Sample, HostError> {
    thread::sleep(Duration::from_secs(3600));
    Err(HostError::Stopped)
}

fn opens(sampling: Sampling) -> Open {
    Arc::new(move || Ok(Box::new(Scripted(sampling))))
}

/// Hosts that this makes, and how many there were so far.
fn counted<H: Host + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> (Arc<AtomicUsize>, Open) {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let open: Open = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(make()))
    });
    (opened, open)
}

const KEY: VcpuKey = VcpuKey {
    domain: super::super::DomainUuid([0; 16]),
    instance: super::super::Instance(1),
    number: 0,
};

/// A call that is under way when the stop is requested ends long before the host does.
fn stopped_soon(stop: &Stop, stopper: crate::stop::Stopper, call: impl FnOnce() -> bool) {
    let request = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        drop(stopper);
        Instant::now()
    });
    assert!(call(), "the call did not end as a stopped one");
    let ended = Instant::now();
    let requested = request.join().expect("joined");
    assert!(stop.is_requested() && ended.saturating_duration_since(requested) < Duration::from_secs(1));
}

#[test]
fn a_hung_host_does_not_keep_a_stop_waiting() {
    let (stopper, stop) = Stop::new();
    let mut host = Watched::open(URI, opens(sleep_for_long), stop.clone(), PATIENCE).expect("opened");
    stopped_soon(&stop, stopper, || {
        matches!(host.sample(), Err(HostError::Stopped))
    });
}

fn never_opens() -> Open {
    Arc::new(|| {
        thread::sleep(Duration::from_secs(3600));
        Err(HostError::Stopped)
    })
}

#[test]
fn opening_takes_no_longer_than_a_call() {
    let (_stopper, stop) = Stop::new();
    let opened = Watched::open(URI, never_opens(), stop, Duration::from_millis(20));
    let error = opened.expect_err("it never opens");
    assert!(matches!(error, HostError::Lost { .. }), "{error:?}");
    assert_eq!(
        crate::engine::daemon::chain(&error),
        "cannot connect to test:///scripted: no answer within 20ms (call-timeout); look whether libvirt's daemon there \
         (libvirtd, virtqemud) is stopped or overloaded, and whether virsh gets an answer"
    );
}

#[test]
fn neither_does_a_connection_that_never_opens() {
    let (stopper, stop) = Stop::new();
    let open = never_opens();
    stopped_soon(&stop, stopper, || {
        matches!(
            Watched::open(URI, open, stop.clone(), PATIENCE),
            Err(HostError::Stopped)
        )
    });
}

#[test]
fn no_pin_is_asked_for_after_the_stop() {
    let (stopper, stop) = Stop::new();
    let mut host = Watched::open(URI, opens(sleep_for_long), stop, PATIENCE).expect("opened");
    assert!(host.pin(&KEY, &OsCpuSet::first(1)).is_ok());
    drop(stopper);
    assert!(matches!(
        host.pin(&KEY, &OsCpuSet::first(1)),
        Err(PinError::Host(HostError::Stopped))
    ));
}

#[test]
fn a_lost_connection_is_opened_again_by_the_next_sample() {
    let (_stopper, stop) = Stop::new();
    let (opened, open) = counted(|| {
        Scripted(|| {
            Err(HostError::Lost {
                operation: "test".to_owned(),
                source: "broken".into(),
            })
        })
    });
    let mut host = Watched::open(URI, open, stop, PATIENCE).expect("opened");
    for _ in 0..3 {
        assert!(matches!(host.sample(), Err(HostError::Lost { .. })));
    }
    assert_eq!(opened.load(Ordering::SeqCst), 3);
}

#[test]
fn a_panic_loses_the_connection_and_the_next_sample_opens_another() {
    let (_stopper, stop) = Stop::new();
    let (opened, open) = counted(|| Scripted(|| panic!("as the test wants it")));
    let mut host = Watched::open(URI, open, stop, PATIENCE).expect("opened");
    for _ in 0..2 {
        assert!(matches!(host.sample(), Err(HostError::Lost { .. })));
        // The thread is out of its call when its channels have ended; that may take a moment.
        let ended = host.left_behind.take().expect("left behind");
        assert!(ended.recv_timeout(Duration::from_secs(60)).is_err());
    }
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}

#[test]
fn patience_ends_and_one_thread_at_most_hangs() {
    let (_stopper, stop) = Stop::new();
    let (opened, open) = counted(|| Scripted(sleep_for_long));
    let mut host = Watched::open(URI, open, stop, Duration::from_millis(20)).expect("opened");
    for _ in 0..3 {
        assert!(matches!(host.sample(), Err(HostError::Lost { .. })));
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[test]
fn all_waiting_ends_at_the_moment_that_was_said() {
    let (_stopper, stop) = Stop::new();
    let mut host =
        Watched::open(URI, opens(sleep_for_long), stop, Duration::from_secs(3600)).expect("opened");
    host.answer_by(Instant::now() + Duration::from_millis(20));
    let lost = host.sample().expect_err("it hangs");
    assert_eq!(
        crate::engine::daemon::chain(&lost),
        "libvirt at test:///scripted hangs: no answer until time was up"
    );
    assert!(host.sample().is_err(), "and nothing else is waited for");
}

/// Samples, and loses its connection with the first pin.
struct Brittle;

impl Host for Brittle {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        Err(HostError::Stopped)
    }
    fn sample(&mut self) -> Result<Sample, HostError> {
        Err(HostError::Stopped)
    }
    fn pin(&mut self, _: &VcpuKey, _: &OsCpuSet) -> Result<(), PinError> {
        Err(PinError::Host(HostError::Lost {
            operation: "test".to_owned(),
            source: "broken".into(),
        }))
    }
    fn affinity(&mut self, _: &VcpuKey) -> Result<OsCpuSet, PinError> {
        Ok(OsCpuSet::new())
    }
    fn keep(&mut self, _: &DomainKey, _: Option<&Keepsake>) -> Result<(), PinError> {
        Ok(())
    }
}

#[test]
fn a_connection_that_breaks_at_a_pin_is_asked_nothing_more() {
    let (_stopper, stop) = Stop::new();
    let (opened, open) = counted(|| Brittle);
    let mut host = Watched::open(URI, open, stop, PATIENCE).expect("opened");
    assert!(host.affinity(&KEY).is_ok());
    assert!(matches!(
        host.pin(&KEY, &OsCpuSet::first(1)),
        Err(PinError::Host(HostError::Lost { .. }))
    ));
    assert!(matches!(host.affinity(&KEY), Err(PinError::Gone)));
    assert!(host.sample().is_err());
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}
